//! What `scripts/bench.sh` wrote down, as a table.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Result};

/// What lines of our own program are called.
const OURS: &str = "lnfree";

/// One line of the file: a program's run of one task, or why there is no result.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    program: String,
    size: String,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Record(Record),
    /// The record is that of the arguments alone.
    Error(Failure),
}

#[derive(Debug, Clone, Deserialize)]
struct Failure {
    task: String,
    ln: String,
    dtype: String,
    why: String,
}

/// What of a [`super::BenchRecord`], or of the peer's like it, is shown.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    task: String,
    ln: String,
    device: String,
    dtype: String,
    batch_size: usize,
    accumulation: usize,
    seq: usize,
    checkpointing: bool,
    median_step_s: f64,
    tokens_per_s: f64,
    flop_per_s: f64,
    matrix_peak: f64,
    peak_gib: Option<f64>,
}

/// Runs of one program at one task; what it did there, in order.
#[derive(Debug, Default)]
struct Runs {
    records: Vec<Record>,
    failure: Option<String>,
}

/// Size, task, LN and type: what two programs are compared at.
type Task = [String; 4];

/// Reads the lines of `scripts/bench.sh` and shows medians over the runs of each program, with the peers' beside ours. With `markdown`
/// as a table for a document, else in columns.
///
/// # Errors
/// When the file cannot be read, or a line of it is none of these.
pub fn bench_table(path: &Path, markdown: bool) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut tasks: Vec<(Task, Vec<(String, Runs)>)> = Vec::new();
    let mut peaks: BTreeMap<String, f64> = BTreeMap::new();
    let mut devices: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line = serde_json::from_str(line).map_err(|e| {
            Error::file(path, format!("line {} is no result of a benchmark ({e})", number + 1))
        })?;
        let (task, record) = match &line.outcome {
            Outcome::Record(r) => ([&line.size, &r.task, &r.ln, &r.dtype], Some(r)),
            Outcome::Error(f) => ([&line.size, &f.task, &f.ln, &f.dtype], None),
        };
        let task = task.map(String::clone);
        if let Some(record) = record {
            let peak = peaks.entry(record.dtype.clone()).or_insert(0.0);
            *peak = peak.max(record.matrix_peak);
            if !devices.contains(&record.device) {
                devices.push(record.device.clone());
            }
        }
        let runs = runs_of(&mut tasks, task, &line.program);
        match line.outcome {
            Outcome::Record(record) => runs.records.push(record),
            Outcome::Error(failure) => runs.failure = Some(failure.why),
        }
    }
    let mut rows = vec![HEADER.map(String::from)];
    for (task, programs) in &tasks {
        let ours = programs.iter().find(|(program, _)| program == OURS).and_then(|(_, runs)| runs.rate());
        rows.extend(programs.iter().map(|(program, runs)| row(task, program, runs, ours, &peaks)));
    }
    let peaks: Vec<String> = peaks.iter().map(|(dtype, peak)| format!("{dtype} {}", flops(*peak))).collect();
    let head = format!("{}; matrix products alone reach {}", devices.join("; "), peaks.join(", "));
    Ok(format!("{head}\n\n{}", if markdown { as_markdown(&rows) } else { as_columns(&rows) }))
}

const HEADER: [&str; 11] = [
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

fn runs_of<'a>(tasks: &'a mut Vec<(Task, Vec<(String, Runs)>)>, task: Task, program: &str) -> &'a mut Runs {
    let at = match tasks.iter().position(|(other, _)| *other == task) {
        Some(at) => at,
        None => {
            tasks.push((task, Vec::new()));
            tasks.len() - 1
        }
    };
    let programs = &mut tasks[at].1;
    let at = match programs.iter().position(|(other, _)| other == program) {
        Some(at) => at,
        None => {
            programs.push((program.to_string(), Runs::default()));
            programs.len() - 1
        }
    };
    &mut programs[at].1
}

