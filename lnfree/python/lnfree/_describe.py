"""What a folder holds: which format, by which evidence, and what is wrong with it. Without torch."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from ._source import LnFreeError, Weights, locate, read_config

FORMATS = {
    "identity": "LN-free: all is folded, and LNs that change nothing are there for libraries that expect LNs",
    "scaled": "LN-free: ε is so large that the LNs divide by a constant (the paper's format)",
    "folded": "LN-free: no LN in the file, everything is folded into the matrices",
    "checkpoint": "LN-free: a training checkpoint, whose LNs divide by constants beside the weights",
    "half removed": "a training checkpoint in which some LNs are still real",
    "ordinary": "an ordinary GPT-2, whose LNs are real",
}
_STATE = (
    ".is_fake",
    ".attn_v_is_fake",
    ".bos_special_treatment",
    ".grad_acc_steps",
    ".momentum",
    ".real_average_std",
    ".real_bos_std",
    ".average_std_buffer",
    ".bos_std_buffer",
)
_LOADS = {
    "identity": "all that read ε from the config (HookedTransformer takes GPT-2's); and lnfree.load_…",
    "scaled": "as identity, but not in float16; and lnfree.load_…",
    "folded": "lnfree.load_… only: libraries would make fresh LNs, with no more than a warning",
    "checkpoint": "lnfree.load_… only: libraries would skip the constants and compute real LNs",
    "half removed": "lnfree, the program, alone",
    "ordinary": "every library as it is; it is not LN-free",
}


@dataclass
class Description:
    """What [`describe`] found. `str()` of it is what `python -m lnfree` prints."""

    folder: str
    format: str
    """One of `identity`, `scaled`, `folded`, `checkpoint`, `half removed`, `ordinary`."""
    evidence: list = field(default_factory=list)
    problems: list = field(default_factory=list)
    """Why it cannot be loaded as what it is; empty if it can."""
    notes: list = field(default_factory=list)
    """What should be known when it is used."""
    parameters: int = 0
    dtype: str = ""
    tokenizer: bool = False
    source: str = ""
    stds: dict = field(default_factory=dict, repr=False)
    """Of a checkpoint: the constant that each LN divides by."""

    @property
    def ln_free(self):
        return self.format in ("identity", "scaled", "folded", "checkpoint") and not self.problems

    @property
    def loads_in(self):
        return "nothing, before the problems are mended" if self.problems else _LOADS[self.format]

    def require_ln_free(self):
        """The description, if an LN-free model can be loaded.

        Raises `LnFreeError` otherwise."""
        if self.problems:
            raise LnFreeError(f"{self.folder}: {self.problems[0]}")
        if not self.ln_free:
            raise LnFreeError(f"{self.folder}: is {FORMATS[self.format]}: {self.evidence[0]}")
        return self

    def __str__(self):
        rows = [("format", f"{self.format}: {FORMATS[self.format]}")]
        rows += [("evidence", line) for line in self.evidence]
        rows += [("problem", line) for line in self.problems]
        rows += [("note", line) for line in self.notes]
        rows += [
            ("parameters", f"{self.parameters:,} in the file, {self.dtype}"),
            ("tokenizer", "in the folder" if self.tokenizer else "none in the folder"),
            ("loads in", self.loads_in),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join([self.folder, *(f"  {name:<{width}}  {text}" for name, text in rows)])


def describe(source, revision=None):
    """What the model in a folder, or of a name on the hub, is: a [`Description`].

    Raises `LnFreeError` when it is no GPT-2, or a file of it is missing or damaged."""
    folder = locate(source, revision)
    return examine(folder, read_config(folder), Weights(folder), str(source))


def examine(folder, config, weights, source=""):
    """[`describe`] of what has been read."""
    n_layer = config["n_layer"]
    norms = ln_names(n_layer)
    if "wte.weight" not in weights:
        raise LnFreeError(f"{folder}: is no GPT-2: it has no tensor transformer.wte.weight")
    counted = [n for n in weights.names() if not n.endswith((*_STATE, ".attn.bias", ".attn.masked_bias"))]
    if config["tie_word_embeddings"]:
        counted = [n for n in counted if n != "lm_head.weight"]
    found = Description(str(folder), "ordinary", source=str(source))
    found.parameters = sum(math.prod(weights.shape(name)) for name in counted)
    kinds = [weights.dtype(name) for name in counted]
    found.dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}.get(
        max(set(kinds), key=kinds.count), kinds[0]
    )
    found.tokenizer = has_tokenizer(folder)
    there = [name for name in norms if f"{name}.weight" in weights]
    if "ln_f.is_fake" in weights:
        _checkpoint(found, weights, n_layer)
    elif not there:
        _folded(found, config, weights)
    elif len(there) < len(norms):
        missing = next(name for name in norms if name not in there)
        found.evidence.append(f"{len(there)} of {len(norms)} LNs are in the file")
        found.problems.append(
            f"{missing}.weight is missing, while {there[0]}.weight is there: the file is not whole"
        )
    else:
        _norms(found, config, weights, norms)
    _head(found, config, weights)
    return found


def ln_names(n_layer):
    return [f"h.{i}.{ln}" for i in range(n_layer) for ln in ("ln_1", "ln_2")] + ["ln_f"]


def has_tokenizer(folder):
    return any((Path(folder) / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def _checkpoint(found, weights, n_layer):
    """The paper's training checkpoints and ours: flags and constants of each LN beside its weights."""
    flags = ["is_fake", "attn_v_is_fake"]
    real = [
        f"{name}, values" if flag == "attn_v_is_fake" else name
        for name in ln_names(n_layer)
        for flag in (flags if name.endswith("ln_1") else flags[:1])
        if not weights.values(f"{name}.{flag}")[0]
    ]
    if not real:
        found.format = "checkpoint"
        found.evidence.append(f"ln_f.is_fake and the like: all {2 * n_layer + 1} LNs divide by a constant")
    elif len(real) == 3 * n_layer + 1:
        found.evidence.append(
            "ln_f.is_fake and the like: every LN is still real (a control, or before the first removal)"
        )
        return
    else:
        found.format = "half removed"
        found.evidence.append(
            f"ln_f.is_fake and the like: {real[-1]} is still real, one of {len(real)} of {3 * n_layer + 1}"
        )
        return
    for name in ln_names(n_layer):
        average = weights.values(f"{name}.average_std_buffer")
        special = weights.values(f"{name}.bos_std_buffer")
        std = average[min(1, len(average) - 1)]
        apart = [x for x in (average[0], special[0], special[-1]) if x != std]
        if weights.values(f"{name}.bos_special_treatment")[0] and apart:
            found.problems.append(
                f"{name} still divides position 0 or end-of-text by {apart[0]:.4g} and others by {std:.4g}, "
                "which no matrix can express; lnfree export --ignore-special takes the latter everywhere"
            )
        if not (math.isfinite(std) and std > 0):
            found.problems.append(f"{name} divides by {std}")
        found.stds[name] = std


