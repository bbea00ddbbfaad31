//! Configs, token files, arguments and devices that cannot work: one line that names them, before anything is
//! written.

use super::{Place, common, one_line, strs, write_tokens};

/// `train` with one more `--set`, which has to be refused with `words`.
#[track_caller]
pub(super) fn refused(place: &Place, set: &str, words: &[&str]) {
    place.fails(&strs(&place.train("run", &["--set", set])), words);
    assert!(!place.path("run/checkpoints").exists());
}

#[test]
fn a_shape_that_is_not_the_models_and_new_weights_where_there_are_none() {
    let place = Place::new();
    for key in ["n_head", "n_embd", "block_size", "vocab_size"] {
        refused(
            &place,
            &format!("model.{key}=77"),
            &[&format!("has {key} = "), &format!("model.{key} is 77")],
        );
    }
    for key in ["initializer_range", "embedding_range"] {
        refused(&place, &format!("model.{key}=0.1"), &[&format!("model.{key}"), "only pretrain"]);
    }
    place.ok(&strs(&place.train("run", &["--set", "model.n_head=4"])));
}

#[test]
fn values_that_cannot_work() {
    let place = Place::new();
    let cases: [(&str, &[&str]); 30] = [
        ("train.max_steps", &["table.key=value", "train.max_steps"]),
        ("max_steps=3", &["table.key=value", "max_steps=3"]),
        ("train.max_stepz=3", &["--set", "max_stepz", "max_steps"]),
        ("trane.max_steps=3", &["--set", "trane"]),
        ("train.max_steps=\"many\"", &["train.max_steps", "many"]),
        ("train.max_steps=many", &["train.max_steps", "many"]),
        ("train.max_steps=-1", &["train.max_steps", "-1"]),
        ("train.max_steps=1.5", &["train.max_steps", "1.5"]),
        ("train.max_steps=0", &["--set", "train.max_steps", "at least 1"]),
        ("train.batch_size=0", &["train.batch_size", "at least 1"]),
        ("train.gradient_accumulation_steps=0", &["train.gradient_accumulation_steps"]),
        ("train.learning_rate=nan", &["train.learning_rate", "positive"]),
        ("train.learning_rate=-1e-3", &["train.learning_rate", "positive"]),
        ("train.min_lr=1", &["train.min_lr", "train.learning_rate"]),
        ("train.warmup_steps=25", &["train.warmup_steps", "24"]),
        ("train.beta2=1.0", &["train.beta2"]),
        ("train.max_grad_norm=inf", &["train.max_grad_norm"]),
        ("train.weight_decay=-0.1", &["train.weight_decay"]),
        ("train.aux_loss_weight=nan", &["train.aux_loss_weight"]),
        ("train.dropout=1.0", &["train.dropout", "[0, 1)"]),
        ("train.save_every=0", &["train.save_every"]),
        ("train.dtype=\"float8\"", &["train.dtype", "float8", "bfloat16"]),
        ("norm.momentum=1.1", &["norm.momentum", "between 0 and 1"]),
        ("norm.special_axis=\"diagonal\"", &["norm.special_axis", "diagonal"]),
        ("norm.init=\"no-such.json\"", &["no-such.json"]),
        ("schedule.start_bos=24", &["schedule.start_bos", "24", "max_steps"]),
        ("schedule.gap_ln2=12", &["schedule.start_ln2", "step 25"]),
        ("data.block_size=1", &["data.block_size", "at least 2"]),
        ("eval.batch_size=0", &["eval.batch_size"]),
        ("model.eot_token_id=-1", &["model.eot_token_id"]),
    ];
    for (set, words) in cases {
        refused(&place, set, words);
    }
}

#[test]
fn configs_that_are_none() {
    let place = Place::new();
    let train = |config: &'static str| ["train", "--mode", "without_ln", "--out", "run", "--config", config];
    place.fails(&train("gpt3"), &["gpt3", "gpt2_aux", "nano"]);
    place.fails(&train("missing.toml"), &["missing.toml"]);
    place.fails(&train("."), &["."]);
    std::fs::write(place.path("broken.toml"), "[model]\nname = \n").unwrap();
    place.fails(&train("broken.toml"), &["broken.toml", "line 2"]);
    std::fs::write(place.path("bytes.toml"), [0xff, 0xfe, 0x00]).unwrap();
    place.fails(&train("bytes.toml"), &["bytes.toml"]);
    std::fs::write(place.path("empty.toml"), "").unwrap();
    place.fails(&train("empty.toml"), &["empty.toml", "model"]);
    place.fails(&["config", "show", "gpt3"], &["gpt3", "gpt2_aux"]);
    place.fails(&["schedule", "gpt3", "--json"], &["gpt3", "gpt2_aux"]);
    // A model of another depth than the schedule was laid out for.
    refused(&place, "model.n_layer=2", &["tiny-a", "3 blocks", "model.n_layer is 2"]);
}

