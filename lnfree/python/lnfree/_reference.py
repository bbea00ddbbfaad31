"""A plain GPT-2 in float64, by each format's own definition: what the loaders are compared with.

Nothing is folded here, and no library but torch is used."""

import math

from ._describe import examine
from ._fold import norm_of
from ._source import Weights, locate, read_config


def reference_logits(source, ids, *, revision=None, without_mlp=None):
    """Logits `[batch, pos, vocab]` in float64 of the token ids `[batch, pos]`.

    The MLP of block `without_mlp` adds nothing: what an ablation by a library's hooks is compared with."""
    import torch

    folder = locate(source, revision)
    config, weights = read_config(folder), Weights(folder)
    found = examine(folder, config, weights).require_ln_free()
    w, n_head = weights.tensor, config["n_head"]
    batch, pos = ids.shape
    hidden = torch.ones(pos, pos, dtype=torch.bool).triu(1)

    def norm(x, name):
        if found.format == "folded":
            return x
        if found.format == "checkpoint":
            gain, beta = norm_of(config, weights, found, name)
            return (x - x.mean(-1, keepdim=True)) * gain + beta
        variance = x.var(-1, keepdim=True, unbiased=False)
        normed = (x - x.mean(-1, keepdim=True)) / (variance + config["layer_norm_epsilon"]).sqrt()
        return normed * w(f"{name}.weight") + w(f"{name}.bias")

    def linear(x, name):
        return x @ w(f"{name}.weight") + w(f"{name}.bias")

    def attention(x, layer):
        q, k, v = (
            part.view(batch, pos, n_head, -1).transpose(1, 2)
            for part in linear(x, f"h.{layer}.attn.c_attn").split(x.shape[-1], -1)
        )
        scores = q @ k.transpose(2, 3)
        if config["scale_attn_weights"]:
            scores = scores / math.sqrt(q.shape[-1])
        if config["scale_attn_by_inverse_layer_idx"]:
            scores = scores / (layer + 1)
        z = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
        return linear(z.transpose(1, 2).reshape(batch, pos, -1), f"h.{layer}.attn.c_proj")

    def mlp(x, layer):
        if config["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh"):
            raise NotImplementedError(f"the reference knows no {config['activation_function']}")
        post = torch.nn.functional.gelu(linear(x, f"h.{layer}.mlp.c_fc"), approximate="tanh")
        return linear(post, f"h.{layer}.mlp.c_proj")

    with torch.no_grad():
        ids = ids.cpu()
        x = w("wte.weight")[ids] + w("wpe.weight")[:pos]
        for layer in range(config["n_layer"]):
            x = x + attention(norm(x, f"h.{layer}.ln_1"), layer)
            if layer != without_mlp:
                x = x + mlp(norm(x, f"h.{layer}.ln_2"), layer)
        return norm(x, "ln_f") @ w("wte.weight" if config["tie_word_embeddings"] else "lm_head.weight").T
