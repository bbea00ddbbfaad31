//! Models whose results are no finite numbers: an error of its own, no invented figure, and nothing lost.

use std::collections::BTreeMap;
use std::path::Path;

use lnfree::checkpoint::locate_model;
use lnfree::eval::read_sequences;
use lnfree::model::weights::{read_weights, write_safetensors};
use lnfree::tch::Kind;
use serde_json::Value;

use super::{Place, common, one_line};

/// A copy of a model with finite weights whose logits, or with `stream` whose residual stream, are beyond
/// float32.
fn overflowing(from: &Path, to: &Path, stream: bool) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        if file.is_file() {
            std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    }
    let mut weights = read_weights(from).unwrap();
    let wanted = if stream { "mlp.c_proj.weight" } else { "ln_f.weight" };
    let (name, weight) = weights.iter_mut().find(|(name, _)| name.ends_with(wanted)).unwrap();
    let wide = weight.to_kind(Kind::Double);
    let largest = wide.abs().max().double_value(&[]);
    *weight = (wide * (3e38 / largest)).to_kind(Kind::Float);
    assert!(weight.abs().max().double_value(&[]).is_finite(), "{name}");
    write_safetensors(&to.join("model.safetensors"), &weights, &BTreeMap::new()).unwrap();
}

/// A figure that is null, or a list or object of nothing but such.
fn is_null(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().all(is_null),
        Value::Object(all) => all.values().all(is_null),
        value => value.is_null(),
    }
}

#[test]
fn an_evaluation_without_a_mean_is_an_error_and_keeps_what_it_has() {
    let place = Place::new();
    overflowing(&common::vector("tiny-a"), &place.path("broken"), false);
    for dtype in ["float32", "bfloat16"] {
        let args = ["eval", "-m", "broken", "-d", "tokens.arrow", "-n", "3", "--dtype", dtype];
        let ended = place.lnfree(&[&args, ["--json", "a.json", "--losses", "a.arrow"].as_slice()].concat());
        assert_eq!(ended.code, Some(4), "{dtype}: {ended:?}");
        one_line(&ended, &["broken on tokens.arrow", "of 189 tokens", "no finite loss", "sequence 0"]);
        assert!(!ended.stdout.contains("mean") && !ended.stdout.contains("NaN"), "{ended:?}");
        let record: Value = serde_json::from_str(&place.text("a.json")).unwrap();
        let figures = ["mean", "median", "perplexity", "ranges", "mean_interval", "trimmed_mean"];
        for name in figures.iter().chain(&["entropy", "accuracy", "calibration_error"]) {
            assert!(record.get(name).is_some() && is_null(&record[name]), "{name}: {record}");
        }
        assert_eq!((&record["n_tokens"], &record["not_finite"]["sequence"]), (&189.into(), &0.into()));
        assert!(record["not_finite"]["n_tokens"].as_u64().unwrap() > 0);
        assert!(record["not_finite"]["position"].is_u64(), "{record}");
        assert!(place.path("a.arrow").is_file());
    }
}

#[test]
fn a_model_without_a_mean_costs_no_other_data_set_and_its_file_is_read() {
    let place = Place::new();
    overflowing(&common::vector("tiny-a"), &place.path("broken"), false);
    super::write_tokens(&place.path("b.arrow"), 2, 64, 255);
    let args = ["eval", "-m", "broken", "-d", "tokens.arrow", "-d", "b.arrow", "-n", "2", "--out", "results"];
    let ended = place.lnfree(&args);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.ends_with("lnfree: 2 of 2 data sets failed, see above\n"), "{ended:?}");
    let sequences = read_sequences(&place.path("results/broken--b.arrow.sequences.arrow")).unwrap();
    assert!(sequences.iter().any(|sequence| !sequence.loss.is_finite()));
    // What else fails has the usual code.
    let one = ["eval", "-m", "broken", "-d", "b.arrow", "-d", "missing.arrow", "--out", "results"];
    assert_eq!(place.lnfree(&one).code, Some(1));

    let tiny = common::vector("tiny-a").display().to_string();
    place.ok(&["eval", "-m", &tiny, "-d", "b.arrow", "--label", "tiny", "--out", "results"]);
    place.ok(&super::strs(&place.train("run", &["--set", "eval.every=0"])));
    let [bad, good] = ["results/broken--b.arrow.json", "results/tiny--b.arrow.json"];
    let table = place.ok(&["report", "run", "--eval", bad, good]);
    assert!(table.contains("NaN") && table.contains("have no finite loss"), "{table}");
    assert!(place.text("report.html").contains("have no finite loss"));
}

#[test]
fn a_study_lists_it_as_failed_and_goes_on() {
    let place = Place::new();
    let nano = locate_model("nano").unwrap();
    overflowing(&nano, &place.path("broken"), false);
    let add = format!("broken={}", place.path("broken").display());
    let args = ["eval-all", "--suite", "nano", "--models", "original", "--datasets", "nano-addresses"];
    let args = [&args, ["-n", "2", "--add", &add, "--out", "study"].as_slice()].concat();
    for _ in 0..2 {
        // Tried again by the same command, for it is no result.
        let ended = place.lnfree(&args);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("1 of 2 evaluations failed"), "{ended:?}");
        let results: Value = serde_json::from_str(&place.text("study/results.json")).unwrap();
        let labels = |key: &str| -> Vec<String> {
            let all = results[key].as_array().unwrap();
            all.iter().map(|e| e["label"].as_str().unwrap().to_string()).collect()
        };
        assert_eq!(
            (labels("evaluations"), labels("failures")),
            (vec!["original".into()], vec!["broken".into()])
        );
        assert!(results["failures"][0]["why"].as_str().unwrap().contains("no finite loss"), "{results}");
    }
    assert!(place.path("study/broken--nano-addresses.json").is_file());
}

#[test]
fn standard_deviations_and_texts_of_such_a_model_are_errors() {
    let place = Place::new();
    overflowing(&common::vector("tiny-a"), &place.path("broken"), true);
    let ended = place.lnfree(&["std", "-m", "broken", "-d", "tokens.arrow", "-n", "2", "--out", "std.json"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    one_line(&ended, &["blocks.0.hook_resid_post", "not finite"]);
    assert!(!place.path("std.json").exists() && ended.stdout.is_empty(), "{ended:?}");
    overflowing(&locate_model("nano").unwrap(), &place.path("nano"), false);
    for temperature in ["0", "1"] {
        let ended = place.lnfree(&[
            "generate",
            "-m",
            "nano",
            "--max-new-tokens",
            "2",
            "-p",
            "The",
            "-t",
            temperature,
        ]);
        // `nano` is a folder here.
        assert_eq!(ended.code, Some(4), "{ended:?}");
        one_line(&ended, &["logits are NaN or infinite"]);
    }
}
