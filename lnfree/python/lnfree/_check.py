"""A model that is loaded already, by whichever library: is it LN-free, and is it the model of a folder?"""

from ._reference import reference_logits
from ._source import LnFreeError

_NORMS = ("ln_1", "ln_2", "ln_f", "ln1", "ln2", "ln_final")


def check(model, source=None):
    """What was found of a model of transformers, TransformerLens or nnsight, as lines of text.

    Each LN is tried on random vectors: one that is LN-free is linear. With `source`, a folder or a name,
    logits are compared with those that its files stand for; only that finds γ and β that were lost without a
    trace. Raises `LnFreeError` with the first thing that is wrong."""
    import torch

    module = getattr(model, "_module", model)  # nnsight wraps it.
    # A TransformerBridge keeps the LNs that it computes in its own way.
    norms = {
        name: m
        for name, m in module.named_modules(remove_duplicate=False)
        if name.rsplit(".", 1)[-1] in _NORMS and "original_" not in name
    }
    if not norms:
        raise LnFreeError(
            f"{type(module).__name__} is no GPT-2: none of its modules is called {', '.join(_NORMS)}"
        )
    weight, unembedding = _matrices(module)
    exact = weight.dtype in (torch.float32, torch.float64)
    with torch.no_grad():
        kinds = {name: _kind(name, norm, weight, unembedding) for name, norm in norms.items()}
        identity = sum(kind == "identity" for kind in kinds.values())
        lines = [f"{len(kinds)} LNs are linear, {identity} of them change nothing, not even the mean"]
        if identity == len(kinds):
            lines.append(_centred(weight, unembedding, exact))
        if source is not None:
            lines.append(_compare(model, source, weight, exact))
    return lines


def _matrices(module):
    """The embedding and the unembedding, whichever way round."""
    if hasattr(module, "W_E"):
        return module.W_E, module.W_U
    return module.get_input_embeddings().weight, module.get_output_embeddings().weight


def _kind(name, norm, weight, unembedding):
    import torch

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 4, weight.shape[1], generator=generator).to(weight) + 1
    at_0, at_1, at_8 = (norm(x * factor).double() for factor in (0, 1, 8))
    if not all(bool(y.isfinite().all()) for y in (at_0, at_1, at_8)):
        raise LnFreeError(
            f"{name} gives infinities: float16 does not hold the weights of the scaled format, about 1e6; "
            "load it with lnfree, or in bfloat16 or float32"
        )
    once, eight = at_1 - at_0, at_8 - at_0
    size = once.abs().mean()
    if (eight - 8 * once).abs().mean() > 0.05 * 8 * size:
        # A γ that was folded into what reads the LN shows in the unembedding.
        large = max(float(size), float(unembedding.abs().double().mean()))
        why = (
            f"ε was overwritten, its γ is of the order of {large:.0e}"
            if large > 1e3
            else "it is a real LayerNorm"
        )
        raise LnFreeError(f"{name} is not linear: {why}")
    if size < 1e-4 and unembedding.abs().double().mean() * size < 1e-4:
        raise LnFreeError(f"{name} gives next to nothing: ε is large, but γ was not scaled with it")
    return "identity" if (once - x.double()).abs().mean() < 0.01 * x.double().abs().mean() else "linear"


def _centred(weight, unembedding, exact):
    """Without any LN, what writes to the residual stream must be centred, or γ and β were not folded."""
    share = float(weight.double().mean(-1).square().mean().sqrt() / weight.double().square().mean().sqrt())
    if share > (2e-3 if exact else 1e-2):
        raise LnFreeError(
            "no LN is left, but γ, β and centring were not folded: the embedding is not centred (mean over "
            f"root mean square: {share:.0e})"
        )
    if unembedding.data_ptr() == weight.data_ptr() and unembedding.shape == weight.shape:
        raise LnFreeError(
            "no LN is left, but the unembedding is tied to the embedding: ln_f's γ cannot have been folded"
        )
    return f"the embedding is centred (mean over root mean square: {share:.0e})"


def _compare(model, source, weight, exact):
    import torch

    module = getattr(model, "_module", model)
    n = min(32, _positions(module))
    ids = (torch.arange(2 * n) * 7919 % weight.shape[0]).reshape(2, n)
    expected = reference_logits(source, ids)
    out = module(ids.to(weight.device))
    found = getattr(out, "logits", out).double().cpu()
    # A constant for all tokens changes no prediction: TransformerLens' center_unembed takes it away.
    expected, found = (x - x.mean(-1, keepdim=True) for x in (expected, found))
    off = float((found - expected).abs().max() / expected.abs().max())
    if not off < (1e-4 if exact else 0.1):
        raise LnFreeError(f"logits are not those of {source}: they are off by {off:.1e} of the largest")
    return f"logits are those of {source}: off by {off:.1e} of the largest"


def _positions(module):
    config = getattr(module, "cfg", None) or getattr(module, "config", None)
    return getattr(config, "n_ctx", None) or getattr(config, "n_positions", 32)
