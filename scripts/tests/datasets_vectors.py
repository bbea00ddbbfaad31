#!/usr/bin/env python3
"""Makes lnfree/tests/vectors/datasets.json: in which order, and in which pieces, Hugging Face's `datasets` hands out documents.

  pip install datasets==3.2.0 transformers==4.57.1 'numpy<2.3'
  python scripts/tests/datasets_vectors.py

The calls are those of the paper's code (github.com/submarat/removing-layer-norm, prepare_dataset.py and pile_eval.py), on documents that
the test makes too, with the tokenizer of data/nano.
"""
import hashlib
import json
import os
import struct
import tempfile
from pathlib import Path

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
import datasets
import numpy
import transformers

ROOT = Path(__file__).resolve().parents[2]
FIRST = 12
SEED = 42
WORDS = ["the", "of", "Ahab", "whale,", "sea.", "it's", "1851", "\n\n", "  ", "naïve", "日本語", "🙂", "harpooneer", "a", "I", "—", "<|endoftext|>"]

tokenizer = transformers.AutoTokenizer.from_pretrained(ROOT / "data/nano")


def documents(n):
    """Draws of a linear congruential generator, which the test repeats; some documents are empty, some long."""
    state = 2357

    def draw(below):
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % below

    texts = []
    for number in range(n):
        n_words = draw(300) if number % 97 == 0 else draw(12)
        texts.append(" ".join(WORDS[draw(len(WORDS))] for _ in range(n_words)))
    return texts


def table(n):
    return datasets.Dataset.from_dict({"row": list(range(n)), "text": documents(n)})


def digest(numbers):
    return hashlib.sha256(struct.pack(f"<{len(numbers)}q", *numbers)).hexdigest()


def rows(dataset):
    numbers = [int(example["row"]) for example in dataset]
    return {"count": len(numbers), "first": numbers[:FIRST], "sha256": digest(numbers)}


def sequences(lists, block_size):
    assert all(len(ids) == block_size for ids in lists)
    return {"sequences": len(lists), "first": lists[0][:FIRST] if lists else [], "sha256": digest([i for ids in lists for i in ids])}


def cut(ids, block_size):
    return [ids[start : start + block_size] for start in range(0, len(ids) - block_size + 1, block_size)]


def ids_of(text):
    return tokenizer(text + tokenizer.eos_token)["input_ids"]


def prepared(n, test_size, block_size):
    """A split, each part of it tokenized and cut by 32 processes in batches of 512 documents."""

    def chunks(batch):
        return {"input_ids": cut([i for text in batch["text"] for i in ids_of(text)], block_size)}

    result = {"n": n, "test_size": test_size, "block_size": block_size}
    for name, part in table(n).train_test_split(test_size=test_size, seed=2357, shuffle=True).items():
        mapped = part.map(chunks, batched=True, batch_size=512, num_proc=32, remove_columns=part.column_names)
        result[name] = {"rows": rows(part)} | sequences(mapped["input_ids"], block_size)
    return result


def split(n, test_size):
    parts = table(n).train_test_split(test_size=test_size, seed=2357, shuffle=True)
    return {"n": n, "test_size": test_size} | {name: rows(part) for name, part in parts.items()}


def draws():
    """Bounded integers of every width, then a permutation, all from one generator: what one leaves half used, the next takes up."""
    generator = numpy.random.default_rng(SEED)
    bounds = [1000, 2, 1, 3_000_000_000, 2**32 - 1, 2**32, 2**32 + 1, 7, 2**40, 3 * 2**61, 10**18, 2**63 - 1] * 9 + [5]
    return {"bounds": bounds, "integers": [int(generator.integers(0, bound)) for bound in bounds], "permutation": generator.permutation(50).tolist()}


def shuffled(n, select):
    """A map-style data set: shuffled, or some of it, which the paper's code shuffles once more."""
    dataset = table(n).shuffle(seed=SEED)
    if select:
        dataset = dataset.select(range(select)).shuffle(seed=SEED)
    return {"n": n, "select": select} | rows(dataset)


def streamed(folder, take, block_size):
    """The first documents of three files as a stream, shuffled in its buffer, then tokenized and cut as one text."""
    stream = datasets.load_dataset("json", data_files=sorted(map(str, folder.iterdir())), streaming=True, split="train")
    stream = stream.take(take).shuffle(seed=SEED)
    ids = [i for example in stream for i in ids_of(example["text"])]
    return {"take": take, "rows": rows(stream), "block_size": block_size} | sequences(cut(ids, block_size)[:take], block_size)


def streams(n, takes):
    texts = documents(n)
    with tempfile.TemporaryDirectory() as folder:
        third = n // 3
        for file, start in enumerate([0, third, 2 * third]):
            lines = [json.dumps({"row": row, "text": texts[row]}) for row in range(start, n if file == 2 else start + third)]
            (Path(folder) / f"{file}.jsonl").write_text("\n".join(lines) + "\n")
        return {"n": n, "cases": [streamed(Path(folder), take, 128) for take in takes]}


def main():
    sample = documents(20_000)
    fields = {
        "made_by": f"scripts/tests/datasets_vectors.py: datasets {datasets.__version__}, numpy {numpy.__version__}, transformers "
        f"{transformers.__version__}; SHA-256 over little-endian int64",
        "words": WORDS,
        "documents": {"n": len(sample), "sha256": hashlib.sha256("\0".join(sample).encode()).hexdigest()},
        # Shards of 594 and 595 documents, so that each ends with a small batch; and fewer documents than shards.
        "prepared": [prepared(20_011, 0.05, 128), prepared(403, 0.05, 16)],
        # Products that are whole, all but whole, and just above.
        "splits": [split(n, size) for n, size in [(100, 0.07), (100, 0.29), (1000, 0.25), (10_000, 0.0005), (8001, 0.0005), (3, 0.5)]],
        "draws": draws(),
        "shuffles": [shuffled(n, select) for n, select in [(1, None), (999, None), (3001, None), (3001, 500), (3001, 3000)]],
        "streams": streams(6001, [1, 700, 1000, 1001, 2500, 6000, 7000]),
    }
    (ROOT / "lnfree/tests/vectors/datasets.json").write_text(
        "{\n" + ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in fields.items()) + "\n}\n")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    datasets.disable_caching()
    main()
