//! Ways of removing LayerNorm other than the paper's: gates that close, another order, another constant.

mod common;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::config::{Config, DistillConfig};
use lnfree::data::TokenFile;
use lnfree::hook::{Activation, Capture, NoHook, without_patterns};
use lnfree::loss::{cross_entropy, predicting, targets};
use lnfree::model::{Compute, Gpt2, Gpt2Config, LoadedModel, StepModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind, StdAverage};
use lnfree::schedule::{Schedule, ScheduleConfig};
use lnfree::tch::{self, Device, Kind, Tensor};
use lnfree::train::{BackwardRecipe, Mode, StartOptions, Teacher, Trainer, backward};

const SITES: [LnSite; 4] = [LnSite::Ln1Qk(1), LnSite::Ln1V(1), LnSite::Ln2(2), LnSite::LnF];

fn tiny() -> Gpt2 {
    LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap().model
}

fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 4)
}

/// All LNs real, with constants far enough from their σ to tell both apart.
fn real() -> LnState {
    LnState::real(&[(0.3, 0.3); 7], NormSettings::default(), Device::Cpu)
}

fn gated(gates: &[(LnSite, f64)]) -> LnState {
    let mut ln = real();
    ln.set_gates(gates.to_vec());
    ln
}

fn fake() -> LnState {
    let mut ln = real();
    for (kind, layer) in [
        (RemovalKind::Ln1Qk, Some(1)),
        (RemovalKind::Ln1V, Some(1)),
        (RemovalKind::Ln2, Some(2)),
        (RemovalKind::LnF, None),
    ] {
        ln.remove(kind, layer);
    }
    ln
}

fn logits(model: &Gpt2, ln: &LnState) -> Tensor {
    tch::no_grad(|| model.forward(&ids(), ln, Compute::default(), &mut NoHook).unwrap())
}

#[test]
fn gates_lead_from_the_real_ln_to_the_fake_one() {
    let model = tiny();
    let [real, fake] = [real(), fake()].map(|ln| logits(&model, &ln));
    let at = |gate: f64| logits(&model, &gated(&SITES.map(|site| (site, gate))));
    assert_eq!(max_abs(&at(0.0), &real), 0.0);
    assert!(relative_rms(&at(1.0), &fake) < 1e-6);
    let between: Vec<f64> = [0.25, 0.5, 0.75].map(|gate| relative_rms(&at(gate), &real)).to_vec();
    assert!(between[0] > 1e-3 && between.is_sorted(), "{between:?}");
}

/// A face of ln_1 alone, and every site that a hook sees the scale of: there the LN is written out.
#[test]
fn a_gate_is_of_its_site_and_hooks_see_its_scale() {
    let model = tiny();
    let plain = logits(&model, &real());
    for site in SITES {
        let ln = gated(&[(site, 0.4)]);
        let found = logits(&model, &ln);
        assert!(relative_rms(&found, &plain) > 1e-4, "{site}");
        // A closure is called with every scale.
        let mut hook = |_, value: Tensor| value;
        let seen = tch::no_grad(|| model.forward(&ids(), &ln, Compute::default(), &mut hook).unwrap());
        assert!(relative_rms(&seen, &found) < 1e-5, "{site}");
    }
}

#[test]
fn gradients_go_through_the_gate() {
    let model = tiny();
    model.set_requires_grad(true);
    let (ln, ids) = (gated(&SITES.map(|site| (site, 0.4))), ids());
    let mut hook = |_, value: Tensor| value;
    let logits = model.forward(&ids, &ln, Compute::default(), &mut hook).unwrap();
    let (logits, targets) = (predicting(&logits), targets(&ids, None));
    cross_entropy(&logits, &targets).backward();
    let expected = taken(&model);
    for checkpointing in [false, true] {
        let recipe = BackwardRecipe { checkpointing, ..recipe() };
        StepModel::run(&model, &ln, recipe.compute, 0, |step| backward(step, &ln, &ids, &targets, recipe))
            .unwrap();
        same_gradients(&taken(&model), &expected);
    }
}

