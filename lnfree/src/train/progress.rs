//! What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere (notebooks, logs).

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{StepRecord, Trainer};
use crate::base::console::{is_silent, say};

/// Seconds between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Progress {
    bar: Option<ProgressBar>,
    last_line: Instant,
    started: Instant,
    first_step: usize,
}

impl Progress {
    pub(super) fn new(trainer: &Trainer) -> Progress {
        let bar = (std::io::stderr().is_terminal() && !is_silent()).then(|| {
            let bar = ProgressBar::with_draw_target(
                Some(trainer.config.train.max_steps as u64),
                ProgressDrawTarget::stderr_with_hz(4),
            );
            if let Ok(style) =
                ProgressStyle::with_template("{bar:24} step {pos}/{len}  {msg}  {elapsed} (left {eta})")
            {
                bar.set_style(style);
            }
            bar.set_position(trainer.step() as u64);
            bar.reset_eta();
            bar
        });
        Progress { bar, last_line: Instant::now(), started: Instant::now(), first_step: trainer.step() }
    }

    pub(super) fn step(&mut self, record: &StepRecord, trainer: &Trainer) {
        let next = match trainer.next_removal(record.step) {
            Some(removal) => format!("next: {removal} after step {}", removal.step),
            None => String::new(),
        };
        let message = format!("loss {:.4}  {:.0} tokens/s  {next}", record.loss, record.tokens_per_s);
        if let Some(bar) = &self.bar {
            bar.set_position(record.step as u64 + 1);
            bar.set_message(message);
            return;
        }
        let (done, max_steps) = (record.step + 1, trainer.config.train.max_steps);
        if self.last_line.elapsed() >= LINE_EVERY || done == max_steps || record.step == self.first_step {
            self.last_line = Instant::now();
            let per_step = self.started.elapsed().as_secs_f64() / (done - self.first_step) as f64;
            let left = per_step * (max_steps - done) as f64;
            say(&format!("step {done}/{max_steps}  {message}  left {left:.0} s"));
        }
    }

    /// Says something without breaking the bar.
    pub(super) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
