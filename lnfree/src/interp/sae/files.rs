//! `cfg.json` and `sae_weights.safetensors`, as SAELens writes them.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor};

use super::{Sae, SaeConfig, SaeEncoder, SaeNorm};
use crate::base::atomic::write_bytes;
use crate::model::weights::{Weights, check_finite, read_weights, write_safetensors};
use crate::{Error, Result};

/// How it is used.
const CONFIG: &str = "cfg.json";
/// Its weights.
const WEIGHTS: &str = "sae_weights.safetensors";

/// A message that the caller puts the file's name before.
type Why<T> = std::result::Result<T, String>;

impl Sae {
    /// Loads a folder with `cfg.json` and `sae_weights.safetensors` (SAELens 3 to 6: architectures
    /// `standard`, `topk`, `jumprelu`, which is also what batch-top-k SAEs are saved as, and `gated`).
    ///
    /// # Errors
    /// One line naming the file: what is missing, damaged, of a wrong shape, or not honoured here. An SAE
    /// that expects scaled activations (`expected_average_only_in`) does not say by how much: see
    /// [`Sae::load_scaled`].
    pub fn load(dir: &Path, device: Device) -> Result<Sae> {
        read(dir, None, device)
    }

    /// Loads an SAE whose activations are to be multiplied by `scale` before it reads them, which makes their
    /// mean norm √d_in (`normalize_activations = "expected_average_only_in"`). The scale goes into the
    /// weights, as SAELens' `fold_activation_norm_scaling_factor` puts it there.
    ///
    /// # Errors
    /// As [`Sae::load`]; a scale that is not above 0, or that the SAE does not ask for.
    pub fn load_scaled(dir: &Path, scale: f64, device: Device) -> Result<Sae> {
        read(dir, Some(scale), device)
    }

    /// Writes `cfg.json` and `sae_weights.safetensors` into `dir`, which is made if it is missing, so that
    /// SAELens 6 loads it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let (architecture, own) = self.encoder.tensors();
        let norm = match self.config.norm {
            SaeNorm::None => "none",
            SaeNorm::ConstantNorm => "constant_norm_rescale",
            SaeNorm::LayerNorm => "layer_norm",
        };
        let of_heads = self.config.hook_name.as_ref().is_some_and(|name| name.ends_with("hook_z"));
        let reshape = if of_heads { "hook_z" } else { "none" };
        let mut config = json!({
            "architecture": architecture, "d_in": self.d_in(), "d_sae": self.d_sae(), "dtype": "float32",
            "device": "cpu", "apply_b_dec_to_input": self.config.apply_b_dec_to_input,
            "normalize_activations": norm, "reshape_activations": reshape,
            "metadata": {
                "hook_name": self.config.hook_name, "model_name": self.config.model_name,
                "model_from_pretrained_kwargs": { "center_writing_weights": self.config.centred },
            },
        });
        if let SaeEncoder::TopK { k, .. } = &self.encoder {
            config["k"] = json!(k);
        }
        let shared = [("W_enc", &self.w_enc), ("W_dec", &self.w_dec), ("b_dec", &self.b_dec)];
        let weights: Weights =
            shared.into_iter().chain(own).map(|(name, x)| (name.to_string(), x.detach())).collect();
        write_safetensors(&dir.join(WEIGHTS), &weights, &BTreeMap::new())?;
        let path = dir.join(CONFIG);
        let text = serde_json::to_string_pretty(&config).map_err(|e| Error::file(&path, e))?;
        write_bytes(&path, text.as_bytes())
    }
}

impl SaeEncoder {
    /// SAELens' name of the architecture and its own tensors.
    fn tensors(&self) -> (&'static str, Vec<(&'static str, &Tensor)>) {
        match self {
            SaeEncoder::Standard { b_enc } => ("standard", vec![("b_enc", b_enc)]),
            SaeEncoder::TopK { b_enc, .. } => ("topk", vec![("b_enc", b_enc)]),
            SaeEncoder::JumpRelu { b_enc, threshold } => {
                ("jumprelu", vec![("b_enc", b_enc), ("threshold", threshold)])
            }
            SaeEncoder::Gated { b_gate, r_mag, b_mag } => {
                ("gated", vec![("b_gate", b_gate), ("r_mag", r_mag), ("b_mag", b_mag)])
            }
        }
    }
}

fn read(dir: &Path, scale: Option<f64>, device: Device) -> Result<Sae> {
    let path = dir.join(CONFIG);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let map: Map<String, Value> = crate::base::json::from_slice(&bytes)
        .map_err(|e| Error::file(&path, format!("is not a JSON object: {e}")))?;
    let wrong = |why: String| Error::file(&path, why);
    let norm = normalisation(&map, scale).map_err(wrong)?;
    let weights_path = dir.join(WEIGHTS);
    let weights = read_weights(&weights_path)?;
    check_finite(&weights, &weights_path)?;
    let parts = Parts { map: &map, weights: &weights, device };
    let mut sae = parts.sae(norm).map_err(wrong)?;
    if let Some(scale) = scale {
        sae.w_enc = sae.w_enc.f_mul_scalar(scale)?;
        sae.w_dec = sae.w_dec.f_div_scalar(scale)?;
        sae.b_dec = sae.b_dec.f_div_scalar(scale)?;
    }
    Ok(sae)
}

