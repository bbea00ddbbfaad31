"""GPT-2 models without LayerNorm, in the libraries that read them.

    import lnfree
    model = lnfree.load_hooked_transformer("runs/demo/nano-lnfree")

A source is a folder or the name of a model on the Hugging Face hub, in any format that LN-free models are
kept in; `python -m lnfree SOURCE` says which. What is not LN-free is refused, with the reason.
"""

from ._describe import Description, describe
from ._source import LnFreeError, LnFreeWarning

__version__ = "0.1.0"
__all__ = [
    "Description",
    "LnFreeError",
    "LnFreeWarning",
    "check",
    "describe",
    "load_bridge",
    "load_hooked_transformer",
    "load_nnsight",
    "load_tokenizer",
    "load_transformers",
    "reference_logits",
    "save",
]

# Imported when first asked for: they need torch, which describing a folder does not.
_LAZY = {
    "check": "_check",
    "load_bridge": "_transformer_lens",
    "load_hooked_transformer": "_transformer_lens",
    "load_nnsight": "_nnsight",
    "load_tokenizer": "_transformers",
    "load_transformers": "_transformers",
    "reference_logits": "_reference",
    "save": "_transformers",
}


def __getattr__(name):
    if name not in _LAZY:
        raise AttributeError(f"module 'lnfree' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LAZY[name]}", __name__), name)


def __dir__():
    return sorted(set(globals()) | set(__all__))
