//! What lnfree's analyses find in one model, as a file of tensors: `scripts/tests/lens_equal.py` compares it
//! with TransformerLens.
//!
//! ```text
//! cargo run --release --example interp_dump -- --model nano --in texts.safetensors --out found.safetensors
//! ```
//!
//! The input has int64 `clean` and `corrupted`, `[batch, pos]`, and `answers`, `[batch, 2]`: patching puts
//! activations of the clean run into the corrupted one and reads the logit of the first answer less that of
//! the second. Names and axes of the output are TransformerLens'; the labels of stacks are in its metadata.
//! What begins with `processed.` is of the same model with its weights processed.

use std::collections::BTreeMap;

use lnfree::interp::{
    ActivationCache, AttributionPatching, Circuits, Components, Composition, Detail, DetectOptions,
    ErrorMeasure, HeadKind, HeadSite, Metric, Patching, Positions, Processed, Processing, StreamSite,
    attribution_needs, detect_head, process, run_with_cache,
};
use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::prelude::*;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the model is asked about.
struct Texts {
    clean: Tensor,
    corrupted: Tensor,
    answers: Tensor,
}

/// Tensors by name, and the labels of the first axis of some.
#[derive(Default)]
struct Found {
    /// Before the names of what is found now.
    prefix: &'static str,
    tensors: Weights,
    labels: BTreeMap<String, String>,
}

impl Found {
    fn put(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(format!("{}{}", self.prefix, name.into()), tensor);
    }

    /// Components at one position, for which TransformerLens has no axis: `[component, batch, n_embd]`.
    fn components(&mut self, name: &str, of: &Components) {
        self.labels.insert(format!("labels.{}{name}", self.prefix), of.labels.join(","));
        self.put(name, of.values.select(2, 0));
    }
}

fn main() -> Outcome<()> {
    let mut options = BTreeMap::from([("--device".to_string(), "cpu".to_string())]);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if !["--model", "--in", "--out", "--device"].contains(&flag.as_str()) {
            return Err(format!("{flag} is none of --model, --in, --out, --device").into());
        }
        let value = args.next().ok_or(format!("{flag} needs a value"))?;
        options.insert(flag, value);
    }
    let option = |flag: &str| options.get(flag).ok_or(format!("{flag} is missing"));
    let device = parse_device(option("--device")?)?;
    let input = read_weights(Path::new(option("--in")?))?;
    let tensor = |name: &str| -> Outcome<Tensor> {
        let found = input.get(name).ok_or(format!("the input has no tensor `{name}`"))?;
        Ok(found.to_device(device))
    };
    let texts =
        Texts { clean: tensor("clean")?, corrupted: tensor("corrupted")?, answers: tensor("answers")? };
    let loaded = LoadedModel::load(&locate_model(option("--model")?)?, None, Kind::Float, device)?;
    let mut found = Found::default();
    everything(&mut found, &loaded, &texts)?;
    let Processed { model, ln } = process(&loaded.model, &loaded.ln, Processing::default())?;
    found.prefix = "processed.";
    everything(&mut found, &LoadedModel { model, ln, ..loaded }, &texts)?;
    write_safetensors(Path::new(option("--out")?), &found.tensors, &found.labels)?;
    println!("{} tensors", found.tensors.len());
    Ok(())
}

/// All that is found in one model.
fn everything(found: &mut Found, loaded: &LoadedModel, texts: &Texts) -> Result<()> {
    activations(found, loaded, texts)?;
    patches(found, loaded, texts)?;
    detectors(found, loaded, &texts.clean)?;
    let circuits = Circuits::of(&loaded.model, &loaded.ln)?;
    for (name, kind) in [("Q", Composition::Q), ("K", Composition::K), ("V", Composition::V)] {
        found.put(format!("composition.{name}"), circuits.composition_scores(kind)?);
    }
    Ok(())
}

/// The cache of the clean run, and the stream at the last position taken apart.
fn activations(found: &mut Found, loaded: &LoadedModel, texts: &Texts) -> Result<()> {
    let LoadedModel { model, ln, .. } = loaded;
    let (logits, cache) = run_with_cache(model, ln, &texts.clean, |_| true)?;
    found.put("logits", logits);
    for name in cache.names() {
        let kept = cache.get(name.as_str())?.shallow_clone();
        found.put(format!("cache.{name}"), kept);
    }
    let last = Positions::Last;
    found.components("accumulated_resid", &cache.accumulated_resid(None, true, last)?);
    found.components("decompose_resid", &cache.decompose_resid(None, last)?);
    found.components("full_decomposition.heads", &cache.full_decomposition(None, Detail::Heads, last)?);
    // All neurons of GPT-2's smallest model are 113 MB a text: the first text alone.
    let first = texts.clean.narrow(0, 0, 1);
    let first = ActivationCache::new(model, ln, &first, attribution_needs)?;
    found.components("full_decomposition.neurons", &first.full_decomposition(None, Detail::Neurons, last)?);

    let heads = cache.stack_head_results(None, last, false)?;
    found.components("stack_head_results", &heads);
    let (right, wrong) = (texts.answers.select(1, 0), texts.answers.select(1, 1));
    let difference = cache.logit_attrs(&heads, &right, Some(&wrong))?;
    found.put("logit_attrs.difference", difference.values.select(2, 0));
    let token = cache.logit_attrs(&heads, &right, None)?;
    found.put("logit_attrs.token", token.values.select(2, 0));
    Ok(())
}

/// Activation patching, the mean over texts as in TransformerLens' metrics, and attribution patching.
fn patches(found: &mut Found, loaded: &LoadedModel, texts: &Texts) -> Result<()> {
    let LoadedModel { model, ln, .. } = loaded;
    let Texts { clean, corrupted, answers } = texts;
    let metric = Metric::logit_difference(answers);
    let patching = Patching::new(model, ln, clean, corrupted, &metric)?;
    let mean = |metric: &Tensor| metric.mean_dim(-1i64, false, Kind::Double);
    for (name, site) in [
        ("resid_pre", StreamSite::ResidPre),
        ("attn_out", StreamSite::AttnOut),
        ("mlp_out", StreamSite::MlpOut),
    ] {
        found.put(format!("patch.{name}"), mean(&patching.by_position(site)?.metric));
    }
    found.put("patch.attn_head_out_all_pos", mean(&patching.by_head(HeadSite::Z)?.metric));

    let estimates = AttributionPatching::of(model, ln, clean, corrupted, &metric)?;
    found.put("attribution_patch.resid_pre", estimates.resid_pre);
    found.put("attribution_patch.attn_out", estimates.attn_out);
    found.put("attribution_patch.mlp_out", estimates.mlp_out);
    found.put("attribution_patch.z", estimates.z);
    Ok(())
}

/// Scores `[layer, head]` of every kind of head, with both measures, attention to position 0 counted or not.
fn detectors(found: &mut Found, loaded: &LoadedModel, ids: &Tensor) -> Result<()> {
    for kind in [HeadKind::PreviousToken, HeadKind::DuplicateToken, HeadKind::Induction] {
        for (name, error_measure) in [("mul", ErrorMeasure::Mul), ("abs", ErrorMeasure::Abs)] {
            for (which, exclude_bos) in [("all", false), ("without_bos", true)] {
                let options = DetectOptions { error_measure, exclude_bos, ..DetectOptions::default() };
                let scores = detect_head(&loaded.model, &loaded.ln, ids, kind, options)?;
                let scores = Tensor::from_slice2::<f64, _>(&scores);
                found.put(format!("detect.{kind}.{name}.{which}"), scores);
            }
        }
    }
    Ok(())
}