impl Runs {
    fn median(&self, of: fn(&Record) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.records.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            n => Some((values[(n - 1) / 2] + values[n / 2]) / 2.0),
        }
    }

    fn rate(&self) -> Option<f64> {
        self.median(|record| record.tokens_per_s)
    }
}

fn row(
    task: &Task,
    program: &str,
    runs: &Runs,
    ours: Option<f64>,
    peaks: &BTreeMap<String, f64>,
) -> [String; 11] {
    let [size, what, ln, dtype] = task.clone();
    let Some((record, rate)) = runs.records.last().zip(runs.rate()) else {
        let why = runs.failure.clone().unwrap_or_default();
        return [
            size,
            what,
            ln,
            dtype,
            String::new(),
            program.into(),
            why,
            "".into(),
            "".into(),
            "".into(),
            "".into(),
        ];
    };
    let (batch, accumulation, seq) = (record.batch_size, record.accumulation, record.seq);
    let batch = match accumulation {
        1 => format!("{batch} × {seq}"),
        n => format!("{n} × {batch} × {seq}"),
    };
    let again = if record.checkpointing { ", recomputing" } else { "" };
    let number = |of: fn(&Record) -> f64| runs.median(of).unwrap_or(f64::NAN);
    let share = number(|r| r.flop_per_s) / peaks.get(&dtype).copied().unwrap_or(f64::NAN);
    let memory = runs.median(|r| r.peak_gib.unwrap_or(f64::NAN)).filter(|gib| gib.is_finite());
    let ratio = ours.filter(|_| program != OURS).map(|ours| format!("{:.2} ×", ours / rate));
    [
        size,
        what,
        ln,
        dtype,
        format!("{batch}{again}"),
        program.into(),
        seconds(number(|r| r.median_step_s)),
        thousands(rate),
        format!("{:.0}% ({})", 100.0 * share, flops(number(|r| r.flop_per_s))),
        memory.map(|gib| format!("{gib:.2} GiB")).unwrap_or_default(),
        ratio.unwrap_or_default(),
    ]
}

fn seconds(s: f64) -> String {
    if s < 1.0 { format!("{:.1} ms", 1e3 * s) } else { format!("{s:.2} s") }
}

fn flops(per_s: f64) -> String {
    if per_s < 1e12 { format!("{:.0} GFLOP/s", per_s / 1e9) } else { format!("{:.1} TFLOP/s", per_s / 1e12) }
}

/// Rounded, with commas.
fn thousands(x: f64) -> String {
    let digits = format!("{x:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn as_markdown(rows: &[[String; 11]]) -> String {
    let mut lines: Vec<String> = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    lines.insert(1, format!("|{}{}", "---|".repeat(6), "---:|".repeat(5)));
    lines.join("\n")
}

fn as_columns(rows: &[[String; 11]]) -> String {
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..11).map(width).collect();
    let line = |row: &[String; 11]| {
        let cells = row.iter().zip(&widths).enumerate();
        let padded: Vec<String> = cells
            .map(
                |(i, (cell, &width))| {
                    if i < 6 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        padded.join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
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
        let failed = r#"{"program": "PyTorch", "size": "gpt2-xl", "error": {"task": "train", "ln": "real", "dtype": "float32",
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
                "| gpt2 | train | fake | float32 | 5 × 2 × 100 | lnfree | 500.0 ms | 2,000 | 100% (2.0 TFLOP/s) | 1.50 GiB |  |",
                "| gpt2-xl | train | real | float32 |  | PyTorch | out of memory |  |  |  |  |",
            ]
        );
        assert!(table.starts_with("here; matrix products alone reach float32 2.0 TFLOP/s\n"), "{table}");
        let columns = table_of(&lines, false).unwrap();
        assert!(columns.contains("2.50 ×") && !columns.contains('|'), "{columns}");
    }

    #[test]
    fn a_line_of_another_kind_is_named() {
        let error = table_of(&[line("lnfree", "real", 1.0), "{}".into()], false).unwrap_err().to_string();
        assert!(error.contains("results.jsonl") && error.contains("line 2"), "{error}");
    }
}
