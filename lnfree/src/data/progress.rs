//! What a person sees of a preparation: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::console::say;

/// Time between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Sequences,
}

/// The progress of one piece of work, of which it may not be known how much it is.
pub(super) struct Progress {
    name: String,
    unit: Unit,
    total: Option<u64>,
    done: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(name: impl Into<String>, unit: Unit, total: Option<u64>) -> Self {
        let (name, now) = (name.into(), Instant::now());
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(4));
            let template = match (unit, total) {
                (Unit::Bytes, _) => "{msg} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  (left {eta})",
                (Unit::Sequences, Some(_)) => "{msg} {bar:24} {pos}/{len} sequences  (left {eta})",
                (Unit::Sequences, None) => "{msg} {spinner} {pos} sequences  {per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(name.clone());
            bar
        });
        Self { name, unit, total, done: 0, bar, started: now, last_line: now }
    }

    /// So much is done, in all.
    pub(super) fn set(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            say(&self.line());
        }
    }

    /// So much more is done.
    pub(super) fn add(&mut self, more: u64) {
        self.set(self.done + more);
    }

    fn line(&self) -> String {
        let amount = |n: u64| match self.unit {
            Unit::Bytes => HumanBytes(n).to_string(),
            Unit::Sequences => n.to_string(),
        };
        let rate = self.done as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let what = if self.unit == Unit::Sequences { " sequences" } else { "" };
        match self.total {
            Some(total) => {
                let left = total.saturating_sub(self.done) as f64 / rate.max(1e-9);
                format!("{}: {} of {}{what}, left {left:.0} s", self.name, amount(self.done), amount(total))
            }
            None => format!("{}: {}{what}", self.name, amount(self.done)),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
