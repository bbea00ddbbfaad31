//! A part of a study as a process of its own, such as `lnfree eval`: started, listened to, stopped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tch::Device;

use super::{Job, StudyOptions};
use crate::{Error, Result};

/// How long a child that was asked to stop may take before it is ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// One model being evaluated.
pub(super) struct Evaluating {
    child: Child,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Evaluating {
    /// Starts the evaluation of a job's model on its pending data sets.
    pub(super) fn start(job: &Job, options: &StudyOptions) -> Result<Evaluating> {
        let mut command = command(job, options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        end_with_parent(&mut command);
        let mut child = command.spawn().map_err(Error::io(&options.program))?;
        let (sender, lines) = channel();
        let reader = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                // Whatever bytes come, and whether or not anybody listens, the child must not wait for us.
                for line in BufReader::new(stderr).split(b'\n').map_while(|line| line.ok()) {
                    let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_string());
                }
            })
        });
        Ok(Evaluating { child, lines, reader })
    }

    /// What it has said on stderr since the last call.
    pub(super) fn said(&self) -> Vec<String> {
        self.lines.try_iter().filter(|line| !line.is_empty()).collect()
    }

    /// How it ended; `None` while it goes on.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().map_err(Error::io("lnfree eval"))?;
        if status.is_some()
            && let Some(reader) = self.reader.take()
        {
            let _ = reader.join();
        }
        Ok(status)
    }

    /// [`stop`].
    pub(super) fn stop(&mut self) {
        stop(&mut self.child);
    }
}

impl Drop for Evaluating {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.stop();
        }
    }
}

/// Asks a process that has not been waited for to stop, and ends it if it does not.
pub(crate) fn stop(child: &mut Child) {
    // SAFETY: the child has not been waited for to its end, so that the id is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn command(job: &Job, options: &StudyOptions) -> Command {
    let settings = &options.settings;
    let mut command = Command::new(&options.program);
    command.arg("eval").arg("--model").arg(&job.model.model).arg("--label").arg(&job.model.label);
    if let Some(format) = job.model.format {
        command.arg("--format").arg(format.to_string());
    }
    for dataset in &job.pending {
        command.arg("--data").arg(dataset.name);
    }
    if let Some(original) = options.original_of(&job.model) {
        command.arg("--against").arg(&original.model);
    }
    command.arg("--n-sequences").arg(settings.limit.to_string());
    command.arg("--batch-size").arg(settings.batch_size.to_string());
    command.arg("--dtype").arg(&settings.dtype).arg("--device").arg(device_name(options.device));
    if let Some(threads) = options.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    command.arg("--out").arg(&options.out);
    command
}

/// What `--device` takes for it.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".into(),
    }
}

/// Lets the kernel end the child when this process is killed: else it would go on, and write beside the next
/// study.
pub(crate) fn end_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt;
        let parent = std::process::id() as i32;
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                // Killed before that call: nobody is left to work for.
                if libc::getppid() == parent {
                    Ok(())
                } else {
                    Err(std::io::Error::from_raw_os_error(libc::ESRCH))
                }
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Data set and reason of a line that says that one data set of several has failed.
pub(super) fn failed_dataset(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("error: ")?.split_once(": ")
}

/// That a signal ended it, where one did.
pub(crate) fn killed(status: ExitStatus) -> Option<String> {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.signal()?;
    let memory = if signal == libc::SIGKILL { "; most often that means: no memory left" } else { "" };
    Some(format!("the process was killed by signal {signal}{memory}"))
}

/// Why an evaluation gave no result: the child's own words where it said any.
pub(super) fn reason(said: &[String], status: ExitStatus) -> String {
    if let Some(killed) = killed(status) {
        return killed;
    }
    let last = said.iter().rev().find_map(|line| line.strip_prefix("lnfree: "));
    match last.or(said.last().map(String::as_str)) {
        Some(line) => line.trim().to_string(),
        None => format!("the evaluation ended with {status} and said nothing"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_reason_is_what_the_child_said_last() {
        let said: Vec<String> = ["fetching", "lnfree: no such model", "bye"].map(String::from).into();
        let failed = ExitStatus::from_raw(1 << 8);
        assert_eq!(reason(&said, failed), "no such model");
        assert_eq!(reason(&said[..1], failed), "fetching");
        assert!(reason(&[], failed).contains("said nothing"));
        assert!(reason(&said, ExitStatus::from_raw(9)).contains("signal 9; most often"));
    }

    #[test]
    fn a_data_set_that_failed_is_told_from_other_lines() {
        assert_eq!(
            failed_dataset("error: nano-addresses: /x: no such file"),
            Some(("nano-addresses", "/x: no such file"))
        );
        assert_eq!(failed_dataset("lnfree: 1 of 2 data sets failed"), None);
        assert_eq!(failed_dataset("fetching error: a: b"), None);
    }
}
