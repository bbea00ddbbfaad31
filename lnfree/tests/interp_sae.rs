//! Sparse autoencoders: SAELens' files, what they compute, their place in a forward, and that they learn.

mod common;

use std::path::Path;

use common::{close, max_abs, tensors, vector};
use lnfree::hook::{Activation, Capture, NoHook, only};
use lnfree::interp::{Sae, SaeConfig, SaeEncoder, SaeNorm, SaeTraining, train_small};
use lnfree::model::{Compute, LoadedModel};
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::{Value, json};

const PLACE: &str = "blocks.1.hook_resid_pre";
const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

fn tiny() -> LoadedModel {
    LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap()
}

fn ids() -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 6)
}

/// `PLACE` in a forward of the model, `[6, 64, 64]`.
fn activations(LoadedModel { model, ln, .. }: &LoadedModel) -> Tensor {
    let mut cache = Capture::of([PLACE]).unwrap();
    let _ = model.forward(&ids(), ln, Compute::default(), &mut cache).unwrap();
    cache.get(PLACE).unwrap().shallow_clone()
}

/// Numbers between −1 and 1 without order, the same on every call, whatever other tests draw meanwhile.
fn scattered(size: &[i64], from: f64) -> Tensor {
    let n: i64 = size.iter().product();
    let places = Tensor::arange(n, (Kind::Double, Device::Cpu)) + from;
    ((places * 12.9898).sin() * 43758.5453).frac().to_kind(Kind::Float).view(size)
}

/// Of 64 × 96, to be told from one another by their architecture alone.
fn random(encoder: fn(Tensor) -> SaeEncoder) -> Sae {
    let (w_enc, w_dec) = (scattered(&[64, 96], 0.1) * 0.5, scattered(&[96, 64], 0.2) * 0.5);
    let b_dec = scattered(&[64], 0.3) * 0.5;
    let config = SaeConfig {
        apply_b_dec_to_input: true,
        norm: SaeNorm::None,
        centred: false,
        hook_name: Some(PLACE.into()),
        model_name: Some("tiny".into()),
    };
    Sae { w_enc, w_dec, b_dec, encoder: encoder(scattered(&[96], 0.4) * 0.5), config }
}

fn all() -> [Sae; 4] {
    [
        random(|b_enc| SaeEncoder::Standard { b_enc }),
        random(|b_enc| SaeEncoder::TopK { b_enc, k: 7 }),
        random(|b_enc| SaeEncoder::JumpRelu { threshold: b_enc.abs() + 0.5, b_enc }),
        random(|b_gate| SaeEncoder::Gated { r_mag: &b_gate * 0.1, b_mag: &b_gate * -0.5, b_gate }),
    ]
}

#[test]
fn files_are_read_back() {
    let x = scattered(&[5, 64], 0.5);
    for (sae, name) in all().iter().zip(["standard", "topk", "jumprelu", "gated"]) {
        let folder = tempfile::tempdir().unwrap();
        sae.save(&folder.path().join("new")).unwrap();
        let text = std::fs::read_to_string(folder.path().join("new/cfg.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&config["architecture"], &config["d_sae"]), (&json!(name), &json!(96)));
        assert_eq!(config["metadata"]["hook_name"], PLACE);
        let again = Sae::load(&folder.path().join("new"), Device::Cpu).unwrap();
        assert_eq!((&again.config, again.d_in(), again.d_sae()), (&sae.config, 64, 96));
        assert_eq!(again.run(&x).unwrap().reconstruction, sae.run(&x).unwrap().reconstruction, "{name}");
    }
}

/// Features one by one, in plain numbers, as the papers define them.
#[test]
fn architectures_are_those_of_their_papers() {
    let x = scattered(&[1, 64], 0.5);
    for sae in all() {
        let read = Vec::<f64>::try_from((&x - &sae.b_dec).get(0)).unwrap();
        let columns = Vec::<Vec<f64>>::try_from(sae.w_enc.tr().to_kind(Kind::Double)).unwrap();
        let dots = columns.iter().map(|column| column.iter().zip(&read).map(|(w, x)| w * x).sum::<f64>());
        let dots: Vec<f64> = dots.collect();
        let numbers = |x: &Tensor| Vec::<f64>::try_from(x).unwrap();
        let plus =
            |bias: &Tensor| -> Vec<f64> { dots.iter().zip(numbers(bias)).map(|(x, b)| x + b).collect() };
        let expected: Vec<f64> = match &sae.encoder {
            SaeEncoder::Standard { b_enc } => plus(b_enc).into_iter().map(|x| x.max(0.0)).collect(),
            SaeEncoder::TopK { b_enc, k } => {
                let pre = plus(b_enc);
                let mut sorted = pre.clone();
                sorted.sort_by(f64::total_cmp);
                let least = sorted[sorted.len() - *k as usize];
                pre.into_iter().map(|x| if x >= least { x.max(0.0) } else { 0.0 }).collect()
            }
            SaeEncoder::JumpRelu { b_enc, threshold } => {
                let above = |(x, t): (f64, f64)| if x > t { x } else { 0.0 };
                plus(b_enc).into_iter().zip(numbers(threshold)).map(above).collect()
            }
            SaeEncoder::Gated { b_gate, r_mag, b_mag } => (0..96)
                .map(|i| {
                    let magnitude = dots[i] * numbers(r_mag)[i].exp() + numbers(b_mag)[i];
                    if dots[i] + numbers(b_gate)[i] > 0.0 { magnitude.max(0.0) } else { 0.0 }
                })
                .collect(),
        };
        let features = Vec::<f64>::try_from(sae.encode(&x).unwrap().get(0)).unwrap();
        for (i, (found, expected)) in features.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() < 1e-5, "{:?} {i}: {found} {expected}", sae.encoder);
        }
        assert!(expected.iter().any(|&x| x > 0.0) && expected.contains(&0.0));
    }
}

