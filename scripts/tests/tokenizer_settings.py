#!/usr/bin/env python3
"""Makes lnfree/tests/vectors/tokenizer_settings.json: the ids that Hugging Face gives with data/nano's vocabulary and other settings beside it.

  pip install transformers==4.57.6 tokenizers==0.22.2
  python scripts/tests/tokenizer_settings.py

`ids` are those of AutoTokenizer, which is the fast tokenizer; `slow` says whether GPT2Tokenizer gives the same. A case with `refused` asks for
what is refused here, by a message with these words: mostly where the two differ about an id. `merges` and `tokenizer` are edits of the files.
"""
import json
import os
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")

import tokenizers
import transformers
from transformers import AutoTokenizer, GPT2Tokenizer

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "data" / "nano"
OUT = ROOT / "lnfree" / "tests" / "vectors" / "tokenizer_settings.json"
END = "<|endoftext|>"
BASE = {"tokenizer_class": "GPT2Tokenizer", "bos_token": END, "eos_token": END, "unk_token": END}
TEXTS = [
    "Hello <|user|> the States\n  <pad>x and e\u0301 \u00e9 \ufb01 <|endoftext|>The",
    "  <|user|>  now<|user|>\n\n<|user|>word a<|user|>b <|user|> <pad> <pad>",
    "The<sep>x  <sep>  y, <s>it's</s> <unk>",
    "",
    " leading",
    "<|endoftext|>  <|endoftext|>x",
]
CASES = []


def token(content, **flags):
    plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}
    return {"content": content, **plain, **flags}


def case(name, config=BASE, whole=False, refused=None, merges=None, tokenizer=None, **files):
    CASES.append({"name": name, "config": config, "whole": whole, "refused": refused, "merges": merges,
                  "tokenizer": tokenizer, "files": files})


def config(**keys):
    return {**BASE, **keys}


def decoder(*tokens, start=4096):
    return {str(start + i): t for i, t in enumerate(tokens)}


for whole in (False, True):
    kind = "whole" if whole else "vocab"
    def both(name, settings=BASE, refused=None, **files):
        case(f"{kind}, {name}", settings, whole, refused, **files)

    both("plain")
    both("no config", None)
    for flag in ("special", "lstrip", "rstrip", "normalized", "single_word"):
        both(flag, config(added_tokens_decoder=decoder(token("<|user|>", **{flag: True}))))
    every = token("<|user|>", special=True, lstrip=True, rstrip=True, single_word=True, normalized=True)
    both("all flags", config(added_tokens_decoder=decoder(every)))
    both("tokens that overlap", config(added_tokens_decoder=decoder(token("<|user|>", normalized=True), token("<|us"))))
    both("added_tokens.json", added_tokens={"<pad>": 4097, "<|user|>": 4096})
    both("added_tokens.json of a special token", config(pad_token="<pad>"), added_tokens={"<|user|>": 4096, "<pad>": 4097},
         special_tokens_map={"pad_token": "<pad>"})
    both("add_prefix_space", config(add_prefix_space=True))
    both("pad_token", config(pad_token="<pad>"))
    both("pad_token with flags", config(pad_token={"__type": "AddedToken", **token("<pad>", lstrip=True)}))
    both("null tokens", config(pad_token=None, sep_token=None))
    both("roles", config(sep_token="<sep>", cls_token="<|user|>", mask_token="<pad>"))
    both("additional_special_tokens", config(additional_special_tokens=["<|user|>", "<sep>"]))
    both("additional_special_tokens, listed", config(additional_special_tokens=["<|user|>"],
         added_tokens_decoder=decoder(token("<|user|>", rstrip=True))))
    both("special_tokens_map.json", special_tokens_map={"bos_token": END, "additional_special_tokens": ["<|user|>", "<sep>"]})
    both("special_tokens_map.json with flags", special_tokens_map={
        "pad_token": token("<pad>", lstrip=True, normalized=True),
        "additional_special_tokens": [token("<|user|>", rstrip=True), "<sep>"]})
    both("older files do not count beside the newer key", config(added_tokens_decoder=decoder(token("<|user|>"))),
         special_tokens_map={"pad_token": "<pad>"}, added_tokens={"<sep>": 4097})
    both("nor where that is empty", config(added_tokens_decoder={}), special_tokens_map={"pad_token": "<pad>"},
         added_tokens={"<sep>": 4096})
    both("other begin and end", config(bos_token="<s>", eos_token="</s>", unk_token="<unk>"))
    both("end-of-text with flags", config(added_tokens_decoder={"4095": token(END, special=True, lstrip=True, rstrip=True)}))
    both("a word of the vocabulary", config(added_tokens_decoder={"1909": token("the")}))
    both("special tokens split", config(split_special_tokens=True))
    both("what changes nothing", config(model_max_length=16, padding_side="left", add_bos_token=False, errors="replace",
         clean_up_tokenization_spaces=True, add_eos_token=True, chat_template="x"))
    both("another id", config(added_tokens_decoder={"4100": token("<|user|>")}), "<|user|>")
    both("another id of a word", config(added_tokens_decoder={"300": token("the")}), "the")
    both("another id in added_tokens.json", refused="added_tokens.json", added_tokens={"<|user|>": 4100})
    both("errors", config(errors="ignore"), "errors")
    both("another class", config(tokenizer_class="RobertaTokenizer"), "RobertaTokenizer")
    both("code of its own", config(auto_map={"AutoTokenizer": ["x.Y", None]}), "auto_map")
    both("a flag that is none", config(add_prefix_space="yes"), "add_prefix_space")
    both("a token that is none", config(pad_token=3), "pad_token")

