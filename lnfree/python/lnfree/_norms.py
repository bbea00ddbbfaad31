"""What stands where the libraries have an LN."""

import torch


class IdentityNorm(torch.nn.LayerNorm):
    """An LN that changes nothing but for its bias, which only ln_f's has.

    With its γ = 2¹⁵ and ε = 2³⁰ a LayerNorm computes the same to rounding, and that is what a library does
    with the saved model. Here it is exact: nothing is centred, and a large variance leaves no error."""

    def forward(self, x):
        return x + self.bias


def replace_norms(model):
    """Makes the LNs of a GPT2LMHeadModel identities, in place."""
    for module in model.modules():
        if type(module) is torch.nn.LayerNorm:
            module.__class__ = IdentityNorm
    return model
