//! The LayerNorm sites of a GPT-2, what becomes of them, and how the standard deviations that replace them
//! are followed: plain data.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One place where a LayerNorm's output is read; ln_1 has two faces, one for queries and keys and one for
/// values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LnSite {
    /// ln_1 of a block as seen by queries and keys.
    Ln1Qk(usize),
    /// ln_1 of a block as seen by values.
    Ln1V(usize),
    /// ln_2 of a block.
    Ln2(usize),
    /// The final LayerNorm.
    LnF,
}

impl fmt::Display for LnSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LnSite::Ln1Qk(l) => write!(f, "h.{l}.ln_1.qk"),
            LnSite::Ln1V(l) => write!(f, "h.{l}.ln_1.v"),
            LnSite::Ln2(l) => write!(f, "h.{l}.ln_2"),
            LnSite::LnF => write!(f, "ln_f"),
        }
    }
}

/// Whether a site divides by the standard deviation of each token or by a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LnMode {
    /// LN(x) = (x − μ)/σ ⊙ γ + β with σ = sqrt(var(x) + ε), biased variance over n_embd.
    #[default]
    Real,
    /// FakeLN(x) = (x − μ)/σ̄ ⊙ γ + β with a constant σ̄: a linear map.
    Fake,
}

impl LnMode {
    /// Whether this is [`LnMode::Fake`].
    pub fn is_fake(self) -> bool {
        self == LnMode::Fake
    }
}

/// What one step of the schedule takes away. The order of the variants is the order of removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemovalKind {
    /// ln_2 of a block.
    Ln2,
    /// ln_1 of a block as seen by queries and keys.
    Ln1Qk,
    /// ln_1 of a block as seen by values.
    Ln1V,
    /// The final LayerNorm.
    LnF,
    /// The special standard deviation that values at end-of-text tokens are divided by.
    Eot,
    /// The special standard deviation of position 0.
    Bos,
}

impl RemovalKind {
    /// Every kind, in the order of removal.
    pub const ALL: [RemovalKind; 6] = [
        RemovalKind::Ln2,
        RemovalKind::Ln1Qk,
        RemovalKind::Ln1V,
        RemovalKind::LnF,
        RemovalKind::Eot,
        RemovalKind::Bos,
    ];

    /// The name used in configs, logs and plots.
    pub fn name(self) -> &'static str {
        match self {
            RemovalKind::Ln2 => "ln2",
            RemovalKind::Ln1Qk => "ln1qk",
            RemovalKind::Ln1V => "ln1v",
            RemovalKind::LnF => "lnf",
            RemovalKind::Eot => "eot",
            RemovalKind::Bos => "bos",
        }
    }

    /// The kind of that [`name`](Self::name).
    pub fn from_name(name: &str) -> Option<RemovalKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a legend calls it.
    pub fn label(self) -> &'static str {
        match self {
            RemovalKind::Ln2 => "ln_2",
            RemovalKind::Ln1Qk => "ln_1 (q, k)",
            RemovalKind::Ln1V => "ln_1 (v)",
            RemovalKind::LnF => "ln_f",
            RemovalKind::Eot => "end-of-text std",
            RemovalKind::Bos => "position-0 std",
        }
    }
}

impl fmt::Display for RemovalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Along which axis of `[batch, pos, n_embd]` the special standard deviation sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpecialAxis {
    /// Position 0 is divided by its own standard deviation.
    #[default]
    Position,
    /// Feature 0 is, at every position: a mistake of the paper's code, kept only to reproduce its numbers.
    Feature,
}

/// How often a training forward moves the running standard deviation of an ln_1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateCount {
    /// Once, like every other LN.
    #[default]
    PerForward,
    /// Three times (queries and keys; values; values at end-of-text tokens), as the paper's code does.
    PerFace,
}

/// What a forward's σ of many tokens are made one number with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StdAverage {
    /// Their mean, as in the paper.
    #[default]
    Mean,
    /// mean(σ²) / mean(σ), with which the fake LN's output is nearest to the real one's in mean square:
    /// with z = x − μ, whose squared norm is n σ² but for ε, Σ ‖z/σ − z/c‖² is least at 1/c = Σ σ / Σ σ².
    LeastSquares,
}

/// How the standard deviations are followed: the `[norm]` table of a config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NormSettings {
    /// Where the first standard deviations come from: `measure` (on the training data, before step 0), or a
    /// std file.
    pub init: String,
    /// m in s ← m·s + (1 − m)·observation.
    pub momentum: f64,
    /// What an observation is.
    pub average: StdAverage,
    /// When an LN is fake altogether, γ is changed so that each channel is nearest to the real one's.
    pub per_channel: bool,
    /// While a site is real, the value that will replace it follows the running one. The paper's setting.
    pub recompute_on_real: bool,
    /// While a site is fake, too: σ̄ then keeps moving until training ends.
    pub recompute_on_fake: bool,
    /// Keep a special standard deviation for position 0, and for values at end-of-text tokens.
    pub special_std: bool,
    /// Where the special standard deviation sits.
    pub special_axis: SpecialAxis,
    /// Leave position 0 out of the running average (only with `special_std`).
    pub exclude_position_0: bool,
    /// How often a forward moves the running average of an ln_1.
    pub ln1_updates: UpdateCount,
}

impl Default for NormSettings {
    fn default() -> Self {
        NormSettings {
            init: "measure".into(),
            momentum: 0.9,
            average: StdAverage::Mean,
            per_channel: false,
            recompute_on_real: true,
            recompute_on_fake: false,
            special_std: false,
            special_axis: SpecialAxis::Position,
            exclude_position_0: false,
            ln1_updates: UpdateCount::PerForward,
        }
    }
}

/// The LNs of a model in the order of the rows of every per-LN tensor: h.0.ln_1, h.0.ln_2, h.1.ln_1, …, ln_f.
pub fn ln_names(n_layer: usize) -> Vec<String> {
    let mut names: Vec<String> =
        (0..n_layer).flat_map(|l| [format!("h.{l}.ln_1"), format!("h.{l}.ln_2")]).collect();
    names.push("ln_f".into());
    names
}

/// Row of ln_1 of block `layer` in per-LN tensors.
pub fn ln1_row(layer: usize) -> usize {
    2 * layer
}

/// Row of ln_2 of block `layer` in per-LN tensors.
pub fn ln2_row(layer: usize) -> usize {
    2 * layer + 1
}

/// Row of ln_f in per-LN tensors.
pub fn lnf_row(n_layer: usize) -> usize {
    2 * n_layer
}
