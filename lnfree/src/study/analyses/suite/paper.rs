//! What the second half of "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559) asks of
//! its small and medium models, and what goes with it.

use crate::study::analyses::{Pairs, Prompt, Request, Sample};

/// The sizes into which the paper looks.
pub(super) const FAMILIES: [&str; 2] = ["Small", "Medium"];

/// Of sequences of 1024 tokens the paper takes 512.
const POSITIONS: usize = 512;

pub(super) fn requests() -> Vec<Request> {
    let sample = |sequences| Sample { data: "pile-apollo-luca".into(), sequences, positions: POSITIONS };
    vec![
        Request::Outputs(sample(1000)),
        Request::Sinks(sample(1000)),
        Request::Norms(sample(1000)),
        Request::Lens(sample(100)),
        Request::DirectEffects(sample(1000)),
        Request::Heads { sequences: 32, period: 50, seed: 0 },
        // A forward for each head and MLP: nothing is published of it.
        Request::Ablation(sample(20)),
        Request::Neurons { sample: sample(100), neurons: 8 },
        Request::Attribution(Prompt {
            text: "When Mary and John went to the store, John gave a drink to".into(),
            answer: Some(" Mary".into()),
            against: Some(" John".into()),
        }),
        Request::Patching(Pairs::Repeated { n: 16, period: 50, seed: 0 }),
        Request::Patching(Pairs::Ioi { n: 480, seed: 42 }),
        Request::Circuits { heads: 4 },
    ]
}
