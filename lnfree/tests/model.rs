//! The model on its own: what hooks see, dropout, recomputation, optimizer, sampling.

mod common;

use std::collections::BTreeMap;
use std::sync::Mutex;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::generate::{SampleOptions, generate};
use lnfree::hook::{Activation, Hook, NoHook};
use lnfree::loss::{aux_loss, targets};
use lnfree::model::{Compute, Gpt2, Gpt2Config, LoadedModel, StepModel};
use lnfree::norm::{LnMode, LnSite, LnState, NormSettings};
use lnfree::optim::{AdamW, AdamWConfig};
use lnfree::tch::{self, Device, Kind, Tensor};
use lnfree::train::{BackwardRecipe, backward};

/// libtorch has one random generator for the whole process: tests that seed it take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

fn tiny() -> LoadedModel {
    LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap()
}

fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 4)
}

/// Keeps every activation, and asks for attention patterns.
#[derive(Default)]
struct Cache(BTreeMap<Activation, Tensor>);

impl Hook for Cache {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        self.0.insert(activation, value.shallow_clone());
        value
    }
}

#[test]
fn hooks_see_a_forward_that_adds_up() {
    let _guard = tch::no_grad_guard();
    let loaded = tiny();
    let mut cache = Cache::default();
    let compute = Compute::default();
    let logits = loaded.model.forward(&ids(), &loaded.ln, compute, &mut cache).unwrap();
    let plain = loaded.model.forward(&ids(), &loaded.ln, compute, &mut NoHook).unwrap();
    assert!(relative_rms(&logits, &plain) < 1e-5, "explicit attention is not the fused one");
    let at = |activation: Activation| &cache.0[&activation];
    let embedding = at(Activation::Embed) + at(Activation::PosEmbed);
    assert!(max_abs(&embedding, at(Activation::ResidPre(0))) < 1e-6);
    for layer in 0..3 {
        assert_eq!(at(Activation::Q(layer)).size(), [4, 64, 4, 16]);
        let pattern = at(Activation::Pattern(layer));
        assert_eq!(pattern.size(), [4, 4, 64, 64]);
        let rows = pattern.sum_dim_intlist(-1i64, false, Kind::Double);
        assert!(max_abs(&rows, &rows.ones_like()) < 1e-5, "attention does not sum to one");
        assert_eq!(pattern.triu(1).abs().max().double_value(&[]), 0.0, "attention to the future");
        for (read, site) in [
            (Activation::ResidPre(layer), LnSite::Ln1Qk(layer)),
            (Activation::ResidMid(layer), LnSite::Ln2(layer)),
        ] {
            let block = &loaded.model.h[layer];
            let norm = if site == LnSite::Ln2(layer) { &block.ln_2 } else { &block.ln_1 }.as_ref().unwrap();
            let centred = at(read) - at(read).mean_dim(-1i64, true, Kind::Float);
            let normalized = centred / at(Activation::Scale(site)) * &norm.weight + &norm.bias;
            assert!(max_abs(&normalized, at(Activation::Normalized(site))) < 1e-5, "{site}");
        }
        let mid = at(Activation::ResidPre(layer)) + at(Activation::AttnOut(layer));
        assert!(max_abs(&mid, at(Activation::ResidMid(layer))) < 1e-6);
        let post = at(Activation::ResidMid(layer)) + at(Activation::MlpOut(layer));
        assert!(max_abs(&post, at(Activation::ResidPost(layer))) < 1e-6);
    }
    let last = at(Activation::Normalized(LnSite::LnF)).matmul(&loaded.model.wte.transpose(0, 1));
    assert!(relative_rms(&last, &logits) < 1e-5);
}

#[test]
fn a_hook_can_ablate() {
    let _guard = tch::no_grad_guard();
    let loaded = tiny();
    let compute = Compute::default();
    let plain = loaded.model.forward(&ids(), &loaded.ln, compute, &mut NoHook).unwrap();
    let mut ablate = |activation: Activation, value: Tensor| match activation {
        Activation::MlpOut(1) => value.zeros_like(),
        _ => value,
    };
    let ablated = loaded.model.forward(&ids(), &loaded.ln, compute, &mut ablate).unwrap();
    assert!(relative_rms(&ablated, &plain) > 1e-3, "the ablation changed nothing");
}

