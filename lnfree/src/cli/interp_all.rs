//! `interp-all`.

use std::path::{Path, PathBuf};

use clap::Args;
use lnfree::Error;
use lnfree::analyses::{
    InterpOptions, InterpPlan, InterpResults, InterpSuite, Row, Told, Verdict, request_key, run_job,
    run_plan, summary,
};
use lnfree::interrupt;
use lnfree::output::{check_folder, keep_folder};
use lnfree::report::Published;
use lnfree::suite::remove_study;
use lnfree::tch::Device;
use lnfree::train::lock_run;

use super::DeviceArgs;
use super::interp::{PARTS, bar, short, table};
use super::out::{out, outln};

#[derive(Args)]
pub(super) struct InterpAllArgs {
    /// nano: the embedded models, offline, in minutes; paper: the small and medium models of the paper.
    #[arg(long, default_value = "nano")]
    suite: String,
    /// Only these models: labels, names or sizes, with commas between them.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Only these analyses, as `interp` calls them, with commas between them.
    #[arg(long, value_delimiter = ',')]
    analyses: Vec<String>,
    /// Folder of the results; by default runs/interp-SUITE.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Only say what would be done and what is finished.
    #[arg(long)]
    dry_run: bool,
    /// Throw the results in the folder away first.
    #[arg(long)]
    fresh: bool,
    /// Work through this model in this process, which then is one of several; failures go to stdout.
    #[arg(long, value_name = "LABEL", hide = true)]
    only_model: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn interp_all(args: InterpAllArgs) -> anyhow::Result<()> {
    let mut suite = InterpSuite::find(&args.suite)?;
    suite.select(&args.models, &args.analyses)?;
    let out = args.out.unwrap_or_else(|| Path::new("runs").join(format!("interp-{}", suite.name)));
    let device = args.device.device()?;
    if let Some(label) = args.only_model {
        return one_model(&InterpPlan::new(&suite, &out)?, &label, device);
    }
    if args.dry_run {
        out!("{}", InterpPlan::new(&suite, &out)?);
        return Ok(());
    }
    check_folder("--out", &out)?;
    let _lock = lock_run(&out)?;
    if args.fresh {
        remove_study(&out)?;
    }
    let plan = InterpPlan::new(&suite, &out)?;
    out!("{plan}");
    interrupt::install()?;
    let program = std::env::current_exe().map_err(Error::io("lnfree"))?;
    let options = InterpOptions { program, device, threads: args.device.threads };
    let failures = run_plan(&plan, &options)?;
    let results = InterpResults::collect(&plan, failures);
    let kept = keep_folder(&out, |folder| results.write(folder));
    print(&results.comparisons);
    kept.here()?;
    outln!("results: {}", out.join("results.html").display());
    let (failed, all) = (results.failures.len(), plan.pending() + plan.finished());
    anyhow::ensure!(
        failed == 0,
        "{failed} of {all} analyses failed, see above; the same command tries them again"
    );
    Ok(())
}

/// Published or recorded figures beside what was found, and how often they agree. What is as recorded is in
/// the files: a line for every number, of which none says more.
fn print(rows: &[Row]) {
    let Some(summary) = summary(rows) else { return };
    let shown: Vec<&Row> = rows.iter().filter(|row| row.verdict != Verdict::AsRecorded).collect();
    if let Some(first) = shown.first() {
        let head = ["analysis", "model", "number", "found", Published::word(first.recorded), "verdict"];
        let line = |row: &&Row| {
            vec![
                row.analysis.clone(),
                row.label.clone(),
                row.number.clone(),
                short(row.measured),
                short(Some(row.published)),
                row.verdict.name().to_string(),
            ]
        };
        let lines: Vec<Vec<String>> =
            std::iter::once(head.map(String::from).to_vec()).chain(shown.iter().map(line)).collect();
        table(&lines);
    }
    outln!("{summary}");
}

/// The pending analyses of one model. People are told on stderr, and on stdout the process that began this
/// one of what has failed: exit code 0 says that it knows all.
fn one_model(plan: &InterpPlan, label: &str, device: Device) -> anyhow::Result<()> {
    let job = plan.jobs.iter().find(|job| job.model.label == label);
    let job = job.ok_or_else(|| Error::invalid(format!("--only-model {label}: not in the suite")))?;
    let failed = |key: &str, error: &Error| {
        outln!("error: {key}: {}", error.to_string().replace('\n', " "));
    };
    let bar = bar(1);
    let (mut at, all) = (0, job.pending.len());
    let loaded = run_job(job, &plan.out, device, |request, told| {
        let key = request_key(request);
        let line = match told {
            Told::Part(part) => {
                if part == 0.0 {
                    at += 1;
                    bar.reset();
                    bar.set_message(format!("[{at}/{all}] {label}: {key}"));
                }
                bar.set_position((part * PARTS) as u64);
                return;
            }
            Told::Done(seconds) => format!("[{at}/{all}] {label}: {key} ({seconds:.1} s)"),
            Told::Failed(error) => {
                failed(key, &error);
                format!("error: {label}: {key}: {error}")
            }
        };
        bar.suspend(|| crate::panics::warn(&line));
    });
    bar.finish_and_clear();
    if let Err(error) = &loaded {
        job.pending.iter().for_each(|request| failed(request_key(request), error));
    }
    Ok(loaded?)
}
