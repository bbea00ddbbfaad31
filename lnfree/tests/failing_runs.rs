//! Data and evaluations that fail in the middle of a run: nothing that was done is lost, and the run goes on
//! where it can.

use std::os::unix::fs::FileExt;
use std::path::Path;

use lnfree::Error;
use lnfree::config::Config;
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::model::{Gpt2, Gpt2Config};
use lnfree::norm::LnState;
use lnfree::tch::{Device, no_grad};
use lnfree::train::{Mode, StartOptions, Trainer, run};
use serde_json::Value;
use tempfile::TempDir;

const TRAIN: &str = "batch_size = 2\ngradient_accumulation_steps = 3\nlearning_rate = 1e-3\nmin_lr = 1e-3\n\
                     save_every = 2\naux_loss_weight = 0.1\n";

fn token(row: u32, at: u32) -> u32 {
    (row * 37 + at * 101) % 60
}

/// libtorch's random generator, which makes the models, is one for the whole process.
fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A run of 4 steps on sequences of 8, and its folder; `evaluated` after steps 2 and 4 on sequences of 16.
fn trainer(evaluated: bool) -> (TempDir, Trainer) {
    lnfree::tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, seq: u32| {
        let path = folder.path().join(name);
        let rows = (0..64).map(|row| Ok((0..seq).map(|at| token(row, at)).collect()));
        // For a vocabulary of this size ids are signed, so that there are wrong ones.
        write_tokens(&path, rows, Layout::Fixed(seq as usize), 70_000).unwrap();
        TokenFile::open(&path).unwrap()
    };
    let text = format!(
        "model = {{ name = 'x', n_layer = 2 }}\ndata = {{ train = 'x', block_size = 8, shuffle = false }}\n\
         eval = {{ every = 2, batch_size = 2, max_sequences = 8 }}\n\
         [train]\nwarmup_steps = 0\nmax_steps = 4\n{TRAIN}"
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    let model = Gpt2::init(Gpt2Config::new(2, 2, 16, 16, 64).unwrap(), 0, Device::Cpu).unwrap();
    let ln = LnState::real(&[(0.1, 0.2); 5], config.norm.clone(), Device::Cpu);
    let (tokens, eval_tokens) = (write("tokens.arrow", 8), evaluated.then(|| write("eval.arrow", 16)));
    let model_dir = Default::default();
    let start = StartOptions { mode: Mode::WithoutLn, model_dir, tokens, eval_tokens, device: Device::Cpu };
    let trainer = Trainer::of_model(config, start, model, ln).unwrap();
    (folder, trainer)
}

/// Puts -8 in the place of the ids of row `row`, or these back, in a file that is mapped: the trainer sees
/// it.
fn damage(file: &Path, row: u32, seq: u32, damaged: bool) {
    let whole: Vec<u8> = (0..seq).flat_map(|at| token(row, at).to_le_bytes()).collect();
    let bad = (-8i32).to_le_bytes().repeat(seq as usize);
    let (old, new) = if damaged { (&whole, &bad) } else { (&bad, &whole) };
    let all = std::fs::read(file).unwrap();
    let place = all.windows(old.len()).position(|w| w == old).unwrap();
    std::fs::File::options().write(true).open(file).unwrap().write_all_at(new, place as u64).unwrap();
}

fn gradients(trainer: &Trainer) -> f64 {
    trainer.optimizer().grad_norm().double_value(&[])
}

#[test]
fn a_data_error_within_a_step_leaves_all_as_it_was() {
    let _alone = alone();
    let (_calm, mut calm) = trainer(false);
    let (folder, mut trainer) = trainer(false);
    let tokens = folder.path().join("tokens.arrow");
    // The last of the three micro-batches of the first step.
    damage(&tokens, 5, 8, true);
    for _ in 0..2 {
        let error = trainer.train_step().unwrap_err().to_string();
        assert!(error.contains("tokens.arrow") && error.contains("-8"), "{error}");
        assert_eq!((trainer.step(), gradients(&trainer)), (0, 0.0));
    }
    damage(&tokens, 5, 8, false);
    for _ in 0..2 {
        let (mut found, expected) = (trainer.train_step().unwrap(), calm.train_step().unwrap());
        found.tokens_per_s = expected.tokens_per_s;
        assert_eq!(found, expected);
    }
}

fn events(run: &Path) -> Vec<Value> {
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_data_error_within_a_run_keeps_what_was_done() {
    let _alone = alone();
    let (folder, mut trainer) = trainer(false);
    // In the fourth step; three are done, and the second of them saved.
    damage(&folder.path().join("tokens.arrow"), 20, 8, true);
    let dir = folder.path().join("run");
    let error = run(&mut trainer, &dir).unwrap_err().to_string();
    assert!(error.contains("id -8"), "{error}");
    let latest = lnfree::checkpoint::latest(&dir).unwrap();
    assert!(latest.ends_with("step-3"), "{latest:?}");
    assert_eq!(events(&dir).iter().filter(|line| line.get("loss").is_some()).count(), 3);
}

#[track_caller]
fn failed_twice(dir: &Path, reason: &str) {
    let failed: Vec<Value> = events(dir).into_iter().filter(|line| line["event"] == "eval_failed").collect();
    assert_eq!(failed.iter().map(|e| e["step"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 3]);
    for event in &failed {
        let said = event["reason"].as_str().unwrap();
        assert!(said.contains(reason) && !said.contains('\n'), "{said}");
    }
    // Training went on to its end, and all of it is there.
    assert_eq!(events(dir).iter().filter(|line| line.get("grad_norm").is_some()).count(), 4);
    for step in [2, 4] {
        lnfree::atomic::verify_checksums(&dir.join(format!("checkpoints/step-{step}"))).unwrap();
    }
}

#[test]
fn an_evaluation_that_cannot_read_its_data_is_an_event() {
    let _alone = alone();
    let (folder, mut trainer) = trainer(true);
    damage(&folder.path().join("eval.arrow"), 3, 16, true);
    let dir = folder.path().join("run");
    assert_eq!(run(&mut trainer, &dir).unwrap().steps, 4);
    failed_twice(&dir, "id -8");
}

#[test]
fn an_evaluation_that_is_not_finite_is_an_event() {
    let _alone = alone();
    let (folder, mut trainer) = trainer(true);
    // A position that no training sequence reaches.
    let _ = no_grad(|| trainer.model.wpe.get(12).fill_(f64::NAN));
    let dir = folder.path().join("run");
    // After the last step nothing else would say that the model is ruined.
    match run(&mut trainer, &dir).unwrap_err() {
        Error::Diverged { step: 3, last_good: Some(last_good), .. } => {
            assert!(last_good.ends_with("step-2"), "{last_good:?}")
        }
        error => panic!("{error}"),
    }
    failed_twice(&dir, "the evaluation loss is NaN");
}
