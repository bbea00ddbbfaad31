//! What is asked of the embedded models: some two minutes of two CPU cores for all three. What it came to is
//! recorded in `data/interp.json`; where a request changes, the example `interp_record` makes that again.

use crate::study::analyses::{Pairs, Prompt, Request, Sample};

pub(super) fn requests() -> Vec<Request> {
    let sample = |sequences| Sample { data: "nano-addresses".into(), sequences, positions: 128 };
    vec![
        Request::Outputs(sample(100)),
        Request::Sinks(sample(100)),
        Request::Norms(sample(100)),
        Request::Lens(sample(100)),
        Request::DirectEffects(sample(200)),
        Request::Heads { sequences: 32, period: 50, seed: 0 },
        Request::Ablation(sample(100)),
        Request::Neurons { sample: sample(50), neurons: 8 },
        Request::Attribution(Prompt {
            text: "My fellow citizens, the Constitution of the United".into(),
            answer: Some(" States".into()),
            against: Some(" Nations".into()),
        }),
        Request::Patching(Pairs::Repeated { n: 16, period: 20, seed: 0 }),
        Request::Circuits { heads: 4 },
    ]
}
