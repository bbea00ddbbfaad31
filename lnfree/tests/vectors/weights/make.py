"""Makes the torch.save files beside this script and `expected.json`, with what PyTorch itself reads from them.

Run with PyTorch 2.11.0 (python make.py). tests/weights compares lnfree's reader with `expected.json`.
"""

import hashlib
import json
from collections import OrderedDict
from pathlib import Path

import torch

here = Path(__file__).parent


def mixed() -> OrderedDict:
    """Everything that a state dict may hold: dtypes, views, sharing, empty and 0-dim tensors, masks, metadata."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    state = OrderedDict(
        {
            "transformer.wte.weight": base,
            "lm_head.weight": base,
            "transposed": base.t(),
            "middle": base[1:3, 2:5],
            "every_second": base.reshape(-1)[3::2],
            "diagonal": base.diagonal(),
            "parameter": torch.nn.Parameter(torch.tensor([1.5, -2.5])),
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
            "bool": torch.tensor([True, False, True]),
            "bool_scalar": torch.tensor(True),
            "int64": torch.tensor([-(2**40), 2**40]),
            "int32": torch.tensor([-70000, 70000], dtype=torch.int32),
            "int16": torch.tensor([-300, 300], dtype=torch.int16),
            "int8": torch.tensor([-100, 100], dtype=torch.int8),
            "uint8": torch.tensor([0, 200], dtype=torch.uint8),
            "half": torch.tensor([0.1, -65504.0], dtype=torch.float16),
            "bfloat16": torch.tensor([0.1, 1e30], dtype=torch.bfloat16),
            "double": torch.tensor([0.1, 1e-300], dtype=torch.float64),
            "transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(),
            "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
        }
    )
    state._metadata = OrderedDict({"": {"version": 1}, "transformer": {"version": 1}})
    return state


def describe(tensor: torch.Tensor) -> dict:
    exact = tensor.detach().to(torch.float64) if tensor.is_floating_point() else tensor.to(torch.int64)
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape), "values": exact.reshape(-1).tolist()}


def digest(path: Path) -> dict:
    """One hash over name, dtype, shape and bytes of every tensor, by name without prefix, and a few readable values."""
    state = {name.removeprefix("transformer."): t for name, t in torch.load(path, weights_only=True).items()}
    hasher = hashlib.sha256()
    for name in sorted(state):
        t = state[name].contiguous()
        hasher.update(f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}\n".encode())
        hasher.update(t.numpy().tobytes())
    shown = ["h.0.ln_1.is_fake", "h.2.ln_1.attn_v_is_fake", "ln_f.is_fake", "h.1.ln_2.real_average_std", "h.0.ln_1.grad_acc_steps"]
    return {"tensors": len(state), "sha256": hasher.hexdigest(), "values": {name: describe(state[name]) for name in shown}}


torch.save(mixed(), here / "mixed.pt")
torch.save(dict(mixed()), here / "mixed_protocol4.pt", pickle_protocol=4)
torch.save(mixed(), here / "mixed_legacy.pt", _use_new_zipfile_serialization=False)
torch.serialization.set_crc32_options(False)
torch.save(mixed(), here / "mixed_no_checksums.pt")
expected = {name: describe(t) for name, t in torch.load(here / "mixed.pt", weights_only=False).items() if ".attn." not in name}
step30 = digest(here.parent / "checkpoint" / "step30" / "pytorch_model.bin")
(here / "expected.json").write_text(json.dumps({"mixed": expected, "step30": step30}, indent=1) + "\n")
