//! The results table of "Transformers Don't Need LayerNorm at Inference Time" (arXiv 2507.02559).

use super::{Suite, SuiteDataset, SuiteModel};
use crate::model::{ModelFormat, Shape};
use crate::study::report::{Published, Statistic};

/// Sequences of each data set that the paper evaluated at most.
const SAMPLE: usize = 10_000;

/// Data sets in the order of the table's columns: name, the paper's heading, sequences of 1024 tokens.
const DATASETS: [(&str, &str, usize); 3] = [
    // 4.5M tokens.
    ("openwebtext-val", "OWT (val)", 4_400),
    ("pile-apollo", "The Pile", SAMPLE),
    ("pile-apollo-luca", "Pile-filtered", SAMPLE),
];

/// One size of the study.
struct Family {
    name: &'static str,
    shape: Shape,
    /// Repositories of the original, the control and the LN-free model.
    models: [&'static str; 3],
    /// Steps of fine-tuning of the latter two.
    steps: u32,
    /// Mean losses of the three models on the three data sets.
    means: [[f64; 3]; 3],
}

const LABELS: [&str; 12] = [
    "Small original",
    "Small vanilla",
    "Small LN-free",
    "Medium original",
    "Medium vanilla",
    "Medium LN-free",
    "Large original",
    "Large vanilla",
    "Large LN-free",
    "XL original",
    "XL vanilla",
    "XL LN-free",
];

const FAMILIES: [Family; 4] = [
    Family {
        name: "Small",
        shape: Shape::gpt2(12, 768),
        models: ["openai-community/gpt2", "schaeff/gpt2-small_vanilla300", "schaeff/gpt2-small_LNFree300"],
        steps: 300,
        means: [[3.1006, 2.8450, 2.7899], [3.0126, 2.8511, 2.8112], [3.0797, 2.8852, 2.8757]],
    },
    Family {
        name: "Medium",
        shape: Shape::gpt2(24, 1024),
        models: [
            "openai-community/gpt2-medium",
            "schaeff/gpt2-medium_vanilla500",
            "schaeff/gpt2-medium_LNFree500",
        ],
        steps: 500,
        means: [[2.8145, 2.5163, 2.5390], [2.7390, 2.5752, 2.5724], [2.7642, 2.6579, 2.6352]],
    },
    Family {
        name: "Large",
        shape: Shape::gpt2(36, 1280),
        models: [
            "openai-community/gpt2-large",
            "schaeff/gpt2-large_vanilla600",
            "schaeff/gpt2-large_LNFree600",
        ],
        steps: 600,
        means: [[2.6623, 2.5320, 2.4347], [2.6240, 2.6233, 2.5074], [2.6384, 2.7504, 2.5159]],
    },
    Family {
        name: "XL",
        shape: Shape::gpt2(48, 1600),
        models: ["openai-community/gpt2-xl", "schaeff/gpt2-xl_vanilla800", "schaeff/gpt2-xl_LNFree800"],
        steps: 800,
        means: [[2.5567, 2.4436, 2.3739], [2.4799, 2.4673, 2.3821], [2.5052, 130.2197, 2.3992]],
    },
];

/// What the paper tells of an evaluation beyond its mean.
struct Spread {
    label: &'static str,
    median: f64,
    ranges: &'static [(&'static str, [f64; 2])],
    compared: Statistic,
}

/// The two XL models on the Pile.
const SPREADS: [Spread; 2] = [
    Spread {
        label: "XL original",
        median: 1.0103,
        ranges: &[("95", [0.0005, 10.6193]), ("99.9", [0.0, 43.0064])],
        compared: Statistic::Mean,
    },
    Spread {
        label: "XL LN-free",
        median: 1.0937,
        ranges: &[("95", [0.0004, 10.7548]), ("99.9", [0.0, 48.6459])],
        compared: Statistic::Median,
    },
];
const SPREADS_ON: &str = "pile-apollo";

