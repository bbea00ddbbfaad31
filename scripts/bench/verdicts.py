#!/usr/bin/env python3
"""Judges the lines that bench.sh wrote: a line for each check, with tabs between its name, `ok`, `FAILED` or `skipped`, and what was found.

  verdicts.py RESULTS.jsonl PLAN.txt      PLAN: what `lnfree eval-all --dry-run` says, for the tokens of the whole study
"""
import json
import re
import sys
from collections import defaultdict
from statistics import median

OURS = "lnfree"
SIZES = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
# XL has to fit 48 GB, as the paper's runs did not.
LIMIT_GIB = 48e9 / 2**30


def read(path):
    """Records by (size, task, ln, dtype, texts), then by program; and what failed, by program."""
    rates, failures, records = defaultdict(lambda: defaultdict(list)), [], []
    with open(path) as lines:
        for line in filter(str.strip, lines):
            line = json.loads(line)
            program, size = line["program"], line["size"]
            if "error" in line:
                error = line["error"]
                failures.append((program, f"{size}, {error['task']}, LN {error['ln']}, {error['dtype']}", error["why"]))
                continue
            record = line["record"]
            texts = record["batch_size"] if record["task"] == "generate" else None
            rates[size, record["task"], record["ln"], record["dtype"], texts][program].append(record["tokens_per_s"])
            records.append((program, size, record))
    return rates, failures, records


def is_ours(program):
    return program.split(",")[0] == OURS


def races(rates):
    """Ours beside each peer at the same task."""
    for (size, task, ln, dtype, texts), programs in rates.items():
        peers = {program: median(values) for program, values in programs.items() if not is_ours(program)}
        if OURS not in programs or not peers:
            continue
        ours = median(programs[OURS])
        beside = ", ".join(f"{ours / rate:.2f} x {program}" for program, rate in peers.items())
        what = f"{size}, {task}{f' {texts} texts' if texts else ''}, LN {ln}, {dtype}"
        won = all(ours >= rate for rate in peers.values())
        yield "speed", "ok" if won else "FAILED", f"{what}: {ours:,.0f} tokens/s, {beside}"


def own_failures(failures):
    for program, what, why in failures:
        if is_ours(program):
            # What there was no time for is no fault of the program.
            yield "speed", "skipped" if why == "no time left" else "FAILED", f"{what}, {program}: {why}"


def within_48_gb(records):
    held = [(program, record["peak_gib"]) for program, _, record in records if "6 at a time" in program and record["peak_gib"]]
    if not held:
        yield "xl memory", "skipped", "XL was not trained with 6 sequences at a time"
    for program, gib in held:
        yield "xl memory", "ok" if gib <= LIMIT_GIB else "FAILED", f"{program}: {gib:.1f} GiB of {LIMIT_GIB:.1f} GiB (48 GB)"


def planned(records):
    """Whether training holds about what the plan counts on: too little planned ends runs, too much makes them slow."""
    for program, size, record in records:
        plan, held = record.get("planned_gib"), record.get("peak_gib")
        if plan and held and program == OURS and size in SIZES:
            word = "ok" if held <= plan * 1.05 else "FAILED"
            yield "plan", word, f"{size}, LN {record['ln']}: {held:.1f} GiB held, {plan:.1f} GiB planned"


def projection(rates, plan):
    """How long eval_all takes by these rates; every size has as many models."""
    sequences = sum(int(n) for n in re.findall(r": (?:about )?(\d+) sequences", plan))
    models = re.search(r": (\d+) models", plan)
    for dtype in ["tf32", "bfloat16", "float32"]:
        found = [rates.get((size, "eval", "real", dtype, None), {}).get(OURS) for size in SIZES]
        if sequences and models and all(found):
            tokens = sequences * 1024 * int(models[1]) / len(SIZES)
            seconds = sum(tokens / median(values) for values in found)
            yield "eval_all", "ok", f"{4 * tokens / 1e6:.0f}M tokens in {dtype}: {seconds / 60:.0f} minutes, downloads and preparation apart"
            return
    yield "eval_all", "skipped", "not every size was evaluated"


def main():
    rates, failures, records = read(sys.argv[1])
    with open(sys.argv[2]) as file:
        plan = file.read()
    lines = [*races(rates), *own_failures(failures), *planned(records), *within_48_gb(records), *projection(rates, plan)]
    if not records:
        lines.insert(0, ("bench", "FAILED", "nothing was measured"))
    for line in lines:
        print("\t".join(line))


if __name__ == "__main__":
    main()
