"""Every format in every library that is here, against the GPT-2 in float64 written out in the package."""

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import lnfree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

FORMATS = ["identity", "scaled", "folded", "checkpoint"]
IDS = torch.arange(40).reshape(2, 20) * 7 % 100
VECTORS = Path(__file__).resolve().parents[2] / "tests/vectors"
pytestmark = [
    pytest.mark.filterwarnings("ignore::lnfree.LnFreeWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def off(found, folder, **kwargs):
    expected = lnfree.reference_logits(folder, IDS, **kwargs)
    return float((found.double() - expected).abs().max() / expected.abs().max())


def hooked(name):
    """The loader of that name, or a skip where the library or the class is not there."""
    pytest.importorskip("transformer_lens")
    try:
        if name == "load_hooked_transformer":
            from transformer_lens import HookedTransformer  # noqa: F401
        else:
            from transformer_lens.model_bridge import TransformerBridge  # noqa: F401
    except ImportError:
        pytest.skip(f"this transformer-lens is not for {name}")
    return getattr(lnfree, name)


@pytest.mark.skipif(not VECTORS.is_dir(), reason="needs the repository")
def test_reference_matches_the_papers_code():
    """Recorded logits of the paper's own model and of its export."""
    from safetensors.torch import load_file

    recorded = load_file(VECTORS / "export_logits.safetensors")
    for folder, name in (("checkpoint/step60", "fakeln_step60"), ("exported_noln", "exported_hf")):
        logits = lnfree.reference_logits(VECTORS / folder, recorded["input_ids"])
        assert (logits - recorded[f"logits.{name}"]).abs().max() < 5e-6
        loaded = lnfree.load_transformers(VECTORS / folder)(recorded["input_ids"]).logits
        assert (loaded - logits).abs().max() < 1e-5


@pytest.mark.parametrize("form", FORMATS)
def test_transformers(folders, form, tmp_path):
    model = lnfree.load_transformers(folders[form])
    assert off(model(IDS).logits, folders[form]) < 1e-5
    assert not model.training and model.dtype == torch.float32
    lnfree.check(model, folders[form])
    # Saved, it is what a library's plain code computes to rounding.
    model.save_pretrained(tmp_path)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(plain.transformer.ln_f) is torch.nn.LayerNorm
    assert off(plain(IDS).logits, folders[form]) < 1e-5
    assert lnfree.describe(tmp_path).format == "identity"


@pytest.mark.parametrize("form", FORMATS)
def test_logit_lens_and_shift(folders, form):
    """ln_f's shift is its own in all formats that tell it apart: every residual stream is read right."""
    model = lnfree.load_transformers(folders[form])
    lens = [
        model.lm_head(model.transformer.ln_f(x))
        for x in model(IDS, output_hidden_states=True).hidden_states[:-1]
    ]
    truth = lnfree.load_transformers(folders["identity"])
    expected = [
        truth.lm_head(truth.transformer.ln_f(x))
        for x in truth(IDS, output_hidden_states=True).hidden_states[:-1]
    ]
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(lens, expected))
    assert worst > 1e-3 if form == "folded" else worst < 1e-5


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_sixteen_bits_of_every_format(folders, kind):
    for form in FORMATS:
        model = lnfree.load_transformers(folders[form], dtype=kind)
        assert model.dtype == getattr(torch, kind)
        assert off(model(IDS).logits, folders[form]) < (0.005 if kind == "float16" else 0.05)


def test_folded_says_what_it_cannot_tell_apart(folders):
    with pytest.warns(lnfree.LnFreeWarning, match="last MLP's bias"):
        lnfree.load_transformers(folders["folded"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", lnfree.LnFreeWarning)
        lnfree.load_transformers(folders["identity"])


def test_refusals(changed, folders):
    with pytest.raises(lnfree.LnFreeError, match="ε was overwritten"):
        lnfree.load_transformers(changed("scaled", layer_norm_epsilon=1e-5))
    with pytest.raises(lnfree.LnFreeError, match="ties them"):
        lnfree.load_transformers(changed("identity", tie_word_embeddings=True))

    def zero(tensors):
        tensors["ln_f.weight"] = tensors["ln_f.weight"] * np.float32([0] + [1] * 31)

    with pytest.raises(lnfree.LnFreeError, match="weight of zero"):
        lnfree.load_transformers(changed("scaled", zero))


def test_save_converts_and_takes_the_tokenizer_along(folders, tmp_path):
    lnfree.save(folders["scaled"], tmp_path)
    found = lnfree.describe(tmp_path)
    assert found.format == "identity" and found.tokenizer
    assert (
        off(transformers.AutoModelForCausalLM.from_pretrained(tmp_path)(IDS).logits, folders["scaled"]) < 1e-5
    )


def test_name_of_the_hub(model, tmp_path):
    """What the hub's own cache holds is found without it; the paper's models by their short names too."""
    pytest.importorskip("huggingface_hub")
    home = tmp_path / "models--schaeff--gpt2-small_LNFree300"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text("0" * 40)
    model.write("scaled", home / "snapshots" / ("0" * 40), tokenizer=model.folder)
    code = "import lnfree; print(lnfree.load_transformers('gpt2-small_LNFree300').config.lnfree_format)"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "identity", done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "lnfree", "nobody/nothing"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith(
        "error: nobody/nothing: no folder, and not to be had"
    )


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["load_hooked_transformer", "load_bridge"])
def test_transformer_lens(folders, form, name):
    model = hooked(name)(folders[form])
    logits, cache = model.run_with_cache(IDS)
    assert off(logits, folders[form]) < 1e-5
    assert model.cfg.normalization_type is None
    lnfree.check(model, folders[form])
    for norm in ("blocks.0.ln1", "blocks.1.ln2", "ln_final"):
        assert (cache[f"{norm}.hook_scale"] == 1).all()
    assert torch.equal(cache["ln_final.hook_normalized"], cache["blocks.1.hook_resid_post"])
    attributed = (
        cache.logit_attrs(cache.decompose_resid(layer=-1, apply_ln=True), IDS).sum(0) + model.b_U[IDS]
    )
    assert torch.allclose(attributed, logits.gather(-1, IDS[..., None])[..., 0], atol=1e-4)
    ablated = model.run_with_hooks(IDS, fwd_hooks=[("blocks.0.hook_mlp_out", lambda x, hook: x * 0)])
    assert off(ablated, folders[form], without_mlp=0) < 1e-5
    # Whoever sets the scale divides by it: ln_f's shift is not divided.
    halved = model.run_with_hooks(IDS, fwd_hooks=[("ln_final.hook_scale", lambda x, hook: 2 * x)])
    assert torch.allclose((halved - model.b_U) * 2, logits - model.b_U, atol=1e-4)
    assert torch.equal(copy.deepcopy(model)(IDS), logits)


@pytest.mark.parametrize("name", ["load_hooked_transformer", "load_bridge"])
def test_generation_with_and_without_cache(folders, name):
    model = hooked(name)(folders["scaled"])
    expected = IDS[:1, :5]
    for _ in range(6):
        expected = torch.cat(
            [expected, lnfree.reference_logits(folders["scaled"], expected)[:, -1:].argmax(-1)], 1
        )
    for cached in (True, False):
        tokens = model.generate(
            IDS[:1, :5],
            max_new_tokens=6,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            use_past_kv_cache=cached,
            return_type="tokens",
        )
        assert tokens.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["load_hooked_transformer", "load_bridge"])
def test_processing_changes_no_prediction(folders, name):
    plain, processed = (
        hooked(name)(folders["scaled"], center_unembed=on, fold_value_biases=on) for on in (False, True)
    )
    a, b = plain(IDS), processed(IDS)
    centred = lambda x: x - x.mean(-1, keepdim=True)
    assert torch.allclose(centred(a), centred(b), atol=1e-4)
    assert processed.W_U.mean(-1).abs().max() < 1e-6 < plain.W_U.mean(-1).abs().max()
    assert all(attn.b_V.abs().max() == 0 for attn in (block.attn for block in processed.blocks))


def test_texts(folders):
    model = hooked("load_hooked_transformer")(folders["identity"])
    assert model.to_tokens("1 2 3", prepend_bos=False).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("form", FORMATS)
def test_nnsight(folders, form):
    pytest.importorskip("nnsight")
    model = lnfree.load_nnsight(folders[form])
    with model.trace(IDS):
        normed = model.transformer.ln_f.output.save()
        logits = model.lm_head.output.save()
    assert off(logits, folders[form]) < 1e-5 and normed.shape == (2, 20, 32)
    with model.trace(IDS):
        model.transformer.h[0].mlp.output[:] = 0
        ablated = model.lm_head.output.save()
    assert off(ablated, folders[form], without_mlp=0) < 1e-5
    lnfree.check(model, folders[form])


def test_nnsight_without_a_tokenizer(folders, tmp_path, model):
    pytest.importorskip("nnsight")
    bare = lnfree.load_nnsight(model.write("scaled", tmp_path / "bare"))
    with bare.trace("1 2 3"):
        logits = bare.lm_head.output.save()
    assert logits.shape[1] == 3


def test_nnterp(folders):
    pytest.importorskip("nnterp", exc_type=ImportError)
    model = lnfree.load_nnsight(folders["scaled"], nnterp=True)
    with model.trace(IDS):
        lens = model.project_on_vocab(model.layers_output[1]).save()
        logits = model.logits.save()
    assert off(logits, folders["scaled"]) < 1e-5 and torch.allclose(lens, logits, atol=1e-5)
