#!/usr/bin/env python3
"""What lnfree's analyses find in a model, beside TransformerLens. `lens_equal.sh` calls this.

  lens_equal.py --lnfree BINARY --model MODEL --hf FOLDER
  lens_equal.py --lnfree BINARY --random-gpt2

BINARY is lnfree's example interp_dump. MODEL is what it loads, a folder or a name; FOLDER holds the same
model as a GPT2LMHeadModel. --random-gpt2 makes one of GPT-2 small's shape instead.

Both look at the same random tokens. TransformerLens does so with the weights as they are, with fold_ln, and
with all that from_pretrained does to them; beside the last stands what lnfree finds with weights that it has
processed itself. A difference is the largest absolute one over the largest value, or over 1 where that is
less. One above the limit is a failure, and so is what only one of the two has. Exit code 1 after any failure.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")
warnings.simplefilter("ignore")

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformer_lens import HookedTransformer, HookedTransformerConfig, head_detector, patching
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformers import GPT2Config, GPT2LMHeadModel

# It rounds the scores of `abs` to three digits, which would hide differences.
head_detector.round = lambda number, digits: number

LIMIT = 1e-4
OPTIONS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
FORMS = {"as it is": {}, "fold_ln": {"fold_ln": True}, "processed": dict.fromkeys(OPTIONS, True)}


def hooked(hf, **processing):
    """The HookedTransformer of a GPT2LMHeadModel."""
    its = hf.config
    sizes = dict(n_layers=its.n_layer, n_heads=its.n_head, n_ctx=its.n_positions, d_vocab=its.vocab_size)
    sizes |= dict(d_model=its.n_embd, d_head=its.n_embd // its.n_head, d_mlp=its.n_inner or 4 * its.n_embd)
    cfg = HookedTransformerConfig(
        **sizes,
        act_fn=its.activation_function,
        eps=its.layer_norm_epsilon,
        normalization_type="LN",
        original_architecture="GPT2LMHeadModel",
        device="cpu",
        init_weights=False,
    )
    model = HookedTransformer(cfg)
    processing = {option: processing.get(option, False) for option in OPTIONS}
    model.load_and_process_state_dict(convert_gpt2_weights(hf, cfg), **processing)
    return model.eval()


def random_texts(vocab, seed):
    """Clean tokens said twice, corrupted ones with the same first token, and a right and a wrong answer."""
    generator = torch.Generator().manual_seed(seed)
    tokens = lambda n: torch.randint(0, vocab, (4, n), generator=generator)
    half, corrupted, answers = tokens(6), tokens(12), tokens(2)
    corrupted[:, 0] = half[:, 0]
    return {"clean": half.repeat(1, 2), "corrupted": corrupted, "answers": answers}


def activations(cache, hf, form):
    """TransformerLens' cache, where it means something else as lnfree means it."""
    eps, ln_f = hf.config.layer_norm_epsilon, hf.transformer.ln_f
    # LNs that are the identity, γ = √ε: lnfree takes both for 1.
    identity = bool((ln_f.weight == eps**0.5).all())
    found = {}
    for name, x in cache.items():
        if name.endswith("hook_scale") and identity:
            x = x / eps**0.5
        if name.endswith("hook_normalized"):  # Before γ and β here, after them in lnfree.
            block = re.match(r"blocks\.(\d+)\.ln([12])", name)
            norm = getattr(hf.transformer.h[int(block[1])], f"ln_{block[2]}") if block else ln_f
            gamma, beta = norm.weight, norm.bias
            if form == "processed":  # What lnfree has left of them: the bias of ln_f, in units of its weight.
                gamma = torch.tensor(eps**0.5 if identity else 1.0)
                beta = beta * gamma / norm.weight if norm is ln_f else torch.tensor(0.0)
            x = x * gamma + beta
        if not name.startswith("unembed."):  # What ln_final hands on, and the logits.
            found[f"cache.{name}"] = comparable(name, x)
    return found


def comparable(name, x):
    """Attention scores without what is masked."""
    return x.tril() if name.endswith("attn_scores") else x


