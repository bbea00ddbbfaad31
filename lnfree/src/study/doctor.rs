//! What `lnfree doctor` says: what was found on this machine, and what to do about each thing that is wrong.

mod hub;
mod jupyter;
mod machine;

use std::fmt;
use std::path::PathBuf;

/// How a [`Check`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something does not work, and the rest does without it.
    Warn,
    /// Nothing works without it.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, in a word or two.
    pub name: &'static str,
    /// How it ended.
    pub status: Status,
    /// What was found, on one line.
    pub detail: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Check {
        Check { name, status: Status::Ok, detail: detail.into(), advice: String::new() }
    }

    fn warn(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, status: Status::Warn, detail: detail.into(), advice: advice.into() }
    }

    fn fail(name: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Check {
        Check { name, status: Status::Fail, detail: detail.into(), advice: advice.into() }
    }
}

/// What a [`Check`] looks like on a terminal: one line, and a second one with the advice if there is any.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        write!(f, "{status:<4}  {:<9}  {}", self.name, self.detail)?;
        if self.advice.is_empty() { Ok(()) } else { write!(f, "\n      {:<9}  -> {}", "", self.advice) }
    }
}

/// Looks at everything. Takes some two seconds at most where the network does not answer, and changes
/// nothing. Call it before any tensor is made (see [`crate::base::device`]).
pub fn report() -> Vec<Check> {
    let hub = hub::Hub::from_env(&environment);
    // The network may be slow: it is asked while the rest is looked at.
    let access = hub.ask();
    // Before anything else of libtorch: it settles whether there is CUDA when it is first used.
    let cuda = machine::cuda();
    vec![
        machine::libtorch(),
        cuda,
        machine::threads(),
        machine::vector_units(),
        machine::memory(),
        machine::disk(),
        jupyter::kernel(&environment),
        hub.cache(),
        hub.token(),
        access.check(),
    ]
}

/// The table that `lnfree doctor` prints, without a newline at its end.
pub fn table(checks: &[Check]) -> String {
    let mut lines: Vec<String> = checks.iter().map(Check::to_string).collect();
    let warnings = checks.iter().filter(|c| c.status == Status::Warn).count();
    let failures = checks.iter().filter(|c| c.status == Status::Fail).count();
    lines.push(match (failures, warnings) {
        (0, 0) => "Everything is in order.".into(),
        (0, n) => format!("lnfree works here; {n} thing(s) above could be better."),
        (n, _) => format!("lnfree does not work here: {n} failure(s) above."),
    });
    lines.join("\n")
}

/// What `lnfree doctor` says at last: it looks at what there is, not at what that computes.
pub const LAST_WORD: &str =
    "`lnfree selftest` compares what is computed here with numbers that are known, in a minute or so.";

/// Whether everything that is needed is there: no [`Status::Fail`].
pub fn healthy(checks: &[Check]) -> bool {
    checks.iter().all(|c| c.status != Status::Fail)
}

/// Looks up an environment variable; a test brings its own.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The user's home folder.
fn home(env: Env) -> PathBuf {
    env("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from)
}

/// Bytes as a person reads them: `498 MB`, `13.2 GB`, `139 GB`.
fn bytes(n: u64) -> String {
    match n as f64 / 1e9 {
        gb if gb < 1.0 => format!("{:.0} MB", gb * 1e3),
        gb if gb < 100.0 => format!("{gb:.1} GB"),
        gb => format!("{gb:.0} GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_makes_it_unhealthy() {
        let ok = Check::ok("memory", "24.0 GB");
        let warn = Check::warn("hub", "no network", "connect");
        let fail = Check::fail("libtorch", "is 2.6.0", "./scripts/setup.sh");
        assert!(healthy(&[ok.clone(), warn.clone()]));
        assert!(!healthy(&[ok.clone(), fail.clone()]));
        assert!(table(std::slice::from_ref(&ok)).ends_with("Everything is in order."));
        assert!(table(&[ok.clone(), warn.clone()]).ends_with("1 thing(s) above could be better."));
        assert!(table(&[ok, warn, fail]).ends_with("lnfree does not work here: 1 failure(s) above."));
    }

    #[test]
    fn a_check_is_a_line_and_its_advice_another() {
        assert_eq!(Check::ok("memory", "24.0 GB").to_string(), "ok    memory     24.0 GB");
        let warn = Check::warn("hub", "no network", "connect").to_string();
        assert_eq!(warn, "warn  hub        no network\n                 -> connect");
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!(
            [bytes(498_000_000), bytes(13_200_000_000), bytes(150_754_820_096)],
            ["498 MB", "13.2 GB", "151 GB"]
        );
    }

    #[test]
    fn the_report_has_every_check_once_and_on_one_line() {
        let checks = report();
        let names: Vec<_> = checks.iter().map(|c| c.name).collect();
        assert_eq!(
            names,
            ["libtorch", "CUDA", "threads", "CPU", "memory", "disk", "notebooks", "cache", "token", "hub"]
        );
        for check in &checks {
            assert!(!check.detail.is_empty() && !check.to_string().contains("\n\n"), "{check}");
            assert!(!check.detail.contains('\n') && !check.advice.contains('\n'), "{check}");
            assert_eq!(check.status == Status::Ok, check.advice.is_empty(), "{check}");
        }
        // These tests run on libtorch, so it must be the right one and work.
        assert_eq!(checks[0].status, Status::Ok, "{}", checks[0]);
        assert!(checks[0].detail.contains(crate::base::device::LIBTORCH_VERSION), "{}", checks[0]);
    }
}
