//! A step that the system refuses memory for goes on in parts, and has the result that it has where there is
//! room; where no parts are possible, nothing that was done is lost.

#![cfg(target_os = "linux")]

mod common;

use std::sync::{Mutex, MutexGuard};

use common::random_run;
use lnfree::Error;
use lnfree::model::{Gpt2Config, Shape};
use lnfree::norm::{LnState, RemovalKind};
use lnfree::tch::Device;
use lnfree::train::memory::{Passes, TrainingMemory};
use lnfree::train::{Mode, StepRecord, Trainer, run};

const BATCH: u64 = 32;

/// Limits are the process's: one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    lnfree::tch::set_num_threads(1);
    common::let_freed_memory_go();
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

fn trainer(more: &str, removed: impl FnOnce(&mut LnState)) -> (tempfile::TempDir, Trainer) {
    let train = format!(
        "batch_size = {BATCH}\nmicro_batch_size = {BATCH}\nlearning_rate = 1e-3\nmin_lr = 1e-3\naux_loss_weight = 0.1\n{more}"
    );
    let shape = Gpt2Config::new(8, 4, 256, 128, 512).unwrap();
    let token = |row: u32, at: u32| (row * 37 + at * 101) % 500;
    random_run(&shape, (128, token), &train, Mode::WithoutLn, removed)
}

/// What a step of `trainer` will need beside what is there.
fn needs(trainer: &Trainer) -> u64 {
    let passes = Passes::of(&trainer.config, Mode::WithoutLn, BATCH);
    TrainingMemory::new(&Shape::of(&trainer.model.config), passes, Device::Cpu).still_to_come()
}

/// What `work` comes to when this process may have no more than `bytes` of addresses beside those that it
/// has.
fn within<T>(bytes: u64, work: impl FnOnce() -> T) -> T {
    let before = limit(addresses_taken() + bytes);
    let outcome = work();
    limit(before);
    outcome
}

/// Lets this process have at most `bytes` of addresses; returns what it had.
fn limit(bytes: u64) -> u64 {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: reads and sets a limit through a struct that lives.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_AS, &raw mut now), 0);
        let new = libc::rlimit { rlim_cur: bytes, ..now };
        assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &raw const new), 0);
    }
    now.rlim_cur
}

fn addresses_taken() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[track_caller]
fn same(a: &StepRecord, b: &StepRecord) {
    for (x, y) in [(a.loss, b.loss), (a.aux_loss, b.aux_loss), (a.grad_norm, b.grad_norm)] {
        assert!((x - y).abs() < 1e-5 * y.abs().max(1e-3), "{a:?} {b:?}");
    }
    for (name, std) in &b.stds {
        assert!((a.stds[name] - std).abs() < 1e-6, "{name}");
    }
}

#[test]
fn a_step_that_memory_ran_out_in_begins_again_in_parts() {
    let _alone = alone();
    let whole = trainer("", |_| {}).1.train_step().unwrap();
    let (_folder, mut short) = trainer("", |_| {});
    let room = needs(&short) / 2 + needs(&short) / 8;
    let step = within(room, || short.train_step()).unwrap();
    assert!(short.micro_batch() < BATCH as usize, "memory did not run out");
    same(&step, &whole);
}

#[test]
fn clipping_and_adamw_take_no_memory() {
    let _alone = alone();
    let (_folder, mut trainer) = trainer("", |_| {});
    trainer.accumulate_gradients().unwrap();
    // Less than the gradient of one matrix takes: the moments are there since the beginning.
    let record = within(1 << 19, || trainer.update_parameters()).unwrap();
    assert!(record.grad_norm > 0.0 && trainer.step() == 1);
}

#[test]
fn a_run_without_room_for_a_step_keeps_what_it_did() {
    let _alone = alone();
    // Fake LNs that divide by what the same forward sees cannot be computed in parts.
    let norm = "[norm]\nrecompute_on_fake = true\n";
    let ln2_removed = |ln: &mut LnState| ln.remove(RemovalKind::Ln2, None);
    let (_folder, mut short) = trainer(norm, ln2_removed);
    short.train_step().unwrap();
    let runs = tempfile::tempdir().unwrap();
    let room = needs(&short) / 2;
    let outcome = within(room, || run(&mut short, runs.path()));
    assert!(matches!(outcome, Err(Error::OutOfMemory)), "{outcome:?}");
    assert!(runs.path().join("checkpoints/step-1/model.safetensors").is_file());
    // And the step that failed has left no trace.
    let (_folder, mut whole) = trainer(norm, ln2_removed);
    whole.train_step().unwrap();
    same(&short.train_step().unwrap(), &whole.train_step().unwrap());
}
