//! Ways of removing LayerNorm other than the paper's: gates that close, another order, another constant.

mod common;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::config::Config;
use lnfree::hook::NoHook;
use lnfree::loss::{cross_entropy, predicting, targets};
use lnfree::model::{Compute, Gpt2, LoadedModel, StepModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind, StdAverage};
use lnfree::schedule::{Schedule, ScheduleConfig};
use lnfree::tch::{self, Device, Kind, Tensor};
use lnfree::train::{BackwardRecipe, backward};

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
    let take = |model: &Gpt2| -> Vec<(String, Tensor)> {
        let named = model.named_parameters().into_iter();
        named
            .map(|(name, parameter)| {
                let grad = parameter.grad().copy();
                let _ = parameter.grad().zero_();
                (name, grad)
            })
            .collect()
    };
    let expected = take(&model);
    for checkpointing in [false, true] {
        let recipe = BackwardRecipe {
            teacher: None,
            compute: Compute::default(),
            aux_weight: 0.0,
            scale: 1.0,
            aux_scale: 1.0,
            aux_target: None,
            checkpointing,
        };
        StepModel::run(&model, &ln, recipe.compute, 0, |step| backward(step, &ln, &ids, &targets, recipe))
            .unwrap();
        for ((name, found), (_, expected)) in take(&model).iter().zip(&expected) {
            let worst = max_abs(found, expected);
            assert!(worst < 1e-5 + 1e-3 * expected.abs().max().double_value(&[]), "{name}: {worst:e}");
        }
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

/// Methods are compared at equal tokens: model, data, steps and batch of all configs are those of the paper's
/// way, which is the shipped config of the embedded model, and no two configs are the same.
#[test]
fn the_studys_configs_differ_in_their_method_alone() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../studies/removal");
    let mut configs: Vec<(String, Config)> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        configs.push((name, Config::load(path.to_str().unwrap(), &[]).unwrap()));
    }
    let paper = &configs.iter().find(|(name, _)| name == "paper").unwrap().1;
    assert_eq!(*paper, Config::load("nano", &[]).unwrap());
    for (i, (name, config)) in configs.iter().enumerate() {
        let shared = |config: &Config| {
            (config.model.clone(), config.data.clone(), config.train.max_steps, config.tokens_per_step())
        };
        assert_eq!(shared(config), shared(paper), "{name}");
        for (other, same) in &configs[..i] {
            assert_ne!(same, config, "{name} and {other}");
        }
    }
    assert!(configs.len() > 10);
}
