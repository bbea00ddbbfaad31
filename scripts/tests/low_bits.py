#!/usr/bin/env python3
"""What 16 and 8 bits do to models, in plain transformers on the CPU; 8 bits are torchao's.

  python scripts/tests/low_bits.py TEXTS.parquet TOKENIZER NAME=FOLDER [NAME=FOLDER…]

Needs torch, transformers, torchao, pyarrow. Prints a Markdown table: for each model the change of its loss
and the RMS of its logits' differences over that of its logits, both centred, against itself in float32, on 64
sequences of 128 tokens from the texts. Folders are GPT-2s with LN, or of the formats identity, scaled and
folded.

int8 weights: each row of every matrix, also of the unembedding, as int8 with a scale of its own. int8 both:
activations too, each position with a scale of its own."""

import sys

import pyarrow.parquet as pq
import torch
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

SEQUENCES, LENGTH = 64, 128


def tokens(texts, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids, wanted = [], SEQUENCES * LENGTH
    for text in pq.read_table(texts, columns=["text"])["text"].to_pylist():
        ids += [*tokenizer.encode(text), tokenizer.eos_token_id]
        if len(ids) >= wanted:
            break
    return torch.tensor(ids[:wanted]).view(SEQUENCES, LENGTH)


def load(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    if getattr(model.config, "lnfree_format", None) == "folded":
        for block in model.transformer.h:
            block.ln_1 = block.ln_2 = torch.nn.Identity()
        model.transformer.ln_f = torch.nn.Identity()
    return model


def with_linears(model):
    """GPT-2's own class of matrix is unknown to torchao. The unembedding, where tied, gets a copy."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Conv1D):
                linear = torch.nn.Linear(*child.weight.shape, dtype=child.weight.dtype)
                linear.weight.data, linear.bias.data = child.weight.data.t().contiguous(), child.bias.data
                setattr(module, name, linear)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def int8(config):
    def of(folder):
        model = with_linears(load(folder, torch.float32))
        quantize_(model, config)
        return model

    return of


KINDS = {
    "bfloat16": lambda folder: load(folder, torch.bfloat16),
    "float16": lambda folder: load(folder, torch.float16),
    "int8 weights": int8(Int8WeightOnlyConfig()),
    "int8 both": int8(Int8DynamicActivationInt8WeightConfig()),
}


def logits(model, ids):
    with torch.no_grad():
        return torch.cat([model(part).logits.float() for part in ids.split(8)])


def loss(x, ids):
    return torch.nn.functional.cross_entropy(x[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten())


def cell(x, exact, ids):
    if not x.isfinite().all():
        return f"not finite: {100 * float((~x.isfinite()).any(-1).float().mean()):.0f}% of positions"
    centred = lambda y: y.double() - y.double().mean(-1, keepdim=True)
    off = (centred(x) - centred(exact)).square().mean().sqrt() / centred(exact).square().mean().sqrt()
    return f"{float(loss(x, ids) - loss(exact, ids)):+.4f}, {float(off):.1e}"


def main():
    texts, tokenizer, *models = sys.argv[1:]
    ids = tokens(texts, tokenizer)
    print("| model | float32 loss | " + " | ".join(KINDS) + " |\n|---|---:|" + len(KINDS) * "---:|")
    for name, folder in (model.split("=", 1) for model in models):
        exact = logits(load(folder, torch.float32), ids)
        cells = [cell(logits(make(folder), ids), exact, ids) for make in KINDS.values()]
        print(" | ".join([f"| {name}", f"{float(loss(exact, ids)):.4f}", *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
