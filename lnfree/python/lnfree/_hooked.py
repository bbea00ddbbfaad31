"""Norms of nothing for TransformerLens, with the hooks of norms: circuit tools ask for them by name."""

import torch
from transformer_lens.hook_points import HookPoint


class HookedIdentity(torch.nn.Module):
    """In the place of a `LayerNormPre`. The scale is 1, and whoever sets it divides by what he sets."""

    def __init__(self):
        super().__init__()
        self.hook_scale = HookPoint()  # [batch, pos, 1]
        self.hook_normalized = HookPoint()  # [batch, pos, d_model]

    def forward(self, x):
        return self.hook_normalized(x / self.hook_scale(torch.ones_like(x[..., :1])))


class NormBefore:
    """A hook of torch that runs a norm before a module. An object: a deep copy of the model copies it
    along."""

    def __init__(self, norm):
        self.norm = norm

    def __call__(self, module, inputs):
        return (self.norm(inputs[0]), *inputs[1:])


def bridge_norms_change_nothing(bridge):
    """Makes the norms of a TransformerBridge identities, in place."""
    from transformer_lens.model_bridge.generalized_components import NormalizationBridge

    class IdentityBridge(NormalizationBridge):
        def forward(self, hidden_states, **kwargs):
            x = self.hook_in(hidden_states)
            scale = self.hook_scale(torch.ones_like(x[..., :1]))
            return self.hook_out(self.hook_normalized(x / scale))

    for module in bridge.modules():
        if isinstance(module, NormalizationBridge):
            module.__class__ = IdentityBridge


def bridge_finds_cache(bridge):
    """Hands the attention of a TransformerBridge the keys and values of earlier tokens, in place.

    transformers 5.24 calls them `cache`, for which transformer-lens 4.3 does not look: every token it
    generates would attend to itself alone, of an ordinary GPT-2 as well."""

    def rename(module, args, kwargs):
        if kwargs.get("cache") is not None:
            kwargs.setdefault("past_key_values", kwargs["cache"])
        return args, kwargs

    for block in bridge.blocks:
        block.attn.register_forward_pre_hook(rename, with_kwargs=True)