fn gradients(model: &Gpt2, ln: &LnState, compute: Compute, checkpointing: bool) -> Vec<Tensor> {
    for (_, parameter) in model.named_parameters() {
        let mut grad = parameter.grad();
        if grad.defined() {
            let _ = grad.zero_();
        }
    }
    let ids = ids();
    let recipe = BackwardRecipe {
        teacher: None,
        compute,
        aux_weight: 0.1,
        scale: 1.0,
        aux_scale: 1.0,
        aux_target: None,
        checkpointing,
    };
    StepModel::run(model, ln, compute, 0, |step| backward(step, ln, &ids, &targets(&ids, Some(255)), recipe))
        .unwrap();
    model.named_parameters().iter().map(|(_, p)| p.grad().copy()).collect()
}

/// Recomputing a block must drop the same activations as its first computation, or its gradients would be
/// wrong.
#[test]
fn recomputation_gives_the_same_gradients_under_dropout() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let mut loaded = tiny();
    loaded.model.config.embd_pdrop = 0.1;
    for block in &mut loaded.model.h {
        block.resid_pdrop = 0.1;
        block.attn.attn_pdrop = 0.1;
    }
    loaded.model.set_requires_grad(true);
    let compute = Compute { dropout_seed: Some(7 << 12), ..Compute::default() };
    let kept = gradients(&loaded.model, &loaded.ln, compute, false);
    let recomputed = gradients(&loaded.model, &loaded.ln, compute, true);
    for (name, (a, b)) in loaded.model.named_parameters().iter().zip(kept.iter().zip(&recomputed)) {
        assert!(max_abs(a, b) < 1e-6, "{}: {:e}", name.0, max_abs(a, b));
    }
    let other = Compute { dropout_seed: Some(8 << 12), ..Compute::default() };
    let other = gradients(&loaded.model, &loaded.ln, other, false);
    assert!(max_abs(&kept[0], &other[0]) > 1e-6, "another seed drops the same activations");
}

#[test]
fn bf16_gradients_point_where_float32_gradients_do() {
    let loaded = tiny();
    loaded.model.set_requires_grad(true);
    let exact = gradients(&loaded.model, &loaded.ln, Compute::default(), false);
    let bf16 = Compute { dtype: Kind::BFloat16, ..Compute::default() };
    let low = gradients(&loaded.model, &loaded.ln, bf16, false);
    let flat = |all: &[Tensor]| Tensor::cat(&all.iter().map(|t| t.view(-1)).collect::<Vec<_>>(), 0);
    let (x, y) = (flat(&exact), flat(&low));
    assert_eq!(y.kind(), Kind::Float, "gradients must be gathered in float32");
    let cosine = x.dot(&y).double_value(&[]) / (x.norm().double_value(&[]) * y.norm().double_value(&[]));
    assert!(cosine > 0.999, "cosine {cosine}");
}

/// Fake LNs whose constant is each token's own σ are real LNs: with one token, both must agree.
#[test]
fn a_fake_ln_with_the_right_constant_is_the_real_one() {
    let _guard = tch::no_grad_guard();
    let loaded = tiny();
    let one = ids().narrow(0, 0, 1).narrow(1, 0, 1);
    let compute = Compute { observe: true, ..Compute::default() };
    let mut pass = loaded.model.pass(&one, &loaded.ln, compute).unwrap();
    let residual = loaded.model.residual(&one, &mut pass, &mut NoHook);
    let real = loaded.model.final_norm(&residual, &mut pass, &mut NoHook);
    let sigmas =
        Vec::<f64>::try_from(pass.observations().unwrap().select(1, 0).to_kind(Kind::Double)).unwrap();
    let initial: Vec<(f64, f64)> = sigmas.iter().map(|&s| (s, s)).collect();
    let mut ln = LnState::real(&initial, NormSettings::default(), Device::Cpu);
    for block in &mut ln.blocks {
        (block.ln1_qk, block.ln1_v, block.ln2) = (LnMode::Fake, LnMode::Fake, LnMode::Fake);
    }
    ln.lnf = LnMode::Fake;
    assert!(ln.all_fake());
    let mut pass = loaded.model.pass(&one, &ln, Compute::default()).unwrap();
    let residual = loaded.model.residual(&one, &mut pass, &mut NoHook);
    let fake = loaded.model.final_norm(&residual, &mut pass, &mut NoHook);
    assert!(relative_rms(&fake, &real) < 1e-5);
}