/// Against autograd through a plain forward of model and teacher.
#[test]
fn the_streams_of_a_teacher_pull_on_every_parameter() {
    let model = tiny();
    model.set_requires_grad(true);
    let (ln, ids) = (fake(), ids());
    let config = DistillConfig { teacher: None, weight: 1.0, temperature: 1.0, hidden_weight: 3.0 };
    let teacher = Teacher::load(&config, &vector("tiny-a"), &model, 64, Kind::Float).unwrap();
    let streams = |ln: &LnState| {
        let mut kept = Vec::new();
        let mut hook = without_patterns(|at: Activation, value: Tensor| {
            if matches!(at, Activation::ResidPost(0 | 1)) {
                kept.push(value.shallow_clone());
            }
            value
        });
        let logits = model.forward(&ids, ln, Compute::default(), &mut hook).unwrap();
        (predicting(&logits).log_softmax(-1, Kind::Float), kept)
    };
    let (ours, ours_kept) = streams(&ln);
    let (theirs, theirs_kept) = tch::no_grad(|| streams(&LnState::plain(3, Device::Cpu)));
    let sum = |x: Tensor| x.sum_dim_intlist(-1i64, false, Kind::Float);
    let kl = sum(theirs.exp() * (&theirs - &ours)).mean(Kind::Float);
    let centred = |x: &Tensor| x - x.mean_dim(-1i64, true, Kind::Float);
    let apart = |(x, t): (&Tensor, &Tensor)| {
        let (apart, t) = (centred(x) - centred(t), centred(t));
        (sum(&apart * &apart) / sum(&t * &t)).mean(Kind::Float)
    };
    let hidden = ours_kept.iter().zip(&theirs_kept).map(apart).reduce(|a, b| (a + b) / 2.0).unwrap();
    (&kl + &hidden * 3.0).backward();
    let expected = taken(&model);
    // With fake LNs outside the matrices, and in them.
    for (checkpointing, tokens) in [(false, 0), (true, 0), (false, 1 << 20)] {
        let recipe = BackwardRecipe { teacher: Some(&teacher), checkpointing, ..recipe() };
        let targets = targets(&ids, None);
        let losses = StepModel::run(&model, &ln, recipe.compute, tokens, |step| {
            backward(step, &ln, &ids, &targets, recipe)
        })
        .unwrap();
        let total = &kl + &hidden * 3.0;
        for (found, exact) in [(&losses.hidden, &hidden), (&losses.kl, &kl), (&losses.total, &total)] {
            assert!(max_abs(found, exact) < 1e-6 * exact.double_value(&[]), "{found} {exact}");
        }
        same_gradients(&taken(&model), &expected);
    }
    let deep = Gpt2::init(Gpt2Config::new(2, 4, 64, 64, 256).unwrap(), 0, Device::Cpu).unwrap();
    let refused = Teacher::load(&config, &vector("tiny-a"), &deep, 64, Kind::Float).unwrap_err().to_string();
    assert!(refused.contains("has 3 blocks of n_embd 64") && refused.contains("2 of 64"), "{refused}");
}

fn recipe() -> BackwardRecipe<'static> {
    BackwardRecipe {
        teacher: None,
        compute: Compute::default(),
        aux_weight: 0.0,
        scale: 1.0,
        aux_scale: 1.0,
        aux_target: None,
        checkpointing: false,
    }
}

/// The gradients of a model, which then are zero.
fn taken(model: &Gpt2) -> Vec<(String, Tensor)> {
    let named = model.named_parameters().into_iter();
    named
        .map(|(name, parameter)| {
            let grad = parameter.grad().copy();
            let _ = parameter.grad().zero_();
            (name, grad)
        })
        .collect()
}

