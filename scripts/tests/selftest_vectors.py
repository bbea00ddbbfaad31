#!/usr/bin/env python3
"""Makes what `lnfree selftest` carries, lnfree/src/selftest/vectors/, of lnfree/tests/vectors: a part of every kind of number.

  pip install numpy safetensors
  python scripts/tests/selftest_vectors.py

The numbers are those of the paper's own code, see lnfree/tests/vectors/README.md. Of logits every COLUMNS-th is taken. A test of the crate
(`selftest::vectors`) compares the two.
"""
import json
import shutil
from pathlib import Path

import numpy
from safetensors.numpy import load_file, save_file

COLUMNS = 16
ROOT = Path(__file__).resolve().parents[2] / "lnfree"
FROM, TO = ROOT / "tests/vectors", ROOT / "src/selftest/vectors"


def norm(env):
    """The [norm] table that these variables of the paper's code mean."""
    on = lambda name: env[f"EXP_{name}"] == "1"
    return {
        "momentum": 0.9,
        "recompute_on_real": on("RECOMPUTE_STD_ON_REAL"),
        "recompute_on_fake": on("RECOMPUTE_STD_ON_FAKE"),
        "special_std": on("BOS_SPECIAL_TREATMENT"),
        "special_axis": "position" if on("CORRECT_BOS") else "feature",
        "exclude_position_0": on("NON_BOS_AVERAGE_STD"),
        "ln1_updates": "per_face",
    }


def forwards(tensors):
    groups = []
    for name, group in json.loads((FROM / "forward_states.json").read_text())["groups"].items():
        recorded = load_file(FROM / group["file"])
        tensors[f"forward.{name}.input_ids"] = recorded["input_ids"].astype(numpy.uint8)
        states = []
        for state, expected in group["states"].items():
            calls = len(expected["after_call"])
            found = []
            for call in range(1, calls + 1):
                keys = [f"logits.{state}.call{call}", f"logits.{state}"]
                key = next((key for key in keys if key in recorded), None)
                if key:
                    tensors[f"forward.{name}.{state}.{call}"] = numpy.ascontiguousarray(recorded[key][..., ::COLUMNS])
                    found.append(call)
            states.append({"name": state, "events": expected["events"], "calls": calls, "recorded": found})
        groups.append({"name": name, "norm": norm(group["env"]), "states": states})
    return groups


def training(file):
    run = json.loads((FROM / file).read_text())
    config = run["config"]
    train = {
        "batch_size": config["batch_size"],
        "gradient_accumulation_steps": config["gradient_accumulation_steps"],
        "max_steps": config["max_steps"],
        "learning_rate": config["learning_rate"],
        "min_lr": config["lr_scheduler_kwargs"]["min_lr"],
        "warmup_steps": config["warmup_steps"],
        "weight_decay": config["weight_decay"],
        "aux_loss_weight": run["aux_loss_weight"] or 0.0,
    }
    kinds = ["ln2", "ln1qk", "ln1v", "lnf", "eot", "bos"]
    schedule = {f"start_{kind}": config[f"start_{kind}"] for kind in kinds}
    schedule |= {f"gap_{kind}": config[f"gap_{kind}"] for kind in kinds if kind != "lnf"}
    return {
        "train": train,
        "schedule": schedule,
        "norm": norm(run["env"]),
        "loss": run["steps"]["loss"],
        "grad_norm": run["steps"]["grad_norm"],
        "final_l2": {name.removeprefix("transformer."): l2 for name, l2 in run["final_param_l2"].items()},
    }


def main():
    TO.mkdir(parents=True, exist_ok=True)
    tensors = {}
    about = {"columns": COLUMNS, "forward": forwards(tensors)}
    about["train"] = {name: training(f"train_{file}.json") for name, file in [("with_ln", "a_with_ln"), ("without_ln", "c_aux")]}
    tensors["train.tokens"] = load_file(FROM / "train_tokens.safetensors")["tokens"].astype(numpy.uint8)
    tensors["eval.tokens"] = load_file(FROM / "eval_tokens.safetensors")["tokens"].astype(numpy.uint8)
    tensors["eval.losses"] = load_file(FROM / "eval_losses.safetensors")["losses.tiny"]
    save_file(tensors, TO / "numbers.safetensors")
    (TO / "numbers.json").write_text(json.dumps(about, separators=(",", ":")) + "\n")
    # The weights are here already: those of the test vectors are a link to them.
    shutil.copy(FROM / "tiny-a/config.json", TO / "config.json")
    shutil.copy(FROM / "tiny-a_std_dict.json", TO / "stds.json")


main()
