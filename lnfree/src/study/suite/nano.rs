//! The study in small: the embedded models on the embedded texts, offline, on two CPU cores.

use serde::Deserialize;

use super::{Suite, SuiteDataset, SuiteModel};
use crate::model::{ModelFormat, Shape};
use crate::study::report::{Published, Statistic};

/// As many as the texts have, and more.
const LIMIT: usize = 10_000;
/// Name and title.
const DATASETS: [(&str, &str); 2] = [("nano-addresses", "addresses (val)"), ("nano-moby-dick", "Moby Dick")];
/// Label, name, format and steps.
const MODELS: [(&str, &str, ModelFormat, u32); 3] = [
    ("original", "nano", ModelFormat::Transformers, 0),
    ("vanilla", "nano_vanilla200", ModelFormat::Transformers, 200),
    ("LN-free", "nano_LNFree200", ModelFormat::Identity, 200),
];

/// What the study came to when it was last recorded, by the example `nano_record`.
#[derive(Deserialize)]
struct Record {
    evaluations: Vec<Evaluation>,
}

#[derive(Deserialize)]
struct Evaluation {
    label: String,
    dataset: String,
    n_sequences: usize,
    mean: f64,
}

fn recorded() -> Vec<Evaluation> {
    let record: serde_json::Result<Record> = serde_json::from_str(include_str!("../../../data/study.json"));
    record.map(|record| record.evaluations).unwrap_or_default()
}

/// The embedded models on the embedded texts.
pub(super) fn suite() -> Suite {
    let shape = |format| Shape {
        n_layer: 6,
        n_embd: 128,
        block_size: 128,
        vocab_size: 4096,
        untied: format == ModelFormat::Identity,
        norms: true,
    };
    let model = |(label, model, format, steps): (&str, &str, ModelFormat, u32)| SuiteModel {
        label: label.into(),
        model: model.into(),
        format: Some(format),
        family: String::new(),
        steps: Some(steps),
        shape: Some(shape(format)),
        own: false,
    };
    let recorded = recorded();
    let of =
        |label: &str, dataset: &str| recorded.iter().find(|row| row.label == label && row.dataset == dataset);
    let dataset = |(name, title)| SuiteDataset {
        name,
        title,
        sample: LIMIT,
        sequences: of("original", name).map_or(0, |row| row.n_sequences),
        embedded: true,
    };
    let figures = MODELS.iter().flat_map(|(label, _, _, steps)| {
        let figure = |(dataset, _): &(&'static str, _)| {
            of(label, dataset).map(|row| Published {
                label,
                dataset,
                steps: *steps,
                mean: row.mean,
                median: None,
                ranges: &[],
                compared: Statistic::Mean,
                recorded: true,
            })
        };
        DATASETS.iter().filter_map(figure).collect::<Vec<_>>()
    });
    Suite {
        name: "nano",
        title: "The nano study",
        source: "our record",
        models: MODELS.map(model).into(),
        originals: Vec::new(),
        datasets: DATASETS.map(dataset).into(),
        published: figures.collect(),
        limit: LIMIT,
        batch_size: 32,
        notes: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gpt2Config;
    use crate::eval::locate_model;

    #[test]
    fn shapes_are_those_of_the_embedded_files() {
        for model in suite().models {
            let config = Gpt2Config::read(&locate_model(&model.model).unwrap()).unwrap();
            assert_eq!(model.shape, Some(Shape::of(&config)), "{}", model.model);
        }
    }

    #[test]
    fn every_model_is_recorded_on_every_data_set() {
        let suite = suite();
        assert_eq!(suite.published.len(), suite.models.len() * suite.datasets.len());
        assert!(suite.datasets.iter().all(|dataset| dataset.sequences > 0));
    }
}
