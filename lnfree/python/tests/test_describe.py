"""What a folder is, and what is wrong with it. None of this needs torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lnfree

VECTORS = Path(__file__).resolve().parents[2] / "tests/vectors"
DATA = Path(__file__).resolve().parents[3] / "data"


def problem(folder):
    found = lnfree.describe(folder)
    assert not found.ln_free
    with pytest.raises(lnfree.LnFreeError):
        found.require_ln_free()
    return found.problems[0] if found.problems else found.format


@pytest.mark.parametrize("form", ["identity", "scaled", "folded", "checkpoint"])
def test_every_format_is_told(folders, form):
    found = lnfree.describe(folders[form])
    assert (found.format, found.problems, found.ln_free) == (form, [], True)
    assert found.evidence and found.tokenizer


def test_every_type_is_read(model, tmp_path):
    for kind in (np.float16, np.float64):
        assert lnfree.describe(model.write("identity", tmp_path / "x", kind)).format == "identity"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="needs the repository")
def test_models_of_the_repository():
    formats = {VECTORS / "tiny-a": "ordinary", VECTORS / "exported_noln": "scaled", DATA / "nano": "ordinary"}
    for folder, form in formats.items():
        assert lnfree.describe(folder).format == form, folder
    assert lnfree.describe(DATA / "nano_LNFree200").format in ("folded", "identity")
    pytest.importorskip("torch")  # Torch files.
    assert lnfree.describe(VECTORS / "checkpoint/step60").format == "checkpoint"
    assert "ln_f is still real" in lnfree.describe(VECTORS / "checkpoint/step30").evidence[0]
    assert problem(VECTORS / "checkpoint/step30") == "half removed"


def test_a_run_is_its_newest_checkpoint(folders, tmp_path):
    steps = tmp_path / "run/checkpoints"
    steps.mkdir(parents=True)
    (steps / "latest").symlink_to(folders["checkpoint"])
    assert lnfree.describe(tmp_path / "run").format == "checkpoint"


def test_parameters_are_counted_once(folders):
    whole = lnfree.describe(folders["identity"]).parameters
    # Two blocks of four LNs and ln_f: weights and biases of 32.
    assert whole - lnfree.describe(folders["folded"]).parameters == 5 * 2 * 32


def test_overwritten_epsilon(changed):
    for form in ("identity", "scaled"):
        assert "ε was overwritten" in problem(changed(form, layer_norm_epsilon=1e-5))


def test_gamma_that_was_not_scaled(changed):
    assert "γ was not scaled" in problem(changed("checkpoint", without_state, layer_norm_epsilon=1e12))


def without_state(tensors):
    return {name: x for name, x in tensors.items() if name.endswith(("weight", "bias"))}


def test_float16_of_the_scaled_format(model, tmp_path):
    assert "float16" in problem(model.write("scaled", tmp_path / "half", np.float16))


def test_lns_left_out_without_folding(changed):
    def drop(tensors):
        return {
            name: x for name, x in without_state(tensors).items() if ".ln_" not in name and "ln_f" not in name
        }

    assert "were not folded" in problem(changed("checkpoint", drop))
    assert "were not folded" in problem(changed("checkpoint", drop, lnfree_format="folded"))


def test_a_file_that_lost_an_ln(changed):
    def drop(tensors):
        return {name: x for name, x in tensors.items() if name != "h.1.ln_2.weight"}

    assert "h.1.ln_2.weight is missing" in problem(changed("identity", drop))


def test_fresh_lns_in_a_folded_file(changed, model):
    def fresh(tensors, gamma=1.0):
        norms = [norm for norm, _ in model.norms()] + ["ln_f"]
        width = np.float32([gamma] * model.width)
        return {**tensors, **{f"{n}.weight": width for n in norms}, **{f"{n}.bias": 0 * width for n in norms}}

    found = lnfree.describe(changed("folded", fresh))
    assert found.format == "folded" and found.ln_free and "left out again" in found.notes[-1]
    assert "says folded, but" in problem(changed("folded", lambda tensors: fresh(tensors, 1.1)))


def test_heads(changed):
    tied = {"tie_word_embeddings": True}
    assert "ties them" in problem(changed("identity", **tied))
    without = lambda tensors: {name: x for name, x in tensors.items() if name != "lm_head.weight"}
    assert "cannot have been folded" in problem(changed("folded", without, **tied))
    assert "lm_head.weight is missing" in problem(changed("folded", without))


def test_constants_that_no_matrix_expresses(changed):
    def apart(tensors):
        for norm in ("h.0.ln_1", "h.1.ln_1"):
            buffer = tensors[f"{norm}.average_std_buffer"].copy()
            buffer[0] *= 2
            tensors[f"{norm}.average_std_buffer"] = buffer
            tensors[f"{norm}.bos_special_treatment"] = np.array(norm == "h.1.ln_1")

    assert problem(changed("checkpoint", apart)).startswith("h.1.ln_1 still divides position 0")


def test_what_is_no_model(tmp_path, changed):
    for name, message in ((tmp_path, "no config.json"), (tmp_path / "none", "is no folder")):
        with pytest.raises(lnfree.LnFreeError, match=message):
            lnfree.describe(name)
    folder = changed("identity")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(lnfree.LnFreeError, match="not whole"):
        lnfree.describe(folder)
    file.unlink()
    with pytest.raises(lnfree.LnFreeError, match="neither model.safetensors nor"):
        lnfree.describe(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(lnfree.LnFreeError, match="not a GPT-2"):
        lnfree.describe(folder)


def test_command(folders, changed):
    run = lambda *a: subprocess.run(
        [sys.executable, "-m", "lnfree", *map(str, a)], capture_output=True, text=True
    )
    done = run("--json", folders["identity"])
    assert done.returncode == 0 and json.loads(done.stdout)["format"] == "identity"
    done = run(changed("identity", layer_norm_epsilon=1e-5))
    assert done.returncode == 1 and "problem     ε was overwritten" in done.stdout
    done = run("/nowhere")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith("error: /nowhere")
