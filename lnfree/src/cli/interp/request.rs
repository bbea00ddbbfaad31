//! The arguments of `interp`, and what is asked by them.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lnfree::analyses::{Pairs, Prompt, Request, Sample};

use crate::cli::DeviceArgs;

/// One analysis of one or more models.
#[derive(Subcommand)]
pub(in crate::cli) enum InterpCommand {
    /// What heads look for, on random tokens said twice: previous, duplicate and induction heads.
    Heads(HeadsArgs),
    /// Attention to position 0.
    Sinks(SampledArgs),
    /// Length of the residual stream along the forward, of the first position and of others.
    Norms(SampledArgs),
    /// What the residual stream behind every block predicts.
    Lens(SampledArgs),
    /// Direct logit attribution of heads against their direct effects.
    DirectEffects(SampledArgs),
    /// Loss without each head and MLP.
    Ablation(SampledArgs),
    /// Entropy neurons of the last MLP.
    Neurons(NeuronsArgs),
    /// Predictions: loss, entropy, calibration, and the distance to an original.
    Outputs(OutputsArgs),
    /// One prompt's logit as a sum over components.
    Attribution(AttributionArgs),
    /// Patches of clean activations into a corrupted run, and their estimate by gradients.
    Patching(PatchingArgs),
    /// What the weights of heads say.
    Circuits(CircuitsArgs),
    /// A sparse autoencoder of SAELens' format in the model.
    Sae(SaeArgs),
}

/// What every analysis takes.
#[derive(Args)]
pub(in crate::cli) struct Common {
    /// A model: a folder, `nano`, or a name on the Hugging Face hub (gpt2, ORG/NAME, ORG/NAME@REVISION), with
    /// what tables call it before it; may be given many times, and is set side by side.
    #[arg(short, long = "model", value_name = "[LABEL=]MODEL", required = true)]
    pub(super) models: Vec<String>,
    /// The tokenizer of all of them, where a model's folder has none or another is wanted: a folder, `nano`,
    /// or a name on the hub.
    #[arg(long, value_name = "DIR|NAME")]
    pub(super) tokenizer: Option<String>,
    /// Write what was found here as JSON: an array with an object for each model.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write every number here as a row of a table, an Arrow IPC file (pyarrow.feather.read_table,
    /// polars.read_ipc): analysis, model, kind (number, map, curve, ranking, total or text), name, unit,
    /// row_axis, row, row_index, column_axis, column, column_index, value, low, high (its 95% interval).
    #[arg(long, value_name = "FILE")]
    pub(super) arrow: Option<PathBuf>,
    /// Write a page with figures here.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    #[command(flatten)]
    pub(super) device: DeviceArgs,
}

#[derive(Args)]
pub(in crate::cli) struct SampleArgs {
    /// A data set's name or a token file.
    #[arg(short, long)]
    pub(super) data: String,
    /// Sequences, from the first on. [default: 100, or all where there are fewer]
    #[arg(short, long)]
    pub(super) n_sequences: Option<usize>,
    /// Positions of each sequence, from the first on. [default: 512, or as many as models and data have]
    #[arg(long)]
    pub(super) positions: Option<usize>,
}

