//! Subcommands; each `*.rs` beside this file has the arguments of some of them and carries these out.

mod bench;
mod configs;
mod data;
mod evaluate;
mod export;
mod generate;
mod inspect;
mod interp;
mod interp_all;
mod new;
pub mod out;
mod push;
pub mod ranks;
mod selftest;
mod suite;
mod train;

use clap::{Args, Parser, Subcommand};

use self::bench::BenchArgs;
use self::configs::{ConfigCommand, ScheduleArgs};
use self::data::{DataCommand, ReportArgs};
use self::evaluate::{EvalArgs, StdArgs};
use self::export::ExportArgs;
use self::generate::GenerateArgs;
use self::train::{PretrainArgs, TrainArgs};

/// What scripts can tell apart.
const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it cannot be done, as one line on stderr says
  2    the command line is wrong
  3    a training run has diverged: its loss is not finite
  4    a result is not finite (eval, std, generate, bench); what was computed is written all the same
  130  stopped by Ctrl-C, 143 by SIGTERM, 138 by SIGUSR1; training has saved itself";

/// Take LayerNorm out of GPT-2 models by fine-tuning, measure what that costs, and hand over LN-free models.
#[derive(Parser)]
#[command(version, disable_help_subcommand = true, after_help = EXIT_CODES)]
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
    /// Evaluate all models of a study on all its data sets, beside the published or recorded figures.
    EvalAll(suite::EvalAllArgs),
    /// Look into models: what heads, neurons and weights do, by one analysis of models side by side.
    #[command(subcommand)]
    Interp(interp::InterpCommand),
    /// Make all analyses of all models of a study, beside the published or recorded figures.
    InterpAll(interp_all::InterpAllArgs),
    /// Export a model without LayerNorm for others to load.
    Export(ExportArgs),
    /// Say what a folder or a model of the hub is, by which signs, and what loads it.
    Inspect(inspect::InspectArgs),
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
    /// Compare what this machine computes with numbers of the paper's code and with plain formulas; fails if
    /// anything is off.
    Selftest(selftest::SelfTestArgs),
    /// Make a crate of your own that uses this one, ready to build.
    New(new::NewArgs),
    /// Time training or evaluation of a model's shape with random weights; prints one JSON object.
    Bench(BenchArgs),
}

#[derive(Args)]
struct Overrides {
    /// Change one value of the config; may be given many times.
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    items: Vec<String>,
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

/// Carries out one command line.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    // A word that is no level would be taken for all kernels without a sign.
    lnfree::device::Kernels::in_force()?;
    match cli.command {
        Command::Config(command) => configs::config(command),
        Command::Schedule(args) => configs::schedule(args),
        Command::Train(args) => train::train(args),
        Command::Pretrain(args) => train::pretrain(args),
        Command::Std(args) => evaluate::std(args),
        Command::Eval(args) => evaluate::eval(args),
        Command::EvalAll(args) => suite::eval_all(args),
        Command::Interp(command) => interp::interp(command),
        Command::InterpAll(args) => interp_all::interp_all(args),
        Command::Export(args) => export::export(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Push(args) => push::push(args),
        Command::Generate(args) => generate::generate(args),
        Command::Data(command) => data::data(command),
        Command::Report(args) => data::report(args),
        Command::Doctor => data::doctor(),
        Command::Selftest(args) => selftest::run(args),
        Command::New(args) => new::new(args),
        Command::Bench(args) => bench::run(args),
    }
}

impl DeviceArgs {
    /// The device, with the threads set.
    fn device(&self) -> anyhow::Result<lnfree::tch::Device> {
        lnfree::device::set_threads(self.threads)?;
        Ok(lnfree::device::parse_device(&self.device)?)
    }
}
