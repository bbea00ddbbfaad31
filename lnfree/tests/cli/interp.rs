//! `interp` and `interp-all`: what they find, write and refuse, and that nothing is computed twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::SystemTime;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Float64Type, Metadata, UInt32Type};
use arrow::ipc::reader::FileReader;
use lnfree::data::Tokenizer;
use lnfree::eval::locate_model;
use lnfree::hook::NoHook;
use lnfree::hub::locate_tokenizer;
use lnfree::model::{Compute, LoadedModel};
use lnfree::tch::{Device, Kind, Tensor};
use serde_json::{Value, json};

use super::{Ended, Place, common, ended, one_line};

const PROMPT: &str = "My fellow citizens, the Constitution of the United";

fn findings(place: &Place, file: &str) -> Vec<Value> {
    serde_json::from_str(&place.text(file)).unwrap()
}

/// `interp` on one thread of the CPU.
fn interp<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["interp"][..], args, &["--device", "cpu"]].concat()
}

/// `interp-all` of the embedded models into `out`; the texts are tokenized once for all tests.
fn interp_all(place: &Place, args: &[&str]) -> Ended {
    let begin = ["interp-all", "--suite", "nano", "--out", "out", "--device", "cpu"];
    let mut command = place.command(&[&begin[..], args].concat());
    command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("suite-cache"));
    ended(command.output().unwrap())
}

/// The next token's logit, by a forward without anything else.
fn logit(prompt: &str, answer: &str) -> f64 {
    let loaded =
        LoadedModel::load(&locate_model("nano_LNFree200").unwrap(), None, Kind::Float, Device::Cpu).unwrap();
    let tokenizer = Tokenizer::from_dir(locate_tokenizer("nano").unwrap()).unwrap();
    let ids: Vec<i64> = tokenizer.encode(prompt).unwrap().into_iter().map(i64::from).collect();
    let answer = i64::from(tokenizer.encode(answer).unwrap()[0]);
    let ids = Tensor::from_slice(&ids).view([1, -1]);
    let logits = loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut NoHook).unwrap();
    logits.double_value(&[0, ids.size()[1] - 1, answer])
}

#[test]
fn heads_of_models_side_by_side() {
    let place = Place::new();
    let small = ["-n", "4", "--period", "12", "--json", "heads.json", "--html", "heads.html"];
    let models = ["heads", "-m", "original=nano", "-m", "nano_LNFree200"];
    let said = place.ok(&interp(&[&models[..], &small[..]].concat()));
    assert!(said.contains("4 sequences of 12 random tokens said twice, seed 0"), "{said}");
    let found = findings(&place, "heads.json");
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["label"], &found[0]["model"]), (&"original".into(), &"nano".into()));
    assert_eq!(found[1]["label"], "nano_LNFree200");
    for one in &found {
        let maps = one["maps"].as_array().unwrap();
        assert!(!maps.is_empty(), "{one}");
        for map in maps {
            let rows = map["values"].as_array().unwrap();
            assert_eq!(rows.len(), 6, "{map}");
            assert!(rows.iter().all(|row| row.as_array().unwrap().len() == 4), "{map}");
        }
        let name = maps[0]["name"].as_str().unwrap();
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(place.text("heads.html").contains("</html>"));
}

#[test]
fn what_is_not_said_of_a_sample_is_what_models_and_data_have() {
    let place = Place::new();
    place.ok(&interp(&["sinks", "-m", "nano", "-d", "tokens.arrow", "--json", "a.json"]));
    let request = &findings(&place, "a.json")[0]["request"];
    assert_eq!((&request["sequences"], &request["positions"]), (&40.into(), &64.into()), "{request}");
    let said =
        ["sinks", "-m", "nano", "-d", "tokens.arrow", "-n", "3", "--positions", "9", "--json", "b.json"];
    place.ok(&interp(&said));
    let request = &findings(&place, "b.json")[0]["request"];
    assert_eq!((&request["sequences"], &request["positions"]), (&3.into(), &9.into()), "{request}");
}

#[test]
fn an_attribution_sums_to_the_logit() {
    let place = Place::new();
    let asked = ["attribution", "-m", "nano_LNFree200", "--tokenizer", "nano", "-p", PROMPT];
    place.ok(&interp(&[&asked[..], &["--answer", " States", "--json", "a.json"]].concat()));
    let found = findings(&place, "a.json").remove(0);
    let rankings = found["rankings"].as_array().unwrap();
    let ranking = rankings.iter().find(|ranking| ranking["total"].is_number()).unwrap();
    let values = ranking["rows"].as_array().unwrap().iter().map(|row| row[1][0].as_f64().unwrap());
    let total = ranking["total"].as_f64().unwrap();
    common::close(values.sum::<f64>(), total, 1e-3, "the sum of the rows");
    common::close(total, logit(PROMPT, " States"), 1e-3, "the logit");
}

