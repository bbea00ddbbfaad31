//! The plan's arithmetic against what training really holds, and parts of batches against whole ones.

use std::path::PathBuf;

use lnfree::config::{Config, FloatType};
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::device::{peak_memory, reset_peak_memory};
use lnfree::model::{Gpt2, Gpt2Config, Shape};
use lnfree::norm::{LnState, RemovalKind};
use lnfree::plan::{Passes, TrainingMemory};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::train::{Mode, StartOptions, Trainer};

/// Peak memory of the process while it takes two steps, in MiB: measured, and as planned.
fn measured_and_planned(config: &Gpt2Config, batch: usize, passes: Passes) -> (f64, f64) {
    let seq = config.block_size as usize;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.arrow");
    let vocab = config.vocab_size as u32;
    let rows = (0..2 * batch as u32)
        .map(|row| Ok((0..seq as u32).map(|at| (row * 37 + at * 101) % vocab).collect()));
    write_tokens(&path, rows, Layout::Fixed(seq), vocab as usize).unwrap();
    let text = format!(
        "model = {{ name = 'x', n_layer = {} }}\ndata = {{ train = 'x', block_size = {seq} }}\n\
         [train]\nbatch_size = {batch}\nmicro_batch_size = {batch}\nmax_steps = 4\nlearning_rate = 1e-5\nmin_lr = 1e-5\n\
         warmup_steps = 0\ndropout = 0.0\ndtype = '{}'\ngradient_checkpointing = {}\n",
        config.n_layer,
        passes.dtype.name(),
        passes.checkpointing
    );
    let run = Config::parse(&text, "test", &[]).unwrap();
    let model = Gpt2::init(config.clone(), 0, Device::Cpu).unwrap();
    let mut ln = LnState::real(&vec![(0.1, 0.1); 2 * model.h.len() + 1], run.norm.clone(), Device::Cpu);
    let mode = if passes.removes_ln { Mode::WithoutLn } else { Mode::WithLn };
    for kind in RemovalKind::ALL.into_iter().filter(|_| passes.removes_ln) {
        ln.remove(kind, None);
    }
    let tokens = TokenFile::open(&path).unwrap();
    let start =
        StartOptions { mode, model_dir: PathBuf::new(), tokens, eval_tokens: None, device: Device::Cpu };
    let mut trainer = Trainer::of_model(run, start, model, ln).unwrap();
    reset_peak_memory(Device::Cpu);
    trainer.train_step().unwrap();
    trainer.train_step().unwrap();
    let planned = TrainingMemory::new(&Shape::of(config), passes, Device::Cpu).total();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    (mib(peak_memory(Device::Cpu).unwrap()), mib(planned))
}

#[test]
#[cfg(target_os = "linux")]
fn plans_agree_with_the_memory_that_training_takes() {
    // Lets freed memory go at once, so that the process holds what tensors hold.
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
    let (deep, wide) = ([8, 4, 256, 512], [2, 4, 128, 16384]);
    for ([n_layer, n_head, n_embd, vocab_size], batch, dtype, checkpointing, removes_ln) in [
        (deep, 32, FloatType::Float32, false, false),
        (deep, 32, FloatType::Float32, true, false),
        (deep, 32, FloatType::Bfloat16, false, true),
        (deep, 32, FloatType::Bfloat16, true, true),
        (wide, 16, FloatType::Float32, false, true),
    ] {
        let config = Gpt2Config::new(n_layer, n_head, n_embd, 128, vocab_size).unwrap();
        let passes = Passes { micro_batch: batch as u64, seq: 128, dtype, checkpointing, removes_ln };
        let (measured, planned) = measured_and_planned(&config, batch, passes);
        eprintln!(
            "{n_layer} x {n_embd}, {vocab_size}, {passes:?}: measured {measured:.0}, planned {planned:.0} MiB"
        );
        assert!((0.9..1.25).contains(&(planned / measured)), "{passes:?} {measured} {planned}");
    }
}

/// A trainer over 8 random sequences a step with end-of-text in some of them, which predicts no end-of-text.
fn trainer(micro_batch: usize, more: &str) -> (tempfile::TempDir, Trainer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.arrow");
    // Of the 3rd and 4th sequence only the first two targets count.
    let token =
        |row: u32, at: u32| if row % 8 == 2 && at > 2 { 60 } else { (row * 37 + at * at * 11 + at) % 61 };
    write_tokens(
        &path,
        (0..32).map(|row| Ok((0..16).map(|at| token(row, at)).collect())),
        Layout::Fixed(16),
        61,
    )
    .unwrap();
    let text = format!(
        "model = {{ name = 'x', n_layer = 2 }}\ndata = {{ train = 'x', block_size = 16, shuffle = false }}\n\
         [train]\nbatch_size = 8\ngradient_accumulation_steps = 2\nmax_steps = 4\nlearning_rate = 1e-2\nmin_lr = 1e-3\n\
         warmup_steps = 0\naux_loss_weight = 0.5\ndropout = 0.0\nmicro_batch_size = {micro_batch}\n{more}"
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    let model = Gpt2::init(Gpt2Config::new(2, 2, 32, 16, 61).unwrap(), 0, Device::Cpu).unwrap();
    let ln = LnState::real(&[(0.1, 0.2); 5], config.norm.clone(), Device::Cpu);
    let tokens = TokenFile::open(&path).unwrap();
    let start = StartOptions {
        mode: Mode::WithoutLn,
        model_dir: PathBuf::new(),
        tokens,
        eval_tokens: None,
        device: Device::Cpu,
    };
    (folder, Trainer::of_model(config, start, model, ln).unwrap())
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().to_kind(Kind::Double).double_value(&[])
}

#[test]
fn parts_of_a_batch_have_the_result_of_the_whole() {
    let schedule = "[schedule]\nstart_ln2 = 1\ngap_ln2 = 0\nstart_ln1qk = 2\ngap_ln1qk = 0\n";
    for more in [schedule.to_string(), format!("gradient_checkpointing = true\n{schedule}")] {
        let (_a, mut whole) = trainer(8, &more);
        for micro_batch in [4, 2, 1] {
            let (_b, mut split) = trainer(micro_batch, &more);
            let (_c, mut whole_again) = trainer(8, &more);
            for _ in 0..3 {
                for trainer in [&mut split, &mut whole_again] {
                    trainer.apply_removals();
                }
                let (here, there) = (split.train_step().unwrap(), whole_again.train_step().unwrap());
                for (a, b) in [
                    (here.loss, there.loss),
                    (here.ce_loss, there.ce_loss),
                    (here.aux_loss, there.aux_loss),
                    (here.grad_norm, there.grad_norm),
                ] {
                    assert!((a - b).abs() < 1e-5 * b.abs().max(1e-3), "{micro_batch}: {here:?} {there:?}");
                }
                let (a, b) = (&split.ln.statistics.running, &whole_again.ln.statistics.running);
                assert!(largest_difference(a, b) < 1e-6, "{micro_batch}");
            }
        }
        // And the parts do something: another auxiliary weight is another loss.
        assert!(whole.train_step().unwrap().aux_loss > 0.0);
    }
}
