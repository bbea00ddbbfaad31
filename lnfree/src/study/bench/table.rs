//! What `scripts/bench.sh` wrote down, as a table.

mod layout;
mod results;

use std::path::Path;

use layout::{COLUMNS, Row, as_columns, as_markdown, flops, seconds, thousands};
use results::{Record, Results, Runs, Task};

use crate::Result;

/// Reads the lines of `scripts/bench.sh` and shows medians over the runs of each program, with the peers'
/// beside ours. With `markdown` as a table for a document, else in columns.
///
/// # Errors
/// When the file cannot be read, or a line of it is none of these.
pub fn bench_table(path: &Path, markdown: bool) -> Result<String> {
    let results = Results::read(path)?;
    let mut rows = vec![HEADER.map(String::from)];
    let mut left_out = 0;
    for (task, programs) in &results.tasks {
        let (found, none): (Vec<_>, Vec<_>) = programs.iter().partition(|(_, runs)| !runs.had_no_time());
        rows.extend(found.iter().map(|(program, runs)| results.row(task, program, runs)));
        left_out += none.len();
    }
    let peaks: Vec<String> =
        results.peaks.iter().map(|(dtype, peak)| format!("{dtype} {}", flops(*peak))).collect();
    let devices = results.devices.join("; ");
    let head = format!("{devices}; matrix products alone reach {}", peaks.join(", "));
    let table = if markdown { as_markdown(&rows) } else { as_columns(&rows) };
    let end = if left_out == 0 {
        String::new()
    } else {
        format!("\n\nThere was no time left for {left_out} more.")
    };
    Ok(format!("{head}\n\n{table}{end}"))
}

const HEADER: [&str; COLUMNS] = [
    "size",
    "task",
    "LN",
    "dtype",
    "batch",
    "program",
    "step",
    "tokens/s",
    "share of peak",
    "memory",
    "lnfree is",
];

impl Results {
    fn row(&self, task: &Task, program: &str, runs: &Runs) -> Row {
        let Task { size, task: what, ln, dtype, .. } = task.clone();
        let none = String::new;
        let Some((record, rate)) = runs.records.last().zip(runs.rate()) else {
            let (batch, why) = (task.texts.map_or_else(none, |n| n.to_string()), runs.failure.clone());
            let why = why.unwrap_or_default();
            return [size, what, ln, dtype, batch, program.into(), why, none(), none(), none(), none()];
        };
        let number = |of: fn(&Record) -> f64| runs.median(of).unwrap_or(f64::NAN);
        let share = number(|r| r.flop_per_s) / self.peaks.get(&dtype).copied().unwrap_or(f64::NAN);
        let ratio = self.ratio(task, program, rate);
        [
            size,
            what,
            ln,
            dtype,
            record.batch(),
            program.into(),
            seconds(number(|r| r.median_step_s)),
            thousands(rate),
            format!("{:.0}% ({})", 100.0 * share, flops(number(|r| r.flop_per_s))),
            runs.memory().unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]
    }
}

