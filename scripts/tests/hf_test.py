#!/usr/bin/env python3
"""Loads lnfree's exports with Hugging Face transformers and compares logits with the checkpoint they came from.

  python scripts/tests/hf_test.py LNFREE_BINARY CHECKPOINT

Needs torch, transformers and safetensors. CHECKPOINT is a checkpoint without LN (lnfree/tests/vectors/checkpoint/step60 will do).
The reference is a fake LayerNorm written out below in float64; lnfree's own forward is not involved.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel


class FakeLayerNorm(torch.nn.Module):
    def __init__(self, norm, std):
        super().__init__()
        self.weight, self.bias, self.std = norm.weight, norm.bias, std

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True)) / self.std * self.weight + self.bias


def read_weights(folder):
    if (folder / "model.safetensors").exists():
        from safetensors.torch import load_file

        return load_file(folder / "model.safetensors")
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def reference(folder):
    """The checkpoint's model in float64, its LayerNorms replaced by their constants."""
    weights = read_weights(folder)
    model = GPT2LMHeadModel(GPT2Config.from_pretrained(folder))
    model.load_state_dict(weights, strict=False)
    model = model.double()
    std = lambda name: weights[f"transformer.{name}.average_std_buffer"][1].double()
    t = model.transformer
    for i, block in enumerate(t.h):
        block.ln_1 = FakeLayerNorm(block.ln_1, std(f"h.{i}.ln_1"))
        block.ln_2 = FakeLayerNorm(block.ln_2, std(f"h.{i}.ln_2"))
    t.ln_f = FakeLayerNorm(t.ln_f, std("ln_f"))
    return model.eval()


def without_norms(model):
    for block in model.transformer.h:
        block.ln_1 = block.ln_2 = torch.nn.Identity()
    model.transformer.ln_f = torch.nn.Identity()
    return model


def main():
    binary, checkpoint = sys.argv[1], Path(sys.argv[2])
    expected_model = reference(checkpoint)
    config = expected_model.config
    torch.manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (4, min(128, config.n_positions)))
    failed = 0
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        expected = expected_model(ids).logits
        for form in ["identity", "scaled", "folded"]:
            out = Path(scratch) / form
            subprocess.run([binary, "export", str(checkpoint), "--format", form, "--out", str(out)], check=True)
            model = GPT2LMHeadModel.from_pretrained(out).eval()
            if form != "scaled":
                assert not model.config.tie_word_embeddings, json.loads((out / "config.json").read_text())
            if form == "folded":
                model = without_norms(model)
            worst = (model(ids).logits.double() - expected).abs().max().item()
            verdict = "ok" if worst < 1e-5 * max(1.0, expected.abs().max().item()) else "FAILED"
            failed += verdict != "ok"
            print(f"{form}: largest difference {worst:.2e}, largest logit {expected.abs().max().item():.2f}: {verdict}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