#[track_caller]
fn same_gradients(found: &[(String, Tensor)], expected: &[(String, Tensor)]) {
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        let worst = max_abs(found, expected);
        assert!(worst < 1e-5 + 1e-3 * expected.abs().max().double_value(&[]), "{name}: {worst:e}");
    }
}

#[test]
fn gates_close_before_the_step_of_the_schedule() {
    let config =
        ScheduleConfig { start_ln2: Some(5), gap_ln2: 2, taper_steps: 3, ..ScheduleConfig::default() };
    let schedule = Schedule::new(&config, 2);
    let gates: Vec<Vec<(LnSite, f64)>> = (0..8).map(|step| schedule.gates_at(step)).collect();
    let (first, second) = (LnSite::Ln2(0), LnSite::Ln2(1));
    assert_eq!(gates[0..2], [vec![], vec![]]);
    assert_eq!(gates[2], [(first, 0.25)]);
    assert_eq!(gates[4], [(first, 0.75), (second, 0.25)]);
    // At step 5 the first is gone, at step 7 the second.
    assert_eq!(gates[5..8], [vec![(second, 0.5)], vec![(second, 0.75)], vec![]]);
    let at_once = Schedule::new(&ScheduleConfig { taper_steps: 0, ..config }, 2);
    assert!((0..8).all(|step| at_once.gates_at(step).is_empty()));
}

#[test]
fn blocks_go_in_the_order_of_the_config() {
    let order = Some(vec![2, 0, 1]);
    let config =
        ScheduleConfig { start_ln2: Some(5), gap_ln2: 2, start_lnf: Some(9), order, ..Default::default() };
    let schedule = Schedule::new(&config, 3);
    let found: Vec<(usize, Option<usize>)> = schedule.removals().iter().map(|r| (r.step, r.layer)).collect();
    assert_eq!(found, [(5, Some(2)), (7, Some(0)), (9, Some(1)), (9, None)]);
}

/// Of all constants mean(σ²)/mean(σ) brings the fake LN nearest to the real one.
#[test]
fn the_least_squares_constant_is_the_nearest() {
    let settings = NormSettings { average: StdAverage::LeastSquares, ..NormSettings::default() };
    let ln = LnState::real(&[(1.0, 1.0); 7], settings, Device::Cpu);
    let z = Tensor::arange(4 * 8 * 16, (Kind::Float, Device::Cpu)).sin().view([4, 8, 16]);
    // Tokens of very different lengths.
    let lengths = Tensor::arange(32, (Kind::Float, Device::Cpu)).view([4, 8, 1]) * 0.3 + 0.2;
    let z = (&z - z.mean_dim(-1i64, true, Kind::Float)) * lengths;
    let sigma = z.square().mean_dim(-1i64, true, Kind::Float).sqrt();
    let found = ln.observation(LnSite::Ln2(0), &sigma.squeeze_dim(-1)).double_value(&[0]);
    let error = |c: f64| (&z / &sigma - &z / c).square().sum(Kind::Double).double_value(&[]);
    let least = error(found);
    assert!(least < error(found * 1.01) && least < error(found * 0.99), "{found}");
    let mean = sigma.mean(Kind::Double).double_value(&[]);
    assert!(least < 0.95 * error(mean), "the mean {mean} is as good as {found}");
}

