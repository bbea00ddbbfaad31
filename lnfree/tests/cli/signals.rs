//! Ctrl-C and SIGTERM while a run goes on.

use std::process::{Child, Stdio};

use super::{Place, ended, strs};

/// A run in the middle of its first step, which takes `accumulation` forwards and backwards.
fn running(place: &Place, accumulation: usize) -> Child {
    let sets = [
        "train.max_steps=1000".to_string(),
        format!("train.gradient_accumulation_steps={accumulation}"),
        "train.save_every=1000".into(),
        "eval.every=0".into(),
        // What is removed before the first step says that it has begun.
        "schedule.start_ln2=0".into(),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let mut child = place.command(&strs(&place.train("run", &sets))).stderr(Stdio::piped()).spawn().unwrap();
    let log = place.path("run/metrics.jsonl");
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("remove")) {
        assert_eq!(child.try_wait().unwrap(), None);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: a signal to a child that has not been waited for, so that its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

#[test]
fn the_first_signal_saves() {
    for (number, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let place = Place::new();
        let child = running(&place, 30);
        signal(&child, number);
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let last = ended.stderr.lines().last().unwrap();
        assert_eq!(last, "lnfree: interrupted after step 1; continue with --resume run");
        let state: serde_json::Value =
            serde_json::from_str(&place.text("run/checkpoints/latest/trainer.json")).unwrap();
        let logged = place.text("run/metrics.jsonl").lines().filter(|l| l.contains("\"loss\"")).count();
        assert_eq!((state["step"].as_u64(), logged), (Some(1), 1));
    }
}

#[test]
fn the_second_signal_ends_at_once() {
    let both = [libc::SIGINT, libc::SIGTERM];
    for (first, second) in both.into_iter().flat_map(|a| both.map(|b| (a, b))) {
        let place = Place::new();
        // The step would take a minute.
        let child = running(&place, 10_000);
        signal(&child, first);
        // One signal that is pending swallows another of its kind: both have to arrive.
        std::thread::sleep(std::time::Duration::from_millis(50));
        signal(&child, second);
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(128 + second), ""));
        assert!(!place.path("run/checkpoints").exists(), "the step was to be left unfinished");
    }
}