/// The rows of a table, each as an object of its columns, and the metadata of its schema.
fn table(place: &Place, file: &str) -> (Vec<Value>, Metadata) {
    let reader = FileReader::try_new(File::open(place.path(file)).unwrap(), None).unwrap();
    let metadata = reader.schema().metadata().clone();
    let cell = |column: &ArrayRef, i: usize| -> Value {
        match column.data_type() {
            _ if column.is_null(i) => Value::Null,
            DataType::Utf8 => column.as_string::<i32>().value(i).into(),
            DataType::UInt32 => column.as_primitive::<UInt32Type>().value(i).into(),
            DataType::Float64 => column.as_primitive::<Float64Type>().value(i).into(),
            other => panic!("a column of {other}"),
        }
    };
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let schema = batch.schema();
        let names = || schema.fields().iter().map(|field| field.name().clone());
        for i in 0..batch.num_rows() {
            let cells = names().zip(batch.columns()).map(|(name, column)| (name, cell(column, i)));
            rows.push(Value::Object(cells.collect()));
        }
    }
    (rows, metadata)
}

/// The rows that a table has of one model's findings in JSON.
fn long_form(found: &Value) -> Vec<Value> {
    let list = |key: &str| found[key].as_array().cloned().unwrap_or_default();
    let values = |values: &Value| values.as_array().unwrap().clone();
    let none = || [Value::Null, Value::Null, Value::Null];
    let place = |axis: &Value, label: &Value, i: usize| [axis.clone(), label.clone(), i.into()];
    let entry = |kind: &str, of: &Value, row: [Value; 3], column: [Value; 3], value: &Value| {
        let ([row_axis, row, row_index], [column_axis, column, column_index]) = (row, column);
        json!({
            "analysis": found["request"]["analysis"], "model": found["label"],
            "kind": kind, "name": of["name"], "unit": of["unit"].as_str().unwrap_or(""),
            "row_axis": row_axis, "row": row, "row_index": row_index,
            "column_axis": column_axis, "column": column, "column_index": column_index,
            "value": value, "low": of["interval"][0], "high": of["interval"][1],
        })
    };
    let mut rows = Vec::new();
    rows.extend(list("numbers").iter().map(|of| entry("number", of, none(), none(), &of["value"])));
    for of in list("maps") {
        for (i, row) in values(&of["values"]).iter().enumerate() {
            for (j, value) in values(row).iter().enumerate() {
                let [down, across] = [("rows", i), ("columns", j)]
                    .map(|(axis, at)| place(&of[axis]["title"], &of[axis]["labels"][at], at));
                rows.push(entry("map", &of, down, across, value));
            }
        }
    }
    for of in list("curves") {
        for (i, value) in values(&of["values"]).iter().enumerate() {
            let at = place(&of["at"]["title"], &of["at"]["labels"][i], i);
            rows.push(entry("curve", &of, at, none(), value));
        }
    }
    for of in list("rankings") {
        for (i, row) in values(&of["rows"]).iter().enumerate() {
            for (j, value) in values(&row[1]).iter().enumerate() {
                let column = place(&"column".into(), &of["columns"][j], j);
                rows.push(entry("ranking", &of, place(&of["what"], &row[0], i), column, value));
            }
        }
        if of["total"].is_number() {
            rows.push(entry("total", &of, none(), none(), &of["total"]));
        }
    }
    for of in list("texts") {
        for (i, value) in values(&of["values"]).iter().enumerate() {
            rows.push(entry("text", &of, place(&"token".into(), &of["tokens"][i], i), none(), value));
        }
    }
    rows
}

