"""nnsight, with its own names of modules or nnterp's."""

from . import _fold
from ._transformers import build, load_tokenizer


def load_nnsight(source, *, dtype=None, device=None, revision=None, tokenizer=None, nnterp=False, **kwargs):
    """A `LanguageModel` of nnsight around `load_transformers`' model; with `nnterp` its
    `StandardizedTransformer`.

    The LNs change nothing, but for ln_f's bias. `model.lm_head(model.transformer.ln_f(x))` reads logits off
    any residual stream. What else is given goes to the class (`enable_attention_probs=True` of nnterp,
    say)."""
    attention = {"attn_implementation": "eager"} if kwargs.get("enable_attention_probs") else {}
    model = build(_fold.read(source, revision), dtype, device, **attention)
    tokens = load_tokenizer(source, tokenizer, revision) or _numbers(model.config)
    if nnterp:
        from nnterp import StandardizedTransformer as Model
    else:
        from nnsight import LanguageModel as Model
    return Model(model, tokenizer=tokens, **kwargs)


def _numbers(config):
    """A tokenizer whose tokens are their ids: nnsight makes no model without one."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({str(i): i for i in range(config.vocab_size)}, unk_token="0"))
    words.pre_tokenizer = WhitespaceSplit()
    end = str(config.eos_token_id or 0)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=end, bos_token=end, pad_token=end)
