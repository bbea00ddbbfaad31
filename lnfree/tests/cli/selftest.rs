//! `selftest`, and the variable that says which kernels compute.

use serde_json::Value;

use super::{Place, ended};

const QUICK: [&str; 4] = ["selftest", "--device", "cpu", "--quick"];

#[test]
fn a_selftest_on_the_cpu_passes_and_is_written_down() {
    let place = Place::new();
    let said = place.ok(&[&QUICK[..], &["--json", "selftest.json"]].concat());
    assert!(said.starts_with("verdict  group") && said.contains("\nok       training"), "{said}");
    assert!(said.trim_end().lines().last().unwrap().starts_with("all "), "{said}");
    let written = std::fs::read_to_string(place.path("selftest.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    let comparisons = written["comparisons"].as_array().unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), comparisons.len());
    assert!(comparisons.iter().all(|c| c["passed"] == true && c["difference"].is_number()));
}

#[test]
fn a_selftest_that_fails_says_which_and_has_an_exit_code() {
    let failed = Place::new().lnfree(&[&QUICK[..], &["--fault", "gelu"]].concat());
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(
        failed.stdout.contains("\nFAILED   operation  gelu") && failed.stdout.contains("do not trust"),
        "{failed:?}"
    );
    assert!(failed.stderr.contains("comparisons of the self-test failed"), "{failed:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_before_the_selftest() {
    let refused =
        Place::new().fails(&[&QUICK[..], &["--json", "no/such/folder.json"]].concat(), &["no/such"]);
    assert_eq!(refused.stdout, "");
}

#[test]
fn a_level_of_kernels_that_there_is_not_is_refused() {
    let place = Place::new();
    let with = |level: &str| {
        ended(place.command(&["config", "list"]).env("LNFREE_KERNELS", level).output().unwrap())
    };
    let refused = with("fastest");
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let words = "lnfree: LNFREE_KERNELS=fastest: there are plain, baseline, avx2, avx512, bf16, auto\n";
    assert_eq!(refused.stderr, words);
    assert_eq!(with("plain").code, Some(0));
}

#[test]
fn the_doctors_last_word_is_the_selftest() {
    let said = Place::new().lnfree(&["doctor"]).stdout;
    assert!(said.trim_end().lines().last().unwrap().contains("lnfree selftest"), "{said}");
}