#[test]
fn token_files_that_do_not_fit() {
    let place = Place::new();
    let data = |set: &str, words: &[&str]| {
        let set = format!("data.train={set}");
        refused(&place, &set, words);
    };
    std::fs::write(place.path("empty.arrow"), "").unwrap();
    data("empty.arrow", &["empty.arrow", "empty"]);
    data("tiny.toml", &["tiny.toml", "neither Arrow nor Parquet"]);
    data("missing.arrow", &["missing.arrow", "nano-train"]);
    let good = place.read("tokens.arrow");
    std::fs::write(place.path("cut.arrow"), &good[..good.len() / 2]).unwrap();
    data("cut.arrow", &["cut.arrow"]);
    refused(&place, "model.eot_token_id=256", &["model.eot_token_id = 256", "256 tokens"]);
    write_tokens(&place.path("short.arrow"), 8, 32, 255);
    data("short.arrow", &["short.arrow", "32", "data.block_size is 64"]);
    // Ids and lengths that the model has no rows for.
    let ids = lnfree::data::write_tokens(
        place.path("ids.arrow"),
        [(0..64).collect(), (200..264).collect::<Vec<u32>>()].into_iter().map(Ok),
        lnfree::data::Layout::Fixed(64),
        1000,
    );
    ids.unwrap();
    data("ids.arrow", &["ids.arrow", "id 256", "256 tokens"]);
    write_tokens(&place.path("long.arrow"), 8, 128, 255);
    let long =
        ["--set", "data.block_size=128", "--set", "data.train=long.arrow", "--set", "data.eval=long.arrow"];
    place.fails(&strs(&place.train("run", &long)), &["128", "64"]);
    // The same for evaluation, and in the middle of a run for the validation data.
    let model = common::vector("tiny-a").display().to_string();
    place.fails(&["eval", "-m", &model, "-d", "ids.arrow"], &["ids.arrow", "id 256"]);
    place.fails(&["eval", "-m", &model, "-d", "long.arrow"], &["128", "64"]);
    place.fails(&["std", "-m", &model, "-d", "long.arrow"], &["128", "64"]);
    place.fails(&strs(&place.train("run", &["--eval-data", "ids.arrow"])), &["ids.arrow", "id 256"]);
    place.fails(&strs(&place.train("run", &["--eval-data", "long.arrow"])), &["long.arrow", "128", "64"]);
    assert!(!place.path("run/checkpoints").exists());
}

#[test]
fn numbers_and_words_on_the_command_line() {
    let place = Place::new();
    let model = common::vector("tiny-a").display().to_string();
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/nano");
    let eval = |more: &[&str]| {
        let all = [&["eval", "-m", &model, "-d", "tokens.arrow"], more].concat();
        all.iter().map(|s| s.to_string()).collect::<Vec<String>>()
    };
    place.fails(&strs(&eval(&["-b", "0"])), &["batch"]);
    place.fails(&strs(&eval(&["-n", "0"])), &["sequences"]);
    place.fails(&strs(&eval(&["-n", "3", "--drop-last"])), &["3 sequences", "full batch"]);
    place.fails(&strs(&eval(&["--json", "no/such/folder/a.json"])), &["a.json", "no folder"]);
    place.fails(&strs(&eval(&["--threads", "0"])), &["threads 0"]);
    place.fails(&strs(&eval(&["--device", "gpu"])), &["gpu", "cuda:N"]);
    place.fails(&["std", "-m", &model, "-d", "tokens.arrow", "-n", "0"], &["sequences"]);
    place.fails(&["std", "-m", &model, "-d", "tokens.arrow", "-b", "0"], &["batch"]);
    place.fails(&["generate", "-m", &model, "-p", "a"], &["tiny-a", "tokenizer"]);
    for temperature in ["nan", "inf", "-1"] {
        let flag = format!("--temperature={temperature}");
        place.fails(&["generate", "-m", nano, &flag], &["temperature"]);
    }
    // What clap refuses: usage errors with code 2.
    for (args, words) in [
        (eval(&["-f", "onnx"]), "noLN_HF_model"),
        (eval(&["-b", "many"]), "many"),
        (eval(&["--dtype", "int8"]), "bfloat16"),
        (vec!["train".into(), "--mode".into(), "sideways".into()], "sideways"),
        (place.train("run", &["--resume", "run"]), "--resume"),
        (vec!["train".into()], "--config"),
        (vec!["fly".into()], "fly"),
    ] {
        let ended = place.lnfree(&strs(&args));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(words), "{words}: {ended:?}");
    }
}

#[test]
fn cuda_where_there_is_none() {
    if !lnfree::tch::Cuda::is_available() {
        let place = Place::new();
        let args = place.train("run", &[]).join(" ").replace("--device cpu", "--device cuda");
        place.fails(&args.split(' ').collect::<Vec<_>>(), &["device cuda"]);
    }
}

