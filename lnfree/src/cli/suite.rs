//! `eval-all`.

use std::path::PathBuf;

use clap::Args;
use lnfree::Error;
use lnfree::interrupt;
use lnfree::output::{check_folder, keep_folder};
use lnfree::report::{TOLERANCE, Verdict, results_table};
use lnfree::suite::{
    Plan, Settings, StudyOptions, Suite, collect, remove_study, run, step_notes, write_results,
};
use lnfree::tch::Device;
use lnfree::train::lock_run;

use super::DeviceArgs;
use super::out::{out, outln};

#[derive(Args)]
pub(super) struct EvalAllArgs {
    /// paper: the twelve models of the paper's results table; nano: the embedded models, offline, in minutes.
    #[arg(long, default_value = "paper")]
    suite: String,
    /// Only these models: labels, names or sizes, with commas between them.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Only these data sets, with commas between them.
    #[arg(long, value_delimiter = ',')]
    datasets: Vec<String>,
    /// A model of your own beside them, a folder or a name on the hub; may be given many times.
    #[arg(long, value_name = "LABEL=MODEL")]
    add: Vec<String>,
    /// Sequences evaluated at most; by default as many as the published figures were measured on.
    #[arg(short = 'n', long)]
    limit: Option<usize>,
    /// Sequences in one forward; by default 8 for paper and 32 for nano.
    #[arg(short, long)]
    batch_size: Option<usize>,
    /// float32, tf32 (GPU) or bfloat16; by default tf32 on a GPU and float32 elsewhere.
    #[arg(long)]
    dtype: Option<lnfree::config::FloatType>,
    /// Folder of the results; by default runs/eval-SUITE, with unusual settings in its name.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also say how far every model's predictions lie from those of the original that it was made of: KL,
    /// Jensen-Shannon divergence, agreement. Takes three forwards a model instead of one.
    #[arg(long)]
    distances: bool,
    /// Only say what would be done and what it needs.
    #[arg(long)]
    dry_run: bool,
    /// Throw the results in the folder away first.
    #[arg(long)]
    fresh: bool,
    /// How far a mean may lie from the published one, in nats.
    #[arg(long, default_value_t = TOLERANCE)]
    tolerance: f64,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn eval_all(args: EvalAllArgs) -> anyhow::Result<()> {
    let (fresh, dry_run) = (args.fresh, args.dry_run);
    let options = options(args)?;
    if dry_run {
        let plan = Plan::new(&options)?;
        out!("{plan}");
        if let Err(error) = plan.check() {
            outln!("  as it is, this machine cannot do it: {error}");
        }
        return Ok(());
    }
    check_folder("--out", &options.out)?;
    let _lock = lock_run(&options.out)?;
    if fresh {
        remove_study(&options.out)?;
    }
    let plan = Plan::new(&options)?;
    out!("{plan}");
    step_notes(&options.suite).iter().for_each(|note| outln!("{note}"));
    plan.check()?;
    interrupt::install()?;
    let failures = run(&plan, &options)?;
    let study = collect(&options, failures);
    let kept = keep_folder(&options.out, |folder| write_results(&study, folder));
    if !study.evaluations.is_empty() {
        outln!("\n{}", results_table(&study.evaluations).to_text());
        for row in &study.evaluations {
            if let Some(found) = &row.details.faithfulness {
                let name = row.label.as_deref().unwrap_or(&row.model);
                outln!("{name} on {}, {found}", row.dataset);
            }
        }
    }
    let count = |verdict| study.comparisons.iter().filter(|c| c.verdict == verdict).count();
    let verdicts = [
        Verdict::Reproduced,
        Verdict::AsRecorded,
        Verdict::Differs,
        Verdict::NotComparable,
        Verdict::OtherStep,
    ]
    .map(|verdict| (count(verdict), verdict));
    let verdicts: Vec<String> = verdicts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, verdict)| format!("{n} {}", verdict.name()))
        .collect();
    if !verdicts.is_empty() {
        outln!("beside {} (tolerance {}): {}", study.source, study.tolerance, verdicts.join(", "));
    }
    kept.here()?;
    outln!("results: {}", options.out.join("results.html").display());
    match study.failures.len() {
        0 => Ok(()),
        n => anyhow::bail!(
            "{n} of {} evaluations failed, see above; the same command tries them again",
            plan.pending() + plan.finished()
        ),
    }
}

/// What was asked for, checked before anything is started.
fn options(args: EvalAllArgs) -> anyhow::Result<StudyOptions> {
    let mut suite = Suite::find(&args.suite)?;
    suite.select(&args.models, &args.datasets)?;
    args.add.iter().try_for_each(|model| suite.add(model))?;
    let limit = args.limit.unwrap_or(suite.limit);
    let batch_size = args.batch_size.unwrap_or(suite.batch_size);
    if limit == 0 || batch_size == 0 {
        return Err(Error::invalid("--limit and --batch-size have to be at least 1").into());
    }
    if !(args.tolerance.is_finite() && args.tolerance >= 0.0) {
        return Err(Error::invalid(format!("--tolerance {}: must be a number from 0", args.tolerance)).into());
    }
    let threads = args.device.threads;
    let device = args.device.device()?;
    let usual = if device == Device::Cpu { "float32" } else { "tf32" };
    let dtype = args.dtype.map_or(usual, |dtype| dtype.name()).to_string();
    let settings = Settings { suite: args.suite, limit, batch_size, dtype, distances: args.distances };
    let out = args.out.unwrap_or_else(|| settings.default_folder(&suite, usual));
    let program = std::env::current_exe().map_err(Error::io("lnfree"))?;
    Ok(StudyOptions { suite, settings, device, threads, out, program, tolerance: args.tolerance })
}
