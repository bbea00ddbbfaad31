//! Subcommands and their arguments; each `*.rs` beside this file carries some of them out.

mod bench;
mod configs;
mod data;
mod evaluate;
mod export;
mod push;
mod suite;
mod train;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use lnfree::export::ExportFormat;
use lnfree::model::ModelFormat;

/// Take LayerNorm out of GPT-2 models by fine-tuning, measure what that costs, and hand over LN-free models.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the shipped configs, or show one with every value resolved.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show which LayerNorm goes at which step.
    Schedule(ScheduleArgs),
    /// Fine-tune a model while its LayerNorms are removed, or with LayerNorm as the control.
    Train(TrainArgs),
    /// Train a small GPT-2 from scratch.
    Pretrain(PretrainArgs),
    /// Measure the standard deviations of a model's residual stream.
    Std(StdArgs),
    /// Evaluate a model's cross-entropy on token data.
    Eval(EvalArgs),
    /// Evaluate all models of a study on all its data sets, beside the published figures.
    EvalAll(suite::EvalAllArgs),
    /// Export a checkpoint without LayerNorm for others to load.
    Export(ExportArgs),
    /// Upload a folder with a model to the Hugging Face hub.
    Push(push::PushArgs),
    /// Continue a text.
    Generate(GenerateArgs),
    /// Tokenize text, or look into a token file.
    #[command(subcommand)]
    Data(DataCommand),
    /// Write one HTML page about runs and evaluations.
    Report(ReportArgs),
    /// Say what this machine has, and what to do about what it lacks.
    Doctor,
    /// Time the evaluation of a model's shape with random weights; prints one JSON object.
    Bench(BenchArgs),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Names of the shipped configs.
    List,
    /// One config, every value resolved.
    Show {
        /// Name of a shipped config, or a TOML file.
        config: String,
        /// As JSON instead of TOML.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        set: Overrides,
    },
}

#[derive(Args)]
struct Overrides {
    /// Change one value of the config; may be given many times.
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    items: Vec<String>,
}

#[derive(Args)]
struct ScheduleArgs {
    /// Name of a shipped config, or a TOML file.
    config: String,
    /// As JSON: [{"step": 20, "kind": "ln2", "layer": 0}, …].
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    set: Overrides,
}

#[derive(Args)]
struct DeviceArgs {
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
    /// CPU threads; by default as many as there are cores.
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Args)]
struct TrainArgs {
    /// without_ln removes LayerNorm, with_ln is the control that keeps it.
    #[arg(long, value_parser = parse_mode, required_unless_present = "resume")]
    mode: Option<lnfree::train::Mode>,
    /// Name of a shipped config, or a TOML file.
    #[arg(long, required_unless_present = "resume")]
    config: Option<String>,
    /// Model: a folder, `nano`, or a name on the Hugging Face hub; by default the config's.
    #[arg(long)]
    model: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(long)]
    data: Option<String>,
    /// Validation tokens, likewise; with --data, none unless given.
    #[arg(long)]
    eval_data: Option<String>,
    /// Run directory; by default runs/CONFIG-MODE.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["mode", "config", "model", "items", "out"])]
    resume: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    set: Overrides,
}

#[derive(Args)]
struct PretrainArgs {
    /// Name of a shipped config, or a TOML file.
    #[arg(long, required_unless_present = "resume")]
    config: Option<String>,
    /// Tokenizer that the tokens were made with, a folder or a name on the hub; by default that of the config's model.
    #[arg(long)]
    tokenizer: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(long)]
    data: Option<String>,
    /// Run directory; by default runs/CONFIG.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["config", "items", "out", "tokenizer"])]
    resume: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    set: Overrides,
}

