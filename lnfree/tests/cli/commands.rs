//! What the subcommands write and print, in the shapes that others rely on.

use lnfree::config::{Config, PRESETS};
use serde_json::Value;

use super::{Place, common, one_line, strs};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn configs_and_schedules() {
    let place = Place::new();
    let list = place.ok(&["config", "list"]);
    for preset in PRESETS {
        assert!(list.lines().any(|line| line.split(' ').next() == Some(preset.name)), "{list}");
        let shown = place.ok(&["config", "show", preset.name]);
        let config = Config::load(preset.name, &[]).unwrap();
        assert_eq!(Config::parse(&shown, "shown", &[]).unwrap(), config, "{}", preset.name);
        let json = parse(&place.ok(&["config", "show", preset.name, "--json"]));
        let mut tables: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        tables.sort();
        let all = ["adaptive", "data", "distill", "eval", "lora", "model", "norm", "schedule", "train"];
        assert_eq!(tables, all);
        place.ok(&["schedule", preset.name]);
    }
    let changed =
        place.ok(&["config", "show", "tiny.toml", "--set", "train.seed=3", "--set", "data.train=a b"]);
    let changed = Config::parse(&changed, "shown", &[]).unwrap();
    assert_eq!((changed.train.seed, changed.data.train.as_str()), (3, "a b"));
    let more = ["--json", "--set", "model.n_layer=1", "--set", "schedule.start_eot=17"];
    let schedule = place.ok(&[&["schedule", "tiny.toml"], &more[..]].concat());
    let expected = r#"[{"step":1,"kind":"ln2","layer":0},{"step":7,"kind":"ln1qk","layer":0},{"step":10,"kind":"ln1v","layer":0},{"step":16,"kind":"lnf","layer":null},{"step":17,"kind":"eot","layer":0},{"step":21,"kind":"bos","layer":0}]"#;
    assert_eq!(schedule.trim(), expected);
}

