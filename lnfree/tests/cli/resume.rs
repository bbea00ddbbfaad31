//! A run that was stopped or killed and resumed ends in the same bytes as one that nobody disturbed.

use std::time::Duration;

use serde_json::Value;

use super::{Place, ended, strs};

/// Every line of `metrics.jsonl` but for the time it took.
pub(super) fn metrics(place: &Place, run: &str) -> Vec<Value> {
    let mut lines: Vec<Value> = place
        .text(&format!("{run}/metrics.jsonl"))
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    for line in &mut lines {
        line.as_object_mut().unwrap().remove("tokens_per_s");
    }
    lines
}

/// Both runs are complete and the same, LN states included: these lie in `model.safetensors`.
#[track_caller]
pub(super) fn same(place: &Place, a: &str, b: &str) {
    for file in ["model.safetensors", "optimizer.safetensors", "config.json", "SHA256SUMS"] {
        let read = |run: &str| place.read(&format!("{run}/checkpoints/latest/{file}"));
        assert!(read(a) == read(b), "{file} of {a} and {b} differ");
    }
    let (x, y) = (metrics(place, a), metrics(place, b));
    for (x, y) in x.iter().zip(&y) {
        assert_eq!(x, y, "{a} and {b}");
    }
    assert_eq!(x.len(), y.len());
    let steps: Vec<u64> =
        x.iter().filter(|l| l.get("event").is_none()).filter_map(|l| l["step"].as_u64()).collect();
    assert_eq!(steps, (0..24).collect::<Vec<u64>>());
    assert_eq!(
        place.text(&format!("{b}/checkpoints/latest/trainer.json")).matches("\"format\": 1").count(),
        1
    );
    let leftovers: Vec<_> = std::fs::read_dir(place.path(&format!("{b}/checkpoints")))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "latest" && !name.starts_with("step-"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

/// Waits until the run has logged step `step`, or has ended.
pub(super) fn wait_for_step(place: &Place, run: &str, child: &mut std::process::Child, step: usize) {
    let wanted = format!("\"step\":{step},\"loss\"");
    while child.try_wait().unwrap().is_none() {
        let log = std::fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default();
        if log.contains(&wanted) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn signal(child: &std::process::Child, signal: i32) {
    // SAFETY: a signal to a child that has not been waited for, so that its id is its own.
    assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
}

/// Stops `out` at the given steps in turn by signal, resumes each time, and lets it finish.
pub(super) fn stopped_and_resumed(place: &Place, out: &str, more: &[&str], stops: &[(usize, i32, i32)]) {
    let mut args = place.train(out, more);
    for &(step, number, code) in stops {
        let mut child = place.command(&strs(&args)).stderr(std::process::Stdio::piped()).spawn().unwrap();
        wait_for_step(place, out, &mut child, step);
        signal(&child, number);
        let ended = ended(child.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains("continue with --resume"), "{ended:?}");
        args = ["train", "--device", "cpu", "--resume", out].map(String::from).to_vec();
    }
    place.ok(&strs(&args));
}

pub(super) const STOPS: [(usize, i32, i32); 3] =
    [(1, libc::SIGTERM, 143), (9, libc::SIGINT, 130), (18, libc::SIGTERM, 143)];

#[test]
fn stopping_without_ln_changes_nothing() {
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &[])));
    stopped_and_resumed(&place, "stopped", &[], &STOPS);
    same(&place, "calm", "stopped");
    let events: Vec<Value> =
        metrics(&place, "stopped").into_iter().filter(|l| l["event"] == "remove").collect();
    assert_eq!(events.len(), 16, "three blocks × (ln2, ln1qk, ln1v, eot, bos), and ln_f");
}

#[test]
fn stopping_with_checkpointing_and_accumulation_changes_nothing() {
    let place = Place::new();
    let more = ["--set", "train.gradient_checkpointing=true", "--set", "train.gradient_accumulation_steps=2"];
    place.ok(&strs(&place.train("calm", &more)));
    stopped_and_resumed(&place, "stopped", &more, &STOPS);
    same(&place, "calm", "stopped");
}

#[test]
fn stopping_with_moving_stds_changes_nothing() {
    let place = Place::new();
    let more = ["--set", "norm.recompute_on_fake=true", "--set", "norm.exclude_position_0=true"];
    place.ok(&strs(&place.train("calm", &more)));
    stopped_and_resumed(&place, "stopped", &more, &STOPS);
    same(&place, "calm", "stopped");
}

#[test]
fn stopping_with_ln_changes_nothing() {
    let place = Place::new();
    let with_ln = |out| {
        let mut args = place.train(out, &[]);
        args[2] = "with_ln".into();
        args
    };
    place.ok(&strs(&with_ln("calm")));
    let mut child =
        place.command(&strs(&with_ln("stopped"))).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for_step(&place, "stopped", &mut child, 6);
    signal(&child, libc::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(143));
    place.ok(&["train", "--device", "cpu", "--resume", "stopped"]);
    same(&place, "calm", "stopped");
    assert!(metrics(&place, "calm").iter().all(|line| line["event"] != "remove"));
}

/// What a person does after a crash: resume if there is a checkpoint, else start again.
pub(super) fn start_or_resume(place: &Place, out: &str, more: &[&str]) -> Vec<String> {
    let resume = ["train", "--device", "cpu", "--resume", out].map(String::from).to_vec();
    match lnfree::checkpoint::has_any(&place.path(out)) {
        true => resume,
        false => place.train(out, more),
    }
}

#[test]
fn killing_at_random_moments_changes_nothing() {
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &[])));
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut random = seed;
    let mut kills = Vec::new();
    while kills.len() < super::faults::count() {
        let mut child = place
            .command(&strs(&start_or_resume(&place, "killed", &[])))
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Half of the kills fall into loading or early steps, half after at least one more step has been
        // logged.
        if kills.len() % 2 == 1 {
            let done = metrics_len(&place, "killed");
            wait_for_lines(&place, "killed", &mut child, done);
        }
        std::thread::sleep(Duration::from_micros((random >> 33) % 300_000));
        let ended = child.try_wait().unwrap();
        let _ = child.kill();
        let status = child.wait().unwrap();
        if ended.is_some() {
            // Complete before it could be killed: another life from the start.
            assert_eq!(status.code(), Some(0), "seed {seed}, after {kills:?}");
            std::fs::remove_dir_all(place.path("killed")).unwrap();
            continue;
        }
        kills.push(metrics_len(&place, "killed"));
    }
    println!("lines logged at each kill: {kills:?}");
    place.ok(&strs(&start_or_resume(&place, "killed", &[])));
    same(&place, "calm", "killed");
}

