#!/usr/bin/env python3
"""Times TransformerLens (HookedTransformer, before 4) at what `cargo run --release --example interp_bench` times.

    lens_peer.py [--size gpt2|nano] [--threads 2] [--rounds 3]

Prints one JSON object: median seconds, after a round that is not counted, for 8 texts of 16 random tokens and
random weights.
"""
import argparse
import json
import statistics
import time

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig, patching

SHAPES = {"gpt2": (12, 12, 768, 1024, 50257), "nano": (6, 4, 128, 128, 4096)}
TEXTS, POSITIONS = 8, 16


def timed(rounds, work):
    work()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SHAPES, default="gpt2")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    n_layer, n_head, n_embd, n_ctx, vocab = SHAPES[args.size]
    model = HookedTransformer(
        HookedTransformerConfig(
            n_layers=n_layer, n_heads=n_head, d_model=n_embd, d_head=n_embd // n_head, n_ctx=n_ctx, d_vocab=vocab,
            act_fn="gelu_new", normalization_type="LNPre", seed=0,
        )
    ).eval()
    clean, corrupted = (torch.randint(0, vocab, (TEXTS, POSITIONS)) for _ in range(2))
    right, wrong = torch.randint(0, vocab, (TEXTS, 2)).T
    rows = torch.arange(TEXTS)

    def difference(logits):
        return (logits[rows, -1, right] - logits[rows, -1, wrong]).mean()

    def of_stream(name):
        return name.endswith("hook_resid_pre")

    def attribution():
        _, cache = model.run_with_cache(clean, names_filter=of_stream)
        seen, slopes = {}, {}
        hooks = ("fwd", seen), ("bwd", slopes)
        model.reset_hooks()
        for direction, kept in hooks:
            keep = lambda x, hook, kept=kept: kept.__setitem__(hook.name, x.detach())
            model.add_hook(of_stream, keep, direction)
        difference(model(corrupted)).backward()
        model.reset_hooks()
        model.zero_grad()
        return torch.stack([(slopes[name] * (cache[name] - seen[name])).sum(-1) for name in seen])

    def heads():
        _, cache = model.run_with_cache(clean)
        stack = cache.stack_head_results(layer=-1, pos_slice=-1)
        return cache.logit_attrs(stack, tokens=right, pos_slice=-1, has_batch_dim=True)

    found = {"program": "transformer_lens", "torch": torch.__version__, "size": args.size, "threads": args.threads}
    with torch.no_grad():
        found["run_with_cache_s"] = timed(args.rounds, lambda: model.run_with_cache(clean))
        _, cache = model.run_with_cache(clean)
        patch = lambda: patching.get_act_patch_resid_pre(model, corrupted, cache, difference)
        found["act_patch_resid_pre_s"] = timed(args.rounds, patch)
        found["head_logit_attrs_s"] = timed(args.rounds, heads)
    found["attribution_patch_resid_pre_s"] = timed(args.rounds, attribution)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
