//! `eval` of several data sets, and of what is not there.

use lnfree::eval::{EvalRecord, paired_difference, read_sequences};

use super::{Place, common, write_tokens};

fn record(place: &Place, file: &str) -> EvalRecord {
    serde_json::from_str(&place.text(file)).unwrap()
}

#[test]
fn every_data_set_gets_its_files_and_one_that_fails_costs_no_other() {
    let place = Place::new();
    write_tokens(&place.path("b.arrow"), 7, 64, 255);
    let model = common::vector("tiny-a").display().to_string();
    let eval = |label: &str, model: &str, data: &[&str], more: &[&str]| {
        let mut args = vec!["eval", "-m", model, "--label", label, "--out", "results"];
        data.iter().for_each(|d| args.extend(["-d", d]));
        place.lnfree(&[&args, more].concat())
    };
    let ended = eval("tiny a", &model, &["tokens.arrow", "missing.arrow", "b.arrow"], &["--keep-losses"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.lines().any(|l| l.starts_with("error: missing.arrow: ")), "{ended:?}");
    assert!(ended.stderr.ends_with("lnfree: 1 of 3 data sets failed, see above\n"), "{ended:?}");
    let first = record(&place, "results/tiny_a--tokens.arrow.json");
    assert_eq!((first.label.as_str(), first.n_sequences, first.n_tokens), ("tiny a", 40, 40 * 63));
    assert_eq!(
        (first.run.dtype.as_str(), first.run.batch_size, first.run.max_sequences),
        ("float32", 8, 10_000)
    );
    assert_eq!((first.run.data_sha256.len(), first.worst.len()), (64, 5));
    let [low, high] = first.mean_interval;
    assert!(low < first.summary.mean && first.summary.mean < high, "{first:?}");
    assert_eq!(first.by_position.last().map(|p| p.to), Some(63));
    assert!(place.path("results/tiny_a--b.arrow.losses.arrow").is_file());
    let sequences = read_sequences(&place.path("results/tiny_a--b.arrow.sequences.arrow")).unwrap();
    let mean = sequences.iter().map(|s| s.loss).sum::<f64>() / 7.0;
    assert!((mean - record(&place, "results/tiny_a--b.arrow.json").summary.mean).abs() < 1e-9);

    let other = common::vector("exported_noln").display().to_string();
    assert_eq!(eval("other", &other, &["tokens.arrow"], &[]).code, Some(0));
    let file = |label: &str, data: &str| place.path(&format!("results/{label}--{data}.sequences.arrow"));
    let pair = paired_difference(&file("other", "tokens.arrow"), &file("tiny_a", "tokens.arrow")).unwrap();
    let expected = record(&place, "results/other--tokens.arrow.json").summary.mean - first.summary.mean;
    assert!((pair.mean - expected).abs() < 1e-6 && pair.n_sequences == 40, "{pair:?}");
    let error = paired_difference(&file("other", "tokens.arrow"), &file("tiny_a", "b.arrow")).unwrap_err();
    assert!(error.to_string().contains("different sequences"), "{error}");
}

#[test]
fn a_model_is_compared_with_the_one_that_it_was_made_of() {
    let place = Place::new();
    let [original, other] =
        ["tiny-a", "exported_noln"].map(|name| common::vector(name).display().to_string());
    let against = |model: &str, json: &str| {
        place.ok(&["eval", "-m", model, "-d", "tokens.arrow", "--against", &original, "--json", json]);
        record(&place, json).faithfulness.unwrap()
    };
    let itself = against(&original, "itself.json");
    assert!(itself.kl.abs() < 1e-6 && itself.jsd.abs() < 1e-6 && itself.agreement == 1.0, "{itself:?}");
    let found = against(&other, "other.json");
    assert_eq!(found.reference, original);
    assert!(found.kl > 1e-4 && found.jsd > 0.0 && found.jsd < found.kl && found.agreement < 1.0, "{found:?}");
    let ([low, high], [jsd_low, jsd_high]) = (found.kl_interval, found.jsd_interval);
    assert!(low < found.kl && found.kl < high && jsd_low < found.jsd && found.jsd < jsd_high, "{found:?}");
    assert_eq!((found.by_position[0].from, found.by_position.last().map(|p| p.to)), (0, Some(63)));
    let means = found.by_position.iter().map(|p| p.kl * (p.to - p.from) as f64);
    assert!((means.sum::<f64>() / 63.0 - found.kl).abs() < 1e-9, "{found:?}");
    // What cannot be compared costs no evaluation.
    let args = ["eval", "-m", &original, "-d", "tokens.arrow", "--against", "nano", "--json", "alone.json"];
    place.fails(&args, &["--against", "has 4096 tokens", "256"]);
    assert_eq!(record(&place, "alone.json").faithfulness, None);
    place.fails(&["eval", "-m", &original, "-d", "tokens.arrow", "--against", "no"], &["--against", "no"]);
}

#[test]
fn arguments_that_do_not_go_together_are_refused() {
    let place = Place::new();
    let model = common::vector("tiny-a").display().to_string();
    let two = ["eval", "-m", &model, "-d", "tokens.arrow", "-d", "tokens.arrow"];
    place.fails(&two, &["several data sets need --out"]);
    place.fails(
        &["eval", "-m", &model, "-d", "tokens.arrow", "--dtype", "tf32", "--device", "cpu"],
        &["tf32", "CUDA"],
    );
    let dtype = place.lnfree(&["eval", "-m", &model, "-d", "tokens.arrow", "--dtype", "float16"]);
    assert!(dtype.code == Some(2) && dtype.stderr.contains("float32, tf32, bfloat16"), "{dtype:?}");
}

#[test]
fn the_bench_counts_what_the_shape_needs() {
    let place = Place::new();
    let size = ["bench", "--size", "2,2,32,501", "--batch-size", "2", "--seq", "16", "--steps", "3"];
    let record: serde_json::Value = serde_json::from_str(&place.ok(&size)).unwrap();
    let step = record["median_step_s"].as_f64().unwrap();
    let flop = 2.0 * (2.0 * 12.0 * 32.0 * 32.0 + 32.0 * 501.0) + 2.0 * 2.0 * 32.0 * 17.0;
    let per_s = record["flop_per_s"].as_f64().unwrap();
    assert!((per_s * step / (32.0 * flop) - 1.0).abs() < 1e-9, "{record}");
    assert!((record["loss"].as_f64().unwrap() - 501f64.ln()).abs() < 0.1, "{record}");
    place.fails(&["bench", "--size", "gpt3"], &["size gpt3", "gpt2-xl"]);
    place.fails(&["bench", "--steps", "0"], &["--steps"]);
    place.fails(&["bench", "--task", "train", "--ln", "folded"], &["folded", "--task eval"]);
    place.fails(&["bench", "--task", "generate", "--new-tokens", "0"], &["--new-tokens"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_plan_is_not_exceeded_by_a_program_that_keeps_what_it_frees() {
    let place = Place::new();
    for (size, more) in [
        ("2,4,128,16384", ["--seq", "128"].as_slice()),
        ("6,4,128,4096", &["--seq", "256", "--checkpointing"]),
    ] {
        let args = [
            "bench",
            "--task",
            "train",
            "--ln",
            "fake",
            "--batch-size",
            "16",
            "--steps",
            "2",
            "--size",
            size,
        ];
        let record: serde_json::Value = serde_json::from_str(&place.ok(&[&args, more].concat())).unwrap();
        let ratio = record["planned_gib"].as_f64().unwrap() / record["peak_gib"].as_f64().unwrap();
        assert!((0.97..2.2).contains(&ratio), "{record}");
    }
}

#[test]
fn the_bench_times_texts_that_are_written() {
    let place = Place::new();
    let size = ["bench", "--task", "generate", "--size", "2,2,32,501", "--batch-size", "3", "--steps", "2"];
    for ln in ["real", "half", "fake", "folded"] {
        let args = [size.as_slice(), &["--prompt", "5", "--new-tokens", "4", "--ln", ln]].concat();
        let record: serde_json::Value = serde_json::from_str(&place.ok(&args)).unwrap();
        let number = |key: &str| record[key].as_f64().unwrap();
        // Twelve new tokens; the last one of a text is not read again.
        assert!((number("tokens_per_s") * number("median_step_s") - 12.0).abs() < 1e-9, "{record}");
        let body = 8.0 * 2.0 * 2.0 * 12.0 * 32.0 * 32.0 + 2.0 * 4.0 * 32.0 * 36.0;
        let flop = 3.0 * (body + 4.0 * 2.0 * 32.0 * 501.0);
        assert!((number("flop_per_s") * number("median_step_s") / flop - 1.0).abs() < 1e-9, "{record}");
        assert_eq!((record["seq"].as_u64(), record["prompt"].as_u64()), (Some(9), Some(5)));
        assert!(record["loss"].is_null() && record["planned_gib"].is_null(), "{record}");
    }
}

#[test]
fn the_bench_times_training_with_and_without_ln() {
    let place = Place::new();
    let size = [
        "bench",
        "--task",
        "train",
        "--size",
        "2,2,32,501",
        "--batch-size",
        "2",
        "--accum",
        "3",
        "--seq",
        "16",
    ];
    let run = |more: &[&str]| -> serde_json::Value {
        let args = [size.as_slice(), &["--steps", "2", "--warmup", "1"], more].concat();
        serde_json::from_str(&place.ok(&args)).unwrap()
    };
    let number = |record: &serde_json::Value, key: &str| record[key].as_f64().unwrap();
    let real = run(&["--ln", "real"]);
    let flop = 3.0 * (2.0 * (2.0 * 12.0 * 32.0 * 32.0 + 32.0 * 501.0) + 2.0 * 2.0 * 32.0 * 17.0);
    let of_a_step = number(&real, "flop_per_s") * number(&real, "median_step_s");
    assert!((of_a_step / (3.0 * 32.0 * flop) - 1.0).abs() < 1e-9, "{real}");
    assert!((number(&real, "loss") - 501f64.ln()).abs() < 0.2, "{real}");
    // The same steps, but for what is kept of them.
    let fake = run(&["--ln", "fake", "--aux-weight", "0.1"]);
    let again = run(&["--ln", "fake", "--aux-weight", "0.1", "--checkpointing"]);
    assert!((number(&fake, "loss") - number(&again, "loss")).abs() < 1e-4, "{fake} {again}");
    let half = run(&["--ln", "half", "--aux-weight", "0.1"]);
    let losses = [&real, &half, &fake].map(|record| number(record, "loss"));
    assert!(losses[0] != losses[1] && losses[1] != losses[2] && losses[0] != losses[2], "{losses:?}");
    assert!(number(&real, "planned_gib") > 0.1, "{real}");
}

#[test]
fn a_card_says_what_evaluations_of_its_checkpoint_came_to() {
    let place = Place::new();
    let [checkpoint, original] =
        ["checkpoint/step60", "tiny-a"].map(|name| common::vector(name).display().to_string());
    let eval = ["eval", "-d", "tokens.arrow", "--json"];
    place.ok(&[&eval[..], &["own.json", "-m", &checkpoint, "--against", &original]].concat());
    place.ok(&[&eval[..], &["other.json", "-m", &original]].concat());
    let export = ["export", &checkpoint, "--format", "folded", "--out"];
    place.ok(&[&export[..], &["with", "--eval", "own.json"]].concat());
    let (found, card) = (record(&place, "own.json"), place.text("with/README.md"));
    let distance = found.faithfulness.unwrap();
    assert!(card.contains(&format!("| tokens.arrow | 40 | {:.4} | ", found.summary.mean)), "{card}");
    assert!(card.contains(&format!("| tokens.arrow | {original} | {:.4} (", distance.kl)), "{card}");
    place.ok(&[&export[..], &["without"]].concat());
    assert!(!place.text("without/README.md").contains("## Evaluation"));

    place
        .fails(&[&export[..], &["none", "--eval", "other.json"]].concat(), &["other.json", "tiny-a, not of"]);
    std::fs::write(place.path("bad.json"), "{\"label\": 3}").unwrap();
    place.fails(&[&export[..], &["none", "--eval", "bad.json"]].concat(), &["bad.json", "no evaluation"]);
    place.fails(&[&export[..], &["none", "--eval", "missing.json"]].concat(), &["missing.json"]);
    assert!(!place.path("none").exists());
}