#[derive(Args)]
struct StdArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// A data set's name or a token file.
    #[arg(short, long)]
    data: String,
    /// Sequences to measure on.
    #[arg(short = 'n', long, default_value_t = 64)]
    n_sequences: usize,
    /// Sequences in one forward.
    #[arg(short, long, default_value_t = 8)]
    batch_size: usize,
    /// Write the std file here, to be named in norm.init.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct EvalArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// transformers, fakeln_checkpoint, noLN_HF_model or folded; by default the directory says.
    #[arg(short, long, value_parser = |s: &str| s.parse::<ModelFormat>())]
    format: Option<ModelFormat>,
    /// A data set's name or a token file; may be given many times, with --out.
    #[arg(short, long, required = true)]
    data: Vec<String>,
    /// Sequences in one forward.
    #[arg(short, long, default_value_t = 8)]
    batch_size: usize,
    /// Sequences evaluated at most.
    #[arg(short = 'n', long, default_value_t = 10_000)]
    n_sequences: usize,
    /// Leave out a last batch that is not full, as the paper's code does.
    #[arg(long)]
    drop_last: bool,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    /// What tables and figures call the model.
    #[arg(long)]
    label: Option<String>,
    /// Write the result here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the per-token losses here as Arrow, column `loss`.
    #[arg(long)]
    losses: Option<PathBuf>,
    /// Write LABEL--DATA.json and LABEL--DATA.sequences.arrow (mean losses of sequences) of every data set into this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "losses"])]
    out: Option<PathBuf>,
    /// With --out: write LABEL--DATA.losses.arrow too, the per-token losses.
    #[arg(long, requires = "out")]
    keep_losses: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct ExportArgs {
    /// A checkpoint, or a run directory for its latest one.
    checkpoint: PathBuf,
    /// scaled keeps LN in name (the paper's format), folded has none.
    #[arg(long, value_parser = |s: &str| s.parse::<ExportFormat>())]
    format: ExportFormat,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Use the standard deviation of other positions where position 0 still has its own.
    #[arg(long)]
    ignore_special: bool,
    /// Then upload it to this model repository of the Hugging Face hub, which is made if there is none.
    #[arg(long, value_name = "ORG/NAME")]
    push: Option<String>,
    /// Make that repository private, if it has to be made.
    #[arg(long, requires = "push")]
    private: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct GenerateArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// Text to continue; without it the text begins after end-of-text.
    #[arg(short, long, default_value = "")]
    prompt: String,
    /// Tokens to add at most.
    #[arg(short = 'n', long, default_value_t = 100)]
    max_new_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(short, long, default_value_t = 0.8)]
    temperature: f64,
    /// Draw from the k most likely tokens; 0 from all.
    #[arg(short = 'k', long, default_value_t = 40)]
    top_k: usize,
    /// The same seed gives the same text.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Tokenize a text file or data set and cut it into sequences.
    Prepare {
        /// A text file (Parquet, Arrow, jsonl, jsonl.zst, txt), the name of a data set, or ORG/NAME on the hub.
        source: String,
        /// Sequences at most, of a data set on the hub; of the Pile's also the rows that are read.
        #[arg(short = 'n', long, default_value_t = 10_000)]
        n_sequences: usize,
        /// Tokenizer, a folder or a name on the hub; by default GPT-2's, and for the embedded texts their own.
        #[arg(long)]
        tokenizer: Option<String>,
        /// Tokens in a sequence; by default 1024, of the embedded texts 128.
        #[arg(long)]
        block_size: Option<usize>,
        /// Token file to write; by default in the cache, and its path is printed.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Counts, id range, a decoded sample and the provenance of a token file or data set.
    Info {
        /// A token file, a text, or the name of a data set.
        data: String,
        /// Sequences at most, where a data set is prepared on first use.
        #[arg(short = 'n', long, default_value_t = 10_000)]
        n_sequences: usize,
        /// Tokenizer to decode the sample with, a folder or a name on the hub; by default the one that the tokens were made with, if
        /// that is known, else that of the embedded model.
        #[arg(long)]
        tokenizer: Option<String>,
        /// Tokens in a sequence, where a data set is cut on first use; by default 1024, of the embedded texts 128.
        #[arg(long)]
        block_size: Option<usize>,
    },
}

#[derive(Args)]
struct ReportArgs {
    /// Run directories.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Files that `eval --json` wrote, for the results table.
    #[arg(long = "eval", value_name = "FILE", num_args = 1..)]
    evals: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

#[derive(Args)]
struct BenchArgs {
    /// gpt2, gpt2-medium, gpt2-large, gpt2-xl, or LAYERS,HEADS,WIDTH,VOCABULARY.
    #[arg(long, default_value = "gpt2")]
    size: String,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 1024)]
    seq: usize,
    /// Batches that are timed.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Batches before these.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    #[command(flatten)]
    device: DeviceArgs,
}

fn parse_mode(s: &str) -> Result<lnfree::train::Mode, String> {
    match s {
        "without_ln" => Ok(lnfree::train::Mode::WithoutLn),
        "with_ln" => Ok(lnfree::train::Mode::WithLn),
        _ => Err("one of without_ln, with_ln".into()),
    }
}

/// Carries out one command line.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Config(command) => configs::config(command),
        Command::Schedule(args) => configs::schedule(args),
        Command::Train(args) => train::train(args),
        Command::Pretrain(args) => train::pretrain(args),
        Command::Std(args) => evaluate::std(args),
        Command::Eval(args) => evaluate::eval(args),
        Command::EvalAll(args) => suite::eval_all(args),
        Command::Export(args) => export::export(args),
        Command::Push(args) => push::push(args),
        Command::Generate(args) => export::generate(args),
        Command::Data(command) => data::data(command),
        Command::Report(args) => data::report(args),
        Command::Doctor => data::doctor(),
        Command::Bench(args) => bench::bench(args),
    }
}

/// A model's folder by path or name; a run directory stands for its latest checkpoint.
fn model_dir(name_or_path: &str) -> anyhow::Result<PathBuf> {
    let dir = lnfree::hub::locate_model(name_or_path)?;
    match dir.join("checkpoints").is_dir() && !dir.join("config.json").is_file() {
        true => Ok(lnfree::checkpoint::latest(&dir)?),
        false => Ok(dir),
    }
}

impl DeviceArgs {
    /// The device, with the threads set.
    fn device(&self) -> anyhow::Result<lnfree::tch::Device> {
        lnfree::device::set_threads(self.threads)?;
        Ok(lnfree::device::parse_device(&self.device)?)
    }
}