case("vocab, add_bos_token", config(add_bos_token=True))
case("vocab, add_bos_token and add_prefix_space", config(add_bos_token=True, add_prefix_space=True))
case("whole, add_bos_token", config(add_bos_token=True), True, "add_bos_token")
case("vocab, fast class", config(tokenizer_class="GPT2TokenizerFast"))
case("vocab, no class", {k: v for k, v in BASE.items() if k != "tokenizer_class"})
case("vocab, class without its file", config(tokenizer_class="PreTrainedTokenizerFast"), False, "PreTrainedTokenizerFast")
for name in ("GPT2TokenizerFast", "PreTrainedTokenizerFast"):
    case(f"whole, {name}", config(tokenizer_class=name), True)
    case(f"whole, {name}, add_prefix_space", {"tokenizer_class": name, "add_prefix_space": True}, True)
    space = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}
    case(f"whole, {name}, a space that the config does not ask for", {"tokenizer_class": name}, True, tokenizer=space)
template = {"post_processor": {"type": "TemplateProcessing", "pair": [], "single": [
    {"SpecialToken": {"id": END, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "special_tokens": {END: {"id": END, "ids": [4095], "tokens": [END]}}}}
case("whole, post_processor", BASE, True, tokenizer=template)
case("whole, post_processor and add_bos_token", config(add_bos_token=True), True, tokenizer=template)
flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": True}
added = {"added_tokens": [{"id": 4095, "content": END, **flags}, {"id": 4096, "content": "<pad>", **flags}]}
case("whole, an added token of its own", BASE, True, tokenizer=added)
case("whole, the same listed with flags", config(added_tokens_decoder={"4096": token("<pad>", lstrip=True)}), True, tokenizer=added)
case("whole, another with the same id", config(added_tokens_decoder={"4096": token("<|user|>")}), True, "<|user|>", tokenizer=added)
case("vocab, merges.txt with CRLF", merges="crlf")
case("vocab, merges.txt with a byte order mark", merges="bom")


def write(folder, entry):
    for name in ["vocab.json", "merges.txt"] + (["tokenizer.json"] if entry["whole"] else []):
        shutil.copy(NANO / name, folder)
    merges = folder / "merges.txt"
    if entry["merges"] == "crlf":
        merges.write_bytes(merges.read_bytes().replace(b"\n", b"\r\n"))
    if entry["merges"] == "bom":
        merges.write_bytes(b"\xef\xbb\xbf" + merges.read_bytes())
    if entry["tokenizer"]:
        whole = folder / "tokenizer.json"
        whole.write_text(json.dumps({**json.loads(whole.read_text()), **entry["tokenizer"]}))
    if entry["config"] is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(entry["config"]))
    # Tells AutoTokenizer the class where nothing else does.
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    for name, content in entry["files"].items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def ids(cls, folder):
    loaded = cls.from_pretrained(folder)
    return [loaded(text)["input_ids"] for text in TEXTS]


for entry in CASES:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), entry)
        if entry["refused"] is None:
            entry["ids"] = ids(AutoTokenizer, folder)
            entry["slow"] = ids(GPT2Tokenizer, folder) == entry["ids"]
source = f"scripts/tests/tokenizer_settings.py, transformers {transformers.__version__}, tokenizers {tokenizers.__version__}"
lines = ",\n".join(json.dumps(entry) for entry in CASES)
OUT.write_text(f'{{"source": {json.dumps(source)},\n"texts": {json.dumps(TEXTS)},\n"cases": [\n{lines}]}}\n')
differ = [entry["name"] for entry in CASES if not entry.get("slow", True)]
print(f"{len(CASES)} cases; the slow tokenizer differs in: {'; '.join(differ)}")
