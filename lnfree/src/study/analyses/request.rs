//! What is asked of a model.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One analysis with all that its result depends on besides the model. Two results with equal requests can
/// be held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "analysis", rename_all = "kebab-case")]
pub enum Request {
    /// What heads look for, on random tokens said twice.
    Heads {
        /// Sequences.
        sequences: usize,
        /// Tokens that are said twice.
        period: usize,
        /// Of the tokens.
        seed: u64,
    },
    /// Attention to position 0.
    Sinks(Sample),
    /// Length of the residual stream along the forward.
    Norms(Sample),
    /// What the residual stream behind every block predicts.
    Lens(Sample),
    /// Direct logit attribution of heads against their direct effects.
    DirectEffects(Sample),
    /// Loss without each head and MLP.
    Ablation(Sample),
    /// Entropy neurons of the last MLP.
    Neurons {
        /// Texts on which they are ablated.
        sample: Sample,
        /// How many are ablated, alone and together.
        neurons: usize,
    },
    /// Predictions, and how far they are from the original's.
    Outputs(Sample),
    /// One prompt's logit as a sum over components.
    Attribution(Prompt),
    /// Patches of clean activations into a corrupted run.
    Patching(Pairs),
    /// What the weights of heads say.
    Circuits {
        /// Heads whose directions are read through the unembedding: those that copy most.
        heads: usize,
    },
    /// A sparse autoencoder in the model.
    Sae {
        /// Its folder, of SAELens' format.
        dir: PathBuf,
        /// Texts on which it is tried.
        sample: Sample,
    },
}

/// The first sequences of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// A data set's name or a token file.
    pub data: String,
    /// How many sequences, from the first on.
    pub sequences: usize,
    /// How many of each one's positions, from the first on.
    pub positions: usize,
}

/// A prompt and the tokens whose logit is taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The next token, with the space before it; the likeliest one where it is `None`.
    pub answer: Option<String>,
    /// A token whose logit is taken off.
    pub against: Option<String>,
}

/// Pairs of prompts that differ in one thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "pairs", rename_all = "kebab-case")]
pub enum Pairs {
    /// Random tokens and the first half of them again, and the same with another token where the answer was
    /// said first.
    Repeated {
        /// Pairs.
        n: usize,
        /// Tokens that are said twice.
        period: usize,
        /// Of the tokens.
        seed: u64,
    },
    /// Indirect object identification, the paper's recipe.
    Ioi {
        /// Pairs.
        n: usize,
        /// Of names, places and objects.
        seed: u64,
    },
    /// One's own.
    Texts {
        /// The clean prompt.
        clean: String,
        /// The corrupted prompt, of as many tokens.
        corrupted: String,
        /// The clean prompt's next token, and the corrupted one's.
        answers: [String; 2],
    },
}

impl Request {
    /// The analysis, as the command line and files name it.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Heads { .. } => "heads",
            Request::Sinks(_) => "sinks",
            Request::Norms(_) => "norms",
            Request::Lens(_) => "lens",
            Request::DirectEffects(_) => "direct-effects",
            Request::Ablation(_) => "ablation",
            Request::Neurons { .. } => "neurons",
            Request::Outputs(_) => "outputs",
            Request::Attribution(_) => "attribution",
            Request::Patching(_) => "patching",
            Request::Circuits { .. } => "circuits",
            Request::Sae { .. } => "sae",
        }
    }

    /// Heading of its results.
    pub fn title(&self) -> &'static str {
        match self {
            Request::Heads { .. } => "What heads look for",
            Request::Sinks(_) => "Attention to position 0",
            Request::Norms(_) => "Residual stream",
            Request::Lens(_) => "Logit lens",
            Request::DirectEffects(_) => "Direct logit attribution against direct effects",
            Request::Ablation(_) => "Loss without a head or an MLP",
            Request::Neurons { .. } => "Entropy neurons",
            Request::Outputs(_) => "Predictions",
            Request::Attribution(_) => "A logit, taken apart",
            Request::Patching(_) => "Activation and attribution patching",
            Request::Circuits { .. } => "What the weights say",
            Request::Sae { .. } => "Sparse autoencoder",
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the first {} sequences of {}, {} positions", self.sequences, self.data, self.positions)
    }
}

impl fmt::Display for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pairs::Repeated { n, period, seed } => {
                write!(f, "{n} pairs of {period} random tokens and the first half of them again, seed {seed}")
            }
            Pairs::Ioi { n, seed } => write!(f, "{n} pairs of indirect object identification, seed {seed}"),
            Pairs::Texts { clean, corrupted, answers: [clean_answer, corrupted_answer] } => {
                write!(f, "‘{clean}’→‘{clean_answer}’ and ‘{corrupted}’→‘{corrupted_answer}’")
            }
        }
    }
}

impl fmt::Display for Request {
    /// What it is computed on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Heads { sequences, period, seed } => {
                write!(f, "{sequences} sequences of {period} random tokens said twice, seed {seed}")
            }
            Request::Sinks(sample)
            | Request::Norms(sample)
            | Request::Lens(sample)
            | Request::DirectEffects(sample)
            | Request::Ablation(sample)
            | Request::Outputs(sample) => sample.fmt(f),
            Request::Neurons { sample, neurons } => write!(f, "{neurons} neurons, {sample}"),
            Request::Attribution(Prompt { text, answer, against }) => {
                write!(f, "‘{text}’")?;
                if let Some(answer) = answer {
                    write!(f, "→‘{answer}’")?;
                }
                against.iter().try_for_each(|against| write!(f, " less ‘{against}’"))
            }
            Request::Patching(pairs) => pairs.fmt(f),
            Request::Circuits { .. } => write!(f, "the weights alone"),
            Request::Sae { dir, sample } => write!(f, "{}, {sample}", dir.display()),
        }
    }
}
