//! Evaluation: equal to the plain formula whatever the chunks, batches and types, and nothing changed by it.

mod common;

use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::eval::{EvalOptions, Evaluation, Summary, evaluate};
use lnfree::hook::NoHook;
use lnfree::model::{Compute, Gpt2, Gpt2Config};
use lnfree::norm::LnState;
use lnfree::prelude::{FloatType, LoadedModel, locate_model, open_dataset};
use lnfree::tch::{Device, Kind, Tensor};

/// A small model of random weights whose vocabulary takes more than one block of logits.
fn random_model() -> (Gpt2, LnState) {
    let model = Gpt2::init(Gpt2Config::new(2, 2, 32, 48, 5003).unwrap(), 7, Device::Cpu).unwrap();
    let ln = LnState::plain(2, Device::Cpu);
    (model, ln)
}

/// A token file of sequences of these lengths.
fn token_file(folder: &tempfile::TempDir, lengths: &[usize]) -> TokenFile {
    let path = folder.path().join("tokens.arrow");
    let rows = lengths.iter().enumerate().map(|(i, len)| {
        Ok((0..*len as u32).map(|t| (t * 97 + i as u32 * 1013 + t * t * 31) % 5003).collect::<Vec<u32>>())
    });
    write_tokens(&path, rows, Layout::Variable, 5003).unwrap();
    TokenFile::open(&path).unwrap()
}

/// Cross-entropies by the plain formula, from whole logits in float64.
fn plain(model: &Gpt2, ln: &LnState, tokens: &TokenFile, row: usize) -> Vec<f64> {
    let ids = tokens.batch(&[row]).unwrap();
    let logits = model.forward(&ids, ln, Compute::default(), &mut NoHook).unwrap();
    let len = ids.size()[1];
    let logp = logits.narrow(1, 0, len - 1).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
    let picked = logp.gather(-1, &ids.narrow(1, 1, len - 1).unsqueeze(-1), false);
    Vec::try_from((-picked).view(-1)).unwrap()
}

fn run(model: &Gpt2, ln: &LnState, tokens: &TokenFile, options: EvalOptions) -> Evaluation {
    evaluate(model, ln, tokens, options, |_| {}).unwrap()
}

#[test]
fn losses_are_those_of_the_plain_formula() {
    let folder = tempfile::tempdir().unwrap();
    let lengths = [48, 48, 48, 20, 20, 1, 48, 2];
    let tokens = token_file(&folder, &lengths);
    let (model, ln) = random_model();
    // Far from uniform, so that an error shows.
    let _ = lnfree::tch::no_grad(|| model.wte.shallow_clone().g_mul_scalar_(30.0));
    for batch_size in [1, 2, 3, 100] {
        let found = run(&model, &ln, &tokens, EvalOptions { batch_size, ..EvalOptions::default() });
        let rows: Vec<_> = found.sequences.iter().map(|s| s.sequence).collect();
        assert_eq!(rows, [0, 1, 2, 3, 4, 6, 7], "a single token predicts nothing");
        let expected: Vec<f64> = rows.iter().flat_map(|&row| plain(&model, &ln, &tokens, row)).collect();
        assert_eq!(found.losses.len(), expected.len());
        for (a, b) in found.losses.iter().zip(&expected) {
            assert!((f64::from(*a) - b).abs() < 2e-6 * (1.0 + b), "{a} {b}");
        }
        let mean = expected.iter().sum::<f64>() / expected.len() as f64;
        assert!((Summary::new(&found.losses).mean - mean).abs() < 1e-6);
        let of_sequences: f64 = found.sequences.iter().map(|s| s.loss * s.n_tokens as f64).sum();
        assert!((of_sequences / expected.len() as f64 - mean).abs() < 1e-6);
    }
    let partial = EvalOptions { batch_size: 2, drop_last: true, ..EvalOptions::default() };
    let kept: Vec<_> = run(&model, &ln, &tokens, partial).sequences.iter().map(|s| s.sequence).collect();
    assert_eq!(kept, [0, 1, 3, 4], "batches that are not full are left out");
}

#[test]
fn entropy_accuracy_and_confidence_are_those_of_the_distributions() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = token_file(&folder, &[30; 6]);
    let (model, ln) = random_model();
    let _ = lnfree::tch::no_grad(|| model.wte.shallow_clone().g_mul_scalar_(30.0));
    let found = run(&model, &ln, &tokens, EvalOptions::default());
    let ids = tokens.batch(&[0, 1, 2, 3, 4, 5]).unwrap();
    let logits = model.forward(&ids, &ln, Compute::default(), &mut NoHook).unwrap().narrow(1, 0, 29);
    let logp = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
    let entropy = -(logp.exp() * &logp).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
    assert!((found.entropy - entropy.mean(Kind::Double).double_value(&[])).abs() < 1e-5);
    let hits = logp.argmax(-1, false).eq_tensor(&ids.narrow(1, 1, 29)).to_kind(Kind::Double);
    assert!((found.accuracy - hits.mean(Kind::Double).double_value(&[])).abs() < 1e-9);
    let confidence = logp.amax([-1i64], false).exp().sum(Kind::Double).double_value(&[]);
    let counted: f64 = found.calibration.confidence.iter().sum();
    assert!((counted - confidence).abs() < 1e-4 && found.calibration.count.iter().sum::<u64>() == 6 * 29);
}