def decompositions(model, cache, texts):
    """The stream at the last position taken apart: stacks with their labels."""
    last = dict(pos_slice=-1, return_labels=True)
    _, first = model.run_with_cache(texts["clean"][:1])
    return {
        "accumulated_resid": cache.accumulated_resid(incl_mid=True, **last),
        "decompose_resid": cache.decompose_resid(**last),
        "stack_head_results": cache.stack_head_results(**last),
        "full_decomposition.heads": cache.get_full_resid_decomposition(expand_neurons=False, **last),
        "full_decomposition.neurons": first.get_full_resid_decomposition(expand_neurons=True, **last),
    }


def patches(model, cache, texts):
    """Activation patching of the mean logit difference."""
    metric = lambda logits: logit_difference(logits, texts).mean()
    of = lambda site: getattr(patching, f"get_act_patch_{site}")(model, texts["corrupted"], cache, metric)
    sites = ("resid_pre", "attn_out", "mlp_out", "attn_head_out_all_pos")
    return {f"patch.{site}": of(site) for site in sites}


def logit_difference(logits, texts):
    """Of each text, `[batch]`."""
    right, wrong = logits[:, -1].gather(1, texts["answers"]).unbind(1)
    return right - wrong


def attribution_patches(model, cache, texts):
    """Gradient in the corrupted run times what the clean one has more: `[layer, pos, .., batch]`."""
    sites = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
    layers = range(model.cfg.n_layers)
    names = {site.split("hook_")[1]: [f"blocks.{layer}.{site}" for layer in layers] for site in sites}
    wanted, seen = sum(names.values(), []), {}
    with torch.enable_grad():
        keep = lambda x, hook: seen.__setitem__(hook.name, x)
        logits = model.run_with_hooks(texts["corrupted"], fwd_hooks=[(lambda name: name in wanted, keep)])
        total = logit_difference(logits, texts).sum()
        gradients = dict(zip(wanted, torch.autograd.grad(total, [seen[name] for name in wanted])))
    effect = lambda name: (gradients[name] * (cache[name] - seen[name].detach())).sum(-1)
    stacked = lambda of_site: torch.stack([effect(name) for name in of_site]).movedim(1, -1)
    return {f"attribution_patch.{site}": stacked(of_site) for site, of_site in names.items()}


def detectors(model, cache, texts):
    """Scores `[layer, head]` of `detect_head`, which itself takes only texts that a tokenizer made."""
    similarity = head_detector.compute_head_attention_similarity_score
    patterns, found = [cache["pattern", layer] for layer in range(model.cfg.n_layers)], {}
    for kind in head_detector.HEAD_NAMES:
        wanted = getattr(head_detector, f"get_{kind}_detection_pattern")
        wanted = [wanted(text[None]) for text in texts["clean"]]
        for measure in ("mul", "abs"):
            for which, exclude_bos in (("all", False), ("without_bos", True)):
                options = dict(exclude_bos=exclude_bos, exclude_current_token=False, error_measure=measure)
                similar = lambda pattern, kind: similarity(pattern, detection_pattern=kind, **options)
                # The mean over texts of a head's patterns.
                score = lambda head: sum(map(similar, head, wanted)) / len(wanted)
                scores = [[score(head) for head in layer.unbind(1)] for layer in patterns]
                found[f"detect.{kind}.{measure}.{which}"] = torch.tensor(scores)
    return found


def reference(hf, form, texts):
    """What TransformerLens finds, and the labels of stacks."""
    model = hooked(hf, **FORMS[form])
    logits, cache = model.run_with_cache(texts["clean"])
    found = {"logits": logits, **activations(cache, hf, form)}
    stacks = decompositions(model, cache, texts)
    found |= {name: stack for name, (stack, _) in stacks.items()}
    found |= detectors(model, cache, texts)
    found |= patches(model, cache, texts)
    found |= attribution_patches(model, cache, texts)
    if form != "as it is":
        # As it is, TransformerLens leaves γ of ln_f out of attributions.
        heads, (right, wrong) = found["stack_head_results"], texts["answers"].unbind(1)
        found["logit_attrs.token"] = cache.logit_attrs(heads, right, pos_slice=-1)
        found["logit_attrs.difference"] = cache.logit_attrs(heads, right, wrong, pos_slice=-1)
        # lnfree takes γ into what reads, and the mean out of what writes.
        model = hooked(hf, fold_ln=True, center_writing_weights=True)
        found |= {f"composition.{kind}": model.all_composition_scores(kind) for kind in "QKV"}
    return found, {name: labels for name, (_, labels) in stacks.items()}


