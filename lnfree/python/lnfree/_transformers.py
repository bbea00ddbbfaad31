"""transformers."""

from pathlib import Path

from . import _fold
from ._describe import has_tokenizer
from ._source import locate, warn


def load_transformers(source, *, dtype=None, device=None, revision=None, **kwargs):
    """A `GPT2LMHeadModel` in evaluation mode, whose LNs are identities; `save_pretrained` writes them out.

    `dtype` is float32 unless given, whatever the file has. What else is given goes to `from_pretrained`
    (`attn_implementation="eager"`, say). Raises `LnFreeError` when the model is not LN-free."""
    return build(_fold.read(source, revision), dtype, device, **kwargs)


def build(folded, dtype=None, device=None, **kwargs):
    """The model of what `_fold.read` gave."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    from ._norms import replace_norms

    dtype = as_dtype(dtype)
    state = _fold.identity_state(folded, dtype)
    config = GPT2Config(**folded.config)
    config._name_or_path = folded.description.source
    bar = logging.is_progress_bar_enabled() if hasattr(logging, "is_progress_bar_enabled") else True
    logging.disable_progress_bar()
    try:
        # `torch_dtype` is the name that all versions know, and the last of them warns of.
        model = GPT2LMHeadModel.from_pretrained(None, config=config, state_dict=state, **kwargs).to(dtype)
    finally:
        if bar:
            logging.enable_progress_bar()
    model.config.dtype = dtype
    kept = model.state_dict()
    wrong = next((name for name, tensor in state.items() if not torch.equal(kept[name], tensor)), None)
    if wrong:  # A library that ties or scales what it loads would otherwise go unnoticed.
        raise RuntimeError(
            f"transformers changed {wrong} while loading it; please report this with its version"
        )
    return replace_norms(model).eval().to(device or "cpu")


def as_dtype(dtype):
    """A torch type, also of its name."""
    import torch

    return getattr(torch, dtype) if isinstance(dtype, str) else dtype or torch.float32


def load_tokenizer(source, tokenizer=None, revision=None):
    """The tokenizer of a model: `tokenizer` if it is one, or else that of the folder or name that it is.
    Without it the model's own, or GPT-2's where the vocabulary is GPT-2's. None, with a warning, when there
    is none. """
    from transformers import AutoTokenizer

    if tokenizer is not None:
        is_place = isinstance(tokenizer, (str, Path))
        return AutoTokenizer.from_pretrained(tokenizer) if is_place else tokenizer
    folder = locate(source, revision)
    if has_tokenizer(folder):
        return AutoTokenizer.from_pretrained(folder)
    from ._source import read_config

    if read_config(folder)["vocab_size"] == 50257:
        try:
            return AutoTokenizer.from_pretrained("openai-community/gpt2")
        except Exception as e:  # Of many classes, by version: it is not to be had.
            reason = f", and GPT-2's is not to be had ({type(e).__name__})"
    else:
        reason = ""
    warn(f"{folder}: no tokenizer in it{reason}; give tokenizer=, or pass token ids")
    return None


def save(source, out, *, dtype=None, revision=None, tokenizer=None):
    """Writes any LN-free model as an identity folder, which every library loads by itself."""
    model = load_transformers(source, dtype=dtype, revision=revision)
    model.save_pretrained(out)
    found = load_tokenizer(source, tokenizer, revision)
    if found is not None:
        found.save_pretrained(out)
