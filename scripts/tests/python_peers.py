#!/usr/bin/env python3
"""LN-free models in the libraries that read them. `python_peers.sh` makes the environments and calls this.

  python_peers.py prepare OUT        writes nano and a tiny model in every format
  python_peers.py check MODEL OUT    runs the checks of every library that can be imported
  python_peers.py table OUT          prints what was found as a table; exit code 1 if what must hold does not

Each model is loaded by the line that people write for the library ("habitual") and by the package's own
("lnfree"), and compared with a GPT-2 in float64 written out in lnfree/python/lnfree/_reference.py.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lnfree/python/tests"))
FORMATS = ("identity", "scaled", "folded", "checkpoint")
LIMIT = 1e-5


def prepare(out):
    import formats

    nano = formats.Model(ROOT / "data/nano_LNFree200")
    tiny = formats.tiny(out / "tiny/source")
    for name, model, tokenizer in (("nano", nano, ROOT / "data/nano"), ("tiny", tiny, out / "tiny/source")):
        for form in FORMATS:
            model.write(form, out / name / form, tokenizer=tokenizer)
        if name == "nano" and os.environ.get("LNFREE"):
            export(os.environ["LNFREE"], model.folder, out / name)
        # A hub of one model: what a library asks of `gpt2` it finds there, with an ordinary ε.
        for repository in ("models--gpt2", "models--openai-community--gpt2"):
            home = out / name / "hub" / repository
            shutil.rmtree(home, ignore_errors=True)
            snapshot = home / "snapshots" / ("0" * 40)
            snapshot.parent.mkdir(parents=True)
            (home / "refs").mkdir()
            (home / "refs/main").write_text("0" * 40)
            model.write("folded", snapshot, tokenizer=tokenizer, lnfree_format=None)
    return 0


def export(program, source, out):
    """lnfree's own exports in the place of those written here; it writes no checkpoint of a model."""
    for form in FORMATS[:3]:
        shutil.rmtree(out / form)
        subprocess.run([program, "export", source, "--format", form, "--out", out / form], check=True)


class Tool:
    """What is asked of a library. `ids` are `[batch, pos]`, logits `[batch, pos, vocab]`."""

    packages = ()
    generates = True
    """Whether people's own line is known to generate what the model says."""

    @classmethod
    def version(cls):
        return ", ".join(f"{name} {version(name)}" for name in cls.packages)

    @staticmethod
    def of_parts(parts, unembed):
        """The sum of what each part of the residual stream adds to the logits, and what they are without."""
        import torch

        base = unembed(torch.zeros_like(parts[0]))
        return base + sum(unembed(part) - base for part in parts)


class Transformers(Tool):
    packages = ("transformers",)
    own = "lnfree.load_transformers(DIR)"
    right = ("identity", "scaled")
    line = "AutoModelForCausalLM.from_pretrained(DIR)"

    def habitual(self, folder):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder).eval()

    def lnfree(self, folder):
        import lnfree

        return lnfree.load_transformers(folder)

    def logits(self, model, ids):
        return model(ids).logits

    def entries(self, model, ids):
        return len(model(ids, output_hidden_states=True).hidden_states) == model.config.n_layer + 1

    def attribution(self, model, ids):
        parts, t = [], model.transformer
        first = lambda module, args, out: parts.append(out[0] if isinstance(out, tuple) else out) or None
        modules = [t.wte, *(m for block in t.h for m in (block.attn, block.mlp))]
        hooks = [module.register_forward_hook(first) for module in modules]
        model(ids)
        for hook in hooks:
            hook.remove()
        parts.append(t.wpe.weight[: ids.shape[1]].expand_as(parts[0]))
        return self.of_parts(parts, lambda x: model.lm_head(t.ln_f(x)))

    def ablated(self, model, ids, layer):
        hook = model.transformer.h[layer].mlp.register_forward_hook(lambda module, args, out: out * 0)
        logits = model(ids).logits
        hook.remove()
        return logits

    def generated(self, model, ids, n):
        return model.generate(
            ids, attention_mask=ids * 0 + 1, max_new_tokens=n, min_new_tokens=n, do_sample=False
        )


