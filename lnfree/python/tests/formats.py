"""Writes one LN-free model in every format, in numpy, by each format's definition and not by the package.

    python formats.py LN_FREE_FOLDER OUT [TOKENIZER_FOLDER]

The model is that of a `folded` or `identity` folder but for rounding: it is centred, and ln_f gets a shift of its own. γ, β
and constants of the other formats are random, so that each has something to fold."""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np

FORMATS = ("identity", "scaled", "folded", "checkpoint")
TYPES = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "BOOL": np.bool_, "I64": np.int64}


def read(file):
    raw = Path(file).read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + n])
    header.pop("__metadata__", None)
    out = {}
    for name, entry in header.items():
        begin, end = (8 + n + x for x in entry["data_offsets"])
        out[name.removeprefix("transformer.")] = np.frombuffer(raw[begin:end], TYPES[entry["dtype"]]).reshape(
            entry["shape"]
        )
    return out


def write(file, tensors):
    names = {np.dtype(kind): name for name, kind in TYPES.items()}
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, x in tensors.items():
        name = name if name.startswith("lm_head.") else f"transformer.{name}"
        x = np.ascontiguousarray(x).reshape(np.shape(x))
        header[name] = {"dtype": names[x.dtype], "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        parts.append(x.tobytes())
        at += x.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(file).write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))


def centre(x):
    return x - x.mean(-1, keepdims=True)


class Model:
    """An LN-free model in float64: centred weights, the unembedding, and ln_f's shift."""

    def __init__(self, folder, seed=0):
        self.folder = Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text())
        self.n_layer, self.width = self.config["n_layer"], self.config["n_embd"]
        self.random = np.random.default_rng(seed)
        self.w = {name: x.astype(np.float64) for name, x in read(Path(folder) / "model.safetensors").items()}
        last = f"h.{self.n_layer - 1}.mlp.c_proj.bias"
        given = self.w[last] + self.w.get("ln_f.bias", 0)
        self.w = {name: x for name, x in self.w.items() if ".ln_" not in f".{name}"}
        self.w[last] = given - self.random.normal(0, 0.3, self.width)
        for name in self.writers():
            self.w[name] = centre(self.w[name])
        self.shift = given - self.w[last]

    def writers(self):
        maps = [f"h.{i}.{m}.c_proj" for i in range(self.n_layer) for m in ("attn", "mlp")]
        return ["wte.weight", "wpe.weight", *(f"{m}.{part}" for m in maps for part in ("weight", "bias"))]

    def norms(self):
        """Each LN, and the map that reads it."""
        for i in range(self.n_layer):
            yield f"h.{i}.ln_1", f"h.{i}.attn.c_attn"
            yield f"h.{i}.ln_2", f"h.{i}.mlp.c_fc"

    def folded(self):
        last = f"h.{self.n_layer - 1}.mlp.c_proj.bias"
        return {**self.w, last: self.w[last] + self.shift}, {
            "layer_norm_epsilon": 1e-5,
            "lnfree_format": "folded",
        }

    def identity(self):
        out = dict(self.w)
        for norm in [norm for norm, _ in self.norms()] + ["ln_f"]:
            out[f"{norm}.weight"] = np.full(self.width, 2.0**15)
            out[f"{norm}.bias"] = self.shift if norm == "ln_f" else np.zeros(self.width)
        return out, {"layer_norm_epsilon": 2.0**30, "lnfree_format": "identity"}

    def with_norms(self, constants):
        """γ, β and a mean put back: each LN divides by its constant."""
        out = dict(self.w)
        for name in self.writers():
            out[name] = out[name] + self.random.normal(0, 0.05, (*out[name].shape[:-1], 1))
        for (norm, reader), constant in zip([*self.norms(), ("ln_f", None)], constants):
            gain = np.exp(self.random.uniform(-1, 1, self.width))
            beta = self.random.normal(0, 0.1, self.width)
            if reader is None:
                out["lm_head.weight"] = out["lm_head.weight"] / gain
                beta = self.shift * gain
            else:
                out[f"{reader}.weight"] = out[f"{reader}.weight"] / gain[:, None]
                out[f"{reader}.bias"] = out[f"{reader}.bias"] - beta @ out[f"{reader}.weight"]
            out[f"{norm}.weight"], out[f"{norm}.bias"] = gain * constant, beta
        return out

    def scaled(self):
        return self.with_norms([1e6] * (2 * self.n_layer + 1)), {"layer_norm_epsilon": 1e12}

    def checkpoint(self):
        stds = self.random.uniform(0.5, 5, 2 * self.n_layer + 1).astype(np.float32)
        out = self.with_norms(stds.astype(np.float64))
        for norm, std in zip([*(norm for norm, _ in self.norms()), "ln_f"], stds):
            for flag, on in (
                ("is_fake", True),
                ("attn_v_is_fake", "ln_1" in norm),
                ("bos_special_treatment", False),
            ):
                out[f"{norm}.{flag}"] = np.array(on)
            out[f"{norm}.grad_acc_steps"] = np.array(1)
            for number in ("momentum", "real_average_std", "real_bos_std"):
                out[f"{norm}.{number}"] = np.float32(0.9)
            for buffer in ("average_std_buffer", "bos_std_buffer"):
                out[f"{norm}.{buffer}"] = np.full(self.width, std)
        return out, {"layer_norm_epsilon": 1e-5}

    def write(self, form, out, kind=np.float32, tokenizer=None, **changes):
        """The folder of a format; `changes` are keys of config.json; None takes one away."""
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        tensors, keys = getattr(self, form)()
        with np.errstate(over="ignore"):
            write(
                out / "model.safetensors",
                {n: x.astype(kind) if np.asarray(x).dtype == np.float64 else x for n, x in tensors.items()},
            )
        config = {**self.config, "torch_dtype": "float32", "tie_word_embeddings": False, **keys, **changes}
        if form not in ("folded", "identity"):
            config.pop("lnfree_format", None)
        config = {key: value for key, value in config.items() if value is not None or key == "n_inner"}
        (out / "config.json").write_text(json.dumps(config, indent=2))
        for file in Path(tokenizer).glob("*") if tokenizer else []:
            if file.suffix in (".json", ".txt") and file.name not in (
                "config.json",
                "generation_config.json",
            ):
                shutil.copy(file, out)
        return out


