//! What parts of a model do: what each adds to a logit, what happens without it or with another's, which
//! heads do what, what its weights alone say, and how two models differ.

mod ablation;
mod attribution;
mod cache;
mod circuits;
mod detectors;
pub mod divergence;
mod entropy_neurons;
mod factored;
mod heads;
pub mod ioi;
mod metrics;
mod patching;
mod processing;
mod residual_norms;
mod sae;
mod sinks;

pub use ablation::{Ablated, Ablation, Component, Means, Substitute};
pub use attribution::{
    Components, Detail, DirectEffects, EffectTarget, LensLayer, LogitAttributions, LogitDecomposition,
    Positions,
};
pub use cache::{ActivationCache, attribution_needs, run_with_cache};
pub use circuits::{
    AttentionPath, AttentionPaths, Circuits, Composition, Direction, HeadWeights, PathSource,
    random_composition,
};
pub use detectors::{DetectOptions, ErrorMeasure, HeadKind, detect_head, detect_pattern, similarity};
pub use entropy_neurons::{EntropyNeurons, MeanAblation, Outcome};
pub use factored::{FactoredMatrix, FactoredSvd};
pub use heads::{HeadScores, RepeatedTokens};
pub use metrics::Metric;
pub use patching::{
    AttributionPatching, Edge, EdgeAttribution, HeadSite, Patched, Patching, Receiver, Sender, StreamSite,
};
pub use processing::{Processed, Processing, process};
pub use residual_norms::{Growth, NormAt, ResidualNorms, Spread};
pub use sae::{Sae, SaeConfig, SaeEncoder, SaeHook, SaeNorm, SaeQuality, SaeRun, SaeTraining, train_small};
pub use sinks::AttentionSinks;
