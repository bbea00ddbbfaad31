//! A step that the system refuses memory for goes on in parts, and has the result that it has where there is room.

#![cfg(target_os = "linux")]

use std::path::PathBuf;

use lnfree::config::Config;
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::model::{Gpt2, Gpt2Config, Shape};
use lnfree::norm::LnState;
use lnfree::plan::{Passes, TrainingMemory};
use lnfree::tch::Device;
use lnfree::train::{Mode, StartOptions, Trainer};

const BATCH: u64 = 32;

fn trainer(folder: &tempfile::TempDir) -> Trainer {
    let path = folder.path().join("tokens.arrow");
    let rows = (0..64u32).map(|row| Ok((0..128).map(|at| (row * 37 + at * 101) % 500).collect()));
    write_tokens(&path, rows, Layout::Fixed(128), 512).unwrap();
    let text = format!(
        "model = {{ name = 'x', n_layer = 8 }}\ndata = {{ train = 'x', block_size = 128 }}\n\
         [train]\nbatch_size = {BATCH}\nmicro_batch_size = {BATCH}\nmax_steps = 4\nlearning_rate = 1e-3\nmin_lr = 1e-3\n\
         warmup_steps = 0\ndropout = 0.0\naux_loss_weight = 0.1\n"
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    let model = Gpt2::init(Gpt2Config::new(8, 4, 256, 128, 512).unwrap(), 0, Device::Cpu).unwrap();
    let ln = LnState::real(&[(0.1, 0.2); 17], config.norm.clone(), Device::Cpu);
    let tokens = TokenFile::open(&path).unwrap();
    let start = StartOptions {
        mode: Mode::WithoutLn,
        model_dir: PathBuf::new(),
        tokens,
        eval_tokens: None,
        device: Device::Cpu,
    };
    Trainer::of_model(config, start, model, ln).unwrap()
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

#[test]
fn a_step_that_memory_ran_out_in_begins_again_in_parts() {
    lnfree::tch::set_num_threads(1);
    // Freed memory goes at once, so that the limit is about what is held.
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
    let folder = tempfile::tempdir().unwrap();
    let whole = trainer(&folder).train_step().unwrap();
    let mut short = trainer(&folder);
    let needs = |micro_batch| {
        let passes = Passes::of(&short.config, Mode::WithoutLn, micro_batch);
        TrainingMemory::new(&Shape::of(&short.model.config), passes, Device::Cpu).still_to_come()
    };
    let before = limit(addresses_taken() + needs(BATCH) / 2 + needs(BATCH) / 8);
    let step = short.train_step();
    limit(before);
    let step = step.unwrap();
    assert!(short.micro_batch() < BATCH as usize, "memory did not run out");
    for (a, b) in
        [(step.loss, whole.loss), (step.aux_loss, whole.aux_loss), (step.grad_norm, whole.grad_norm)]
    {
        assert!((a - b).abs() < 1e-5 * b.abs().max(1e-3), "{step:?} {whole:?}");
    }
    for (name, std) in &whole.stds {
        assert!((step.stds[name] - std).abs() < 1e-6, "{name}");
    }
}
