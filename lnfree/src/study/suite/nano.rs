//! The study in small: the embedded models on the embedded texts, offline, on two CPU cores.

use super::{Suite, SuiteDataset, SuiteModel};
use crate::model::{ModelFormat, Shape};
use crate::study::report::{Published, Statistic};

/// As many as both texts have, and more.
const LIMIT: usize = 10_000;
const DATASETS: [(&str, &str, usize); 2] =
    [("nano-owt", "addresses (val)", 849), ("nano-pile", "Moby Dick", 3_066)];
/// Label, name, format, steps, and the figures of this repository's README.
const MODELS: [(&str, &str, ModelFormat, u32, [f64; 2]); 3] = [
    ("original", "nano", ModelFormat::Transformers, 0, [3.8177, 5.2439]),
    ("vanilla", "nano_vanilla200", ModelFormat::Transformers, 200, [3.8295, 5.2589]),
    ("LN-free", "nano_LNFree200", ModelFormat::Folded, 200, [3.8502, 5.3303]),
];

/// The embedded models on the embedded texts.
pub(super) fn suite() -> Suite {
    let shape = |format| Shape {
        n_layer: 6,
        n_embd: 128,
        block_size: 128,
        vocab_size: 4096,
        untied: format == ModelFormat::Folded,
    };
    let model = |(label, model, format, steps, _): (&str, &str, ModelFormat, u32, [f64; 2])| SuiteModel {
        label: label.into(),
        model: model.into(),
        format: Some(format),
        family: String::new(),
        steps: Some(steps),
        shape: Some(shape(format)),
        own: false,
    };
    let dataset =
        |(name, title, sequences)| SuiteDataset { name, title, sample: LIMIT, sequences, embedded: true };
    let figures = MODELS.iter().flat_map(|(label, _, _, steps, means)| {
        DATASETS.iter().zip(means).map(|((dataset, ..), mean)| Published {
            label,
            dataset,
            steps: *steps,
            mean: *mean,
            median: None,
            ranges: &[],
            compared: Statistic::Mean,
        })
    });
    Suite {
        name: "nano",
        title: "The nano study",
        source: "lnfree's README",
        models: MODELS.map(model).into(),
        datasets: DATASETS.map(dataset).into(),
        published: figures.collect(),
        limit: LIMIT,
        batch_size: 32,
        notes: &[],
    }
}
