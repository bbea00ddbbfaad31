#!/usr/bin/env python3
"""The same work as `lnfree bench`, done with PyTorch and Hugging Face transformers. Prints one JSON object with the same keys.

  peer.py --task train --ln fake --baseline paper  --size gpt2 --batch-size 8 --accum 2 --dtype bfloat16
  peer.py --task train --ln real --baseline strong --size 6,6,192,4096 --batch-size 8 --seq 128
  peer.py --task eval  --ln real --baseline eager  --size gpt2-xl
  peer.py --task generate --size gpt2 --batch-size 8 --prompt 128 --new-tokens 128

--baseline paper   eager; the fake LN follows its running standard deviation on the host, once in every LN of every training
                   forward, as the paper's code does
--baseline eager   the same without that
--baseline strong  torch.compile, fused AdamW, and no statistics: what PyTorch can do today
All of them: SDPA attention, float32 parameters, bfloat16 by autocast. Random weights, random tokens, no dropout. A generation is
transformers' own `generate`: greedy, with its key-value cache, never ended early. Needs torch and transformers.
"""

import argparse
import json
import sys
import time

SIZES = {
    "gpt2": (12, 12, 768, 50257),
    "gpt2-medium": (24, 16, 1024, 50257),
    "gpt2-large": (36, 20, 1280, 50257),
    "gpt2-xl": (48, 25, 1600, 50257),
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", choices=["train", "eval", "generate"], default="eval")
    p.add_argument("--ln", choices=["real", "fake"], default="real")
    p.add_argument("--baseline", choices=["paper", "eager", "strong"], default="eager")
    p.add_argument("--size", default="gpt2", help="a published size, or LAYERS,HEADS,WIDTH,VOCABULARY")
    p.add_argument("--batch-size", type=int, default=8, help="sequences in a (micro-)batch")
    p.add_argument("--accum", type=int, default=1, help="micro-batches in an optimizer step")
    p.add_argument("--seq", type=int, default=1024)
    p.add_argument("--steps", type=int, default=10, help="timed")
    p.add_argument("--warmup", type=int, default=2, help="not timed")
    p.add_argument("--dtype", choices=["float32", "tf32", "bfloat16"], default="float32")
    p.add_argument("--checkpointing", action="store_true")
    p.add_argument("--aux-weight", type=float, default=0.0)
    p.add_argument("--compile-blocks", action="store_true", help="compile one block, not the whole model: starts sooner")
    p.add_argument("--prompt", type=int, default=128, help="tokens before those that --task generate writes")
    p.add_argument("--new-tokens", type=int, default=128, help="tokens that --task generate writes")
    p.add_argument("--device", default="auto")
    p.add_argument("--threads", type=int)
    return p.parse_args()


def main():
    a = arguments()
    if a.task == "generate":
        a.seq = a.prompt + a.new_tokens
    import torch

    if a.threads:
        torch.set_num_threads(a.threads)
    if a.device == "auto":
        a.device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        record = bench(a, torch)
    except RuntimeError as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in text or "out of memory" in text:
            sys.exit("out of memory: " + text.splitlines()[0])
        raise
    print(json.dumps(record))


def build(a, torch):
    from transformers import GPT2Config, GPT2LMHeadModel

    layers, heads, width, vocab = SIZES.get(a.size) or (int(n) for n in a.size.split(","))
    positions = max(a.seq, 1024) if a.size in SIZES else a.seq
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, n_positions=positions, vocab_size=vocab,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=a.task == "generate",
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )
    with torch.device(a.device):
        model = GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")
    if a.ln == "fake":
        fake = fake_ln(torch)
        host = a.baseline == "paper" and a.task == "train"
        gpt2 = model.transformer
        stds = measured_stds(torch, model, a.device)
        for block in gpt2.h:
            block.ln_1, block.ln_2 = (fake(ln, host, stds[ln]) for ln in (block.ln_1, block.ln_2))
        gpt2.ln_f = fake(gpt2.ln_f, host, stds[gpt2.ln_f])
    if a.checkpointing and a.task == "train":
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.to(a.device), [layers, heads, width, vocab]


def sigma(x, eps):
    return (x.float().var(-1, unbiased=False) + eps).sqrt()


def measured_stds(torch, model, device):
    """The mean σ that every LN of a random text sees."""
    stds = {}
    norms = [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]
    see = lambda ln, args: stds.update({ln: sigma(args[0], ln.eps).mean().item()})
    handles = [ln.register_forward_pre_hook(see) for ln in norms]
    with torch.no_grad():
        model(torch.randint(0, model.config.vocab_size, (1, min(64, model.config.n_positions)), device=device))
    for handle in handles:
        handle.remove()
    return stds


def fake_ln(torch):
    """(x − μ) / σ̄ ⊙ γ + β; with `host`, the running σ is fetched to the host in every forward."""

    class FakeLN(torch.nn.Module):
        def __init__(self, ln, host, std):
            super().__init__()
            self.weight, self.bias, self.eps, self.host = ln.weight, ln.bias, ln.eps, host
            self.register_buffer("std", torch.tensor(std, device=ln.weight.device))
            self.running = std

        def forward(self, x):
            if self.host:
                with torch.no_grad():
                    seen = sigma(x, self.eps).mean().item()
                self.running = 0.9 * self.running + 0.1 * seen
            return (x - x.mean(-1, keepdim=True)) / self.std * self.weight + self.bias

    return FakeLN