def _folded(found, config, weights):
    """No LN in the file: were γ, β and centring folded before they were left out?"""
    found.format = "folded"
    found.evidence.append("the file has no LN")
    if config.get("lnfree_format"):
        found.evidence.append(f"config.json: lnfree_format is {config['lnfree_format']}")
    _centred(found, weights)
    if not found.problems:
        found.notes.append(
            "ln_f's shift is in the last MLP's bias: that MLP's logit attribution and logit lenses before it "
            "are off by it; exporting the checkpoint as identity gives it its own place again"
        )


def _centred(found, weights):
    """Folding centres whatever writes to the residual stream: a matrix that is not centred was not folded."""
    width = weights.shape("wte.weight")[-1]
    off, size = 0.0, 0.0
    for name in ("wte.weight", "wpe.weight", "h.0.attn.c_proj.weight", "h.0.mlp.c_proj.weight"):
        values = weights.values(name, rows=64)
        for i in range(0, len(values), width):
            row = values[i : i + width]
            off += (sum(row) / width) ** 2
            size += sum(x * x for x in row) / width
    share = math.sqrt(off / size) if size else 0.0
    # 0.01 and more of a GPT-2 that is not folded; of a folded one rounding, 1e-3 at most of bfloat16.
    if share < 2e-3:
        found.evidence.append(
            f"what writes to the residual stream is centred (mean over root mean square: {share:.0e})"
        )
    else:
        found.problems.append(
            f"it has no LN, but γ, β and centring were not folded: what writes to the residual stream is not "
            f"centred (mean over root mean square: {share:.0e}); export it again from its checkpoint"
        )


