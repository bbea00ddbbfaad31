//! What a person sees while a study goes on: a line for each evaluation that ends, and on a terminal a bar
//! below them.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::Plan;
use crate::study::report::{Comparison, Failure, Published};

/// The part of a running evaluation that is counted as done at most, however long it takes.
const NOT_YET: f64 = 0.95;

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    total: usize,
    done: usize,
    /// Operations: of all evaluations still to do at the start, and of those that have ended since.
    work: f64,
    worked: f64,
    /// Operations computed and the seconds that took.
    measured: (f64, f64),
    /// What runs now: its operations, and since when.
    current: (f64, Instant),
}

impl Progress {
    pub(super) fn new(plan: &Plan) -> Progress {
        let work =
            plan.jobs.iter().flat_map(|job| job.pending.iter().map(|d| plan.work(&job.model, d).1)).sum();
        let total = plan.pending();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} evaluations  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        let current = (0.0, Instant::now());
        Progress { bar, total, done: 0, work, worked: 0.0, measured: (0.0, 0.0), current }
    }

    /// An evaluation of so many operations begins.
    pub(super) fn begin(&mut self, flop: f64) {
        self.current = (flop, Instant::now());
    }

    /// One of `flop` operations gave a result after `seconds` of computing.
    pub(super) fn finished(&mut self, flop: f64, result: &Comparison, seconds: Option<f64>) {
        let seconds = seconds.unwrap_or_else(|| self.current.1.elapsed().as_secs_f64());
        self.measured = (self.measured.0 + flop, self.measured.1 + seconds);
        self.end(flop);
        let left = self.left().map_or(String::new(), |left| format!(", left {}", HumanDuration(left)));
        let published = match (result.published, result.difference) {
            (Some(published), Some(difference)) => {
                let (word, verdict) = (Published::word(result.recorded), result.verdict.name());
                format!("  {word} {published:.4}  {difference:+.4}  {verdict}")
            }
            _ => String::new(),
        };
        self.say(&format!(
            "[{}/{}] {} on {}: {} {:.4}{published}  ({seconds:.0} s{left})",
            self.done,
            self.total,
            result.label,
            result.dataset,
            result.compared.name(),
            result.measured
        ));
    }

    /// One of `flop` operations gave none.
    pub(super) fn failed(&mut self, flop: f64, failure: &Failure) {
        self.end(flop);
        let Failure { label, dataset, why } = failure;
        self.say(&format!("[{}/{}] {label} on {dataset}: FAILED: {why}", self.done, self.total));
    }

    fn end(&mut self, flop: f64) {
        self.done += 1;
        self.worked += flop;
        self.begin(0.0);
        if let Some(bar) = &self.bar {
            bar.set_position(self.done as u64);
        }
    }

    /// Time left at the rate measured so far; `None` before anything has been measured.
    fn left(&self) -> Option<Duration> {
        let rate = self.measured.0 / self.measured.1;
        let current = (self.current.1.elapsed().as_secs_f64() * rate).min(NOT_YET * self.current.0);
        let seconds = (self.work - self.worked - current) / rate;
        // Whole seconds: what lies below is not known.
        (self.done < self.total && seconds.is_finite())
            .then(|| Duration::from_secs(seconds.max(0.0).ceil() as u64))
    }

    /// What is being done now; shown on a terminal only.
    pub(super) fn now(&self, text: &str) {
        let Some(bar) = &self.bar else { return };
        let left = self.left().map_or(String::new(), |left| format!("  left {}", HumanDuration(left)));
        bar.set_message(format!("{text}{left}"));
    }

    /// A line that stays. A study goes on when nobody listens any more.
    pub(super) fn say(&self, line: &str) {
        let write = || drop(writeln!(std::io::stderr(), "{line}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(super) fn close(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