const NOTES: &[&str] = &[
    "XL LN-free on the Pile: three of the paper's 10,000 samples explode and carry its mean of 130.2197, so the median is \
     compared (published: 1.0937; 95% of tokens within 0.0004 to 10.7548, 99.9% within 0.0000 to 48.6459).",
    "XL original on the Pile: the paper also gives a median of 1.0103, 95% of tokens within 0.0005 to 10.6193 and 99.9% \
     within 0.0000 to 43.0064.",
];

/// The paper's twelve models on its three data sets.
pub(super) fn suite() -> Suite {
    let dataset =
        |(name, title, sequences)| SuiteDataset { name, title, sample: SAMPLE, sequences, embedded: false };
    Suite {
        name: "paper",
        title: "The paper's results table",
        source: "the paper",
        models: FAMILIES
            .iter()
            .zip(LABELS.chunks(3))
            .flat_map(|(family, labels)| models(family, labels))
            .collect(),
        originals: Vec::new(),
        datasets: DATASETS.map(dataset).into(),
        published: FAMILIES
            .iter()
            .zip(LABELS.chunks(3))
            .flat_map(|(f, labels)| published(f, labels))
            .collect(),
        limit: SAMPLE,
        batch_size: 8,
        notes: NOTES,
    }
}

fn models(family: &Family, labels: &[&str]) -> Vec<SuiteModel> {
    let model = |(i, label): (usize, &&str)| SuiteModel {
        label: label.to_string(),
        model: family.models[i].into(),
        format: Some(if i == 2 { ModelFormat::Scaled } else { ModelFormat::Transformers }),
        family: family.name.into(),
        steps: Some(if i == 0 { 0 } else { family.steps }),
        shape: Some(family.shape),
        own: false,
    };
    labels.iter().enumerate().map(model).collect()
}

fn published(family: &Family, labels: &[&'static str]) -> Vec<Published> {
    let mut out = Vec::new();
    let steps = [0, family.steps, family.steps];
    for ((label, means), steps) in labels.iter().copied().zip(family.means).zip(steps) {
        for ((dataset, ..), mean) in DATASETS.into_iter().zip(means) {
            let spread = SPREADS.iter().find(|spread| (spread.label, SPREADS_ON) == (label, dataset));
            out.push(Published {
                label,
                dataset,
                steps,
                mean,
                median: spread.map(|s| s.median),
                ranges: spread.map_or(&[], |s| s.ranges),
                compared: spread.map_or(Statistic::Mean, |s| s.compared),
                recorded: false,
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_its_thirty_six_figures_in_their_places() {
        let suite = suite();
        assert_eq!((suite.models.len(), suite.datasets.len(), suite.published.len()), (12, 3, 36));
        let mean = |label, dataset| suite.published(label, dataset).unwrap().mean;
        assert_eq!(mean("Small original", "openwebtext-val"), 3.1006);
        assert_eq!(mean("Medium vanilla", "pile-apollo-luca"), 2.5724);
        assert_eq!(mean("Large LN-free", "pile-apollo"), 2.7504);
        let exploded = suite.published("XL LN-free", "pile-apollo").unwrap();
        assert_eq!(
            (exploded.mean, exploded.median, exploded.compared),
            (130.2197, Some(1.0937), Statistic::Median)
        );
        assert_eq!(suite.published("XL LN-free", "openwebtext-val").unwrap().compared, Statistic::Mean);
        for model in &suite.models {
            assert!(model.label.starts_with(&model.family), "{model:?}");
            let size = model.family.to_lowercase().replace("small", "gpt2");
            assert!(model.model.contains(&size), "{model:?}");
            let ln_free = model.model.contains("LNFree");
            assert_eq!(model.label.ends_with("LN-free"), ln_free);
            assert_eq!(model.label.ends_with("original"), model.model.starts_with("openai-community/"));
            assert_eq!(model.format == Some(ModelFormat::Scaled), ln_free);
            let steps = model.steps.unwrap();
            assert!(suite.published.iter().all(|p| p.label != model.label || p.steps == steps), "{model:?}");
            assert!(steps == 0 || model.model.ends_with(&steps.to_string()), "{model:?}");
        }
    }
}
