//! Run directories that cannot be written, are in use, or hold something already.

use super::{Place, one_line, strs};

#[test]
fn places_that_cannot_be_written() {
    let place = Place::new();
    std::fs::write(place.path("file"), "").unwrap();
    place.fails(&strs(&place.train("file", &[])), &["file", "is a file"]);
    place.fails(&strs(&place.train("file/run", &[])), &["file/run", "is a file"]);
    if cfg!(target_os = "linux") {
        place.fails(&strs(&place.train("/proc/lnfree-run", &[])), &["/proc/lnfree-run"]);
    }
    assert_eq!(place.read("file"), b"");
}

#[test]
fn a_run_is_not_started_over_another() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &[])));
    let before = place.read("run/metrics.jsonl");
    place.fails(&strs(&place.train("run", &[])), &["run: holds a run", "--resume run"]);
    assert!(before == place.read("run/metrics.jsonl"));
    // Resuming what is complete says so and changes nothing.
    let stdout = place.ok(&["train", "--device", "cpu", "--resume", "run"]);
    assert!(stdout.contains("24 steps done"), "{stdout}");
    assert!(before == place.read("run/metrics.jsonl"));
}

#[test]
fn resuming_what_is_no_run() {
    let place = Place::new();
    let resume = |dir| ["train", "--device", "cpu", "--resume", dir];
    place.fails(&resume("nowhere"), &["nowhere", "no such run"]);
    place.fails(&resume("latest"), &["runs"]);
    place.fails(&resume("tokens.arrow"), &["tokens.arrow", "no such run"]);
    std::fs::create_dir_all(place.path("runs/empty")).unwrap();
    place.fails(&resume("latest"), &["runs", "no run"]);
    place.fails(&resume("runs/empty"), &["runs/empty", "no checkpoint", "without --resume"]);
    place.fails(&["report", "runs/empty"], &["runs/empty", "run.json"]);
    place.fails(&["report", "nowhere"], &["nowhere"]);
    // One that ended before its first checkpoint: both ways out that the message offers are open.
    std::fs::write(place.path("run.json"), "").unwrap();
    std::fs::create_dir_all(place.path("early/checkpoints/.lnfree-step-4-abc.tmp")).unwrap();
    std::fs::write(place.path("early/metrics.jsonl"), "{\"step\":0}\n").unwrap();
    place.fails(&resume("early"), &["early", "no checkpoint", "without --resume"]);
    place.ok(&strs(&place.train("early", &[])));
    assert_eq!(place.text("early/metrics.previous.jsonl"), "{\"step\":0}\n");
    assert!(
        !place.path("early/checkpoints/.lnfree-step-4-abc.tmp").exists(),
        "a leftover of a killed writer"
    );
}

#[test]
fn resume_latest_finds_the_newest_run() {
    let place = Place::new();
    place.ok(&strs(&place.train("runs/a", &[])));
    place.ok(&strs(&place.train("runs/b", &[])));
    let stdout = place.ok(&["train", "--device", "cpu", "--resume", "latest"]);
    assert!(stdout.contains("runs/b/checkpoints/step-24"), "{stdout}");
}

#[test]
fn one_process_at_a_time() {
    let place = Place::new();
    let endless = ["--set", "train.max_steps=1000000", "--set", "train.gradient_accumulation_steps=20"];
    let mut child = place
        .command(&strs(&place.train("run", &endless)))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !place.path("run/checkpoints/latest").exists() {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    place.fails(&["train", "--device", "cpu", "--resume", "run"], &["run", "another process"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_log_reader_that_goes_away_does_not_take_the_run_with_it() {
    let place = Place::new();
    let mut child = place
        .command(&strs(&place.train("run", &[])))
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop((child.stderr.take(), child.stdout.take()));
    assert!(child.wait().unwrap().success());
    assert!(place.path("run/checkpoints/step-24/SHA256SUMS").is_file());
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_one_line() {
    let place = Place::new();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = place.command(&["schedule", "gpt2-xl_aux"]).stdout(full).output().unwrap();
    let ended = super::ended(output);
    assert_ne!(ended.code, Some(0));
    one_line(&ended, &["standard output", "No space left"]);
}
