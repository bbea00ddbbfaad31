"""Models that somebody else has loaded, by lines that go wrong without a word."""

import pytest

import lnfree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.filterwarnings("ignore::lnfree.LnFreeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def plain(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def norms(model):
    return [model.transformer.ln_f, *(ln for block in model.transformer.h for ln in (block.ln_1, block.ln_2))]


def without_norms(model):
    for block in model.transformer.h:
        block.ln_1 = block.ln_2 = torch.nn.Identity()
    model.transformer.ln_f = torch.nn.Identity()
    return model


def test_right_ones(folders):
    assert "15" not in lnfree.check(plain(folders["scaled"]))[0]
    for model, form in (
        (plain(folders["identity"]), "identity"),
        (without_norms(plain(folders["folded"])), "folded"),
    ):
        lines = lnfree.check(model, folders[form])
        assert lines[0].startswith("5 LNs are linear") and lines[-1].startswith("logits are those of")


def test_fresh_lns(folders):
    for form in ("folded", "checkpoint"):
        with pytest.raises(lnfree.LnFreeError, match="ln_1 is not linear: it is a real LayerNorm"):
            lnfree.check(plain(folders[form]))


def test_overwritten_epsilon(folders):
    for form in ("scaled", "identity"):
        model = plain(folders[form])
        for norm in norms(model):
            norm.eps = 1e-5
        with pytest.raises(lnfree.LnFreeError, match="ε was overwritten"):
            lnfree.check(model)


def test_gamma_that_was_not_scaled(folders):
    model = plain(folders["checkpoint"])
    for norm in norms(model):
        norm.eps = 1e12
    with pytest.raises(lnfree.LnFreeError, match="next to nothing"):
        lnfree.check(model)


def test_float16_of_the_scaled_format(folders):
    with pytest.raises(lnfree.LnFreeError, match="float16"):
        lnfree.check(plain(folders["scaled"]).half())


def test_gamma_that_was_not_folded(folders):
    with pytest.raises(lnfree.LnFreeError, match="were not folded"):
        lnfree.check(without_norms(plain(folders["checkpoint"])))


def test_gamma_lost_without_a_trace(folders):
    """Centred by a library's processing, its γ gone: only the files tell."""
    model = without_norms(plain(folders["scaled"]))
    for name, weight in model.named_parameters():
        if any(part in name for part in ("wte", "wpe", "c_proj")):
            weight.data -= weight.data.mean(-1, keepdim=True)
    lnfree.check(model)
    with pytest.raises(lnfree.LnFreeError, match="logits are not those of"):
        lnfree.check(model, folders["scaled"])


def test_a_tied_unembedding(folders):
    model = without_norms(plain(folders["folded"]))
    model.lm_head.weight = model.transformer.wte.weight
    with pytest.raises(lnfree.LnFreeError, match="tied"):
        lnfree.check(model)


def test_what_is_no_gpt2():
    with pytest.raises(lnfree.LnFreeError, match="is no GPT-2"):
        lnfree.check(torch.nn.Linear(2, 2))
