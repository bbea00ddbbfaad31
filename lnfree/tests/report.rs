//! From files to the report: reading, the results table, the page.

use std::fs;
use std::path::{Path, PathBuf};

use lnfree::eval::{SequenceLoss, write_sequences};
use lnfree::plot::{Removal, RemovalKind};
use lnfree::report::{EvalRow, differences, read_eval, read_run, results_table, write_html};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A run of six steps with two layers, one removal, one evaluation, and events of other kinds.
const METRICS: &str = r#"{"step":0,"loss":3.5,"ce_loss":3.4,"aux_loss":0.1,"lr":0.0001,"grad_norm":2.0,"tokens":64,"tokens_per_s":900.5,"stds":{"h.0.ln_1":0.5,"h.0.ln_2":0.6,"ln_f":9.0}}
{"event":"something new","step":1,"text":"x"}
{"step":1,"loss":3.3,"ce_loss":3.25,"aux_loss":0.05,"lr":0.0002,"grad_norm":1.5,"tokens":64,"tokens_per_s":1000,"stds":{"h.0.ln_1":0.51,"h.0.ln_2":0.6,"ln_f":9.1}}
{"event":"remove","step":2,"kind":"ln2","layer":0}
{"event":"remove","step":2,"kind":"lnf","layer":null}
{"step":2,"loss":null,"ce_loss":null,"lr":0.0002,"grad_norm":null}
{"event":"checkpoint","step":2,"path":"checkpoints/step-2"}
{"event":"eval","step":2,"loss":3.21,"n_tokens":100}
"#;

fn run_dir(metrics: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("nano <i>");
    fs::create_dir(&dir).unwrap();
    let info = json!({"mode": "without_ln", "model": "data/<nano>", "started": "2025-01-31T14:05:09Z",
                      "lnfree": "0.1.0", "device": "cpu", "later": [1]});
    fs::write(dir.join("run.json"), info.to_string()).unwrap();
    fs::write(dir.join("config.toml"), "[model]\nn_layer = 2 # <script>alert(1)</script>\n").unwrap();
    fs::write(dir.join("metrics.jsonl"), metrics).unwrap();
    (root, dir)
}

fn eval_file(dir: &Path, label: &str, dataset: &str, mean: f64) -> PathBuf {
    let path = dir.join(format!("{}-{}.json", label.replace('/', "_"), dataset.replace('/', "_")));
    let eval = json!({"label": label, "model": "m", "format": "transformers", "dataset": dataset, "n_sequences": 10,
                      "n_tokens": 12345, "mean": mean, "median": 1.5, "ranges": {"99.9": [0, 43.0], "50": [0.1, 4]}});
    fs::write(&path, eval.to_string()).unwrap();
    path
}

fn row(label: &str, dataset: &str, mean: f64) -> EvalRow {
    EvalRow {
        label: Some(label.into()),
        dataset: dataset.into(),
        mean,
        n_tokens: Some(7),
        ..EvalRow::default()
    }
}