def ours(args, model, texts, folder):
    """What lnfree finds, and the labels of stacks."""
    given, out = Path(folder, "texts.safetensors"), Path(folder, "found.safetensors")
    save_file(texts, given)
    files = ["--model", str(model), "--in", str(given), "--out", str(out)]
    subprocess.run([args.lnfree, *files, "--device", args.device], check=True)
    with safe_open(out, "pt") as file:
        found = {name: comparable(name, file.get_tensor(name)) for name in file.keys()}
        # Beside them the format, which is no list.
        labels = {name.removeprefix("labels."): text.split(",") for name, text in file.metadata().items()}
    return found, labels


def difference(found, expected):
    """Infinite where they cannot be compared."""
    if found is None or found.shape != expected.shape:
        return float("inf")
    worst = float((found.double() - expected.double()).abs().max())
    return worst / max(1.0, float(expected.abs().max())) if worst == worst else float("inf")


def compared(args, folder):
    """Rows of the table by what they are of, all blocks together, and what lnfree alone has."""
    model, source = args.model, args.hf
    if args.random_gpt2:
        model = source = str(Path(folder, "gpt2"))
        torch.manual_seed(args.seed)
        GPT2LMHeadModel(GPT2Config()).save_pretrained(source)
    hf = GPT2LMHeadModel.from_pretrained(source).float().eval()
    texts = random_texts(hf.config.vocab_size, args.seed)
    found, labels = ours(args, model, texts, folder)
    # An LN as values see it is apart only while it is on its way out.
    rows, alone = {}, {name for name in found if ".ln1_v." not in name}
    for form in FORMS:
        expected, expected_labels = reference(hf, form, texts)
        mine = {name: f"processed.{name}" if form == "processed" else name for name in expected}
        for name, x in expected.items():
            row = rows.setdefault(re.sub(r"blocks\.\d+\.", "blocks.*.", name), {"largest": 0.0})
            row["shape"] = "×".join(map(str, x.shape))
            row["largest"] = max(row["largest"], float(x.abs().max()))
            same = labels.get(mine[name]) == expected_labels.get(name)
            row[form] = max(row.get(form, 0.0), difference(found.get(mine[name]), x) if same else float("inf"))
        alone.difference_update(mine.values())
    return rows, alone


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    for name in ("--lnfree", "--model", "--hf"):
        parser.add_argument(name, required=name == "--lnfree")
    parser.add_argument("--random-gpt2", action="store_true")
    parser.add_argument("--device", default="cpu", help="lnfree's; TransformerLens runs on the CPU")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.random_gpt2 == bool(args.model and args.hf):
        parser.error("give --model and --hf, or --random-gpt2")
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as folder:
        rows, alone = compared(args, folder)
    print(f"| what | shape | largest value | {' | '.join(FORMS)} | |")
    print("|---|---|---:|" + "---:|" * len(FORMS) + "---|")
    failed = 0
    for name, row in rows.items():
        cells = [f"{row[form]:.0e}" if form in row else "" for form in FORMS]
        equal = all(row.get(form, 0.0) <= LIMIT for form in FORMS)
        cells.append("equal" if equal else "**differs**")
        failed += not equal
        print(f"| {name} | {row['shape']} | {row['largest']:.3g} | {' | '.join(cells)} |")
    for name in sorted(alone):
        print(f"| {name} | | | | | **only lnfree has it** |")
    print(f"\n{len(rows) - failed} equal, {failed} differ, {len(alone)} in lnfree alone", file=sys.stderr)
    return 1 if failed or alone or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