#[test]
fn auxiliary_loss_by_hand() {
    // σ of rows (after centring) 1, 2, 3, 4 with n_embd 2: x = (a, −a) has σ = a.
    let rows = Tensor::from_slice(&[1f32, -1., 2., -2., 3., -3., 4., -4.]).view([1, 4, 2]);
    let is_eot = Tensor::from_slice(&[false, false, true, false]).view([1, 4, 1]);
    // Position 0 and the end-of-text at 2 do not count for the target: (2 + 4)/2 = 3. All four count for the
    // loss.
    let found = aux_loss(&rows, &is_eot, 0.0).double_value(&[]);
    assert!((found - (4.0 + 1.0 + 0.0 + 1.0) / 4.0).abs() < 1e-6, "{found}");
}

#[test]
fn adamw_is_libtorchs() {
    use tch::nn::{self, OptimizerConfig};
    let start = Tensor::from_slice(&[1.0f32, -2.0, 3.0, 0.5]);
    let config = AdamWConfig { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
    let ours = start.copy().set_requires_grad(true);
    let mut optimizer = AdamW::new(vec![("w".into(), ours.shallow_clone())], |_| true, config);
    let vs = nn::VarStore::new(Device::Cpu);
    let mut theirs = vs.root().zeros("w", &[4]);
    tch::no_grad(|| theirs.copy_(&start));
    let mut reference =
        nn::AdamW { beta1: 0.9, beta2: 0.999, wd: 0.1, eps: 1e-8, amsgrad: false }.build(&vs, 0.01).unwrap();
    for step in 0..20 {
        let loss = |w: &Tensor| {
            ((w - step as f64 * 0.1).square() * Tensor::from_slice(&[1f32, 2., 3., 4.])).sum(Kind::Float)
        };
        loss(&ours).backward();
        optimizer.step(0.01, &Tensor::from(1f32)).unwrap();
        reference.backward_step(&loss(&theirs));
    }
    assert!(max_abs(&ours.detach(), &theirs.detach()) < 1e-6);
    assert!(max_abs(&ours.detach(), &start) > 1e-2);
}

#[test]
fn the_same_seed_makes_the_same_model_and_text() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let config = || Gpt2Config::new(2, 2, 16, 32, 50).unwrap();
    let (a, b) =
        (Gpt2::init(config(), 3, Device::Cpu).unwrap(), Gpt2::init(config(), 3, Device::Cpu).unwrap());
    let c = Gpt2::init(config(), 4, Device::Cpu).unwrap();
    assert_eq!(max_abs(&a.wte, &b.wte), 0.0);
    assert!(max_abs(&a.wte, &c.wte) > 0.0);
    let ln = LnState::plain(2, Device::Cpu);
    // Longer than the positions, so that the context has to slide.
    let options = SampleOptions { max_new_tokens: 40, ..SampleOptions::default() };
    let text = |seed| generate(&a, &ln, &[1, 2, 3], SampleOptions { seed, ..options }, |_| true).unwrap();
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
    let greedy = SampleOptions { temperature: 0.0, ..options };
    let likely = |seed| generate(&a, &ln, &[1, 2, 3], SampleOptions { seed, ..greedy }, |_| true).unwrap();
    assert_eq!(likely(1), likely(2));
    assert!(generate(&a, &ln, &[], options, |_| true).is_err());
    assert!(generate(&a, &ln, &[50], options, |_| true).unwrap_err().to_string().contains("50"));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let loaded = tiny();
    let long = Tensor::zeros([1, 65], (Kind::Int64, Device::Cpu));
    let refused = loaded.model.forward(&long, &loaded.ln, Compute::default(), &mut NoHook).unwrap_err();
    assert!(refused.to_string().contains("65") && refused.to_string().contains("64"), "{refused}");
    let flat = Tensor::zeros([8], (Kind::Int64, Device::Cpu));
    assert!(loaded.model.forward(&flat, &loaded.ln, Compute::default(), &mut NoHook).is_err());
}

