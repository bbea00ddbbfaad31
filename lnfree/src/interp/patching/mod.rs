//! What a part of a model does to its prediction, found by giving it what it has on another text.
//!
//! Two texts of one length, a clean and a corrupted one: activations of the clean run are put into the
//! corrupted run, one at a time, and a [`Metric`](super::Metric) says how much of the clean prediction that
//! brings back (Meng et al., arXiv 2202.05262; Wang et al., arXiv 2211.00593). Nothing here changes the
//! statistics of an [`LnState`](crate::model::ln_state::LnState).
//!
//! A patch at layer L and position p changes nothing before L and, as attention is causal, nothing before p.
//! So the corrupted model runs once, and its keys, values and residual streams are kept; a patch computes
//! blocks after L at positions from p on, of the last block no more than from the first of these on that the
//! metric reads, and no other logits ([`Patching::recompute`], to check by, is a whole forward). Patches that
//! begin at one position go through the model together, each from its layer on: a sweep over n layers and P
//! positions passes P · n times over a block, in matrix products of up to some thousand rows, and computes
//! about n² P² / 4 positions of a block for each text, where whole forwards compute n² P². Patches that
//! change nothing, as clean and corrupted text begin alike, are not computed.

mod attribution;
pub(super) mod base;
mod edges;
mod heads;
mod pair;
mod patched;
mod paths;
mod recompute;
pub(super) mod replace;
mod streams;
mod sweep;

pub use attribution::AttributionPatching;
pub use edges::{Edge, EdgeAttribution};
pub use heads::HeadSite;
pub use pair::Patching;
pub use patched::Patched;
pub use paths::{Receiver, Sender};
pub use streams::StreamSite;