def compiled(a, torch, model):
    """What is called for a forward."""
    if a.baseline != "strong":
        return model
    if not a.compile_blocks:
        return torch.compile(model)
    for block in model.transformer.h:
        block.compile()
    return model


def train_step(a, torch, model, run, batches):
    model.train()
    fused = True if a.baseline == "strong" else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01, fused=fused)
    last = {}
    if a.aux_weight:
        model.transformer.ln_f.register_forward_pre_hook(lambda _, args: last.update(x=args[0]))

    def aux():
        seen = sigma(last["x"], 1e-5)
        return a.aux_weight * (seen - seen[:, 1:].detach().mean()).square().mean()

    def step(i):
        total = 0.0
        for j in range(a.accum):
            ids = batches[(i * a.accum + j) % len(batches)]
            with autocast(a, torch):
                loss = run(input_ids=ids, labels=ids).loss
                if a.aux_weight:
                    loss = loss + aux()
            (loss / a.accum).backward()
            total += loss.detach() / a.accum
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total.item()

    return step


def eval_step(a, torch, model, run, batches):
    model.eval()

    @torch.no_grad()
    def step(i):
        ids = batches[i % len(batches)]
        with autocast(a, torch):
            logits = run(input_ids=ids).logits
        logits, targets = logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
        return torch.nn.functional.cross_entropy(logits, targets, reduction="none").cpu().mean().item()

    return step


def generate_step(a, torch, model, run, batches):
    """New tokens after a prompt, greedily, with transformers' key-value cache; nothing ends a text early."""
    model.eval()
    new = a.new_tokens

    @torch.no_grad()
    def step(i):
        prompt = batches[i % len(batches)][:, : a.prompt]
        with autocast(a, torch):
            run.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=new, min_new_tokens=new, do_sample=False)
        return float("nan")

    return step


def autocast(a, torch):
    return torch.autocast(a.device.split(":")[0], torch.bfloat16, enabled=a.dtype == "bfloat16")


def matrix_peak(a, torch):
    """As `lnfree bench` measures it."""
    n = 2048 if a.device == "cpu" else 8192
    x = torch.randn(n, n, device=a.device, dtype=torch.bfloat16 if a.dtype == "bfloat16" else torch.float32)
    y, best = x.clone(), float("inf")
    for _ in range(8):
        started = time.perf_counter()
        (x @ y)[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


class Memory:
    """The most that was held: by tensors on a GPU, by the process on a CPU."""

    def __init__(self, device, torch):
        self.cuda = torch.cuda if device != "cpu" else None
        if self.cuda:
            self.cuda.reset_peak_memory_stats()
            return
        try:
            with open("/proc/self/clear_refs", "w") as refs:
                refs.write("5")
        except OSError:
            pass

    def peak_gib(self):
        if self.cuda:
            return self.cuda.max_memory_allocated() / 2**30
        with open("/proc/self/status") as status:
            kib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
        return kib / 2**20


def bench(a, torch):
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = a.dtype == "tf32"
    peak = matrix_peak(a, torch)
    model, shape = build(a, torch)
    layers, _, width, vocab = shape
    batches = [torch.randint(0, vocab, (a.batch_size, a.seq), device=a.device) for _ in range(4)]
    steps = {"train": train_step, "eval": eval_step, "generate": generate_step}[a.task]
    step = steps(a, torch, model, compiled(a, torch, model), batches)
    for i in range(a.warmup):
        step(i)
    memory, times = Memory(a.device, torch), []
    for i in range(a.steps):
        started = time.perf_counter()
        # The loss is read back, and so the device waited for; decoding has none.
        loss = step(a.warmup + i)
        if a.device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    times.sort()
    median = times[len(times) // 2]
    accum = a.accum if a.task == "train" else 1
    generating = a.task == "generate"
    tokens = a.batch_size * accum * (a.new_tokens if generating else a.seq)
    # As `lnfree bench` counts: a forward of every token, or of all but the last one written; backward takes twice as much again.
    n = a.seq - 1 if generating else a.seq
    forward = n * (2 * (12 * layers * width**2 + vocab * width) + 2 * layers * width * (n + 1))
    if generating:  # a prompt needs no logits, but for its last token
        forward -= (a.prompt - 1) * 2 * vocab * width
    flop_per_s = a.batch_size * accum * forward * (3 if a.task == "train" else 1) / median
    peak = max(peak, matrix_peak(a, torch))
    return {
        "task": a.task, "ln": a.ln, "shape": shape, "device": device_name(a.device, torch), "dtype": a.dtype,
        "batch_size": a.batch_size, "accumulation": accum, "seq": a.seq, "prompt": a.prompt if generating else 0,
        "checkpointing": a.checkpointing and a.task == "train", "aux_weight": a.aux_weight if a.task == "train" else 0.0,
        "median_step_s": median, "min_step_s": times[0], "tokens_per_s": tokens / median, "flop_per_s": flop_per_s,
        "matrix_peak": peak, "share_of_peak": flop_per_s / peak, "peak_gib": memory.peak_gib(),
        "loss": None if loss != loss else loss,
    }  # fmt: skip


def device_name(device, torch):
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    with open("/proc/cpuinfo") as info:
        name = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "CPU")
    return f"{name}, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