/// A head that looks one position back needs one rotation for all positions.
#[test]
fn sinusoidal_positions_are_turned_by_a_step() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let mut model = Gpt2::init(Gpt2Config::new(1, 2, 8, 16, 32).unwrap(), 0, Device::Cpu).unwrap();
    let before = model.wte.copy();
    model.set_sinusoidal_positions(0.5);
    assert_eq!(model.wte, before);
    let at = |position: i64| Vec::<f64>::try_from(model.wpe.get(position).to_kind(Kind::Double)).unwrap();
    // Angular frequencies 1, 1/√8, 1/8, …: 64 is four times the positions, over 4 pairs.
    for (pair, turn) in [1.0, 64f64.powf(-0.25), 64f64.powf(-0.5), 64f64.powf(-0.75)].into_iter().enumerate()
    {
        let (sin, cos) = turn.sin_cos();
        for position in 1..16 {
            let (last, now) = (at(position - 1), at(position));
            let (s, c) = (last[2 * pair], last[2 * pair + 1]);
            assert!((now[2 * pair] - (s * cos + c * sin)).abs() < 1e-6);
            assert!((now[2 * pair + 1] - (c * cos - s * sin)).abs() < 1e-6);
            assert!((now[2 * pair].hypot(now[2 * pair + 1]) - 0.5).abs() < 1e-6);
        }
    }
}

#[test]
fn sinusoids_are_added_without_their_mean() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let new = || Gpt2::init(Gpt2Config::new(1, 2, 8, 16, 32).unwrap(), 0, Device::Cpu).unwrap();
    let (plain, mut set, mut added) = (new(), new(), new());
    set.set_sinusoidal_positions(0.5);
    added.add_sinusoidal_positions(0.5);
    let difference = &added.wpe - &plain.wpe;
    assert!(difference.mean_dim(0i64, false, Kind::Float).abs().max().double_value(&[]) < 1e-6);
    let turned = &set.wpe - set.wpe.mean_dim(0i64, true, Kind::Float);
    assert!(max_abs(&difference, &turned) < 1e-6);
}

#[test]
fn new_weights_have_the_range_of_their_config() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let config = Gpt2Config { initializer_range: 0.08, ..Gpt2Config::new(2, 2, 64, 16, 512).unwrap() };
    let model = Gpt2::init(config, 0, Device::Cpu).unwrap();
    let std = |x: &Tensor| x.std(true).double_value(&[]);
    assert!((std(&model.wte) - 0.08).abs() < 0.002);
    assert!((std(&model.h[0].mlp.c_proj.weight) - 0.08 / 2.0).abs() < 0.002, "scaled by 1/sqrt(2 * n_layer)");
}

#[test]
fn embeddings_may_begin_smaller_than_matrices() {
    let _turn = GENERATOR.lock().unwrap_or_else(|e| e.into_inner());
    let config = Gpt2Config { initializer_range: 0.08, ..Gpt2Config::new(2, 2, 64, 128, 512).unwrap() };
    let mut model = Gpt2::init(config, 0, Device::Cpu).unwrap();
    let before: Vec<Tensor> = model.named_parameters().into_iter().map(|(_, tensor)| tensor.copy()).collect();
    model.scale_embeddings(0.25);
    for ((name, after), before) in model.named_parameters().into_iter().zip(before) {
        let factor = if matches!(name.as_str(), "wte.weight" | "wpe.weight") { 0.25 } else { 1.0 };
        assert_eq!(after, before * factor, "{name}");
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn without_the_hub_its_names_are_refused_and_what_lnfree_carries_is_there() {
    let refused = lnfree::hub::locate_model("gpt2").unwrap_err().to_string();
    assert!(refused.contains("gpt2") && refused.contains("the feature `hub`"), "{refused}");
    let refused = lnfree::data::open_dataset("pile-10k", 128).unwrap_err().to_string();
    assert!(refused.contains("pile-10k") && refused.contains("the feature `hub`"), "{refused}");
    let nano = lnfree::hub::locate_model("nano").unwrap();
    assert!(nano.join("model.safetensors").is_file());
    assert_eq!(lnfree::data::open_dataset("nano-addresses", 128).unwrap().block_size(), Some(128));
}