#[test]
fn bfloat16_agrees_even_where_logits_are_far_from_zero() {
    let loaded = LoadedModel::load(&locate_model("nano").unwrap(), None, Kind::Float, Device::Cpu).unwrap();
    let tokens = open_dataset("nano-addresses", 128).unwrap();
    let options = EvalOptions { max_sequences: 24, ..EvalOptions::default() };
    let exact = Summary::new(&run(&loaded.model, &loaded.ln, &tokens, options).losses).mean;
    let bf16 = EvalOptions { dtype: FloatType::Bfloat16, ..options };
    let close = Summary::new(&run(&loaded.model, &loaded.ln, &tokens, bf16).losses).mean;
    assert!((close - exact).abs() < 5e-3, "{close} {exact}");
    // The same model with all logits of a position moved by some -100, as GPT-2's are: ln_f's bias reads a
    // common direction.
    let mut far = loaded.model;
    far.lm_head = Some(lnfree::tch::no_grad(|| far.wte.copy()));
    lnfree::tch::no_grad(|| {
        let head = far.lm_head.as_ref().unwrap();
        let bias = &far.ln_f.as_ref().unwrap().bias;
        let direction = bias / bias.norm();
        let common = &direction * (-100.0 / bias.norm().double_value(&[]));
        let _ = head.shallow_clone().g_add_(&common.unsqueeze(0));
    });
    let ids = tokens.batch(&[0]).unwrap();
    let logits = far.forward(&ids, &loaded.ln, Compute::default(), &mut NoHook).unwrap();
    assert!(logits.mean(Kind::Float).double_value(&[]).abs() > 50.0, "the logits are far from zero");
    let moved = Summary::new(&run(&far, &loaded.ln, &tokens, bf16).losses).mean;
    assert!((moved - exact).abs() < 5e-3, "{moved} {exact}");
}

#[test]
fn a_token_without_finite_losses_takes_all_figures_with_it_and_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = token_file(&folder, &[12, 12, 9, 12]);
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for dtype in [FloatType::Float32, FloatType::Bfloat16] {
            let (mut model, ln) = random_model();
            // Only what is read at position 5 of sequence 2 is spoilt, not how it is predicted.
            model.lm_head = Some(model.wte.copy());
            let spoilt = tokens.row(2).unwrap()[5] as i64;
            let _ = lnfree::tch::no_grad(|| model.wte.get(spoilt).fill_(bad));
            let found =
                run(&model, &ln, &tokens, EvalOptions { dtype, batch_size: 2, ..EvalOptions::default() });
            let lost: Vec<usize> =
                (0..found.losses.len()).filter(|&i| !found.losses[i].is_finite()).collect();
            // From there on; before, a weight of zero makes NaN of it in some formulas of attention.
            assert!(lost.ends_with(&[27, 28, 29]) && lost[0] >= 22, "{bad} {dtype:?}: {lost:?}");
            let place = found.not_finite().unwrap();
            assert_eq!((place.n_tokens, place.sequence, place.position), (lost.len(), 2, lost[0] - 22));
            let error = found.check("m", "d").unwrap_err().to_string();
            assert!(error.contains(&format!("{} of 41 tokens", lost.len())), "{error}");
            let figures = [found.entropy, found.accuracy, found.calibration_error()];
            assert!(figures.iter().all(|figure| figure.is_nan()), "{figures:?}");
        }
    }
}

#[test]
fn an_evaluation_changes_nothing_and_repeats_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = token_file(&folder, &[48; 5]);
    let (model, ln) = random_model();
    let before: Vec<Tensor> = model.named_parameters().iter().map(|(_, t)| t.copy()).collect();
    let stds = (ln.statistics.running.copy(), ln.statistics.frozen.copy());
    let options = EvalOptions { batch_size: 2, ..EvalOptions::default() };
    let first = run(&model, &ln, &tokens, options);
    assert_eq!(run(&model, &ln, &tokens, options), first);
    assert_eq!(stds, (ln.statistics.running.copy(), ln.statistics.frozen.copy()));
    for ((name, after), before) in model.named_parameters().iter().zip(&before) {
        assert_eq!(after, before, "{name}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (model, ln) = random_model();
    let error = |lengths: &[usize], options: EvalOptions| {
        let tokens = token_file(&folder, lengths);
        evaluate(&model, &ln, &tokens, options, |_| {}).unwrap_err().to_string()
    };
    assert!(error(&[1, 1], EvalOptions::default()).contains("at least two tokens"));
    let drop = EvalOptions { batch_size: 4, drop_last: true, ..EvalOptions::default() };
    assert!(error(&[48; 3], drop).contains("full batch of 4"));
    assert!(error(&[49], EvalOptions::default()).contains("49 tokens do not fit the model's 48 positions"));
    let tf32 = EvalOptions { dtype: FloatType::Tf32, ..EvalOptions::default() };
    assert!(error(&[48], tf32).contains("tf32 needs a CUDA device"));
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
