//! That a step lets a GPU work ahead: the host reads nothing back before the step's end.

use tch::Device;

use super::*;
use crate::base::device::Kernels;
use crate::config::FloatType;
use crate::config::norm::RemovalKind;
use crate::model::Gpt2Config;
use crate::ops::ReadWatch;
use crate::study::bench::{BenchLn, BenchOptions, Task, bench_trainer};

/// Two micro-batches of four sequences, with the auxiliary loss, that go through two at a time.
fn trainer(ln: BenchLn, dtype: FloatType, checkpointing: bool) -> (tempfile::TempDir, Trainer) {
    let options = BenchOptions {
        task: Task::Train,
        ln,
        batch_size: 4,
        accumulation: 2,
        seq: 16,
        prompt: 0,
        steps: 10,
        warmup: 0,
        dtype,
        checkpointing,
        aux_weight: 0.1,
    };
    let (folder, mut trainer) =
        bench_trainer(Gpt2Config::new(2, 2, 32, 16, 61).unwrap(), Device::Cpu, options).unwrap();
    trainer.micro_batch = 2;
    (folder, trainer)
}

/// What reads numbers back while gradients are gathered, and then until the step is done.
fn reads(trainer: &mut Trainer) -> (Vec<String>, Vec<String>) {
    let watch = ReadWatch::begin().unwrap();
    trainer.apply_removals();
    trainer.accumulate_gradients().unwrap();
    let before = watch.seen();
    trainer.update_parameters().unwrap();
    (before.clone(), watch.seen().split_off(before.len()))
}

#[test]
fn the_host_reads_back_once_a_step_on_the_path_of_a_gpu() {
    let _plain = Kernels::Plain.on_this_thread();
    for ln in [BenchLn::Real, BenchLn::Half, BenchLn::Fake] {
        for (dtype, checkpointing) in
            [(FloatType::Float32, false), (FloatType::Bfloat16, false), (FloatType::Bfloat16, true)]
        {
            let (_folder, mut trainer) = trainer(ln, dtype, checkpointing);
            for step in 0..3 {
                let what = format!("{ln:?} {dtype:?} checkpointing {checkpointing} step {step}");
                if step == 2 && ln == BenchLn::Half {
                    // As when a removal has come due.
                    trainer.ln.remove(RemovalKind::Ln1V, Some(1));
                }
                let (before, at_the_end) = reads(&mut trainer);
                assert!(before.is_empty(), "{what}: {before:?}");
                assert_eq!(at_the_end, ["aten::to"], "{what}");
            }
        }
    }
}

#[test]
fn dropout_and_statistics_that_fake_lns_follow_read_nothing_back() {
    let _plain = Kernels::Plain.on_this_thread();
    let (_folder, mut trainer) = trainer(BenchLn::Half, FloatType::Float32, false);
    trainer.model.config.resid_pdrop = 0.1;
    trainer.model.config.embd_pdrop = 0.1;
    for block in &mut trainer.model.h {
        (block.resid_pdrop, block.attn.attn_pdrop) = (0.1, 0.1);
    }
    trainer.ln.settings.recompute_on_fake = true;
    trainer.ln.settings.special_std = true;
    trainer.config.train.predict_eot = true;
    for _ in 0..2 {
        let (before, at_the_end) = reads(&mut trainer);
        assert!(before.is_empty(), "{before:?}");
        assert_eq!(at_the_end, ["aten::to"]);
    }
}

/// Our kernels for CPUs ask tensors for numbers, which costs nothing there: so the watch does see what it is
/// there for.
#[test]
fn the_watch_sees_reads_within_a_step() {
    if Kernels::in_force().unwrap() == Kernels::Plain {
        return;
    }
    let (_folder, mut trainer) = trainer(BenchLn::Fake, FloatType::Float32, false);
    assert!(!reads(&mut trainer).0.is_empty());
}