/// The error's text, which must be one line that names `file`.
fn refusal<T: std::fmt::Debug>(result: lnfree::Result<T>, file: &Path) -> String {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(file.to_str().unwrap()), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

#[test]
fn a_run_directory_is_read_as_it_was_written() {
    let (_root, dir) = run_dir(METRICS);
    let run = read_run(&dir).unwrap();
    assert_eq!((run.name.as_str(), run.info.mode.as_str()), ("nano <i>", "without_ln"));
    assert_eq!(run.steps.iter().map(|s| s.step).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!((run.steps[0].loss, run.steps[0].ce_loss, run.steps[1].grad_norm), (3.5, 3.4, 1.5));
    assert!(run.steps[2].loss.is_nan() && run.steps[2].grad_norm.is_nan());
    let lns: Vec<_> = run.stds.keys().map(|ln| ln.0.as_str()).collect();
    assert_eq!(lns, ["h.0.ln_1", "h.0.ln_2", "ln_f"]);
    assert_eq!(run.stds.values().next().unwrap(), &[(0, 0.5), (1, 0.51)]);
    let ln_2 = Removal { step: 2, kind: RemovalKind::Ln2, layer: Some(0) };
    assert_eq!(run.removals, [ln_2, Removal { step: 2, kind: RemovalKind::LnF, layer: None }]);
    assert_eq!(run.evals, [(2, 3.21)]);
    assert!(run.config.contains("n_layer = 2"));
}

#[test]
fn a_crash_in_the_middle_of_a_line_costs_that_line_only() {
    let whole = METRICS.as_bytes();
    let first = METRICS.find('\n').unwrap();
    for cut in 0..=whole.len() {
        let (_root, dir) = run_dir(&whole[..cut]);
        match read_run(&dir) {
            Ok(run) => assert!(run.steps.len() <= 3 && cut >= first, "{cut}"),
            Err(error) => {
                assert!(cut < first, "{cut}: {error}");
                assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}

#[test]
fn a_step_done_again_replaces_the_first_attempt() {
    let lines = "{\"step\":7,\"loss\":9.0}\n{\"step\":8,\"loss\":9.0}\n{\"step\":8,\"loss\":3.0}\n";
    let (_root, dir) = run_dir(lines);
    let run = read_run(&dir).unwrap();
    assert_eq!(run.steps.iter().map(|s| (s.step, s.loss)).collect::<Vec<_>>(), [(7, 9.0), (8, 3.0)]);
}

#[test]
fn what_is_wrong_in_metrics_is_named_with_its_line() {
    let good = METRICS.lines().next().unwrap();
    for (line, why) in [
        (r#"{"step":3,"loss":"#, "not JSON"),
        (r#"[1,2]"#, "not a JSON object"),
        (r#"{"step":3}"#, "neither `event` nor `loss`"),
        (r#"{"loss":3.0}"#, "no `step`"),
        (r#"{"step":-1,"loss":3.0}"#, "`step` is not a whole number"),
        (r#"{"step":1.5,"loss":3.0}"#, "`step` is not a whole number"),
        (r#"{"step":3,"loss":"high"}"#, "`loss` is not a number"),
        (r#"{"step":3,"loss":1e999}"#, "not JSON"),
        (r#"{"step":3,"loss":1,"stds":[1]}"#, "`stds` is not an object"),
        (r#"{"step":3,"loss":1,"stds":{"ln_f":"x"}}"#, "`ln_f` is not a number"),
        (r#"{"event":7}"#, "`event` is not text"),
        (r#"{"event":"remove","step":3,"kind":"ln9","layer":0}"#, "none of ln2, ln1qk, ln1v, lnf, eot, bos"),
        (r#"{"event":"remove","kind":"ln2","layer":0}"#, "no `step`"),
    ] {
        let (_root, dir) = run_dir(format!("{good}\n\n{line}\n{good}\n"));
        let message = refusal(read_run(&dir), &dir.join("metrics.jsonl"));
        assert!(message.contains("line 3: ") && message.contains(why), "{message}");
    }
    let (_root, dir) = run_dir([good.as_bytes(), b"\n{\"\xff\":1}\n"].concat());
    assert!(refusal(read_run(&dir), &dir.join("metrics.jsonl")).contains("line 2: is not UTF-8"));
}

#[test]
fn missing_and_empty_files_are_named() {
    for name in ["run.json", "config.toml", "metrics.jsonl"] {
        let (_root, dir) = run_dir(METRICS);
        fs::write(dir.join(name), " \n").unwrap();
        assert!(refusal(read_run(&dir), &dir.join(name)).contains("is empty"));
        fs::remove_file(dir.join(name)).unwrap();
        assert!(refusal(read_run(&dir), &dir.join(name)).contains("is not there"));
    }
    let (_root, dir) = run_dir("{\"event\":\"checkpoint\",\"step\":2}\n");
    assert!(refusal(read_run(&dir), &dir.join("metrics.jsonl")).contains("no steps"));
    fs::write(dir.join("config.toml"), "[model]\nn_layer = = 2\n").unwrap();
    assert!(refusal(read_run(&dir), &dir.join("config.toml")).contains("line 2: "));
    fs::write(dir.join("run.json"), "{\"model\":1}").unwrap();
    refusal(read_run(&dir), &dir.join("run.json"));
}

#[test]
fn evaluations_are_read_or_refused_by_key() {
    let root = tempfile::tempdir().unwrap();
    let path = eval_file(root.path(), "vanilla", "nano-addresses", 3.25);
    let eval = read_eval(&path).unwrap();
    assert_eq!((eval.mean, eval.median, eval.n_tokens), (3.25, 1.5, Some(12345)));
    assert_eq!(eval.ranges, [("50".to_string(), [0.1, 4.0]), ("99.9".to_string(), [0.0, 43.0])]);
    for (key, value) in [
        ("model", json!(null)),
        ("dataset", json!(7)),
        ("mean", json!("low")),
        ("n_tokens", json!(-1)),
        ("ranges", json!({"50": [1]})),
        ("label", json!(["x"])),
    ] {
        let mut object: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        object[key] = value;
        let bad = root.path().join("bad.json");
        fs::write(&bad, object.to_string()).unwrap();
        let message = refusal(read_eval(&bad), &bad);
        assert!(message.contains(&format!("`{key}`")), "{message}");
    }
    let missing = root.path().join("none.json");
    refusal(read_eval(&missing), &missing);
}

#[test]
fn the_table_has_the_studys_order_and_gaps() {
    // The published figures of GPT-2 small on two data sets (arXiv 2507.02559), in no order.
    let rows = [
        row("LN-free", "Pile", 2.8852),
        row("other|one", "OWT", 9.0),
        row("original", "Pile", 2.8450),
        row("vanilla", "OWT", 3.0126),
        row("original", "OWT", 3.1006),
        row("LN-free", "OWT", 3.0797),
    ];
    let table = results_table(&rows);
    let text = "\
model                  Pile      OWT
────────────────────────────────────
original             2.8450   3.1006
vanilla                   –   3.0126
LN-free              2.8852   3.0797
other|one                 –   9.0000
────────────────────────────────────
vanilla − original        –  -0.0880
LN-free − original  +0.0402  -0.0209
LN-free − vanilla         –  +0.0671
";
    assert_eq!(table.to_text(), text);
    let markdown = table.to_markdown();
    assert!(
        markdown.starts_with("| model | Pile | OWT |\n|---|---:|---:|\n| original | 2.8450 | 3.1006 |\n")
    );
    assert!(markdown.contains("| other\\|one | – | 9.0000 |"));
    assert!(table.to_html().contains("<th scope=\"row\">vanilla − original</th><td class=\"number\">–</td>"));
    assert!(table.to_html().contains("<td class=\"number\">−0.0880</td>"));
}

#[test]
fn losses_over_different_tokens_are_not_compared_silently() {
    let mut rows = [row("original", "a/owt", 3.0), row("LN-free", "a/owt", f64::NAN)];
    let table = results_table(&rows);
    assert_eq!((table.columns[0].dataset.as_str(), table.columns[0].n_tokens), ("owt", Some(7)));
    assert!(table.notes.is_empty() && table.to_text().contains("LN-free                NaN"));
    rows[1].n_tokens = Some(8);
    let table = results_table(&rows);
    assert_eq!(table.columns[0].n_tokens, None);
    assert!(table.to_text().contains("different numbers of tokens"));
}

#[test]
fn the_page_stands_alone_and_holds_everything_escaped() {
    let (root, dir) = run_dir(METRICS);
    let evals = [
        eval_file(root.path(), "original", "<b>owt", 3.5),
        eval_file(root.path(), "LN-free", "<b>owt", 3.625),
    ];
    let out = root.path().join("new/folder/report.html");
    // The same run twice: two runs may not share a name.
    write_html(&[dir.clone(), dir], &evals, &out).unwrap();
    let page = fs::read_to_string(&out).unwrap();
    let at = page.find("window.Plotly = Plotly").unwrap();
    assert_eq!(page.matches("window.Plotly = Plotly").count(), 1);
    let end = at + page[at..].find("</script>").unwrap();
    let own = [&page[..page.find("<script").unwrap()], &page[end..]].concat();
    for outside in ["src=", "href=", "@import", "url(", "<b>", "<i>", "<nano>", "alert(1)</script>"] {
        assert!(!own.contains(outside), "{outside}");
    }
    for inside in [
        "LayerNorm removal report",
        "&lt;b&gt;owt",
        "+0.1250",
        "2025-01-31 14:05",
        "n_layer = 2 # &lt;script&gt;",
        "nano &lt;i&gt; #2",
        env!("CARGO_PKG_VERSION"),
        "prefers-color-scheme: dark",
    ] {
        assert!(own.contains(inside), "{inside}");
    }
    let figures: Vec<&str> = own.split("data-figure=\"").skip(1).collect();
    assert_eq!(figures.len(), 5);
    for figure in figures {
        let json = &figure[figure.find('>').unwrap() + 1..figure.find("</script>").unwrap()];
        let figure: Value = serde_json::from_str(json).unwrap();
        assert!(!figure["data"].as_array().unwrap().is_empty());
    }
    assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_report_that_fails_leaves_the_old_one_alone() {
    let (root, dir) = run_dir(METRICS);
    let out = root.path().join("report.html");
    fs::write(&out, "old").unwrap();
    let missing = root.path().join("none");
    refusal(write_html(&[dir.clone(), missing.clone()], &[], &out), &missing);
    assert_eq!(fs::read_to_string(&out).unwrap(), "old");
    assert!(write_html(&[], &[], &out).unwrap_err().to_string().contains("nothing to report"));
    // A folder where the file should go.
    refusal(write_html(std::slice::from_ref(&dir), &[], &dir), &dir);
    write_html(&[dir], &[], &out).unwrap();
    assert!(fs::read_to_string(&out).unwrap().ends_with("</html>\n"));
}

#[cfg(unix)]
#[test]
fn the_page_can_be_read_by_others_as_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let (root, dir) = run_dir(METRICS);
    let (page, other) = (root.path().join("report.html"), root.path().join("other"));
    write_html(&[dir], &[], &page).unwrap();
    fs::write(&other, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&page), mode(&other));
}

#[test]
fn what_evaluations_say_beyond_means_is_on_the_page_escaped() {
    let root = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (label, mean) in [("original", 3.0), ("LN-free", 3.25)] {
        let path = eval_file(root.path(), label, "nano-addresses", mean);
        let mut object: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        object["mean_interval"] = json!([2.9, 3.1]);
        object["entropy"] = json!(2.75);
        object["by_position"] =
            json!([{"from": 0, "to": 1, "mean": 8.5}, {"from": 1, "to": 2, "mean": null}]);
        object["worst"] = json!([{"sequence": 1234, "mean": null, "text": "<script>alert(1)</script>"}]);
        object["tokens_per_s"] = json!(26_988.2);
        if label == "LN-free" {
            object["faithfulness"] = json!({
                "reference": "<nano>", "kl": 0.125, "kl_interval": [0.12, 0.13], "jsd": 0.03,
                "jsd_interval": [0.02, null], "agreement": 0.875, "by_position": [],
            });
        }
        fs::write(&path, object.to_string()).unwrap();
        let losses: Vec<SequenceLoss> =
            (0..50).map(|i| SequenceLoss { sequence: i, loss: mean + (i % 5) as f64, n_tokens: 9 }).collect();
        write_sequences(&path.with_extension("sequences.arrow"), &losses).unwrap();
        files.push(path);
    }
    let read = read_eval(&files[0]).unwrap();
    assert_eq!((read.details.entropy, read.details.accuracy), (Some(2.75), None));
    assert!(read.details.by_position[1].mean.is_nan() && read.sequences.is_some());
    let out = root.path().join("page.html");
    write_html(&[], &files, &out).unwrap();
    let page = fs::read_to_string(&out).unwrap();
    for words in [
        "<h2>Paired differences</h2>",
        "<td class=\"number\">+0.2500</td><td class=\"number\">+0.2500 to +0.2500</td>",
        "<h2>Loss by position</h2>",
        "2.9000 to 3.1000",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "<h2>Distance to another model</h2>",
        "0.1200 to 0.1300",
        "0.0200 to NaN",
        "87.5%",
        "26\u{202f}988",
    ] {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(page.matches("&lt;nano&gt;").count(), 1, "the original was compared with nothing");
    let mut object: Value = serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap();
    object["worst"] = json!([{"sequence": -1, "mean": 2.0}]);
    fs::write(&files[0], object.to_string()).unwrap();
    assert!(refusal(read_eval(&files[0]), &files[0]).contains("`worst[0].sequence`"));
}

/// Labels need not tell a role; models of another family are not compared.
#[test]
fn models_of_any_label_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let evaluated = |label: &str, dataset: &str, mean: f64| {
        let path = eval_file(root.path(), label, dataset, mean);
        let losses: Vec<SequenceLoss> =
            (0..50).map(|i| SequenceLoss { sequence: i, loss: mean + (i % 5) as f64, n_tokens: 9 }).collect();
        write_sequences(&path.with_extension("sequences.arrow"), &losses).unwrap();
        read_eval(&path).unwrap()
    };
    let labels = |rows: &[EvalRow]| {
        let (found, notes) = differences(rows);
        assert_eq!(notes, Vec::<String>::new());
        found
            .into_iter()
            .map(|d| format!("{} on {}: {:+.2}", d.label, d.dataset, d.difference.mean))
            .collect::<Vec<_>>()
    };
    let free = [evaluated("runs/a", "x", 3.0), evaluated("runs/b", "x", 3.25), evaluated("runs/b", "y", 1.0)];
    assert_eq!(labels(&free), ["runs/b − runs/a on x: +0.25"]);
    let mixed = [evaluated("gpt2", "x", 3.0), evaluated("LN-free", "x", 3.5)];
    assert_eq!(labels(&mixed), ["LN-free − gpt2 on x: +0.50"]);
    let families = [evaluated("small original", "x", 3.0), evaluated("medium LN-free", "x", 2.5)];
    assert_eq!(labels(&families), Vec::<String>::new());
}
