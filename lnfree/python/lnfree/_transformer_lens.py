"""TransformerLens: HookedTransformer of versions 2 and 3, TransformerBridge of 3 and 4."""

from importlib.metadata import version
from pathlib import Path

from . import _fold
from ._describe import ln_names
from ._source import LnFreeError
from ._transformers import as_dtype, build, load_tokenizer


def load_hooked_transformer(
    source,
    *,
    dtype=None,
    device=None,
    revision=None,
    tokenizer=None,
    cls=None,
    center_unembed=False,
    fold_value_biases=False,
    **config,
):
    """A `HookedTransformer` (transformer-lens 2 and 3) that has no LN: `cfg.normalization_type` is None.

    `ln1`, `ln2` and `ln_final` are there and change nothing: `hook_scale` is 1, `hook_normalized` the
    residual stream. What ln_f added is `b_U`. Weights are as the model has them; `center_unembed` and
    `fold_value_biases` are TransformerLens' own. `cls` is a subclass to make, SAELens' `HookedSAETransformer`
    say; what else is given goes to `HookedTransformerConfig` (`use_attn_result=True`,
    `default_prepend_bos=False`)."""
    import transformer_lens

    if cls is None:
        if "HookedTransformer" not in getattr(transformer_lens, "__all__", ["HookedTransformer"]):
            raise _removed()
        try:
            cls = transformer_lens.HookedTransformer
        except (AttributeError, ImportError):
            raise _removed() from None
    try:
        from transformer_lens import HookedTransformerConfig
    except ImportError:
        raise _removed() from None

    folded = _fold.read(source, revision)
    its, dtype = folded.config, as_dtype(dtype)
    tokens = load_tokenizer(source, tokenizer, revision)
    cfg = HookedTransformerConfig(
        **{
            **dict(
                n_layers=its["n_layer"],
                n_heads=its["n_head"],
                d_model=its["n_embd"],
                n_ctx=its["n_positions"],
                d_head=its["n_embd"] // its["n_head"],
                d_mlp=its.get("n_inner") or 4 * its["n_embd"],
                d_vocab=its["vocab_size"],
                act_fn=its["activation_function"],
                eps=_fold.EPSILON,
                use_attn_scale=its["scale_attn_weights"],
                scale_attn_by_inverse_layer_idx=its["scale_attn_by_inverse_layer_idx"],
                normalization_type=None,
                original_architecture="GPT2LMHeadModel",
                model_name=_name(folded),
                dtype=dtype,
                device=str(device or "cpu"),
                init_weights=False,
            ),
            **config,
        }
    )
    model = cls(cfg, tokens)
    _add_norms(model)
    model.load_and_process_state_dict(
        _state(folded, cfg, dtype),
        fold_ln=False,
        center_writing_weights=False,
        center_unembed=center_unembed,
        fold_value_biases=fold_value_biases,
    )
    return model.eval().to(cfg.device)


def _removed():
    return LnFreeError(
        f"transformer-lens {version('transformer-lens')} has no HookedTransformer: use lnfree.load_bridge"
    )


def _name(folded):
    # TransformerLens asks the name for its family: a folder's whole path would say nothing.
    return Path(folded.description.source).name or "gpt2"


def _add_norms(model):
    """Norms of nothing, with the hooks of norms, in the place of the LNs."""
    from ._hooked import HookedIdentity, NormBefore

    for block in model.blocks:
        block.ln1, block.ln2 = HookedIdentity(), HookedIdentity()
    model.ln_final = HookedIdentity()
    # Without a normalization_type HookedTransformer does not call it by itself.
    model.unembed.register_forward_pre_hook(NormBefore(model.ln_final))
    model.setup()  # Names the new hooks.


def _state(folded, cfg, dtype):
    """Under TransformerLens' names and axes, `[head, d_model, d_head]`."""
    t, heads = folded.tensors, cfg.n_heads
    out = {"embed.W_E": t["wte.weight"], "pos_embed.W_pos": t["wpe.weight"][: cfg.n_ctx]}
    for i in range(cfg.n_layers):
        ours, theirs = f"h.{i}", f"blocks.{i}"
        weights = t[f"{ours}.attn.c_attn.weight"].split(cfg.d_model, 1)
        biases = t[f"{ours}.attn.c_attn.bias"].split(cfg.d_model)
        for letter, weight, bias in zip("QKV", weights, biases):
            out[f"{theirs}.attn.W_{letter}"] = weight.reshape(cfg.d_model, heads, -1).transpose(0, 1)
            out[f"{theirs}.attn.b_{letter}"] = bias.reshape(heads, -1)
        out[f"{theirs}.attn.W_O"] = t[f"{ours}.attn.c_proj.weight"].reshape(heads, -1, cfg.d_model)
        out[f"{theirs}.attn.b_O"] = t[f"{ours}.attn.c_proj.bias"]
        out[f"{theirs}.mlp.W_in"] = t[f"{ours}.mlp.c_fc.weight"]
        out[f"{theirs}.mlp.b_in"] = t[f"{ours}.mlp.c_fc.bias"]
        out[f"{theirs}.mlp.W_out"] = t[f"{ours}.mlp.c_proj.weight"]
        out[f"{theirs}.mlp.b_out"] = t[f"{ours}.mlp.c_proj.bias"]
    out["unembed.W_U"] = t["lm_head.weight"].T
    out["unembed.b_U"] = t["lm_head.weight"] @ t["ln_f.bias"]
    return {name: tensor.to(dtype).contiguous() for name, tensor in out.items()}


def load_bridge(
    source,
    *,
    dtype=None,
    device=None,
    revision=None,
    tokenizer=None,
    compatibility_mode=True,
    center_unembed=False,
    fold_value_biases=False,
):
    """A `TransformerBridge` (transformer-lens 3 and 4) that has no LN: `cfg.normalization_type` is None.

    `ln1`, `ln2` and `ln_final` change nothing: `hook_scale` is 1, `hook_normalized` the residual stream. What
    ln_f added is `b_U`. With `compatibility_mode` it has HookedTransformer's names and axes as well, and
    weights as the model has them; `center_unembed` and `fold_value_biases` are TransformerLens' own, and take
    that mode. """
    import torch

    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        raise LnFreeError(
            f"transformer-lens {version('transformer-lens')} has no TransformerBridge: use "
            "lnfree.load_hooked_transformer"
        ) from None
    from ._hooked import bridge_finds_cache, bridge_norms_change_nothing

    folded = _fold.read(source, revision)
    model = build(folded, dtype, device, attn_implementation="eager")
    shift = (folded.tensors["lm_head.weight"] @ folded.tensors["ln_f.bias"]).to(model.lm_head.weight)
    model.lm_head.bias = torch.nn.Parameter(shift)
    torch.nn.init.zeros_(model.transformer.ln_f.bias)
    name = folded.description.source if folded.description.source else "gpt2"
    bridge = TransformerBridge.boot_transformers(
        name,
        hf_model=model,
        tokenizer=load_tokenizer(source, tokenizer, revision),
        dtype=as_dtype(dtype),
        device=device,
    )
    bridge.cfg.normalization_type = None
    bridge_norms_change_nothing(bridge)
    bridge_finds_cache(bridge)
    if compatibility_mode:
        bridge.enable_compatibility_mode(
            disable_warnings=True,
            fold_ln=False,
            center_writing_weights=False,
            center_unembed=center_unembed,
            fold_value_biases=fold_value_biases,
            no_processing=not (center_unembed or fold_value_biases),
        )
    return bridge.eval()
