//! What runs, evaluations, studies and benchmarks leave behind.

use lnfree::Result;
use lnfree::bench::bench_table;
use lnfree::data::Provenance;
use lnfree::report::{read_eval, read_run};
use lnfree::stds::StdDict;
use lnfree::suite::Settings;

use super::USUAL;
use crate::parts::parts;
use crate::{Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "run", read: run, words: RUN, limits: USUAL },
    Target { name: "metrics", read: metrics, words: RUN, limits: USUAL },
    Target { name: "eval", read: eval, words: EVAL, limits: USUAL },
    Target { name: "stds", read: stds, words: STDS, limits: USUAL },
    Target { name: "study", read: study, words: STUDY, limits: USUAL },
    Target { name: "bench", read: bench, words: BENCH, limits: USUAL },
    Target { name: "provenance", read: provenance, words: PROVENANCE, limits: USUAL },
];

const RUN: &[&str] = &[
    "\"mode\":\"without_ln\"",
    "\"model\":",
    "\"started\":",
    "\"device\":",
    "\"data\":",
    "{\"event\":\"remove\",\"step\":1,",
    "\"kind\":\"ln2\"",
    "\"kind\":\"lnf\"",
    "\"layer\":null",
    "{\"event\":\"eval\",\"step\":2,\"loss\":3.5}\n",
    "\"event\":\"eval_failed\"",
    "\"step\":",
    "\"loss\":",
    "\"ce_loss\":",
    "\"aux_loss\":",
    "\"lr\":",
    "\"grad_norm\":",
    "\"tokens_per_s\":",
    "\"stds\":{\"h.0.ln_1\":1.5}",
    "\"ln_f\":",
    "[train]\n",
];

/// run.json, config.toml and metrics.jsonl.
fn run(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [info, config, metrics] = parts(input);
    scratch.write("run/run.json", info);
    scratch.write("run/config.toml", config);
    scratch.write("run/metrics.jsonl", metrics);
    read_run(scratch.file("run")).map(drop)
}

/// metrics.jsonl of a run whose other files are as they should be.
fn metrics(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.once("logged/run.json", || b"{\"mode\":\"without_ln\"}".to_vec());
    scratch.once("logged/config.toml", || b"[train]\nseed = 1\n".to_vec());
    scratch.write("logged/metrics.jsonl", input);
    let run = read_run(scratch.file("logged"))?;
    assert!(!run.steps.is_empty() && run.steps.is_sorted_by_key(|step| step.step));
    Ok(())
}

const EVAL: &[&str] = &[
    "\"model\":",
    "\"format\":",
    "\"dataset\":",
    "\"mean\":",
    "\"median\":",
    "\"ranges\":{\"95\":[0.1,2.0]}",
    "\"n_sequences\":",
    "\"by_position\":[{\"from\":0,\"to\":1,\"mean\":null}]",
    "\"worst\":[{\"sequence\":1,\"mean\":2.0}]",
    "\"mean_interval\":[1,2]",
    "\"calibration_error\":",
    "\"entropy\":",
    "\"label\":",
    "\"dtype\":",
    "\"seconds\":",
    "\"peak_memory\":",
];

fn eval(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read_eval(scratch.write("eval.json", input)).map(drop)
}

const STDS: &[&str] = &[
    "\"std_dict\":{",
    "\"std_bos_dict\":{",
    "\"blocks.0.hook_resid_pre\":",
    "\"blocks.0.hook_resid_mid\":",
    "\"blocks.0.hook_resid_post\":",
];

fn stds(scratch: &Scratch, input: &[u8]) -> Result<()> {
    StdDict::read(&scratch.write("std.json", input))?.initial(1).map(drop)
}

const STUDY: &[&str] =
    &["\"suite\":", "\"limit\":", "\"batch_size\":", "\"dtype\":\"float32\"", "\"device\":"];

fn study(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.write("study/suite.json", input);
    Settings::read(&scratch.file("study")).map(drop)
}

const BENCH: &[&str] = &[
    "\"program\":\"lnfree\"",
    "\"size\":\"nano\"",
    "\"task\":\"train\"",
    "\"ln\":",
    "\"shape\":[4,4,128,4096]",
    "\"device\":\"cpu\"",
    "\"dtype\":",
    "\"tokens_per_s\":",
    "\"share_of_peak\":",
    "\"matrix_peak\":",
    "\"error\":",
    "\"why\":",
    "\n",
];

fn bench(scratch: &Scratch, input: &[u8]) -> Result<()> {
    bench_table(&scratch.write("bench.jsonl", input), true).map(drop)
}

const PROVENANCE: &[&str] = &[
    "\"dataset\":",
    "\"source\":",
    "\"split\":",
    "\"max_sequences\":",
    "\"block_size\":",
    "\"tokenizer\":",
    "\"scheme\":",
    "\"commit\":",
    "\"files\":[",
    "\"documents\":",
    "\"tokens\":",
    "\"recipe\":",
];

/// The JSON beside a prepared token file; one that cannot be read counts as none.
fn provenance(scratch: &Scratch, input: &[u8]) -> Result<()> {
    scratch.write("prepared.json", input);
    match Provenance::of(&scratch.file("prepared.arrow")) {
        Some(found) => {
            let _ = found.to_string();
            Ok(())
        }
        None => Err(lnfree::Error::invalid("none")),
    }
}
