//! The self-test on the CPU: that it passes, on each path, and that it can fail.

use std::collections::BTreeSet;

use super::*;

fn run(fault: Option<&str>) -> SelfTest {
    let options = SelfTestOptions { quick: true, fault: fault.map(Into::into) };
    selftest(Device::Cpu, &options, |_| {}).unwrap()
}

#[track_caller]
fn passes(test: &SelfTest) {
    let failed: Vec<String> = test.comparisons.iter().filter(|c| !c.passed).map(Comparison::line).collect();
    assert!(test.passed(), "{}", failed.join("\n"));
    let groups: BTreeSet<&str> = test.comparisons.iter().map(|c| c.group).collect();
    assert_eq!(
        groups.into_iter().collect::<Vec<_>>(),
        ["eval", "folding", "forward", "generate", "operation", "training"]
    );
    for dtype in ["float32", "bfloat16"] {
        assert!(test.comparisons.iter().filter(|c| c.dtype == dtype).count() > 60, "{dtype}");
    }
}

#[test]
fn everything_passes_on_the_cpu() {
    passes(&run(None));
}

#[test]
fn everything_passes_on_the_path_of_a_gpu() {
    let _plain = Kernels::Plain.on_this_thread();
    passes(&run(None));
}

/// One number that is off is found, in an operation, its gradient, a forward, a step, an evaluation and a
/// text; and nothing else is.
#[test]
fn a_falsified_number_is_found() {
    const FAULTS: [&str; 6] =
        ["affine map", "gelu, gradient", "correct bos", "norms of gradients", "losses", "texts"];
    let test = run(Some(&FAULTS.join("|")));
    for comparison in &test.comparisons {
        let falsified = FAULTS.iter().any(|fault| comparison.name.contains(fault));
        assert_eq!(comparison.passed, !falsified, "{}", comparison.line());
    }
    for fault in FAULTS {
        assert!(test.comparisons.iter().any(|c| c.name.contains(fault)), "{fault}");
    }
    assert!(test.verdict().contains("FAILED") && !test.passed());
}

#[test]
fn what_cannot_be_computed_is_a_comparison_that_failed() {
    let mut recorder = Recorder::new(Device::Cpu, None, |_| {});
    let tolerance = recorder::Tolerance::ROUNDING;
    recorder.measure("operation", "an error", tolerance, |_| Err(crate::Error::invalid("no such kernel")));
    recorder.measure("operation", "a panic", tolerance, |_| panic!("no\nsuch kernel"));
    recorder.measure("operation", "not a number", tolerance, |_| Ok(f64::NAN));
    recorder.measure("operation", "fine", tolerance, |_| Ok(0.0));
    let comparisons = recorder.finish();
    assert_eq!(comparisons.iter().map(|c| c.passed).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(comparisons[0].failure.as_deref(), Some("no such kernel"));
    assert_eq!(comparisons[1].failure.as_deref(), Some("no"));
}