#[test]
fn a_table_has_every_number_of_the_json_in_a_row() {
    let place = Place::new();
    let both = ["-m", "original=nano", "-m", "nano_LNFree200", "--json", "a.json", "--arrow", "a.arrow"];
    let attribution = ["attribution", "-p", PROMPT, "--tokenizer", "nano"];
    let sinks = ["sinks", "-d", "tokens.arrow", "-n", "3", "--positions", "9"];
    let mut kinds = BTreeSet::new();
    for asked in [&attribution[..], &sinks[..]] {
        place.ok(&interp(&[asked, &both[..]].concat()));
        let found = findings(&place, "a.json");
        let (rows, metadata) = table(&place, "a.arrow");
        let expected: Vec<Value> = found.iter().flat_map(long_form).collect();
        assert_eq!(rows.len(), expected.len(), "{asked:?}");
        for (row, expected) in rows.iter().zip(&expected) {
            assert_eq!(row, expected);
        }
        kinds.extend(rows.iter().map(|row| row["kind"].as_str().unwrap().to_string()));
        // What is in no row is said of the whole table.
        assert_eq!(metadata["lnfree"], env!("CARGO_PKG_VERSION"));
        assert_eq!(metadata["analysis"], asked[0]);
        let models: Vec<Value> = serde_json::from_str(&metadata["models"]).unwrap();
        for (model, found) in models.iter().zip(&found) {
            for key in ["request", "label", "model", "original", "seconds", "notes"] {
                assert_eq!(model[key], found[key], "{key}");
            }
        }
        assert_eq!(models.len(), 2);
        let with_interval = rows.iter().filter(|row| row["low"].is_number()).count();
        assert_eq!(with_interval > 0, asked[0] == "sinks", "{asked:?}");
    }
    assert_eq!(Vec::from_iter(kinds), ["curve", "map", "number", "ranking", "text", "total"]);
}

#[test]
fn what_cannot_be_is_refused_in_one_line() {
    let place = Place::new();
    let heads = |more: &[&'static str]| interp(&[&["heads", "-n", "2", "--period", "5"][..], more].concat());
    place.fails(&heads(&["-m", "nowhere"]), &["nowhere"]);
    place.fails(&heads(&["-m", "a=nano", "-m", "a=nano_LNFree200"]), &["nano_LNFree200", "called a"]);
    place.fails(&heads(&["-m", "=nano"]), &["LABEL=MODEL"]);
    place.fails(&heads(&["-m", "nano", "--json", "no/a.json"]), &["--json no/a.json"]);
    place.fails(&heads(&["-m", "nano", "--json", "a", "--html", "a"]), &["--html", "--json"]);
    place.fails(&heads(&["-m", "nano", "--arrow", "no/a.arrow"]), &["--arrow no/a.arrow"]);
    place.fails(&heads(&["-m", "nano", "--arrow", "a", "--json", "a"]), &["--arrow", "--json"]);
    let over = ["sinks", "-m", "nano", "-d", "tokens.arrow", "--arrow", "tokens.arrow"];
    place.fails(&interp(&over), &["--arrow", "--data"]);
    let sinks = ["sinks", "-m", "nano", "-d", "tokens.arrow", "--positions", "65"];
    place.fails(&interp(&sinks), &["65 positions", "64"]);
    let prompt = ["attribution", "-m", "nano", "-p", PROMPT, "--answer"];
    place.fails(&interp(&[&prompt[..], &[" States of America"]].concat()), &["States of America"]);
    // A folder without a tokenizer.
    let bare = common::vector("tiny-a");
    let bare = ["attribution", "-m", bare.to_str().unwrap(), "-p", PROMPT];
    place.fails(&interp(&bare), &["--tokenizer"]);
    // Names are no single tokens of nano's: what a user can do, not what a program can.
    let names = interp(&["patching", "-m", "nano", "--ioi"]);
    let ended = place.fails(&names, &["--ioi", "--repeated", "--clean"]);
    assert!(!ended.stderr.contains("Words"), "{ended:?}");
}

#[test]
fn options_that_do_not_go_together_are_no_command() {
    let place = Place::new();
    let texts = ["--clean", "a b", "--corrupted", "a c", "--answers"];
    for more in [
        vec!["--clean", "a b"],
        vec!["--clean", "a b", "--answers", " a, b"],
        vec!["--corrupted", "a c"],
        vec!["--ioi", "--repeated"],
        vec!["--ioi", "--period", "3"],
        [&texts[..], &[" a"]].concat(),
        [&texts[..], &[" a, b", "--ioi"]].concat(),
        [&texts[..], &[" a, b", "-n", "3"]].concat(),
    ] {
        let ended = place.lnfree(&interp(&[&["patching", "-m", "nano"][..], &more[..]].concat()));
        assert_eq!(ended.code, Some(2), "{more:?}: {ended:?}");
    }
    // Nothing is taken that would be dropped.
    let against = place.lnfree(&interp(&["sinks", "-m", "nano", "-d", "tokens.arrow", "--against", "nano"]));
    assert_eq!(against.code, Some(2), "{against:?}");
}

#[test]
fn a_model_that_fails_costs_no_other() {
    let place = Place::new();
    let small = ["-n", "2", "--period", "5", "--json", "heads.json"];
    let ended = place.lnfree(&interp(&[&["heads", "-m", "nowhere", "-m", "nano"][..], &small[..]].concat()));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("error: nowhere: "), "{ended:?}");
    assert!(ended.stderr.ends_with("lnfree: 1 of 2 models failed, see above\n"), "{ended:?}");
    let found = findings(&place, "heads.json");
    assert_eq!((found.len(), &found[0]["label"]), (1, &"nano".into()));
}