/// No other γ brings a channel nearer to the real LN.
#[test]
fn fitted_channels_are_the_nearest() {
    let place = tempfile::tempdir().unwrap();
    let rows = tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 8);
    common::token_file(&place.path().join("tokens.arrow"), &rows);
    let text = format!(
        "[model]\nname = {:?}\nn_layer = 3\n[train]\nbatch_size = 4\nmax_steps = 2\nlearning_rate = 1e-3\n\
         min_lr = 1e-3\nwarmup_steps = 0\n[schedule]\nstart_ln1qk = 0\nstart_ln2 = 0\nstart_lnf = 0\n\
         [norm]\nper_channel = true\n[data]\ntrain = {:?}\nblock_size = 64\nshuffle = false\n",
        vector("tiny-a"),
        place.path().join("tokens.arrow")
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    let start = StartOptions {
        mode: Mode::WithoutLn,
        model_dir: vector("tiny-a"),
        tokens: TokenFile::open(place.path().join("tokens.arrow")).unwrap(),
        eval_tokens: None,
        device: Device::Cpu,
    };
    let mut trainer = Trainer::new(config, start).unwrap();
    let before = tiny();
    let removed = trainer.apply_removals();
    let mut inputs = Capture::of(["blocks.1.hook_resid_mid", "blocks.2.hook_resid_post"]).unwrap();
    // With the LNs before it as they are when it is fitted.
    let _ = tch::no_grad(|| {
        trainer.model.forward(&rows.narrow(0, 0, 4), &trainer.ln, Compute::default(), &mut inputs).unwrap()
    });
    trainer.fit_channels(&removed).unwrap();
    let after = &trainer.model;
    let same = |a: &Tensor, b: &Tensor| max_abs(a, b) == 0.0;
    let gamma = |model: &Gpt2, of: fn(&Gpt2) -> &Tensor| of(model).detach().copy();
    // Values still read the real ln_1.
    let ln_1: fn(&Gpt2) -> &Tensor = |model| &model.h[1].ln_1.as_ref().unwrap().weight;
    assert!(same(&gamma(&before, ln_1), &gamma(after, ln_1)));
    let ln_2: fn(&Gpt2) -> &Tensor = |model| &model.h[1].ln_2.as_ref().unwrap().weight;
    let ln_f: fn(&Gpt2) -> &Tensor = |model| &model.ln_f.as_ref().unwrap().weight;
    for (of, name, row) in [(ln_2, "blocks.1.hook_resid_mid", 3), (ln_f, "blocks.2.hook_resid_post", 6)] {
        let x = inputs.get(name).unwrap();
        let z = x - x.mean_dim(-1i64, true, Kind::Float);
        let sigma = (z.square().mean_dim(-1i64, true, Kind::Float) + 1e-5).sqrt();
        let std = trainer.ln.statistics.frozen.get(row).get(0);
        let (old, new) = (gamma(&before, of), gamma(after, of));
        let error = |gamma: &Tensor| {
            let apart = &z / &sigma * &old - &z / &std * gamma;
            apart.square().sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Double)
        };
        let least = error(&new);
        for other in [&new * 1.01, &new * 0.99, old.shallow_clone()] {
            let found = error(&other);
            assert!(bool::try_from(found.ge_tensor(&(&least * (1.0 - 1e-6))).all()).unwrap(), "{name}");
        }
        assert!(error(&old).sum(Kind::Double).double_value(&[]) > least.sum(Kind::Double).double_value(&[]));
    }
}

/// Methods are compared at equal tokens: model, data, steps and batch of all configs are those of the paper's
/// way, which is the shipped config of the embedded model; `kl_equal_compute` computes as much. No two are
/// the same.
#[test]
fn the_studys_configs_differ_in_their_method_alone() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../studies/removal");
    let mut configs: Vec<(String, Config)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        configs.push((name, Config::load(path.to_str().unwrap(), &[]).unwrap()));
    }
    let paper = &configs.iter().find(|(name, _)| name == "paper").unwrap().1;
    assert_eq!(*paper, Config::load("nano", &[]).unwrap());
    for (i, (name, config)) in configs.iter().enumerate() {
        let shared = |config: &Config| (config.model.clone(), config.data.clone(), config.tokens_per_step());
        assert_eq!(shared(config), shared(paper), "{name}");
        // A teacher's forward is a third of a student's step.
        let steps =
            if name == "kl_equal_compute" { 3 * paper.train.max_steps / 4 } else { paper.train.max_steps };
        assert_eq!(config.train.max_steps, steps, "{name}");
        for (other, same) in &configs[..i] {
            assert_ne!(same, config, "{name} and {other}");
        }
    }
    assert!(configs.len() > 10);
}