fn metrics_len(place: &Place, run: &str) -> usize {
    let log = std::fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap_or_default();
    log.lines().count()
}

/// Waits until more than `n` lines are logged, or the run has ended.
fn wait_for_lines(place: &Place, run: &str, child: &mut std::process::Child, n: usize) {
    while child.try_wait().unwrap().is_none() && metrics_len(place, run) <= n {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_larger_machine_takes_larger_micro_batches_when_told_to() {
    let place = Place::new();
    let small = ["--set", "train.micro_batch_size=1", "--set", "train.dropout=0"];
    place.ok(&strs(&place.train("calm", &small)));
    let mut child = place
        .command(&strs(&place.train("run", &small)))
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    wait_for_step(&place, "run", &mut child, 9);
    signal(&child, libc::SIGTERM);
    child.wait().unwrap();
    let resume = ["train", "--device", "cpu", "--resume", "run"];
    let with =
        |set: &str| [&resume[..], &["--set", set]].concat().into_iter().map(String::from).collect::<Vec<_>>();
    place.fails(
        &strs(&with("train.micro_batch_size=3")),
        &["train.micro_batch_size", "divide train.batch_size = 2"],
    );
    place.fails(&strs(&with("train.micro_batch_size=many")), &["train.micro_batch_size", "auto"]);
    place.fails(
        &strs(&with("train.learning_rate=1")),
        &["train.learning_rate=1", "train.micro_batch_size", "--resume"],
    );
    let ended = place.lnfree(&strs(&with("train.micro_batch_size=auto")));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("2 sequences at a time instead of 1") && ended.stderr.contains("last digits"),
        "{ended:?}"
    );
    let state: Value = serde_json::from_str(&place.text("run/checkpoints/latest/trainer.json")).unwrap();
    assert_eq!(state["config"]["train"]["micro_batch_size"], 2);
    let last = |run: &str| metrics(&place, run).pop().unwrap()["loss"].as_f64().unwrap();
    assert!((last("run") - last("calm")).abs() < 1e-3 * last("calm"), "{} {}", last("run"), last("calm"));
}

/// Killed between a checkpoint and its evaluation, a run evaluates when it goes on.
#[test]
fn an_evaluation_that_a_kill_prevented_is_made_up_for() {
    let place = Place::new();
    let saving = ["--set", "train.save_every=6"];
    place.ok(&strs(&place.train("calm", &saving)));
    place.ok(&strs(&place.train("run", &saving)));
    let log = place.text("run/metrics.jsonl");
    // As a kill right after the last checkpoint leaves it, and one after that of step 18.
    let kept: Vec<&str> = log.lines().filter(|l| !l.contains("\"eval\",\"step\":23,")).collect();
    std::fs::write(place.path("run/metrics.jsonl"), kept.join("\n") + "\n").unwrap();
    assert_ne!(place.text("run/metrics.jsonl"), log);
    place.ok(&["train", "--device", "cpu", "--resume", "run"]);
    same(&place, "calm", "run");
    let kept: Vec<&str> = log.lines().filter(|l| !l.contains("\"eval\",\"step\":17,")).collect();
    std::fs::write(place.path("run/metrics.jsonl"), kept.join("\n") + "\n").unwrap();
    place.ok(&["train", "--device", "cpu", "--resume", "run/checkpoints/step-18"]);
    same(&place, "calm", "run");
}

/// The step is saved before it is evaluated: what ends the process there, such as a lack of memory, costs
/// nothing.
#[cfg(target_os = "linux")]
#[test]
fn what_ends_the_process_in_an_evaluation_costs_nothing() {
    let place = Place::new();
    std::fs::copy(place.path("tokens.arrow"), place.path("eval.arrow")).unwrap();
    let more = ["--data", "tokens.arrow", "--eval-data", "eval.arrow", "--set", "train.save_every=6"];
    let slow = ["--set", "train.gradient_accumulation_steps=20"];
    let train = place.train("run", &[&more[..], &slow].concat());
    let mut child = place.command(&strs(&train)).stderr(std::process::Stdio::piped()).spawn().unwrap();
    wait_for_step(&place, "run", &mut child, 0);
    // What is mapped of a file that has become shorter cannot be read: the system says SIGBUS.
    std::fs::File::options().write(true).open(place.path("eval.arrow")).unwrap().set_len(0).unwrap();
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    super::one_line(&ended, &["eval.arrow", "cannot be read any more"]);
    let latest = lnfree::checkpoint::latest(&place.path("run")).unwrap();
    assert!(latest.ends_with("step-6"), "{latest:?}");
    lnfree::atomic::verify_checksums(&latest).unwrap();
}

#[test]
fn stopping_while_gates_close_changes_nothing() {
    let place = Place::new();
    let more = [
        "--set",
        "schedule.taper_steps=1",
        "--set",
        "schedule.order=[2, 0, 1]",
        "--set",
        "norm.average=least_squares",
        "--set",
        "eval.every=1",
        "--set",
        "data.eval=tokens.arrow",
    ];
    place.ok(&strs(&place.train("calm", &more)));
    stopped_and_resumed(&place, "stopped", &more, &STOPS);
    same(&place, "calm", "stopped");
}

#[test]
fn stopping_after_a_step_changes_nothing() {
    let place = Place::new();
    place.ok(&strs(&place.train("calm", &[])));
    let stopped = place.ok(&strs(&place.train("stopped", &["--stop-after", "7"])));
    assert_eq!(stopped, "stopped after step 7 of 24, as asked; --resume stopped goes on\n");
    let latest = lnfree::checkpoint::latest(&place.path("stopped")).unwrap();
    assert!(latest.ends_with("step-7"), "{latest:?}");
    let resume = ["train", "--device", "cpu", "--resume", "stopped"];
    let until = |step| [&resume[..], &["--stop-after", step]].concat();
    place.fails(&until("6"), &["cannot stop after step 6: 7 of its 24 steps are done"]);
    place.ok(&until("7"));
    place.ok(&until("15"));
    place.ok(&resume);
    same(&place, "calm", "stopped");
    place.fails(&strs(&place.train("none", &["--stop-after", "25"])), &["25", "train.max_steps is 24"]);
    assert_eq!(place.lnfree(&strs(&place.train("none", &["--stop-after", "0"]))).code, Some(2));
    assert!(!place.path("none").exists());
}