impl Record {
    /// Micro-batches × sequences × tokens, or texts × tokens before and new ones.
    fn batch(&self) -> String {
        let Record { batch_size, accumulation, seq, prompt, .. } = self;
        let again = if self.checkpointing { ", recomputing" } else { "" };
        match (prompt, accumulation) {
            (0, 1) => format!("{batch_size} × {seq}{again}"),
            (0, n) => format!("{n} × {batch_size} × {seq}{again}"),
            (prompt, _) => format!("{batch_size} × ({prompt} + {})", seq - prompt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(program: &str, ln: &str, step: f64) -> String {
        let rate = 1000.0 / step;
        format!(
            r#"{{"program": "{program}", "size": "gpt2", "record": {{"task": "train", "ln": "{ln}", "device": "here", "dtype": "float32",
            "batch_size": 2, "accumulation": 5, "seq": 100, "checkpointing": false, "median_step_s": {step}, "tokens_per_s": {rate},
            "flop_per_s": {}, "matrix_peak": 2e12, "peak_gib": 1.5}}}}"#,
            rate * 1e9
        )
        .replace('\n', " ")
    }

    fn table_of(lines: &[String], markdown: bool) -> Result<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        bench_table(&path, markdown)
    }

    #[test]
    fn runs_are_gathered_and_compared_at_the_same_task() {
        let failed = r#"{"program": "PyTorch", "size": "gpt2-xl", "error": {"task": "train", "ln": "real", "dtype": "float32", "batch_size": 18,
            "why": "out of memory"}}"#
            .replace('\n', " ");
        let lines = [
            line("lnfree", "real", 1.0),
            line("PyTorch", "real", 3.0),
            line("lnfree", "real", 3.0),
            line("PyTorch", "real", 5.0),
            line("lnfree", "fake", 0.5),
            failed,
        ];
        let table = table_of(&lines, true).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| gpt2")).collect();
        // Median rates: (1000 + 333.3) / 2 of ours, (333.3 + 200) / 2 of the peer.
        assert_eq!(
            rows,
            [
                "| gpt2 | train | real | float32 | 5 × 2 × 100 | lnfree | 2.00 s | 667 | 33% (667 GFLOP/s) | 1.50 GiB |  |",
                "| gpt2 | train | real | float32 | 5 × 2 × 100 | PyTorch | 4.00 s | 267 | 13% (267 GFLOP/s) | 1.50 GiB | 2.50 × |",
                "| gpt2 | train | fake | float32 | 5 × 2 × 100 | lnfree | 500.0 ms | 2,000 | 100% (2.0 TFLOP/s) | 1.50 GiB | 3.00 × with LN |",
                "| gpt2-xl | train | real | float32 |  | PyTorch | out of memory |  |  |  |  |",
            ]
        );
        assert!(table.starts_with("here; matrix products alone reach float32 2.0 TFLOP/s\n"), "{table}");
        let columns = table_of(&lines, false).unwrap();
        assert!(columns.contains("2.50 ×") && !columns.contains('|'), "{columns}");
    }

    #[test]
    fn texts_are_compared_with_as_many_texts() {
        let writing = |program: &str, texts: usize, step| {
            let line = line(program, "folded", step)
                .replace("\"train\"", "\"generate\"")
                .replace("\"seq\"", "\"prompt\": 40, \"seq\"");
            line.replace(
                "\"batch_size\": 2, \"accumulation\": 5",
                &format!("\"batch_size\": {texts}, \"accumulation\": 1"),
            )
        };
        let planned = line("lnfree", "real", 1.0).replace("1.5}", "1.5, \"planned_gib\": 1.75}");
        let lines =
            [writing("lnfree", 1, 1.0), writing("PyTorch", 8, 2.0), writing("lnfree", 8, 1.0), planned];
        let table = table_of(&lines, true).unwrap();
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| gpt2")).collect();
        assert!(rows[0].contains("| 1 × (40 + 60) | lnfree |") && rows[0].ends_with("|  |"), "{table}");
        assert!(
            rows[1].contains("| 8 × (40 + 60) | PyTorch |") && rows[1].ends_with("| 2.00 × |"),
            "{table}"
        );
        assert!(rows[3].contains("| 1.50 GiB (plan 1.75) |"), "{table}");
    }

    #[test]
    fn a_prompt_longer_than_its_text_is_refused() {
        let line = line("lnfree", "real", 1.0).replace("\"seq\": 100", "\"seq\": 100, \"prompt\": 101");
        let why = table_of(&[line], true).unwrap_err().to_string();
        assert!(why.ends_with("line 1: a prompt of 101 tokens in texts of 100"), "{why}");
    }

    #[test]
    fn what_there_was_no_time_for_is_counted() {
        let none = |why: &str| {
            format!(
                r#"{{"program": "PyTorch", "size": "gpt2", "error": {{"task": "eval", "ln": "{}", "dtype": "tf32", "why": "{why}"}}}}"#,
                why.len()
            )
        };
        let lines = [line("lnfree", "real", 1.0), none("no time left"), none("too slow")];
        let table = table_of(&lines, true).unwrap();
        assert!(
            table.contains("too slow") && table.ends_with("|\n\nThere was no time left for 1 more."),
            "{table}"
        );
        let table = table_of(&lines[..1], true).unwrap();
        assert!(table.ends_with('|'), "{table}");
    }

    #[test]
    fn a_line_of_another_kind_is_named() {
        let error = table_of(&[line("lnfree", "real", 1.0), "{}".into()], false).unwrap_err().to_string();
        assert!(error.contains("results.jsonl") && error.contains("line 2"), "{error}");
    }
}