#[derive(Args)]
pub(in crate::cli) struct SampledArgs {
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct HeadsArgs {
    /// Sequences of random tokens.
    #[arg(short, long, default_value_t = 32)]
    n_sequences: usize,
    /// Tokens that are said twice.
    #[arg(long, default_value_t = 50)]
    period: usize,
    /// Of the tokens.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct NeuronsArgs {
    #[command(flatten)]
    sample: SampleArgs,
    /// How many are ablated, alone and together.
    #[arg(long, default_value_t = 8)]
    neurons: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct OutputsArgs {
    #[command(flatten)]
    sample: SampleArgs,
    /// Also say how far the predictions lie from those of this model, such as the original that the others
    /// were made of.
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct AttributionArgs {
    /// The prompt.
    #[arg(short, long, value_name = "TEXT")]
    prompt: String,
    /// The token after it whose logit is taken apart, with the space before it. [default: the likeliest one]
    #[arg(long, value_name = "TOKEN")]
    answer: Option<String>,
    /// Take the difference to the logit of this token apart.
    #[arg(long, value_name = "TOKEN")]
    instead_of: Option<String>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct PatchingArgs {
    /// Random tokens said twice, and the same with another token where the answer was said first: the
    /// default.
    #[arg(long, conflicts_with_all = ["ioi", "clean"])]
    repeated: bool,
    /// Indirect object identification: whom somebody gives something to.
    #[arg(long, conflicts_with = "clean")]
    ioi: bool,
    /// Your own clean prompt.
    #[arg(long, value_name = "TEXT", requires_all = ["corrupted", "answers"])]
    clean: Option<String>,
    /// Your own corrupted prompt, of as many tokens.
    #[arg(long, value_name = "TEXT", requires = "clean")]
    corrupted: Option<String>,
    /// The clean prompt's next token and the corrupted one's, with the spaces before them.
    #[arg(long, value_name = "A,B", requires = "clean", value_parser = two_answers)]
    answers: Option<Answers>,
    /// Pairs of prompts. [default: 16, with --ioi 480]
    #[arg(short, long, alias = "n", conflicts_with = "clean")]
    n_pairs: Option<usize>,
    /// Tokens that are said twice. [default: 20]
    #[arg(long, conflicts_with_all = ["ioi", "clean"])]
    period: Option<usize>,
    /// Of tokens, or of names, places and objects. [default: 0, with --ioi 42]
    #[arg(long, conflicts_with = "clean")]
    seed: Option<u64>,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct CircuitsArgs {
    /// Heads whose directions are read through the unembedding: those that copy most.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub(in crate::cli) struct SaeArgs {
    /// Folder of the autoencoder: cfg.json and sae_weights.safetensors.
    #[arg(long, value_name = "DIR")]
    sae: PathBuf,
    #[command(flatten)]
    sample: SampleArgs,
    #[command(flatten)]
    common: Common,
}

/// Next tokens of the clean and the corrupted prompt.
#[derive(Clone)]
pub(in crate::cli) struct Answers([String; 2]);

fn two_answers(text: &str) -> Result<Answers, String> {
    match text.split(',').collect::<Vec<_>>().as_slice() {
        [clean, corrupted] if !clean.is_empty() && !corrupted.is_empty() => {
            Ok(Answers([clean.to_string(), corrupted.to_string()]))
        }
        _ => Err("write two tokens with a comma between them, and spaces where they have them".into()),
    }
}

impl InterpCommand {
    pub(super) fn common(&self) -> &Common {
        use InterpCommand::*;
        match self {
            Heads(args) => &args.common,
            Sinks(args) | Norms(args) | Lens(args) | DirectEffects(args) | Ablation(args) => &args.common,
            Neurons(args) => &args.common,
            Outputs(args) => &args.common,
            Attribution(args) => &args.common,
            Patching(args) => &args.common,
            Circuits(args) => &args.common,
            Sae(args) => &args.common,
        }
    }

    /// The model that predictions are compared with.
    pub(super) fn against(&self) -> Option<&str> {
        match self {
            InterpCommand::Outputs(args) => args.against.as_deref(),
            _ => None,
        }
    }

    /// The texts that it is done on.
    pub(super) fn sample(&self) -> Option<&SampleArgs> {
        use InterpCommand::*;
        match self {
            Sinks(args) | Norms(args) | Lens(args) | DirectEffects(args) | Ablation(args) => {
                Some(&args.sample)
            }
            Neurons(args) => Some(&args.sample),
            Outputs(args) => Some(&args.sample),
            Sae(args) => Some(&args.sample),
            Heads(_) | Attribution(_) | Patching(_) | Circuits(_) => None,
        }
    }

    /// The folder of the autoencoder.
    pub(super) fn sae(&self) -> Option<&Path> {
        match self {
            InterpCommand::Sae(args) => Some(args.sae.as_path()),
            _ => None,
        }
    }

    /// What is asked; `sized` says what of a sample was left open.
    pub(super) fn request(&self, sized: impl Fn(&SampleArgs) -> Sample) -> Request {
        match self {
            Self::Heads(HeadsArgs { n_sequences, period, seed, .. }) => {
                Request::Heads { sequences: *n_sequences, period: *period, seed: *seed }
            }
            Self::Sinks(args) => Request::Sinks(sized(&args.sample)),
            Self::Norms(args) => Request::Norms(sized(&args.sample)),
            Self::Lens(args) => Request::Lens(sized(&args.sample)),
            Self::DirectEffects(args) => Request::DirectEffects(sized(&args.sample)),
            Self::Ablation(args) => Request::Ablation(sized(&args.sample)),
            Self::Neurons(args) => Request::Neurons { sample: sized(&args.sample), neurons: args.neurons },
            Self::Outputs(args) => Request::Outputs(sized(&args.sample)),
            Self::Attribution(AttributionArgs { prompt, answer, instead_of, .. }) => {
                let (text, answer, against) = (prompt.clone(), answer.clone(), instead_of.clone());
                Request::Attribution(Prompt { text, answer, against })
            }
            Self::Patching(args) => Request::Patching(args.pairs()),
            Self::Circuits(args) => Request::Circuits { heads: args.heads },
            Self::Sae(args) => Request::Sae { dir: args.sae.clone(), sample: sized(&args.sample) },
        }
    }
}

impl PatchingArgs {
    fn pairs(&self) -> Pairs {
        if let (Some(clean), Some(corrupted), Some(Answers(answers))) =
            (&self.clean, &self.corrupted, &self.answers)
        {
            return Pairs::Texts {
                clean: clean.clone(),
                corrupted: corrupted.clone(),
                answers: answers.clone(),
            };
        }
        match self.ioi {
            true => Pairs::Ioi { n: self.n_pairs.unwrap_or(480), seed: self.seed.unwrap_or(42) },
            // What `repeated` says is what is done without it.
            false => Pairs::Repeated {
                n: self.n_pairs.unwrap_or(16),
                period: self.period.unwrap_or(20),
                seed: self.seed.unwrap_or(0),
            },
        }
    }
}