class Hooked(Tool):
    """What HookedTransformer and TransformerBridge have in common."""

    right = ()

    def logits(self, model, ids):
        return model(ids)

    def entries(self, model, ids):
        _, cache = model.run_with_cache(ids)
        names = ["hook_embed", "hook_pos_embed", "ln_final.hook_scale", "ln_final.hook_normalized"]
        for layer in range(model.cfg.n_layers):
            hooks = (
                "hook_resid_pre",
                "hook_resid_mid",
                "hook_resid_post",
                "hook_attn_out",
                "hook_mlp_out",
                "attn.hook_q",
                "attn.hook_k",
                "attn.hook_v",
                "attn.hook_z",
                "attn.hook_pattern",
                "attn.hook_attn_scores",
                "mlp.hook_pre",
                "mlp.hook_post",
                "ln1.hook_scale",
                "ln1.hook_normalized",
                "ln2.hook_scale",
                "ln2.hook_normalized",
            )
            names += [f"blocks.{layer}.{hook}" for hook in hooks]
        missing = [name for name in names if name not in cache]
        heads = cache["blocks.0.attn.hook_z"].shape[2:]
        return not missing and tuple(heads) == (model.cfg.n_heads, model.cfg.d_head)

    def attribution(self, model, ids):
        import torch

        _, cache = model.run_with_cache(ids)
        stack = cache.decompose_resid(layer=-1, apply_ln=True)
        # Of the token that follows, as people do; the logits of the rest are not looked at.
        attributed = sum(stack[i] @ model.W_U for i in range(stack.shape[0])) + model.b_U
        logit_attrs = cache.logit_attrs(cache.decompose_resid(layer=-1), ids).sum(0) + model.b_U[ids]
        own = attributed.gather(-1, ids[..., None])[..., 0]
        if not torch.allclose(logit_attrs, own, atol=1e-4 * float(own.abs().max())):
            return attributed * float("nan")
        return attributed

    def ablated(self, model, ids, layer):
        hooks = [(f"blocks.{layer}.hook_mlp_out", lambda x, hook: x * 0)]
        return model.run_with_hooks(ids, fwd_hooks=hooks)

    def generated(self, model, ids, n):
        return model.generate(
            ids, max_new_tokens=n, do_sample=False, stop_at_eos=False, return_type="tokens", verbose=False
        )