#[test]
fn what_training_leaves_behind() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "train.seed=11"])));
    let written = Config::load(&place.path("run/config.toml").display().to_string(), &[]).unwrap();
    // As the program read it, from the folder that it was called in.
    let given = Config::parse(&place.text("tiny.toml"), "tiny.toml", &["train.seed=11".into()]).unwrap();
    assert_eq!(written, given);
    let run = parse(&place.text("run/run.json"));
    assert_eq!(run["mode"], "without_ln");
    assert!(run["model"].as_str().unwrap().ends_with("tiny-a") && run["device"].is_string());
    let (mut steps, mut removals, mut evals) = (0, Vec::new(), Vec::new());
    for line in place.text("run/metrics.jsonl").lines().map(parse) {
        match line["event"].as_str() {
            Some("remove") => removals.push(line),
            Some("eval") => evals.push((line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())),
            Some(other) => panic!("{other}"),
            None => {
                assert_eq!(line["step"], steps);
                for key in ["loss", "ce_loss", "aux_loss", "grad_norm", "tokens_per_s"] {
                    assert!(line[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {line}");
                }
                assert_eq!(line["tokens"], 128);
                let lr = given.lr_schedule().at(steps);
                assert_eq!(line["lr"].as_f64(), Some(lr));
                let sum = line["ce_loss"].as_f64().unwrap() + line["aux_loss"].as_f64().unwrap();
                common::close(line["loss"].as_f64().unwrap(), sum, 1e-6, "loss");
                assert_eq!(line["stds"].as_object().unwrap().len(), 7);
                steps += 1;
            }
        }
    }
    assert_eq!(steps, 24);
    assert_eq!(evals.iter().map(|e| e.0).collect::<Vec<_>>(), [5, 11, 17, 23]);
    // The events are the schedule.
    for removal in &mut removals {
        assert_eq!(removal.as_object_mut().unwrap().remove("event").unwrap(), "remove");
    }
    assert_eq!(Value::from(removals), parse(&place.ok(&["schedule", "run/config.toml", "--json"])));
    let names = |folder: &str| {
        let entries = std::fs::read_dir(place.path(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names("run/checkpoints"), ["latest", "step-20", "step-24"]);
    assert_eq!(
        names("run/checkpoints/latest"),
        ["SHA256SUMS", "config.json", "model.safetensors", "optimizer.safetensors", "trainer.json"]
    );
    assert!(names("run").iter().any(|name| name.contains("tfevents")));
    // The last evaluation is what `eval` finds in the checkpoint.
    let eval = ["eval", "-m", "run/checkpoints/latest", "-d", "tokens.arrow", "-n", "8", "--json", "e.json"];
    place.ok(&eval);
    let found = parse(&place.text("e.json"));
    common::close(found["mean"].as_f64().unwrap(), evals[3].1, 1e-6, "mean");
    place.ok(&["report", "run", "--eval", "e.json", "--out", "page.html"]);
    assert!(place.text("page.html").contains("</html>"));
}

#[test]
fn measured_stds_are_a_start() {
    let place = Place::new();
    let model = common::vector("tiny-a").display().to_string();
    // The same sequences as `measure` takes by itself, so the run is the same.
    let args = [
        "std",
        "-m",
        &model,
        "-d",
        "tokens.arrow",
        "-n",
        "64",
        "-b",
        "4",
        "--out",
        "std.json",
        "--device",
        "cpu",
    ];
    place.ok(&args);
    place.ok(&strs(&place.train("measured", &[])));
    place.ok(&strs(&place.train("from-file", &["--set", "norm.init=std.json"])));
    let weights = |run: &str| place.read(&format!("{run}/checkpoints/latest/model.safetensors"));
    assert!(weights("measured") == weights("from-file"));
}

/// Evaluates in the given format as the paper's code did; the record and the losses.
fn evaluated(place: &Place, model: &str, format: &str, more: &[&str]) -> (Value, Vec<f32>) {
    let args = ["eval", "-m", model, "-f", format, "-d", "eval.arrow", "--device", "cpu"];
    let out = ["--json", "e.json", "--losses", "losses.arrow"];
    place.ok(&[&args[..], &out, more].concat());
    let file = std::fs::File::open(place.path("losses.arrow")).unwrap();
    let mut losses = Vec::new();
    for batch in arrow::ipc::reader::FileReader::try_new(file, None).unwrap() {
        let batch = batch.unwrap();
        let column = batch.column_by_name("loss").unwrap();
        losses.extend_from_slice(
            column.as_any().downcast_ref::<arrow::array::Float32Array>().unwrap().values(),
        );
    }
    (parse(&place.text("e.json")), losses)
}

#[test]
fn evaluation_in_all_formats() {
    let place = Place::new();
    let expected = common::json("eval.json");
    let (_, tokens) = common::tensors("eval_tokens.safetensors").into_iter().next().unwrap();
    common::token_file(&place.path("eval.arrow"), &tokens);
    let path = |name: &str| common::vector(name).display().to_string();
    for (name, model, format) in [
        ("tiny", path("tiny-a"), "transformers"),
        ("fakeln_step60", path("checkpoint/step60"), "checkpoint"),
        ("exported_hf", path("exported_noln"), "scaled"),
    ] {
        let (record, losses) = evaluated(&place, &model, format, &["-b", "4", "--drop-last"]);
        let wanted = &expected["models"][name];
        assert!(wanted.is_object(), "{name} is not in eval.json");
        assert_eq!((record["n_sequences"].as_u64(), losses.len()), (Some(20), 1260));
        for key in ["mean", "median"] {
            common::close(record[key].as_f64().unwrap(), wanted[key].as_f64().unwrap(), 2e-6, name);
        }
        let mean = losses.iter().map(|&x| f64::from(x)).sum::<f64>() / losses.len() as f64;
        common::close(mean, record["mean"].as_f64().unwrap(), 1e-9, name);
        let keys =
            ["label", "model", "format", "dataset", "n_sequences", "n_tokens", "mean", "median", "ranges"];
        assert!(keys.iter().all(|key| record.get(key).is_some()), "{record}");
        assert!(record["format"] == format && record["model"] == model.as_str(), "{record}");
        // Without --drop-last the last two sequences count too.
        let (record, losses) = evaluated(&place, &model, format, &["-b", "4", "--label", "mine"]);
        assert_eq!((record["n_sequences"].as_u64(), losses.len()), (Some(22), 22 * 63));
        assert_eq!(record["label"], "mine");
    }
    // Every export of the last checkpoint evaluates to what the checkpoint does; the paper's names do too.
    let model = path("checkpoint/step60");
    let (_, before) = evaluated(&place, &model, "fakeln_checkpoint", &[]);
    for (format, stored) in [("identity", "identity"), ("scaled", "noLN_HF_model"), ("folded", "folded")] {
        let stdout = place.ok(&["export", &model, "--format", format, "--out", format, "--device", "cpu"]);
        assert!(stdout.contains("relative RMS"), "{stdout}");
        let (_, after) = evaluated(&place, format, stored, &[]);
        let largest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(before.len() == after.len() && largest < 1e-4, "{format}: {largest}");
        for file in ["config.json", "generation_config.json", "README.md", "model.safetensors"] {
            assert!(place.path(&format!("{format}/{file}")).is_file(), "{format}/{file}");
        }
        // Again over the same export.
        place.ok(&["export", &model, "--format", format, "--out", format, "--device", "cpu"]);
    }
}

#[test]
fn data_is_prepared_and_described() {
    let place = Place::new();
    let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/nano");
    std::fs::write(place.path("text.txt"), "Fellow citizens of the Senate. ".repeat(400)).unwrap();
    let prepare = ["data", "prepare", "text.txt", "--tokenizer", tokenizer, "--block-size", "32"];
    let made = place.ok(&[&prepare[..], &["--out", "text.arrow"]].concat());
    assert!(made.starts_with("text.arrow: 1 documents"), "{made}");
    let info = place.ok(&["data", "info", "text.arrow", "--tokenizer", tokenizer]);
    assert!(info.contains("Fellow citizens"), "{info}");
    // A JSON that is not ours is not replaced, the source least of all.
    std::fs::copy(place.path("text.txt"), place.path("mine.json")).unwrap();
    for source in ["text.txt", "mine.json", "nano-addresses"] {
        let args = ["data", "prepare", source, "--tokenizer", tokenizer, "--out", "mine.arrow"];
        place.fails(&args, &["mine.json", "choose another place"]);
    }
    assert_eq!(place.text("mine.json"), place.text("text.txt"));
    assert!(!place.path("mine.arrow").exists());
    // What it was made of is known, the tokenizer too.
    for words in ["text.txt", "all documents as one stream", tokenizer, "made of      1 documents"] {
        assert!(info.contains(words), "{words}: {info}");
    }
    assert!(place.ok(&["data", "info", "text.arrow"]).contains("Fellow citizens"));
    place.fails(&["data", "info", "missing.arrow", "--tokenizer", tokenizer], &["missing.arrow"]);
    place.fails(&["data", "info", "text.arrow", "--tokenizer", "nowhere"], &["nowhere"]);
    place.fails(&["data", "prepare", "missing.txt", "--out", "x.arrow"], &["missing.txt"]);
    place.fails(&[&prepare[..], &["--out", "text.txt/x.arrow"]].concat(), &["text.txt"]);
}

#[test]
fn help_of_everything() {
    let place = Place::new();
    let top = place.ok(&["--help"]);
    let commands = [
        "config", "schedule", "train", "pretrain", "std", "eval", "export", "inspect", "generate", "data",
        "report", "doctor", "push", "bench",
    ];
    for command in commands {
        assert!(top.contains(command), "{command}");
        assert!(place.ok(&[command, "--help"]).contains("Usage: lnfree"), "{command}");
    }
    for pair in [["config", "list"], ["config", "show"], ["data", "prepare"], ["data", "info"]] {
        assert!(place.ok(&[pair[0], pair[1], "--help"]).contains("Usage: lnfree"));
    }
    assert!(place.ok(&["--version"]).starts_with("lnfree "));
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let place = Place::new();
    for args in [["schedule", "gpt2-xl_aux"], ["config", "list"]] {
        let mut child = place
            .command(&args)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ended = super::ended(child.wait_with_output().unwrap());
        assert_eq!((ended.code.unwrap_or(0), ended.stderr.as_str()), (0, ""), "{args:?}");
    }
    // A page or a table that cannot be written anywhere is an error of one line all the same.
    place.ok(&strs(&place.train("run", &[])));
    let ended = place.lnfree(&["report", "run", "--out", "tokens.arrow/page.html"]);
    one_line(&ended, &["tokens.arrow"]);
}
