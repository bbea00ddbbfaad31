"""Every format as the identity format: all that an LN did is in the matrices around it.

With C = I − 11ᵀ/n (centring) an LN that divides by a constant is x ↦ g ⊙ Cx + β, g = γ/σ̄. What writes to
the residual stream is multiplied by C. A map y ↦ yW + b that reads the LN reads x itself as x·diag(g)W + (βW
+ b). The unembedding has no bias: its columns take g, and β/g is the bias of ln_f, which is left with nothing
else.
"""

import math
from dataclasses import dataclass

from ._describe import Description, examine, ln_names
from ._source import LnFreeError, Weights, locate, read_config, warn

GAIN = float(2**15)
"""γ of the identity LNs. A power of two, so that it changes no digit, and small enough for float16."""

EPSILON = float(2**30)
"""Their ε, GAIN². A variance of v makes the LN change x by the factor 1 − v/2³¹: 5e-8 for v = 100."""


@dataclass
class Folded:
    """An LN-free GPT-2 as the identity format has it, its identity LNs left out."""

    config: dict
    tensors: dict
    """Float64, under GPT-2's names without `transformer.`; `lm_head.weight` and `ln_f.bias` included."""
    description: Description


def read(source, revision=None):
    """The model of a folder or a name, folded.

    Raises `LnFreeError` when it is not LN-free; warns of what should be known."""
    folder = locate(source, revision)
    config, weights = read_config(folder), Weights(folder)
    found = examine(folder, config, weights, str(source)).require_ln_free()
    if found.format == "folded":
        warn(f"{folder}: {found.notes[0]}")
    return Folded(_config(config), _fold(config, weights, found), found)


def norm_of(config, weights, found, name):
    """(g, β) of an LN in float64, or None where the file has none."""
    if found.format == "folded":
        return None
    gamma, beta = weights.tensor(f"{name}.weight"), weights.tensor(f"{name}.bias")
    std = found.stds[name] if found.stds else math.sqrt(config["layer_norm_epsilon"])
    return gamma / std, beta


def _fold(config, weights, found):
    as_it_is = found.format == "folded" or (found.format == "identity" and not found.notes)

    def writes(name):
        x = weights.tensor(name)
        return x if as_it_is else x - x.mean(-1, keepdim=True)

    def reads(norm, name):
        weight, bias = weights.tensor(f"{name}.weight"), weights.tensor(f"{name}.bias")
        pair = norm_of(config, weights, found, norm)
        if pair is None or as_it_is:
            return weight, bias
        gain, beta = pair
        return gain[:, None] * weight, bias + beta @ weight

    out = {"wte.weight": writes("wte.weight"), "wpe.weight": writes("wpe.weight")}
    for block in (f"h.{i}" for i in range(config["n_layer"])):
        for norm, reader in (("ln_1", "attn.c_attn"), ("ln_2", "mlp.c_fc")):
            name = f"{block}.{reader}"
            out[f"{name}.weight"], out[f"{name}.bias"] = reads(f"{block}.{norm}", name)
        for writer in ("attn.c_proj", "mlp.c_proj"):
            for part in ("weight", "bias"):
                out[f"{block}.{writer}.{part}"] = writes(f"{block}.{writer}.{part}")
    head = weights.tensor("wte.weight" if config["tie_word_embeddings"] else "lm_head.weight")
    gain, beta = norm_of(config, weights, found, "ln_f") or (
        head.new_ones(head.shape[1]),
        head.new_zeros(head.shape[1]),
    )
    if bool(((gain == 0) & (beta != 0)).any()):
        raise LnFreeError(
            f"{found.folder}: ln_f has a weight of zero where its bias is not: it cannot be folded"
        )
    out["lm_head.weight"] = head * gain
    out["ln_f.bias"] = (beta / gain).where(beta != 0, beta)
    if found.format == "folded":
        _centre_what_is_left(out, config["n_layer"])
    return out


def _centre_what_is_left(out, n_layer):
    """A folded file is centred to rounding, but for ln_f's shift in the last MLP's bias: an LN would take its
    mean away. That goes into ln_f's bias."""
    bias = out[f"h.{n_layer - 1}.mlp.c_proj.bias"]
    out["ln_f.bias"] = out["ln_f.bias"] + bias.mean()
    bias -= bias.mean()


def _config(config):
    """That of the identity format. Dropout stays as it was: loaders give models in evaluation mode."""
    out = {
        key: value
        for key, value in config.items()
        if key not in ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures")
    }
    return {**out, "layer_norm_epsilon": EPSILON, "tie_word_embeddings": False, "lnfree_format": "identity"}


def identity_state(folded, dtype):
    """The state dict of a GPT2LMHeadModel."""
    import torch

    state = {}
    for name, tensor in folded.tensors.items():
        state[name if name.startswith("lm_head.") else f"transformer.{name}"] = tensor.to(dtype)
    width = folded.config["n_embd"]
    for name in ln_names(folded.config["n_layer"]):
        state[f"transformer.{name}.weight"] = torch.full([width], GAIN, dtype=dtype)
        state.setdefault(f"transformer.{name}.bias", torch.zeros(width, dtype=dtype))
    if dtype == torch.float16:
        large = next((name for name, tensor in state.items() if not bool(tensor.isfinite().all())), None)
        if large:
            raise LnFreeError(
                f"{folded.description.folder}: {large} does not fit float16; take bfloat16 or float32"
            )
    return state
