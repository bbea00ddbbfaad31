//! The tables of a config and their defaults.

use serde::{Deserialize, Deserializer, Serialize};

/// `[model]`: which model is fine-tuned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// A directory with `config.json` and weights, or the name of a model.
    pub name: String,
    /// Number of blocks; the schedule is laid out over them, and the loaded model must have as many.
    pub n_layer: usize,
    /// Heads; needed by `pretrain`, which makes a model. A model that is loaded must have as many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_head: Option<usize>,
    /// Model dimension, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_embd: Option<usize>,
    /// Positions, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// Tokens in the vocabulary, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Standard deviation of the new weights, 0.02 if unset; only for `pretrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initializer_range: Option<f64>,
    /// The same of the two embeddings, `initializer_range` if unset; only for `pretrain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_range: Option<f64>,
    /// Amplitude of sinusoids that the position embedding of a new model is, and that are added, less their
    /// mean, to that of a model that is there; unset, the one is random and the other stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sinusoidal_positions: Option<f64>,
    /// The end-of-text token, where the model's `config.json` does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eot_token_id: Option<i64>,
}

/// The type numbers are kept or computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FloatType {
    /// 32 bits.
    #[default]
    Float32,
    /// float32 whose matrix products on a GPU round their factors to 10 bits of mantissa.
    Tf32,
    /// 16 bits with float32's exponent.
    Bfloat16,
}

impl FloatType {
    /// The names in configs and on the command line.
    pub const NAMES: [&str; 3] = ["float32", "tf32", "bfloat16"];

    /// As configs write it.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// libtorch's name for it.
    pub fn kind(self) -> tch::Kind {
        match self {
            FloatType::Float32 | FloatType::Tf32 => tch::Kind::Float,
            FloatType::Bfloat16 => tch::Kind::BFloat16,
        }
    }

    /// What is computed in on `device` where this is asked for: float32 instead of bfloat16 on a CPU that
    /// multiplies float32 faster, which is said once.
    pub fn in_effect(self, device: tch::Device) -> FloatType {
        if self != FloatType::Bfloat16
            || device != tch::Device::Cpu
            || crate::base::device::bfloat16_is_computed()
        {
            return self;
        }
        let products = crate::base::device::products();
        crate::base::console::warn_once(&format!(
            "dtype bfloat16: this CPU multiplies float32 faster ({:.0} GFLOP/s against {:.0}), so float32 is computed in",
            products.fastest_float32() / 1e9,
            products.bfloat16 / 1e9
        ));
        FloatType::Float32
    }

    /// Prepares libtorch for it; a flag of the whole process. On a CPU what multiplies fastest is measured,
    /// if it is not known.
    ///
    /// # Errors
    /// TF32 where there is no CUDA device to compute in it.
    pub fn prepare(self, device: tch::Device) -> crate::Result<()> {
        match (self, device.is_cuda()) {
            (FloatType::Tf32, false) => Err(crate::Error::invalid(
                "dtype tf32 needs a CUDA device; on a CPU take float32 or bfloat16",
            )),
            (_, false) => {
                crate::base::device::products();
                Ok(())
            }
            (float, true) => crate::base::ffi::set_product_precision(float == FloatType::Tf32),
        }
    }
}

impl std::str::FromStr for FloatType {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [FloatType::Float32, FloatType::Tf32, FloatType::Bfloat16]
            .into_iter()
            .find(|float| float.name() == s)
            .ok_or_else(|| format!("one of {}", Self::NAMES.join(", ")))
    }
}

