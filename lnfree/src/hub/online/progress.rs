//! What a person sees of a download or an upload: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::console::say;

/// Seconds between lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Smaller files are there before anybody has read their name.
const WORTH_TELLING: u64 = 1 << 20;

/// The progress of one file.
pub(super) struct Progress {
    name: String,
    size: u64,
    done: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    /// Bytes that an earlier attempt had brought.
    had: u64,
    last_line: Instant,
}

impl Progress {
    pub(super) fn new(name: &str, size: u64) -> Progress {
        let now = Instant::now();
        let terminal = size >= WORTH_TELLING && std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr_with_hz(4));
            let template = "{msg} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  (left {eta})";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(name.to_string());
            bar
        });
        Progress { name: name.into(), size, done: 0, bar, started: now, had: 0, last_line: now }
    }

    /// An attempt begins with `had` bytes on the disk.
    pub(super) fn start(&mut self, had: u64) {
        (self.had, self.done, self.started) = (had, had, Instant::now());
        if let Some(bar) = &self.bar {
            bar.set_position(had);
            bar.reset_eta();
        } else if self.size >= WORTH_TELLING {
            let from = if had > 0 { format!(", from {}", HumanBytes(had)) } else { String::new() };
            say(&format!("{}: {}{from}", self.name, HumanBytes(self.size)));
        }
    }

    pub(super) fn add(&mut self, bytes: u64) {
        self.done += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        } else if self.size >= WORTH_TELLING && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64().max(1e-3);
            let rate = (self.done - self.had) as f64 / seconds;
            say(&format!(
                "{}: {} of {}, {}/s, left {:.0} s",
                self.name,
                HumanBytes(self.done),
                HumanBytes(self.size),
                HumanBytes(rate as u64),
                self.size.saturating_sub(self.done) as f64 / rate.max(1.0)
            ));
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
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None if self.size >= WORTH_TELLING => {
                say(&format!("{}: done in {:.0} s", self.name, self.started.elapsed().as_secs_f64()));
            }
            None => {}
        }
    }
}