def plain(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


class HookedTransformer(Hooked):
    packages = ("transformer-lens", "transformers")
    own = "lnfree.load_hooked_transformer(DIR)"
    line = 'HookedTransformer.from_pretrained("gpt2", hf_model=…)'

    def __init__(self):
        from transformer_lens import HookedTransformer

        self.cls = HookedTransformer

    def habitual(self, folder):
        return self.cls.from_pretrained("gpt2", hf_model=plain(folder), device="cpu")

    def patched(self, folder):
        model = self.habitual(folder)
        eps = json.loads((folder / "config.json").read_text())["layer_norm_epsilon"]
        for norm in [model.ln_final, *(ln for block in model.blocks for ln in (block.ln1, block.ln2))]:
            norm.eps = eps
        return model

    def lnfree(self, folder):
        import lnfree

        return lnfree.load_hooked_transformer(folder, cls=self.cls)


class Sae(HookedTransformer):
    packages = ("sae-lens", "transformer-lens")
    own = "lnfree.load_hooked_transformer(DIR, cls=…)"
    line = 'HookedSAETransformer.from_pretrained("gpt2", hf_model=…)'

    def __init__(self):
        from sae_lens import HookedSAETransformer

        self.cls = HookedSAETransformer

    def entries(self, model, ids):
        """Its own business as well: an SAE in a hook, whose reconstruction goes on through the model."""
        import torch
        from sae_lens import StandardSAE, StandardSAEConfig
        from sae_lens.saes.sae import SAEMetadata

        name = "blocks.1.hook_resid_pre"
        config = StandardSAEConfig(d_in=model.cfg.d_model, d_sae=8, metadata=SAEMetadata(hook_name=name))
        sae = StandardSAE(config)
        torch.nn.init.normal_(sae.W_dec)
        torch.nn.init.normal_(sae.W_enc)
        with_sae = model.run_with_saes(ids, saes=[sae])
        by_hand = model.run_with_hooks(ids, fwd_hooks=[(name, lambda x, hook: sae(x))])
        _, cache = model.run_with_cache_with_saes(ids, saes=[sae])
        return (
            super().entries(model, ids)
            and torch.allclose(with_sae, by_hand, atol=1e-4)
            and (f"{name}.hook_sae_acts_post" in cache)
        )


class Bridge(Hooked):
    packages = ("transformer-lens", "transformers")
    own = "lnfree.load_bridge(DIR)"
    right = ("identity", "scaled")
    # 3.9 and 4.3 do not find the cache of transformers 5.24, so that every token attends to itself alone, of
    # any GPT-2. lnfree.load_bridge hands it to them.
    generates = False
    line = "TransformerBridge.boot_transformers(DIR).enable_compatibility_mode()"

    def __init__(self):
        from transformer_lens.model_bridge import TransformerBridge

        self.cls = TransformerBridge

    def habitual(self, folder):
        model = self.cls.boot_transformers(str(folder), device="cpu")
        model.enable_compatibility_mode(disable_warnings=True)
        return model

    def lnfree(self, folder):
        import lnfree

        return lnfree.load_bridge(folder)


class Nnsight(Tool):
    packages = ("nnsight", "transformers")
    own = "lnfree.load_nnsight(DIR)"
    right = ("identity", "scaled")
    line = "LanguageModel(DIR, dispatch=True)"
    nnterp = False

    def __init__(self):
        from nnsight import LanguageModel

        self.cls = LanguageModel

    def habitual(self, folder):
        return self.cls(str(folder), dispatch=True)

    def lnfree(self, folder):
        import lnfree

        return lnfree.load_nnsight(folder, nnterp=self.nnterp)

    def logits(self, model, ids):
        with model.trace(ids):
            logits = model.lm_head.output.save()
        return logits

    def entries(self, model, ids):
        with model.trace(ids):
            x = model.transformer.h[0].mlp.output.save()
            normed = model.transformer.ln_f.output.save()
        return x.shape == normed.shape == (*ids.shape, model._module.config.n_embd)

    def attribution(self, model, ids):
        parts = []
        with model.trace(ids):
            parts.append(model.transformer.wte.output.save())
            parts.append(model.transformer.wpe.output.save())
            for block in model.transformer.h:
                parts.append(block.attn.output[0].save())
                parts.append(block.mlp.output.save())
        inner = model._module
        parts[1] = parts[1].expand_as(parts[0])
        return self.of_parts(parts, lambda x: inner.lm_head(inner.transformer.ln_f(x)))

    def ablated(self, model, ids, layer):
        with model.trace(ids):
            model.transformer.h[layer].mlp.output[:] = 0
            logits = model.lm_head.output.save()
        return logits

    def generated(self, model, ids, n):
        with model.generate(ids, max_new_tokens=n, min_new_tokens=n, do_sample=False):
            out = model.generator.output.save()
        return out


class Nnterp(Nnsight):
    packages = ("nnterp", "nnsight")
    own = "lnfree.load_nnsight(DIR, nnterp=True)"
    line = "StandardizedTransformer(DIR)"
    nnterp = True

    def __init__(self):
        from nnterp import StandardizedTransformer

        self.cls = StandardizedTransformer

    def habitual(self, folder):
        return self.cls(str(folder), device_map="cpu")

    def logits(self, model, ids):
        with model.trace(ids):
            logits = model.logits.save()
        return logits

    def entries(self, model, ids):
        with model.trace(ids):
            x = model.layers_output[0].save()
            lens = model.project_on_vocab(model.layers_output[0]).save()
        return x.shape[:2] == lens.shape[:2] == ids.shape

    def attribution(self, model, ids):
        parts = []
        with model.trace(ids):
            parts.append(model.token_embeddings.save())
            for layer in range(model.num_layers):
                parts.append(model.attentions_output[layer].save())
                parts.append(model.mlps_output[layer].save())
        inner = model._module
        parts.append(inner.transformer.wpe.weight[: ids.shape[1]].expand_as(parts[0]))
        return self.of_parts(parts, lambda x: inner.lm_head(inner.transformer.ln_f(x)))

    def ablated(self, model, ids, layer):
        import torch

        with model.trace(ids):
            model.mlps_output[layer] = torch.zeros_like(model.mlps_output[layer])
            logits = model.logits.save()
        return logits


TOOLS = (Transformers, HookedTransformer, Bridge, Nnsight, Nnterp, Sae)


def check(name, out):
    """Everything in one environment, of one model; a JSON object a line."""
    import torch

    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    only = os.environ.get("PEERS_ONLY", "").split()
    for tool in TOOLS:
        # Only what this environment is for: every library brings transformers, and SAELens transformer-lens.
        if tool.__name__ not in only:
            continue
        try:
            tool = tool()
        except (ImportError, PackageNotFoundError) as e:
            print(f"{tool.__name__}: cannot be imported: {e}", file=sys.stderr)
            sys.exit(1)
        for form in FORMATS:
            for line in ("habitual", "patched", "lnfree"):
                if hasattr(tool, line):
                    print(json.dumps(examine(tool, name, form, line, out / name / form)), flush=True)
    return 0


def examine(tool, name, form, line, folder):
    import torch

    import lnfree

    row = {
        "tool": type(tool).__name__,
        "version": tool.version(),
        "model": name,
        "format": form,
        "line": line,
        "code": {"habitual": f"`{tool.line}`", "patched": "the same, ε set", "lnfree": f"`{tool.own}`"}[line],
    }
    row["must"] = line == "lnfree" or form in (("identity", "scaled") if line == "patched" else tool.right)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    ids = torch.arange(2 * 20).reshape(2, 20) * 7919 % vocab
    centred = lambda x: (x - x.mean(-1, keepdim=True)).double()
    expected = lnfree.reference_logits(folder, ids)
    size = float(expected.abs().max())
    off = lambda a, b: float((centred(a) - centred(b)).abs().max()) / size
    try:
        model = getattr(tool, line)(folder)
        logits = tool.logits(model, ids)
        row["logits"] = off(logits, expected)
        try:
            lnfree.check(model, folder)
            row["check"] = "passes"
        except lnfree.LnFreeError as e:
            row["check"] = str(e)
        row["cache"] = bool(tool.entries(model, ids))
        row["attribution"] = off(tool.attribution(model, ids), logits)
        row["ablation"] = off(
            tool.ablated(model, ids, 0), lnfree.reference_logits(folder, ids, without_mlp=0)
        )
        start = ids[:1, :5]
        greedy = start
        for _ in range(8):
            greedy = torch.cat([greedy, lnfree.reference_logits(folder, greedy)[:, -1:].argmax(-1)], 1)
        row["generation"] = bool((torch.as_tensor(tool.generated(model, start, 8)) == greedy).all())
    except Exception as e:  # Of any library: a line of the table as well.
        if row["must"] and os.environ.get("PEERS_RAISE"):
            raise
        row["error"] = f"{type(e).__name__}: {e}".splitlines()[0][:200]
    figures = [row.get(key, float("nan")) for key in ("logits", "attribution", "ablation")]
    row["right"] = all(x <= LIMIT for x in figures) and row.get("cache", False)
    row["right"] = row["right"] and (row["generation"] or line == "habitual" and not tool.generates)
    # What is wrong must at least be found.
    row["found"] = row["right"] == (row.get("check") == "passes") or "error" in row
    return row


def figure(row):
    """How far the logits are off; in bold what is wrong."""
    if "logits" not in row:
        return "**fails**"
    return f"{row['logits']:.0e}" if row["logits"] <= LIMIT else f"**{row['logits']:.0e}**"


def table(out):
    lines = [line for file in sorted(out.glob("*.jsonl")) for line in file.read_text().splitlines()]
    # Some libraries print what they load.
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    names = ["library", "line", *FORMATS, "attribution", "ablation", "cache", "generation"]
    print("| " + " | ".join(names) + " |\n|---|---|" + 6 * "---:|" + "---|---|")
    groups = {}
    for row in rows:
        if row["model"] == "nano":
            groups.setdefault((row["version"], row["code"]), {})[row["format"]] = row
    for key, of in groups.items():
        # Of what the line loads right.
        loaded = [row for row in of.values() if row.get("check") == "passes"]
        worst = lambda name: f"{max(row.get(name, 9e9) for row in loaded):.0e}" if loaded else "–"
        every = lambda name: ("yes" if all(row.get(name) for row in loaded) else "**no**") if loaded else "–"
        cells = [figure(of[form]) for form in FORMATS]
        cells += [worst("attribution"), worst("ablation"), every("cache"), every("generation")]
        print("| " + " | ".join([*key, *cells]) + " |")
    bad = [row for row in rows if row["must"] and not row["right"] or not row["found"]]
    for row in bad:
        print(f"FAILED: {row}", file=sys.stderr)
    print(f"\n{len(rows) - len(bad)} passed, {len(bad)} failed", file=sys.stderr)
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    where = Path(arguments[-1]).resolve()
    sys.exit(
        {"prepare": prepare, "table": table}[what](where) if what != "check" else check(arguments[0], where)
    )
