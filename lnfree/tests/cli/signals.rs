//! Ctrl-C and SIGTERM while a run goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use super::{Place, strs};

/// A run of many slow steps that has finished its first one.
fn running(place: &Place) -> (Child, impl Iterator<Item = String>) {
    let more = [
        "--set",
        "train.max_steps=100000",
        "--set",
        "train.gradient_accumulation_steps=200",
        "--set",
        "train.save_every=100000",
        "--set",
        "eval.every=0",
    ];
    let mut child = place.command(&strs(&place.train("run", &more))).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let first = lines.next().unwrap_or_default();
    assert!(first.starts_with("step 1/100000"), "{first}");
    (child, lines)
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that has not been waited for, so that its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn the_first_signal_saves() {
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let place = Place::new();
        let (mut child, lines) = running(&place);
        signal(&child, number);
        let last = lines.last().unwrap_or_default();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{last}");
        assert!(last.starts_with("lnfree: interrupted after step "), "{last}");
        assert!(last.ends_with("continue with --resume run"), "{last}");
        let state: serde_json::Value =
            serde_json::from_str(&place.text("run/checkpoints/latest/trainer.json")).unwrap();
        let logged = place.text("run/metrics.jsonl").lines().filter(|l| l.contains("\"loss\"")).count();
        assert_eq!(state["step"], logged, "the checkpoint is of the last step that was logged");
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let place = Place::new();
        let (mut child, _lines) = running(&place);
        signal(&child, number);
        // One signal that is pending swallows another of its kind: both have to arrive.
        std::thread::sleep(std::time::Duration::from_millis(30));
        signal(&child, number);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(!place.path("run/checkpoints").exists(), "the step was to be left unfinished");
    }
}

#[test]
fn a_signal_of_each_kind_counts_as_two() {
    let place = Place::new();
    let (mut child, _lines) = running(&place);
    signal(&child, libc::SIGTERM);
    std::thread::sleep(std::time::Duration::from_millis(30));
    signal(&child, libc::SIGINT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!place.path("run/checkpoints").exists());
}