/// `[train]`: the optimization.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Sequences in one forward and backward.
    pub batch_size: usize,
    /// Sequences of it that go through at a time, a number that divides it, with the result of the whole;
    /// unset or `"auto"`, as many as the memory has room for.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "number_or_auto")]
    pub micro_batch_size: Option<usize>,
    /// Forwards and backwards in one optimizer step.
    #[serde(default = "one")]
    pub gradient_accumulation_steps: usize,
    /// Optimizer steps.
    pub max_steps: usize,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Learning rate at the end of the cosine.
    pub min_lr: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
    /// Decoupled weight decay.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Gradients are scaled down to at most this L2 norm.
    #[serde(default = "one_f64")]
    pub max_grad_norm: f64,
    /// AdamW's decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// AdamW's epsilon.
    #[serde(default = "default_adam_eps")]
    pub adam_eps: f64,
    /// Weight of the auxiliary loss; 0 leaves it out.
    #[serde(default)]
    pub aux_loss_weight: f64,
    /// Keep only the residual stream between blocks and compute each block again for its gradients.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// What matrix products and attention are computed in.
    #[serde(default)]
    pub dtype: FloatType,
    /// What parameters are kept in; `bfloat16` loses small updates and is there to match the paper's runs.
    #[serde(default)]
    pub param_dtype: FloatType,
    /// Dropout probability everywhere; unset, the model's own `config.json` decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropout: Option<f64>,
    /// Whether weight decay pulls on LN weights; unset, it does without LN and does not with LN, as in the
    /// paper's code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay_ln: Option<bool>,
    /// Whether predicting end-of-text counts; the paper's code leaves it out.
    #[serde(default)]
    pub predict_eot: bool,
    /// Seed of data order, dropout and initial weights.
    #[serde(default)]
    pub seed: u64,
    /// Steps between checkpoints; the last step always writes one.
    #[serde(default = "hundred")]
    pub save_every: usize,
    /// Checkpoints kept, the newest ones; 0 keeps all.
    #[serde(default = "two")]
    pub keep_checkpoints: usize,
    /// Steps whose checkpoints are written, whatever `save_every` says, and stay, whatever `keep_checkpoints`
    /// says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_steps: Vec<usize>,
}

/// `[data]`: what is trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Training tokens: the name of a data set or the path of a token file.
    pub train: String,
    /// Validation tokens, likewise; unset, training runs without evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<String>,
    /// Tokens in a sequence.
    pub block_size: usize,
    /// Whether the order of sequences is shuffled (from `train.seed`, anew every epoch) or that of the file.
    #[serde(default = "yes")]
    pub shuffle: bool,
    /// Share of the training sequences that say their first tokens again and again, 0 to 1.
    #[serde(default)]
    pub repeated_passages: f64,
    /// Share of the training sequences that are random tokens said again and again, 0 to 1.
    #[serde(default)]
    pub repeated_random: f64,
}

/// `[distill]`: a frozen teacher that the model is to stay close to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillConfig {
    /// A folder or the name of a model, most often `model.name` itself; unset, there is no teacher, and the
    /// loss is the cross-entropy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher: Option<String>,
    /// w of the loss (1 − w) · cross-entropy + w T² · KL(teacher ‖ model).
    pub weight: f64,
    /// T, by which both models' logits are divided for the KL.
    pub temperature: f64,
    /// Weight of the distance between both residual streams after every block but the last, which is added;
    /// 0 leaves it out.
    pub hidden_weight: f64,
}

impl Default for DistillConfig {
    fn default() -> Self {
        DistillConfig { teacher: None, weight: 1.0, temperature: 1.0, hidden_weight: 0.0 }
    }
}

/// `[lora]`: low-rank adapters that train instead of the model's parameters.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Columns of A and rows of B of the adapters W + A B, of each block's four matrices; unset, everything
    /// trains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<usize>,
}

/// `[eval]`: evaluations during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalConfig {
    /// Steps between evaluations; 0 evaluates at the end only.
    pub every: usize,
    /// Sequences in one forward.
    pub batch_size: usize,
    /// Sequences evaluated at most.
    pub max_sequences: usize,
}

impl Default for EvalConfig {
    fn default() -> Self {
        EvalConfig { every: 100, batch_size: 8, max_sequences: 1000 }
    }
}

/// A whole number, or `"auto"` for none.
fn number_or_auto<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wish {
        Number(usize),
        Name(String),
    }
    // What is neither says so in words of its own, not in those of the enum.
    match Option::<Wish>::deserialize(deserializer) {
        Ok(Some(Wish::Number(n))) => Ok(Some(n)),
        Ok(None) => Ok(None),
        Ok(Some(Wish::Name(name))) if name == "auto" => Ok(None),
        _ => Err(serde::de::Error::custom("must be a whole number from 1, or \"auto\"")),
    }
}

fn one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn hundred() -> usize {
    100
}
fn yes() -> bool {
    true
}
fn one_f64() -> f64 {
    1.0
}
fn default_weight_decay() -> f64 {
    0.01
}
fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.999
}
fn default_adam_eps() -> f64 {
    1e-8
}