def _norms(found, config, weights, norms):
    """LNs are in the file: real ones, or such as divide by a constant?"""
    eps = float(config["layer_norm_epsilon"])
    gains, betas = {}, {}
    for name in norms:
        gains[name] = weights.values(f"{name}.weight")
        betas[name] = weights.values(f"{name}.bias")
    infinite = next((n for n in norms if not all(map(math.isfinite, gains[n] + betas[n]))), None)
    middle = sorted(abs(x) for gain in gains.values() for x in gain)
    middle = middle[len(middle) // 2]
    wants = config.get("lnfree_format")
    plain = all(x == 1 for gain in gains.values() for x in gain) and not any(
        any(beta) for beta in betas.values()
    )
    if infinite:
        found.format = "scaled" if eps > 1 else "ordinary"
        found.evidence.append(f"ε is {eps:g}")
        found.problems.append(
            f"{infinite} is not finite: float16, whose largest number is 65504, does not hold the weights of "
            "about 1e6 of the scaled format; take float32 or bfloat16"
        )
    elif eps > 1:
        _divides(found, weights, norms, gains, betas, math.sqrt(eps), middle)
    elif wants == "folded" and plain:
        found.format = "folded"
        found.evidence.append(
            "config.json: lnfree_format is folded; the LNs in the file are fresh ones, γ = 1 and β = 0"
        )
        _centred(found, weights)
        found.notes.append(
            "a library loaded the folded model, made LNs that do not belong to it, and saved them: they are "
            "left out again"
        )
    elif middle > 1e3:
        found.format = "identity" if wants == "identity" else "scaled"
        found.evidence.append(f"median γ is {middle:.3g}")
        found.problems.append(
            f"ε was overwritten: median γ is {middle:.3g}, made for an ε of {middle ** 2:.0e} or so, while "
            f"layer_norm_epsilon is {eps:g}; give config.json its own again"
        )
    elif wants:
        found.format = wants if wants in FORMATS else "ordinary"
        found.evidence.append(f"config.json: lnfree_format is {wants}, ε is {eps:g}, median γ {middle:.3g}")
        found.problems.append(
            f"config.json says {wants}, but the LNs in the file are real: ε {eps:g}, median γ {middle:.3g}"
        )
    else:
        found.evidence.append(f"ε is {eps:g}, median γ {middle:.3g}, and no state of an LN in the file")
        steps = weights.metadata.get("fine_tuning_steps")
        if steps:
            found.evidence.append(f"the file's header: {steps} steps of fine-tuning (a vanilla control)")


def _divides(found, weights, norms, gains, betas, constant, middle):
    """ε is large: every LN is (x − mean)·γ/√ε + β."""
    identity = all(x == constant for gain in gains.values() for x in gain)
    identity = identity and not any(any(betas[name]) for name in norms[:-1])
    found.evidence.append(f"ε is {constant ** 2:g}: LNs divide by {constant:g}, whatever the variance")
    if identity:
        found.format = "identity"
        found.evidence.append(f"γ is {constant:g} in all LNs and β 0 in all but ln_f: they change nothing")
        _centred(found, weights)
        if found.problems:  # The LNs that are there centre it all the same.
            found.problems.clear()
            found.notes.append(
                "what writes to the residual stream is not centred; its LNs do that, and so does lnfree"
            )
    else:
        found.format = "scaled"
        found.evidence.append(f"median γ/√ε is {middle / constant:.3g}")
        if middle / constant < 1e-4:
            found.problems.append(
                f"γ was not scaled: its median is {middle:.3g}, while LNs divide by {constant:g}: "
                "every LN gives next to nothing"
            )
    if constant > 65504 or max(abs(x) for gain in gains.values() for x in gain) > 65504:
        found.notes.append(
            "as it is, not for float16, whose largest number is 65504; lnfree.load_… folds it first"
        )


def _head(found, config, weights):
    """The unembedding has ln_f's γ in it, and then is not the embedding."""
    if "lm_head.weight" in weights:
        if config["tie_word_embeddings"] and not weights.same("lm_head.weight", "wte.weight"):
            found.problems.append(
                "lm_head.weight is not wte.weight, but config.json ties them, so that libraries drop it; "
                'set "tie_word_embeddings": false'
            )
    elif not config["tie_word_embeddings"]:
        found.problems.append("config.json unties the unembedding, but lm_head.weight is missing")
    elif found.format == "folded":
        found.problems.append("the unembedding is tied to wte.weight: ln_f's γ cannot have been folded")
