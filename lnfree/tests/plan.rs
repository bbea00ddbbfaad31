//! The plan's arithmetic against what training really holds, and parts of batches against whole ones.

mod common;

use common::random_run;
use lnfree::config::FloatType;
use lnfree::device::{peak_memory, reset_peak_memory};
use lnfree::model::{Gpt2Config, Shape};
use lnfree::norm::{LnState, RemovalKind};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::train::memory::{Passes, TrainingMemory};
use lnfree::train::{Mode, Trainer};

/// Takes away every LN.
fn all_removed(ln: &mut LnState) {
    RemovalKind::ALL.into_iter().for_each(|kind| ln.remove(kind, None));
}

/// Peak memory of the process while it takes two steps, in MiB: measured, and as planned.
fn measured_and_planned(config: &Gpt2Config, batch: usize, passes: Passes) -> (f64, f64) {
    let train = format!(
        "batch_size = {batch}\nmicro_batch_size = {batch}\nlearning_rate = 1e-5\nmin_lr = 1e-5\n\
         dtype = '{}'\ngradient_checkpointing = {}\n",
        passes.dtype.name(),
        passes.checkpointing
    );
    let vocab = config.vocab_size as u32;
    let tokens = (2 * batch as u32, move |row, at| (row * 37 + at * 101) % vocab);
    let (_folder, mut trainer) = match passes.removes_ln {
        true => random_run(config, tokens, &train, Mode::WithoutLn, all_removed),
        false => random_run(config, tokens, &train, Mode::WithLn, |_| {}),
    };
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
    common::let_freed_memory_go();
    let (deep, wide) = ([8, 4, 256, 512], [2, 4, 128, 16384]);
    for ([n_layer, n_head, n_embd, vocab_size], batch, dtype, checkpointing, removes_ln) in [
        (deep, 32, FloatType::Float32, false, false),
        (deep, 32, FloatType::Float32, true, false),
        (deep, 32, FloatType::Bfloat16, false, true),
        (deep, 32, FloatType::Bfloat16, true, true),
        (wide, 16, FloatType::Float32, false, true),
    ] {
        let config = Gpt2Config::new(n_layer, n_head, n_embd, 128, vocab_size).unwrap();
        let passes = Passes {
            micro_batch: batch as u64,
            seq: 128,
            dtype,
            checkpointing,
            removes_ln,
            teacher: false,
            hidden: false,
            lora_rank: 0,
        }
        .on(Device::Cpu);
        let (measured, planned) = measured_and_planned(&config, batch, passes);
        eprintln!(
            "{n_layer} x {n_embd}, {vocab_size}, {passes:?}: measured {measured:.0}, planned {planned:.0} MiB"
        );
        assert!((0.9..1.25).contains(&(planned / measured)), "{passes:?} {measured} {planned}");
    }
}

/// A trainer over 8 random sequences a step with end-of-text in some of them, which predicts no end-of-text.
fn trainer(micro_batch: usize, more: &str) -> (tempfile::TempDir, Trainer) {
    // Of the 3rd and 4th sequence only the first two targets count.
    let token =
        |row: u32, at: u32| if row % 8 == 2 && at > 2 { 60 } else { (row * 37 + at * at * 11 + at) % 61 };
    let train = format!(
        "batch_size = 8\ngradient_accumulation_steps = 2\nlearning_rate = 1e-2\nmin_lr = 1e-3\naux_loss_weight = 0.5\n\
         micro_batch_size = {micro_batch}\n{more}"
    );
    let shape = Gpt2Config::new(2, 2, 32, 16, 61).unwrap();
    random_run(&shape, (32, token), &train, Mode::WithoutLn, |_| {})
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