#[test]
fn a_loss_that_is_not_a_number_stops_the_run() {
    let place = Place::new();
    let more = ["--set", "train.save_every=1", "--set", "train.warmup_steps=10", "--set"];
    let diverging = |lr| place.train("run", &[&more[..], &[lr]].concat());
    let ended = place.lnfree(&strs(&diverging("train.learning_rate=1e30")));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    one_line(&ended, &["step ", "the loss is "]);
    // The weights that made it so are in the newest checkpoint: that one is not called good.
    let step: usize =
        ended.stderr.lines().last().unwrap().split(['p', ':']).nth(2).unwrap().trim().parse().unwrap();
    let newest = format!("run/checkpoints/step-{}", step - 1);
    assert!(place.path(&newest).is_dir() && !ended.stderr.contains(&newest), "{ended:?}");
    let before = format!("run/checkpoints/step-{}", step - 2);
    if place.path(&before).is_dir() {
        assert!(ended.stderr.contains(&before), "{ended:?}");
    }
    for line in place.text("run/metrics.jsonl").lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["loss"].is_f64() || line["event"] == "remove", "{line}");
    }
}

#[test]
fn a_last_update_that_ruins_the_model_is_found_by_the_evaluation() {
    let place = Place::new();
    let text = place.text("tiny.toml");
    let (before, after) = (text.split("[schedule]").next().unwrap(), text.split("[norm]").nth(1).unwrap());
    std::fs::write(place.path("tiny.toml"), format!("{before}[norm]{after}")).unwrap();
    let more =
        ["train.max_steps=2", "train.warmup_steps=0", "train.learning_rate=1e38", "train.save_every=1"];
    let sets: Vec<&str> = more.iter().flat_map(|set| ["--set", set]).collect();
    let ended = place.lnfree(&strs(&place.train("run", &sets)));
    assert_eq!(ended.code, Some(3), "{ended:?}");
    one_line(&ended, &["the loss is "]);
    assert!(!place.text("run/metrics.jsonl").contains("null"));
}

#[test]
fn a_std_file_that_does_not_fit() {
    let place = Place::new();
    let std = |text: &str, words: &[&str]| {
        std::fs::write(place.path("std.json"), text).unwrap();
        refused(&place, "norm.init=std.json", words);
    };
    std("{}", &["std.json"]);
    std("not JSON", &["std.json"]);
    let good = std::fs::read_to_string(common::vector("tiny-a_std_dict.json")).unwrap();
    std(&good.replacen("blocks.1.", "blocks.9.", 1), &["std.json", "blocks.1.hook_resid"]);
    let mut zero: serde_json::Value = serde_json::from_str(&good).unwrap();
    zero["std_dict"]["blocks.1.hook_resid_mid"] = 0.into();
    std(&zero.to_string(), &["std.json", "blocks.1.hook_resid_mid", "not a positive number"]);
}

#[test]
fn memory_that_is_not_there() {
    let place = Place::new();
    // A batch that is too large is parted (tests/out_of_memory.rs); a model that is too large is not.
    let config = super::config("wide".as_ref())
        .replace("n_layer = 3", "n_layer = 3\nn_head = 2\nn_embd = 8192\nblock_size = 64\nvocab_size = 4096");
    std::fs::write(place.path("wide.toml"), config).unwrap();
    let nano = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/nano");
    let args = ["pretrain", "--config", "wide.toml", "--tokenizer", nano, "--device", "cpu", "--out", "run"]
        .map(String::from);
    // Address space for libtorch and little more, so that nothing is really taken.
    let program =
        format!("ulimit -v 3000000 && exec '{}' \"$@\"", assert_cmd::cargo::cargo_bin!("lnfree").display());
    let limited = |args: &[String]| {
        super::ended(place.wrapped("sh", &["-c", &program, "lnfree"], &strs(args)).output().unwrap())
    };
    // A libtorch with CUDA may need more address space than that to begin with.
    if limited(&place.train("probe", &[])).code != Some(0) {
        println!("SKIPPED: libtorch does not run in 3 GB of address space here");
        return;
    }
    let ended = limited(&args);
    assert_eq!(ended.code, Some(101), "{ended:?}");
    one_line(&ended, &["can't allocate memory", "needs less memory"]);
    assert!(!ended.stderr.contains("frame #"), "{ended:?}");
}

#[test]
fn schedules_that_cannot_be_are_refused() {
    let place = Place::new();
    refused(&place, "schedule.order=[0, 1]", &["schedule.order", "from 0 to 2 once"]);
    refused(&place, "schedule.order=[0, 1, 1]", &["schedule.order", "from 0 to 2 once"]);
    refused(&place, "schedule.taper_steps=2", &["schedule.start_ln2", "schedule.taper_steps = 2"]);
    refused(&place, "schedule.taper_steps=1000000", &["schedule.taper_steps", "train.max_steps"]);
    refused(&place, "norm.average=\"median\"", &["norm.average", "least_squares"]);
}
