"""Where a model lies, and what its files hold. Reads safetensors without torch."""

import json
import os
import struct
import warnings
from pathlib import Path


class LnFreeError(ValueError):
    """The model is not LN-free, or its files contradict each other. One line says which."""


class LnFreeWarning(UserWarning):
    """The model is loaded, but something about it should be known."""


def warn(message):
    # 4: whoever called the function of ours that called the one that found it.
    warnings.warn(message, LnFreeWarning, stacklevel=4)


# The paper's released models, by the names that the command line of lnfree takes.
_SCHAEFF = ("gpt2-small_LNFree", "gpt2-medium_LNFree", "gpt2-large_LNFree", "gpt2-xl_LNFree")
_FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt"]


def locate(source, revision=None):
    """The folder of a model: itself, a run's newest checkpoint, or what the hub sends under that name."""
    path = Path(source)
    if path.is_dir():
        newest = path / "checkpoints" / "latest"
        if not (path / "config.json").is_file() and newest.exists():
            # `latest` is a link, or a file that holds the name, where links cannot be made.
            path = newest if newest.is_dir() else newest.parent / newest.read_text().strip()
        if not (path / "config.json").is_file():
            raise LnFreeError(f"{path}: is no model: it has no config.json")
        return path
    name = os.fspath(source)
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LnFreeError(f"{name}: is no folder")
    if name.startswith(_SCHAEFF):
        name = f"schaeff/{name}"
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise LnFreeError(
            f"{name}: is no folder; to fetch it from the hub, pip install huggingface_hub"
        ) from None
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(name, revision=revision, allow_patterns=["pytorch_model*.bin"])
        return folder
    except Exception as e:  # Of many classes, by version: all mean that it is not to be had.
        reason = str(e).splitlines()[0] if str(e) else ""
        raise LnFreeError(
            f"{name}: no folder, and not to be had from the hub: {type(e).__name__}: {reason}"
        ) from e


def read_config(folder):
    """config.json, with GPT-2's own value where it leaves one out."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except ValueError as e:
        raise LnFreeError(f"{folder / 'config.json'}: is not JSON: {e}") from None
    if config.get("model_type", "gpt2") != "gpt2":
        raise LnFreeError(f"{folder}: is a {config['model_type']}, not a GPT-2")
    defaults = {
        "n_layer": 12,
        "n_head": 12,
        "n_embd": 768,
        "n_positions": 1024,
        "vocab_size": 50257,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
    }
    return {**defaults, **config}


_CODES = {"F64": "d", "F32": "f", "F16": "e", "BF16": "H", "I64": "q", "I32": "i", "U8": "B", "BOOL": "?"}


class Weights:
    """The tensors of a folder under GPT-2's names without `transformer.`, read when asked for."""

    def __init__(self, folder):
        self.folder = folder
        self.metadata = {}
        self._where = {}  # name: (file, type, shape, start, end)
        self._loaded = {}  # name: tensor, of a torch file
        for file in self._files():
            if file.suffix == ".safetensors":
                self._index(file)
            else:
                self._load(file)

    def _files(self):
        for stem in ("model.safetensors", "pytorch_model.bin"):
            if (self.folder / stem).is_file():
                return [self.folder / stem]
            index = self.folder / f"{stem}.index.json"
            if index.is_file():
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
                for name in names:
                    if not (self.folder / name).is_file():
                        raise LnFreeError(f"{self.folder / name}: is missing; {index.name} names it")
                return [self.folder / name for name in names]
        raise LnFreeError(f"{self.folder}: has neither model.safetensors nor pytorch_model.bin")

    def _index(self, file):
        size = file.stat().st_size
        with open(file, "rb") as f:
            start = f.read(8)
            n = struct.unpack("<Q", start)[0] if len(start) == 8 else size
            if n + 8 > size:
                raise LnFreeError(f"{file}: is damaged or not whole: its header is longer than the file")
            try:
                header = json.loads(f.read(n))
            except ValueError:
                raise LnFreeError(f"{file}: is damaged: its header is not JSON") from None
        self.metadata.update(header.pop("__metadata__", {}))
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if 8 + n + end > size:
                raise LnFreeError(f"{file}: is not whole: {name} ends after the file")
            self._where[_plain(name)] = (file, entry["dtype"], entry["shape"], 8 + n + begin, 8 + n + end)

    def _load(self, file):
        try:
            import torch
        except ImportError:
            raise LnFreeError(f"{file}: is a torch file, which takes torch to read") from None
        for name, tensor in torch.load(file, map_location="cpu", weights_only=True).items():
            self._loaded[_plain(name)] = tensor

    def __contains__(self, name):
        return name in self._where or name in self._loaded

    def names(self):
        return [*self._where, *self._loaded]

    def shape(self, name):
        return list(self._where[name][2]) if name in self._where else list(self._loaded[name].shape)

    def dtype(self, name):
        """`F32`, `F16`, …, as safetensors says it."""
        if name in self._where:
            return self._where[name][1]
        names = {
            "float64": "F64",
            "float32": "F32",
            "float16": "F16",
            "bfloat16": "BF16",
            "bool": "BOOL",
            "int64": "I64",
        }
        kind = str(self._loaded[name].dtype).rsplit(".", 1)[-1]
        return names.get(kind, kind)

    def values(self, name, rows=None):
        """The numbers of a tensor in a flat list, or those of its first `rows` rows."""
        if name in self._loaded:
            tensor = self._loaded[name]
            return (tensor if rows is None else tensor[:rows]).double().flatten().tolist()
        file, dtype, shape, begin, end = self._where[name]
        if dtype not in _CODES:
            raise LnFreeError(f"{file}: {name} is of type {dtype}, which no GPT-2 is kept in")
        if rows is not None and shape:
            end = begin + (end - begin) // max(shape[0], 1) * min(rows, shape[0])
        code = _CODES[dtype]
        with open(file, "rb") as f:
            f.seek(begin)
            raw = f.read(end - begin)
        numbers = struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw)
        if dtype == "BF16":  # The upper half of a float32.
            numbers = struct.unpack(
                f"<{len(numbers)}f", b"".join(struct.pack("<I", x << 16) for x in numbers)
            )
        return [float(x) for x in numbers]

    def same(self, a, b):
        """Whether two tensors hold the same numbers in the same type."""
        if self.shape(a) != self.shape(b):
            return False
        if a in self._loaded:
            return bool((self._loaded[a] == self._loaded[b]).all())
        (file_a, kind_a, _, begin_a, end_a), (file_b, kind_b, _, begin_b, _) = self._where[a], self._where[b]
        if kind_a != kind_b:
            return False
        with open(file_a, "rb") as f, open(file_b, "rb") as g:
            f.seek(begin_a)
            g.seek(begin_b)
            left = end_a - begin_a
            while left > 0:
                step = min(left, 1 << 22)
                if f.read(step) != g.read(step):
                    return False
                left -= step
        return True

    def tensor(self, name):
        """The tensor in float64, on the CPU."""
        import torch

        if name in self._loaded:
            return self._loaded[name].double()
        file, dtype, shape, begin, end = self._where[name]
        kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        if dtype not in kinds:
            raise LnFreeError(f"{file}: {name} is of type {dtype}, which no GPT-2 is kept in")
        with open(file, "rb") as f:
            f.seek(begin)
            raw = bytearray(f.read(end - begin))
        return torch.frombuffer(raw, dtype=kinds[dtype]).reshape(shape).double()


def _plain(name):
    """Without what other programs put before a name."""
    for prefix in ("_orig_mod.", "module.", "transformer."):
        if name.startswith(prefix):
            name = name[len(prefix) :]
    return name