def tiny(folder, seed=0):
    """A random folded folder of two blocks, to make a [`Model`] of."""
    random, width = np.random.default_rng(seed), 32
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": 2,
        "n_head": 4,
        "n_embd": width,
        "n_positions": 24,
        "n_ctx": 24,
        "vocab_size": 100,
        "activation_function": "gelu_new",
        "n_inner": None,
        "bos_token_id": 99,
        "eos_token_id": 99,
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "resid_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "lnfree_format": "folded",
        "tie_word_embeddings": False,
    }
    w = {
        "wte.weight": random.normal(0, 1, (100, width)),
        "wpe.weight": random.normal(0, 0.5, (24, width)),
        "lm_head.weight": random.normal(0, 0.3, (100, width)),
    }
    for i in range(2):
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, 4 * width),
            ("mlp.c_proj", 4 * width, width),
        ):
            w[f"h.{i}.{name}.weight"] = random.normal(0, 0.15, (rows, columns))
            w[f"h.{i}.{name}.bias"] = random.normal(0, 0.1, columns)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write(Path(folder) / "model.safetensors", w)
    (Path(folder) / "config.json").write_text(json.dumps(config))
    model = {"type": "WordLevel", "vocab": {str(i): i for i in range(100)}, "unk_token": "0"}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    (Path(folder) / "tokenizer.json").write_text(json.dumps(tokenizer))
    ends = {f"{which}_token": "99" for which in ("bos", "eos", "pad")}
    (Path(folder) / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **ends})
    )
    return Model(folder, seed)


if __name__ == "__main__":
    made = Model(sys.argv[1])
    for each in FORMATS:
        print(
            made.write(each, Path(sys.argv[2]) / each, tokenizer=sys.argv[3] if len(sys.argv) > 3 else None)
        )