#[test]
fn normalisation_is_undone() {
    // Without features, what is written is the bias, in the scale that was taken.
    let mut sae = random(|b_enc| SaeEncoder::Standard { b_enc: b_enc - 1e6 });
    let x = scattered(&[3, 64], 0.5) * 5.0 + 2.0;
    assert_eq!(sae.run(&x).unwrap().reconstruction.get(1), sae.b_dec);
    sae.config.norm = SaeNorm::ConstantNorm;
    let found = sae.run(&x).unwrap().reconstruction.get(1);
    let norm = x.get(1).square().sum(Kind::Double).sqrt().double_value(&[]);
    assert!(max_abs(&found, &(&sae.b_dec * (norm / 8.0))) < 1e-4);
    sae.config.norm = SaeNorm::LayerNorm;
    let found = sae.run(&x).unwrap().reconstruction.get(1);
    let expected = &sae.b_dec * x.get(1).std(true) + x.get(1).mean(Kind::Float);
    assert!(max_abs(&found, &expected) < 1e-4);
}

fn saved(change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    random(|b_enc| SaeEncoder::Standard { b_enc }).save(folder.path()).unwrap();
    let path = folder.path().join("cfg.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(path, config.to_string()).unwrap();
    folder
}

#[test]
fn what_is_not_honoured_is_refused_in_a_line() {
    let error = |folder: &Path| Sae::load(folder, Device::Cpu).unwrap_err().to_string();
    for (key, value, says) in [
        ("architecture", json!("transcoder"), "architecture: transcoder is not known"),
        ("normalize_activations", json!("expected_average_only_in"), "Sae::load_scaled"),
        ("normalize_activations", json!("sometimes"), "sometimes is not known"),
        ("finetuning_scaling_factor", json!(true), "finetuning_scaling_factor is true"),
        ("rescale_acts_by_decoder_norm", json!(true), "rescale_acts_by_decoder_norm is true"),
        ("activation_fn_str", json!("tanh-relu"), "tanh-relu is not known"),
        ("d_sae", json!(95), "is [96] and not [95]"),
        ("d_in", json!(null), "d_in is not a number above 0"),
        ("architecture", json!("jumprelu"), "has no `threshold`"),
        ("architecture", json!("topk"), "k is not a number of features"),
    ] {
        let folder = saved(|config| config[key] = value);
        let error = error(folder.path());
        assert!(
            error.contains("cfg.json") && error.contains(says) && !error.contains('\n'),
            "{key}: {error}"
        );
    }
    let folder = saved(|_| ());
    std::fs::remove_file(folder.path().join("sae_weights.safetensors")).unwrap();
    assert!(error(folder.path()).contains("sae_weights.safetensors"));
    let nan = Tensor::full([96], f64::NAN, OPTIONS);
    let mut sae = random(|b_enc| SaeEncoder::Standard { b_enc });
    sae.encoder = SaeEncoder::Standard { b_enc: nan };
    sae.save(folder.path()).unwrap();
    assert!(error(folder.path()).contains("b_enc"));
}

/// Files of SAELens before version 6: the hook at the top, top-k as an activation function.
#[test]
fn older_files_are_understood() {
    let folder = saved(|config| {
        let map = config.as_object_mut().unwrap();
        map.remove("metadata");
        map.insert("hook_name".into(), json!("blocks.2.attn.hook_z"));
        map.insert("activation_fn_str".into(), json!("topk"));
        map.insert("activation_fn_kwargs".into(), json!({ "k": 5 }));
    });
    let sae = Sae::load(folder.path(), Device::Cpu).unwrap();
    assert_eq!(sae.place().unwrap(), Activation::Z(2));
    assert!(matches!(sae.encoder, SaeEncoder::TopK { k: 5, .. }));
    // Heads side by side, and apart again.
    let z = scattered(&[2, 3, 4, 16], 0.5);
    let run = sae.run(&z).unwrap();
    assert_eq!((run.reconstruction.size(), run.features.size()), (vec![2, 3, 4, 16], vec![2, 3, 96]));
    assert!(sae.run(&z.narrow(3, 0, 15)).is_err());
}

#[test]
fn a_scale_goes_into_the_weights() {
    let folder = saved(|config| config["normalize_activations"] = json!("expected_average_only_in"));
    let scaled = Sae::load_scaled(folder.path(), 3.0, Device::Cpu).unwrap();
    let plain = random(|b_enc| SaeEncoder::Standard { b_enc });
    let x = scattered(&[4, 64], 0.5);
    let (found, expected) = (scaled.run(&x).unwrap(), plain.run(&(&x * 3.0)).unwrap());
    assert!(max_abs(&found.features, &expected.features) < 1e-4);
    assert!(max_abs(&found.reconstruction, &(expected.reconstruction / 3.0)) < 1e-4);
    assert!(Sae::load_scaled(folder.path(), 0.0, Device::Cpu).is_err());
    let folder = saved(|_| ());
    assert!(Sae::load_scaled(folder.path(), 3.0, Device::Cpu).is_err());
}

#[test]
fn a_hook_goes_on_with_the_reconstruction() {
    let tiny = tiny();
    let LoadedModel { model, ln, .. } = &tiny;
    let logits =
        |hook: &mut dyn lnfree::hook::Hook| model.forward(&ids(), ln, Compute::default(), hook).unwrap();
    let plain = logits(&mut NoHook);
    for sae in all() {
        let mut hook = sae.hook().unwrap();
        let found = logits(&mut hook);
        let mut by_hand = only(PLACE, |x| {
            let flat = x.reshape([-1, 64]);
            sae.decode(&sae.encode(&flat).unwrap()).unwrap().view_as(&x)
        })
        .unwrap();
        assert!(max_abs(&found, &logits(&mut by_hand)) < 1e-4);
        assert!(max_abs(&found, &plain) > 1e-2);
        assert_eq!(hook.features().unwrap().size(), [6, 64, 96]);
        assert!(hook.check().is_ok());
        // With what it lacks added, nothing changes.
        let mut exact = sae.hook().unwrap().with_error_term();
        assert!(max_abs(&logits(&mut exact), &plain) < 1e-3);
    }
    let [standard, ..] = all();
    let mut elsewhere = standard.hook_at("blocks.1.mlp.hook_post").unwrap();
    assert!(model.forward(&ids(), ln, Compute::default(), &mut elsewhere).is_err());
    let why = elsewhere.check().unwrap_err().to_string();
    assert!(why.starts_with("an SAE of width 64 cannot read activations [6, 64, 256]"), "{why}");
}

#[test]
fn training_lowers_the_loss_and_quality_says_what_is_kept() {
    let tiny = tiny();
    let x = activations(&tiny);
    let options =
        SaeTraining { d_sae: 128, steps: 300, batch_size: 128, learning_rate: 3e-3, l1: 1e-3, seed: 1 };
    let (sae, losses) = train_small(&x, PLACE, options).unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (start, end) = (mean(&losses[..10]), mean(&losses[290..]));
    assert!(losses.len() == 300 && end < 0.5 * start, "{start} {end}");
    assert!(!sae.w_enc.requires_grad());
    let (again, _) = train_small(&x, PLACE, options).unwrap();
    assert!(max_abs(&again.w_dec, &sae.w_dec) < 1e-4);

    let quality = sae.quality(&tiny.model, &tiny.ln, &ids()).unwrap();
    assert!(quality.explained_variance > 0.5 && quality.explained_variance < 1.0, "{quality:?}");
    assert!(quality.l0 > 0.0 && quality.l0 <= 128.0, "{quality:?}");
    let logits = tiny.model.forward(&ids(), &tiny.ln, Compute::default(), &mut NoHook).unwrap();
    let targets = ids().narrow(1, 1, 63).reshape([-1]);
    let loss =
        logits.narrow(1, 0, 63).reshape([-1, 256]).cross_entropy_for_logits(&targets).double_value(&[]);
    close(quality.loss, loss, 1e-5, "loss");

    // One that writes the mean whatever it reads explains nothing; one that writes zeros recovers nothing.
    let mut constant = random(|b_enc| SaeEncoder::Standard { b_enc: b_enc - 1e6 });
    constant.b_dec = x.reshape([-1, 64]).mean_dim(0i64, false, Kind::Float);
    let quality = constant.quality(&tiny.model, &tiny.ln, &ids()).unwrap();
    assert!(quality.explained_variance.abs() < 1e-4 && quality.l0 == 0.0, "{quality:?}");
    constant.b_dec = constant.b_dec.zeros_like();
    let quality = constant.quality(&tiny.model, &tiny.ln, &ids()).unwrap();
    assert!(quality.loss_recovered().abs() < 1e-6 && quality.loss_with_sae == quality.loss_with_zeros);
    // One that writes what it reads recovers all: every number and its negative is a feature.
    let eye = Tensor::eye(64, OPTIONS);
    constant.w_enc = Tensor::cat(&[&eye, &-&eye], 1);
    constant.w_dec = constant.w_enc.tr().contiguous();
    constant.encoder = SaeEncoder::Standard { b_enc: Tensor::zeros([128], OPTIONS) };
    let quality = constant.quality(&tiny.model, &tiny.ln, &ids()).unwrap();
    assert!((quality.loss_recovered() - 1.0).abs() < 1e-4, "{quality:?}");
    assert!((quality.explained_variance - 1.0).abs() < 1e-6);
}

#[test]
fn training_without_anything_to_learn_from_is_refused() {
    let x = scattered(&[8, 64], 0.5);
    let nothing = SaeTraining { d_sae: 0, ..SaeTraining::default() };
    assert!(train_small(&x, PLACE, nothing).is_err());
    assert!(train_small(&x.narrow(0, 0, 0), PLACE, SaeTraining::default()).is_err());
    assert!(train_small(&x, "blocks.1.hook_nothing", SaeTraining::default()).is_err());
    let wild = SaeTraining { learning_rate: 1e30, steps: 50, ..SaeTraining::default() };
    let diverged = train_small(&x, PLACE, wild).unwrap_err().to_string();
    assert!(diverged.contains("the loss of the SAE is"), "{diverged}");
}

/// What was trained on a centred stream sees no mean, gives it back, and is told so by its file.
#[test]
fn the_mean_of_a_stream_goes_past_a_centred_sae() {
    for plain in all() {
        let folder = tempfile::tempdir().unwrap();
        let mut centred = plain;
        centred.config.centred = true;
        centred.save(folder.path()).unwrap();
        let read = Sae::load(folder.path(), Device::Cpu).unwrap();
        assert!(read.config.centred);
        let x = scattered(&[5, 64], 0.7);
        let x = &x - x.mean_dim(-1i64, true, Kind::Float);
        let (without, with) = (read.run(&x).unwrap(), read.run(&(&x + 3.0)).unwrap());
        assert!(max_abs(&with.features, &without.features) < 1e-4);
        assert!(max_abs(&with.reconstruction, &(&without.reconstruction + 3.0)) < 1e-4);
        assert!(max_abs(&read.encode(&(&x + 3.0)).unwrap(), &without.features) < 1e-4);
        // Of what is within attention there is no such mean.
        centred.config.hook_name = Some("blocks.0.attn.hook_z".into());
        centred.save(folder.path()).unwrap();
        assert!(!Sae::load(folder.path(), Device::Cpu).unwrap().config.centred);
    }
}