/// What is done to activations, once a scale is in the weights.
fn normalisation(map: &Map<String, Value>, scale: Option<f64>) -> Why<SaeNorm> {
    let asked = text(map, "normalize_activations").unwrap_or("none");
    match (asked, scale) {
        ("expected_average_only_in", Some(scale)) if scale > 0.0 && scale.is_finite() => Ok(SaeNorm::None),
        ("expected_average_only_in", Some(scale)) => Err(format!("activations cannot be scaled by {scale}")),
        ("expected_average_only_in", None) => {
            Err("normalize_activations is expected_average_only_in, and the file does not say the factor: \
                 give it to Sae::load_scaled"
                .into())
        }
        (other, Some(_)) => Err(format!("normalize_activations is {other}: no scale is asked for")),
        ("none", None) => Ok(SaeNorm::None),
        ("constant_norm_rescale", None) => Ok(SaeNorm::ConstantNorm),
        ("layer_norm", None) => Ok(SaeNorm::LayerNorm),
        (other, None) => Err(format!("normalize_activations: {other} is not known")),
    }
}

fn text<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Value::as_str)
}

fn flag(map: &Map<String, Value>, key: &str) -> Option<bool> {
    map.get(key).and_then(Value::as_bool)
}

/// The two files.
struct Parts<'a> {
    map: &'a Map<String, Value>,
    weights: &'a Weights,
    device: Device,
}

impl Parts<'_> {
    fn sae(&self, norm: SaeNorm) -> Why<Sae> {
        let [d_in, d_sae] = [self.whole("d_in")?, self.whole("d_sae")?];
        self.refuse()?;
        let own = |name: &str| self.take(name, &[d_sae]);
        // Before version 4 the architecture was standard and the activation function said which.
        let function = ["activation_fn", "activation_fn_str"].iter().find_map(|key| text(self.map, key));
        let architecture = match (text(self.map, "architecture").unwrap_or("standard"), function) {
            ("standard", Some("topk")) => "topk",
            (_, Some(other)) if other != "relu" && other != "topk" => {
                return Err(format!("the activation function {other} is not known"));
            }
            (architecture, _) => architecture,
        };
        let encoder = match architecture {
            "standard" => SaeEncoder::Standard { b_enc: own("b_enc")? },
            "topk" => {
                let k = self.k().filter(|k| (1..=d_sae).contains(k));
                SaeEncoder::TopK { b_enc: own("b_enc")?, k: k.ok_or("k is not a number of features")? }
            }
            "jumprelu" => SaeEncoder::JumpRelu { b_enc: own("b_enc")?, threshold: own("threshold")? },
            "gated" => {
                SaeEncoder::Gated { b_gate: own("b_gate")?, r_mag: own("r_mag")?, b_mag: own("b_mag")? }
            }
            other => {
                return Err(format!(
                    "architecture: {other} is not known; one of standard, topk, jumprelu, gated"
                ));
            }
        };
        let said = |key: &str| {
            let metadata = ["metadata", "meta"].iter().find_map(|of| self.map.get(*of)?.get(key)?.as_str());
            metadata.or_else(|| text(self.map, key)).map(String::from)
        };
        let kwargs =
            |of: &Value| of.get("model_from_pretrained_kwargs")?.get("center_writing_weights")?.as_bool();
        let within = ["metadata", "meta"].iter().find_map(|of| kwargs(self.map.get(*of)?));
        let loaded_centred = within.or_else(|| kwargs(&Value::Object(self.map.clone()))).unwrap_or(false);
        let hook_name = said("hook_name").or_else(|| said("hook_point"));
        // What attention and MLPs read or hold inside is the same with and without.
        let of_stream =
            |name: &String| ["resid", "attn_out", "mlp_out"].iter().any(|part| name.contains(part));
        let config = SaeConfig {
            apply_b_dec_to_input: flag(self.map, "apply_b_dec_to_input").unwrap_or(true),
            norm,
            centred: loaded_centred && hook_name.as_ref().is_some_and(of_stream),
            hook_name,
            model_name: said("model_name"),
        };
        Ok(Sae {
            w_enc: self.take("W_enc", &[d_in, d_sae])?,
            w_dec: self.take("W_dec", &[d_sae, d_in])?,
            b_dec: self.take("b_dec", &[d_in])?,
            encoder,
            config,
        })
    }

    /// What would change the numbers and is not computed here.
    fn refuse(&self) -> Why<()> {
        for key in ["finetuning_scaling_factor", "rescale_acts_by_decoder_norm"] {
            if flag(self.map, key) == Some(true) {
                return Err(format!("{key} is true, which is not honoured: fold it and save the SAE again"));
            }
        }
        match text(self.map, "reshape_activations") {
            None | Some("none" | "hook_z") => Ok(()),
            Some(other) => Err(format!("reshape_activations: {other} is not known")),
        }
    }

    fn whole(&self, key: &str) -> Why<i64> {
        let found = self.map.get(key).and_then(Value::as_i64).filter(|&n| n > 0);
        found.ok_or_else(|| format!("{key} is not a number above 0"))
    }

    fn k(&self) -> Option<i64> {
        let earlier = || self.map.get("activation_fn_kwargs")?.get("k")?.as_i64();
        self.map.get("k").and_then(Value::as_i64).or_else(earlier)
    }

    fn take(&self, name: &str, size: &[i64]) -> Why<Tensor> {
        let found = self.weights.get(name).ok_or_else(|| format!("{WEIGHTS} has no `{name}`"))?;
        if found.size() != size {
            return Err(format!("`{name}` in {WEIGHTS} is {:?} and not {size:?}", found.size()));
        }
        let cast = found.f_to_kind(Kind::Float).and_then(|x| x.f_to_device(self.device));
        cast.map_err(|e| Error::from(e).to_string())
    }
}
