//! Carries a plan out, one process a model.

use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tch::Device;

use super::names::request_key;
use super::plan::{InterpJob, InterpPlan, finished};
use crate::base::atomic::remove_leftovers;
use crate::base::console::say;
use crate::base::interrupt;
use crate::study::suite::{device_name, end_with_parent, killed, stop};
use crate::{Error, Result};

/// How often a process is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How a study is run.
#[derive(Debug, Clone)]
pub struct InterpOptions {
    /// The `lnfree` binary, whose `interp-all --only-model` does the work.
    pub program: PathBuf,
    /// Where it is computed.
    pub device: Device,
    /// CPU threads of a process.
    pub threads: Option<usize>,
}

/// Does what `plan` has still to do, and returns what failed, a line each; everything else has left its
/// result in the study's folder.
///
/// The folder is to be this process's own (see [`crate::train::lock_run`]), and [`interrupt::install`] called
/// before.
///
/// # Errors
/// [`Error::Stopped`] when a signal asked for it: what is finished stays; or when the folder cannot be
/// written or no process be started. What goes wrong within a process is no error but a failure.
pub fn run_plan(plan: &InterpPlan, options: &InterpOptions) -> Result<Vec<String>> {
    remove_leftovers(&plan.out)?;
    let mut failures = Vec::new();
    for job in plan.jobs.iter().filter(|job| !job.pending.is_empty()) {
        failures.extend(work(job, plan, options)?);
    }
    Ok(failures)
}

/// One model by a process of its own, which tells people on stderr how it goes on, and us on stdout
/// (`error: ANALYSIS: WHY`) what has failed.
fn work(job: &InterpJob, plan: &InterpPlan, options: &InterpOptions) -> Result<Vec<String>> {
    let mut command = command(job, plan, options);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    end_with_parent(&mut command);
    let mut child = command.spawn().map_err(Error::io(&options.program))?;
    // A pipe that nobody reads would stop the child once it is full.
    let reader = child
        .stdout
        .take()
        .map(|stdout| std::thread::spawn(move || std::io::read_to_string(stdout).unwrap_or_default()));
    let status = loop {
        if interrupt::requested() {
            stop(&mut child);
            return Err(Error::Stopped { kept: plan.out.clone() });
        }
        match child.try_wait().map_err(Error::io(&options.program))? {
            Some(status) => break status,
            None => std::thread::sleep(LOOK_EVERY),
        }
    };
    if interrupt::requested() {
        // Ctrl-C in a terminal reaches both.
        return Err(Error::Stopped { kept: plan.out.clone() });
    }
    let said = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let lacking = job.pending.iter().filter(|request| finished(&plan.out, job, request).is_none());
    Ok(lacking.map(|request| failure(&job.model.label, request_key(request), &said, status)).collect())
}

fn command(job: &InterpJob, plan: &InterpPlan, options: &InterpOptions) -> Command {
    let mut command = Command::new(&options.program);
    command.arg("interp-all").arg("--suite").arg(plan.suite.name).arg("--out").arg(&plan.out);
    command.arg("--only-model").arg(&job.model.label);
    let keys: Vec<&str> = job.pending.iter().map(request_key).collect();
    command.arg("--analyses").arg(keys.join(","));
    command.arg("--device").arg(device_name(options.device));
    if let Some(threads) = options.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    command
}

/// Why an analysis has no result: what its process said of it, or else how that ended, which is then news.
fn failure(label: &str, key: &str, said: &str, status: ExitStatus) -> String {
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("error: ")?.strip_prefix(key));
    match lines.find_map(|line| line.strip_prefix(": ")) {
        Some(why) => format!("{label}: {key}: {why}"),
        None => {
            let how = killed(status).unwrap_or_else(|| format!("the process ended with {status}, see above"));
            let line = format!("{label}: {key}: {how}");
            say(&format!("error: {line}"));
            line
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_failure_says_why() {
        let said = "error: heads-x: no\nerror: heads: /x: no such file\n";
        let failed = ExitStatus::from_raw(1 << 8);
        assert_eq!(failure("a b", "heads", said, failed), "a b: heads: /x: no such file");
        assert!(failure("a b", "sinks", said, failed).starts_with("a b: sinks: the process ended with"));
        let killed = failure("a b", "sinks", said, ExitStatus::from_raw(9));
        assert!(killed.contains("signal 9; most often"), "{killed}");
    }
}