#[test]
fn a_study_computes_nothing_twice_and_again_what_was_asked_otherwise() {
    let place = Place::new();
    let chosen = ["--models", "original", "--analyses", "heads,sinks"];
    let files = ["out/original--heads.json", "out/original--sinks.json"];
    let times = || files.map(|file| std::fs::metadata(place.path(file)).unwrap().modified().unwrap());
    let plan = interp_all(&place, &[&chosen[..], &["--dry-run"]].concat());
    assert!(plan.code == Some(0) && plan.stdout.contains("2 to do, 0 finished"), "{plan:?}");
    assert!(!place.path("out").exists());

    let first = interp_all(&place, &chosen);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(
        first.stderr.contains("original: heads (") && first.stderr.contains("original: sinks ("),
        "{first:?}"
    );
    let results: Value = serde_json::from_str(&place.text("out/results.json")).unwrap();
    assert_eq!(results["findings"].as_array().unwrap().len(), 2);
    assert!(place.text("out/results.html").contains("</html>"));
    assert!(place.text("out/results.md").contains("\n## Attention to position 0\n"));
    let written: [SystemTime; 2] = times();

    let again = interp_all(&place, &chosen);
    assert_eq!((again.code, again.stderr.as_str()), (Some(0), ""), "{again:?}");
    assert!(again.stdout.contains("0 to do, 2 finished"), "{again:?}");
    assert_eq!(times(), written);

    // Of another seed, as an earlier version might have asked.
    let mut other: Value = serde_json::from_str(&place.text(files[0])).unwrap();
    other["request"]["seed"] = 7.into();
    std::fs::write(place.path(files[0]), other.to_string()).unwrap();
    let third = interp_all(&place, &chosen);
    assert!(third.code == Some(0) && third.stdout.contains("1 to do, 1 finished"), "{third:?}");
    let made: Value = serde_json::from_str(&place.text(files[0])).unwrap();
    assert_eq!(made["request"]["seed"], 0);
    assert_eq!(times()[1], written[1]);
}

#[test]
fn a_study_says_what_is_not_as_recorded() {
    let place = Place::new();
    let (chosen, file) = (["--models", "original", "--analyses", "sinks"], "out/original--sinks.json");
    let verdicts = || -> Vec<String> {
        let results: Value = serde_json::from_str(&place.text("out/results.json")).unwrap();
        let rows = results["comparisons"].as_array().unwrap().iter();
        rows.map(|row| row["verdict"].as_str().unwrap().to_string()).collect()
    };
    let first = interp_all(&place, &chosen);
    let all = "beside our record (tolerance 0.1%): 3 as recorded\n";
    assert!(first.code == Some(0) && first.stdout.contains(all), "run the example interp_record: {first:?}");
    assert_eq!(verdicts(), ["as recorded"; 3]);

    let mut other: Value = serde_json::from_str(&place.text(file)).unwrap();
    let rate = other["numbers"][0]["value"].as_f64().unwrap();
    other["numbers"][0]["value"] = (1.01 * rate).into();
    std::fs::write(place.path(file), other.to_string()).unwrap();
    let second = interp_all(&place, &chosen);
    let one = "beside our record (tolerance 0.1%): 2 as recorded, 1 not as recorded\n";
    assert!(second.code == Some(0) && second.stdout.contains(one), "{second:?}");
    assert_eq!(verdicts(), ["not as recorded", "as recorded", "as recorded"]);
    assert!(place.text("out/results.md").contains("| **not as recorded** |\n"));

    // Where a folder is, no result can be written.
    std::fs::remove_file(place.path(file)).unwrap();
    std::fs::create_dir(place.path(file)).unwrap();
    let third = interp_all(&place, &chosen);
    assert!(third.code == Some(1) && third.stdout.contains(": 3 not comparable\n"), "{third:?}");
    assert_eq!(verdicts(), ["not comparable"; 3]);
}

#[test]
fn a_study_refuses_what_it_does_not_know() {
    let place = Place::new();
    for (args, words) in [
        (["--models", "huge"], ["model huge", "original, vanilla, LN-free"]),
        (["--analyses", "feelings"], ["analysis feelings", "heads"]),
        (["--only-model", "huge"], ["--only-model huge", "not in the suite"]),
    ] {
        let ended = interp_all(&place, &args);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        one_line(&ended, &words);
    }
    place.fails(&["interp-all", "--suite", "mega"], &["suite mega", "nano"]);
    assert!(!place.path("out").exists());
}
