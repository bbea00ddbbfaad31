//! What a self-test found, as a table and as JSON.

use serde::Serialize;

/// A result beside what it should be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// `operation`, `forward`, `training` and so on.
    pub group: &'static str,
    /// What was computed.
    pub name: String,
    /// What matrix products were computed in.
    pub dtype: &'static str,
    /// The largest difference as a share of the largest number; of a count, the difference. Null in JSON
    /// where it is not a number.
    pub difference: f64,
    /// How much it may be.
    pub tolerance: f64,
    /// What kept it from being computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The verdict.
    pub passed: bool,
}

/// All comparisons on one device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfTest {
    /// The version of this crate.
    pub lnfree: String,
    /// The device, in words.
    pub device: String,
    /// Which kernels of ours there were, see [`crate::base::device::Kernels`].
    pub kernels: String,
    /// In the order in which they were made.
    pub comparisons: Vec<Comparison>,
    /// How long all of it took.
    pub seconds: f64,
}

impl Comparison {
    /// The head of a table of [`Comparison::line`]s.
    pub const HEAD: &str =
        "verdict  group      what                                           dtype     difference  tolerance";

    /// A line of a table.
    pub fn line(&self) -> String {
        let Comparison { group, name, dtype, difference, tolerance, failure, passed } = self;
        let verdict = if *passed { "ok" } else { "FAILED" };
        let found = match failure {
            Some(failure) => format!("  {failure}"),
            None => format!("{difference:>10.1e}  {tolerance:>9.0e}"),
        };
        format!("{verdict:<7}  {group:<9}  {name:<45}  {dtype:<8}  {found}")
    }
}

impl SelfTest {
    /// How many comparisons failed.
    pub fn failed(&self) -> usize {
        self.comparisons.iter().filter(|comparison| !comparison.passed).count()
    }

    /// Whether everything is as it should be, and there was anything.
    pub fn passed(&self) -> bool {
        self.failed() == 0 && !self.comparisons.is_empty()
    }

    /// The verdict in one line.
    pub fn verdict(&self) -> String {
        let SelfTest { device, comparisons, seconds, kernels, .. } = self;
        let kernels = if kernels == "auto" { String::new() } else { format!(" (LNFREE_KERNELS={kernels})") };
        let of = comparisons.len();
        match self.failed() {
            0 => format!("all {of} comparisons passed on {device}{kernels} in {seconds:.0} s"),
            n => format!("{n} of {of} comparisons FAILED on {device}{kernels}: do not trust numbers from it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(difference: f64, failure: Option<&str>) -> Comparison {
        Comparison {
            group: "operation",
            name: "gelu".into(),
            dtype: "float32",
            difference,
            tolerance: 2e-6,
            failure: failure.map(Into::into),
            passed: failure.is_none() && difference <= 2e-6,
        }
    }

    #[test]
    fn a_line_has_the_verdict_first_and_what_went_wrong_last() {
        let line = comparison(1.25e-7, None).line();
        assert!(
            line.starts_with("ok       operation  gelu ") && line.ends_with("1.2e-7       2e-6"),
            "{line}"
        );
        let failed = comparison(f64::NAN, Some("no such kernel")).line();
        assert!(failed.starts_with("FAILED   operation") && failed.ends_with("no such kernel"), "{failed}");
        assert_eq!(Comparison::HEAD.find("dtype"), line.find("float32"));
    }

    #[test]
    fn one_failure_is_a_failure_and_so_is_nothing() {
        let test = |comparisons| SelfTest {
            lnfree: "1".into(),
            device: "here".into(),
            kernels: "auto".into(),
            comparisons,
            seconds: 1.0,
        };
        assert!(test(vec![comparison(0.0, None)]).passed());
        assert!(!test(vec![comparison(0.0, None), comparison(f64::NAN, None)]).passed());
        assert!(!test(Vec::new()).passed());
        assert!(test(vec![comparison(1.0, None)]).verdict().starts_with("1 of 1 comparisons FAILED on here"));
    }
}
