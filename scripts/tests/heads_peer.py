"""Head scores and losses on tokens said twice, by plain PyTorch from a model's files, beside those of lnfree.

    cargo run --release --example heads -- data/nano heads.json
    python scripts/tests/heads_peer.py data/nano heads.json

Needs torch and safetensors. A GPT-2 with its LayerNorms, or one whose LNs change nothing or are gone (data/nano_LNFree200); the
patterns are computed here, by nobody's hooks.
"""

import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

TOLERANCE = 1e-4


def forward(weights, config, ids):
    """Logits, and the attention patterns of all layers, each [batch, head, query, key]."""
    w = {name.removeprefix("transformer."): tensor.float() for name, tensor in weights.items()}
    n = ids.shape[1]
    d_head = config["n_embd"] // config["n_head"]

    def norm(x, name):
        if config.get("lnfree_format") == "folded":
            return x
        return F.layer_norm(x, x.shape[-1:], w[name + ".weight"], w[name + ".bias"], config["layer_norm_epsilon"])

    def linear(x, name):
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][:n]
    later = torch.ones(n, n, dtype=torch.bool).triu(1)
    patterns = []
    for layer in range(config["n_layer"]):
        q, k, v = linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn").split(config["n_embd"], -1)
        q, k, v = (t.unflatten(-1, (config["n_head"], d_head)).transpose(1, 2) for t in (q, k, v))
        pattern = (q @ k.mT / math.sqrt(d_head)).masked_fill(later, -torch.inf).softmax(-1)
        patterns.append(pattern)
        x = x + linear((pattern @ v).transpose(1, 2).flatten(2), f"h.{layer}.attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp.c_fc"), approximate="tanh"), f"h.{layer}.mlp.c_proj")
    return norm(x, "ln_f") @ w.get("lm_head.weight", w["wte.weight"]).T, patterns


def main(folder, file):
    folder = pathlib.Path(folder)
    ours = json.loads(pathlib.Path(file).read_text())
    ids, period = torch.tensor(ours["ids"]), ours["period"]
    config = json.loads((folder / "config.json").read_text())
    with torch.no_grad():
        logits, patterns = forward(load_file(folder / "model.safetensors"), config, ids)
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    theirs = {"first": losses[:, : period - 1].mean().item(), "again": losses[:, period : 2 * period - 1].mean().item()}
    for name, offset in ("previous_token", -1), ("duplicate_token", -period), ("induction", 1 - period):
        theirs[name] = [p.diagonal(offset, -2, -1).mean((0, 2)).tolist() for p in patterns]
    worst = 0.0
    for name, value in theirs.items():
        difference = (torch.tensor(value) - torch.tensor(ours[name])).abs().max().item()
        worst = max(worst, difference)
        print(f"{name}: largest {torch.tensor(value).max():.4f}, largest difference {difference:.1e}")
    sys.exit(0 if worst < TOLERANCE else f"differs by {worst:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
