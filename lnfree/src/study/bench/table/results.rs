//! The lines of the file, gathered by task and program.

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
    #[serde(default)]
    batch_size: usize,
    why: String,
}

/// What of a [`crate::study::bench::BenchRecord`], or of the peer's like it, is shown.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) task: String,
    pub(super) ln: String,
    pub(super) device: String,
    pub(super) dtype: String,
    pub(super) batch_size: usize,
    pub(super) accumulation: usize,
    pub(super) seq: usize,
    #[serde(default)]
    pub(super) prompt: usize,
    pub(super) checkpointing: bool,
    pub(super) median_step_s: f64,
    pub(super) tokens_per_s: f64,
    pub(super) flop_per_s: f64,
    pub(super) matrix_peak: f64,
    pub(super) peak_gib: Option<f64>,
    #[serde(default)]
    pub(super) planned_gib: Option<f64>,
}

/// Runs of one program at one task; what it did there, in order.
#[derive(Debug, Default)]
pub(super) struct Runs {
    pub(super) records: Vec<Record>,
    pub(super) failure: Option<String>,
}

/// What two programs are compared at.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) size: String,
    pub(super) task: String,
    pub(super) ln: String,
    pub(super) dtype: String,
    /// Texts written together. Batches of other tasks may be parted where memory does not suffice.
    pub(super) texts: Option<usize>,
}

impl Task {
    fn of(size: &str, outcome: &Outcome) -> Task {
        let (task, ln, dtype, batch_size) = match outcome {
            Outcome::Record(r) => (&r.task, &r.ln, &r.dtype, r.batch_size),
            Outcome::Error(f) => (&f.task, &f.ln, &f.dtype, f.batch_size),
        };
        let texts = (task == "generate").then_some(batch_size);
        Task { size: size.into(), task: task.clone(), ln: ln.clone(), dtype: dtype.clone(), texts }
    }
}

/// Everything that the file says.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// Tasks, and what each program did at them, in the order of the file.
    pub(super) tasks: Vec<(Task, Vec<(String, Runs)>)>,
    /// The highest matrix peak of each type.
    pub(super) peaks: BTreeMap<String, f64>,
    pub(super) devices: Vec<String>,
}

impl Results {
    /// Reads them.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is no result.
    pub(super) fn read(path: &Path) -> Result<Results> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let mut results = Results::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|e| {
                Error::file(path, format!("line {} is no result of a benchmark ({e})", number + 1))
            })?;
            let task = Task::of(&line.size, &line.outcome);
            if let Outcome::Record(Record { prompt, seq, .. }) = &line.outcome
                && prompt > seq
            {
                return Err(Error::file(
                    path,
                    format!("line {}: a prompt of {prompt} tokens in texts of {seq}", number + 1),
                ));
            }
            if let Outcome::Record(record) = &line.outcome {
                let peak = results.peaks.entry(record.dtype.clone()).or_insert(0.0);
                *peak = peak.max(record.matrix_peak);
                if !results.devices.contains(&record.device) {
                    results.devices.push(record.device.clone());
                }
            }
            let runs = entry(entry(&mut results.tasks, task), line.program);
            match line.outcome {
                Outcome::Record(record) => runs.records.push(record),
                Outcome::Error(failure) => runs.failure = Some(failure.why),
            }
        }
        Ok(results)
    }

    /// Tokens per second of our own program at `task`.
    fn ours(&self, task: &Task) -> Option<f64> {
        let (_, programs) = self.tasks.iter().find(|(other, _)| other == task)?;
        programs.iter().find(|(program, _)| program == OURS)?.1.rate()
    }

    /// How much faster we are than this program, or our own program without LN than with it.
    pub(super) fn ratio(&self, task: &Task, program: &str, rate: f64) -> Option<String> {
        if program != OURS {
            return self.ours(task).map(|ours| format!("{:.2} ×", ours / rate));
        }
        let with_ln = Task { ln: "real".into(), ..task.clone() };
        let with_ln = self.ours(&with_ln).filter(|_| task.ln != "real")?;
        Some(format!("{:.2} × with LN", rate / with_ln))
    }
}

/// The value of `key`, put at the end where there is none yet.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let at = list.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[at].1
}

impl Runs {
    /// Whether nothing came of it because others had taken the time.
    pub(super) fn had_no_time(&self) -> bool {
        self.records.is_empty() && self.failure.as_deref() == Some("no time left")
    }

    /// Of a number of its runs.
    pub(super) fn median(&self, of: fn(&Record) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.records.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            n => Some((values[(n - 1) / 2] + values[n / 2]) / 2.0),
        }
    }

    /// Median of tokens per second.
    pub(super) fn rate(&self) -> Option<f64> {
        self.median(|record| record.tokens_per_s)
    }

    /// The most that was held, and what the plan said.
    pub(super) fn memory(&self) -> Option<String> {
        let held = self.median(|r| r.peak_gib.unwrap_or(f64::NAN)).filter(|gib| gib.is_finite())?;
        let planned = self.median(|r| r.planned_gib.unwrap_or(f64::NAN)).filter(|gib| gib.is_finite());
        Some(format!("{held:.2} GiB{}", planned.map_or(String::new(), |gib| format!(" (plan {gib:.2})"))))
    }
}
