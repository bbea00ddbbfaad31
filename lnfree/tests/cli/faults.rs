//! A run that is killed, or whose disk fails, at calls chosen at random, in saves and removals above all:
//! every checkpoint that has its name is whole, and the run ends as an undisturbed one.

use std::path::Path;
use std::process::Stdio;

use super::common::faults::{Fault, fail, library, with_wrong_clocks, without_locks};
use super::resume::{same, start_or_resume};
use super::{Ended, Place, ended, one_line, strs};

/// Every step is saved and the one before it removed: most calls belong to that.
const SAVING: [&str; 6] =
    ["--set", "train.save_every=1", "--set", "train.keep_checkpoints=1", "--set", "train.keep_steps=[7,15]"];

/// Calls of a whole run at least; a fault comes within a fifth of them, so that a run takes several.
const CALLS: u64 = 1500;

/// Faults in a test: 10, or what LNFREE_FAULTS says.
pub(super) fn count() -> usize {
    std::env::var("LNFREE_FAULTS").map_or(10, |n| n.parse().unwrap())
}

/// Numbers that differ each time; the first is printed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        println!("seed {}", now.as_nanos() as u64);
        Random(now.as_nanos() as u64)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// What has the name of a checkpoint is whole, and what was to be kept is there once its step is done.
#[track_caller]
fn whole(run: &Path, at: u64) {
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if let Some(step) = name.strip_prefix("step-") {
            lnfree::atomic::verify_checksums(&entry.path()).unwrap_or_else(|e| panic!("call {at}: {e}"));
            steps.push(step.parse::<usize>().unwrap());
        }
    }
    for kept in [7, 15] {
        assert!(steps.iter().all(|&step| step < kept) || steps.contains(&kept), "call {at}: {steps:?}");
    }
    if !steps.is_empty() {
        let latest = lnfree::checkpoint::latest(run).unwrap();
        lnfree::atomic::verify_checksums(&latest).unwrap();
    }
}

/// Runs `faulty` until `count` runs have ended by a fault; `check` looks at each of these.
fn disturbed(place: &Place, faults: &[Fault], check: impl Fn(&Ended, Fault)) {
    let mut random = Random::new();
    let (mut done, mut complete) = (0, 0);
    while done < count() {
        let at = 1 + random.below(CALLS / 5);
        let fault = faults[done % faults.len()];
        let mut command = place.command(&strs(&start_or_resume(place, "faulty", &SAVING)));
        fail(&mut command, &place.path("faulty"), at, fault);
        let ended = ended(command.stderr(Stdio::piped()).output().unwrap());
        whole(&place.path("faulty"), at);
        if ended.code == Some(0) {
            // A new life, so that faults fall into all of it.
            complete += 1;
            std::fs::remove_dir_all(place.path("faulty")).unwrap();
            continue;
        }
        check(&ended, fault);
        done += 1;
    }
    println!("{done} faults, {complete} complete runs between them");
    place.ok(&strs(&start_or_resume(place, "faulty", &SAVING)));
    same(place, "calm", "faulty");
}

#[test]
fn killing_in_saves_and_removals_changes_nothing() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &SAVING)));
    disturbed(&place, &[Fault::Kill], |ended, _| {
        assert_eq!((ended.code, ended.stderr.contains("lnfree:")), (None, false))
    });
}

#[test]
fn a_disk_that_fails_ends_the_run_with_one_line_and_loses_nothing() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &SAVING)));
    let errors = [libc::ENOSPC, libc::EIO, libc::EROFS, libc::EDQUOT].map(Fault::Errno);
    disturbed(&place, &errors, |ended, fault| {
        assert_eq!(ended.code, Some(1), "{fault:?}: {ended:?}");
        let said: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("lnfree: ")).collect();
        assert_eq!(said.len(), 1, "{fault:?}: {ended:?}");
        assert!(said[0].contains("faulty") && !said[0].contains("internal error"), "{fault:?}: {ended:?}");
    });
}

#[test]
fn a_file_system_without_locks_is_no_reason_not_to_work() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    for error in [libc::ENOLCK, libc::EOPNOTSUPP] {
        let run = format!("run-{error}");
        let mut command = place.command(&strs(&place.train(&run, &["--set", "train.max_steps=22"])));
        let ended = ended(without_locks(&mut command, error).output().unwrap());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(ended.stderr.matches("cannot be locked here").count(), 1, "{ended:?}");
        // Whose it is cannot be told: it stays, and is named.
        let leftover = format!("{run}/checkpoints/.lnfree-step-4-abc.tmp");
        std::fs::create_dir(place.path(&leftover)).unwrap();
        let mut command = place.command(&["train", "--device", "cpu", "--resume", &run]);
        let ended = super::ended(without_locks(&mut command, error).output().unwrap());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains(&leftover) && place.path(&leftover).is_dir(), "{ended:?}");
    }
}

#[test]
fn clocks_that_jump_and_stand_still_change_nothing() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &[])));
    let output = with_wrong_clocks(&mut place.command(&strs(&place.train("run", &[])))).output().unwrap();
    let ended = ended(output);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    same(&place, "calm", "run");
    for line in place.text("run/metrics.jsonl").lines().filter(|line| line.contains("grad_norm")) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["tokens_per_s"].as_f64().is_some_and(f64::is_finite), "{line}");
    }
    place.ok(&["report", "run", "--out", "report.html"]);
}

#[test]
fn a_working_directory_that_is_gone_is_one_line() {
    let place = Place::new();
    let gone = place.path("gone");
    let binary = place.command(&[]).get_program().to_owned();
    for args in ["--version", "eval -m nano -f transformers -d nano-addresses -n 1", "doctor"] {
        std::fs::create_dir(&gone).unwrap();
        let script = format!("cd gone && rmdir ../gone && exec \"$0\" {args}");
        let mut shell = place.wrapped("sh", &["-c"], &[&script]);
        let ended = ended(shell.arg(&binary).output().unwrap());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        one_line(&ended, &["the working directory has been deleted", "cd"]);
    }
}
