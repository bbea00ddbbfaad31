//! What parts of a model write to the residual stream, and what of a logit is theirs.
//!
//! Names, labels and axes are those of TransformerLens' `ActivationCache`. Attention heads, neurons and
//! embeddings add vectors to the stream; ln_f and the unembedding turn the stream into logits. Where ln_f
//! divides by constants, that is one linear map, and the logits are the sum of everybody's shares. Where it
//! is real, attribution keeps it at the scale that the run had, and says what that costs.

mod components;
mod effects;
mod exact;
mod lens;
mod logits;
mod positions;
mod sources;
mod unembedding;

pub use components::Components;
pub use effects::{DirectEffects, EffectTarget};
pub use exact::LogitDecomposition;
pub use lens::LensLayer;
pub use logits::LogitAttributions;
pub use positions::Positions;
pub use sources::Detail;
