//! Checkpoints of other versions of the format, and steps that are kept.

use serde_json::Value;

use super::{Place, common, strs};

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        match entry.path().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// A checkpoint of step 5 from before checkpoints had a format version goes on as the program that wrote it
/// did.
#[test]
fn a_checkpoint_of_the_first_format_goes_on() {
    let place = Place::new();
    copy_folder(&common::vector("checkpoint_format_1"), &place.path("."));
    let lines = || -> Vec<Value> {
        place.text("run/metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let expected = lines();
    place.ok(&["train", "--device", "cpu", "--resume", "run"]);
    let found = lines();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in ["event", "step", "kind", "layer", "tokens"] {
            assert_eq!(found[key], expected[key], "{expected}");
        }
        for key in ["loss", "ce_loss", "lr", "grad_norm"] {
            if let Some(number) = expected[key].as_f64() {
                common::close(found[key].as_f64().unwrap(), number, 1e-3, &format!("{key} of {expected}"));
            }
        }
    }
    let state: Value = serde_json::from_str(&place.text("run/checkpoints/latest/trainer.json")).unwrap();
    assert_eq!((&state["format"], &state["step"]), (&1.into(), &10.into()));
}

#[test]
fn a_newer_format_is_refused_in_one_line() {
    let place = Place::new();
    copy_folder(&common::vector("checkpoint_format_1"), &place.path("."));
    let file = place.path("run/checkpoints/step-5/trainer.json");
    let old = std::fs::read_to_string(&file).unwrap();
    let resume = ["train", "--device", "cpu", "--resume", "run"];
    let write = |text: String| {
        std::fs::write(&file, text).unwrap();
        lnfree::atomic::write_checksums(file.parent().unwrap()).unwrap();
    };
    // Keys that this version does not know come with it.
    let newer =
        old.replacen("{", "{\n  \"format\": 7, \"quantum\": {},", 1).replace("\"0.1.0\"", "\"9.8.7\"");
    write(newer.replace("\"mode\"", "\"way\""));
    let words =
        ["step-5/trainer.json", "format 7", "lnfree 9.8.7", "format 1 to 1", env!("CARGO_PKG_VERSION")];
    place.fails(&resume, &words);
    place.fails(&["eval", "-m", "run", "-d", "tokens.arrow", "-n", "1", "--device", "cpu"], &words);
    for none in ["0", "-1", "1.5", "\"2\""] {
        write(old.replacen("{", &format!("{{ \"format\": {none},"), 1));
        place.fails(&resume, &["step-5/trainer.json"]);
    }
    write(old);
    place.ok(&resume);
}

fn steps(place: &Place) -> Vec<usize> {
    let names = std::fs::read_dir(place.path("run/checkpoints")).unwrap();
    let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<usize> = names.filter_map(|name| name.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort();
    steps
}

#[test]
fn named_steps_are_saved_and_stay() {
    let place = Place::new();
    let set = |keep: &'static str| ["--set", "train.keep_checkpoints=1", "--set", keep];
    place.ok(&strs(&place.train("run", &set("train.keep_steps=[5, 8, 22]"))));
    // 5 and 22 are no multiples of save_every.
    assert_eq!(steps(&place), [5, 8, 22, 24]);
    let stdout = place.ok(&[
        "train",
        "--device",
        "cpu",
        "--resume",
        "run/checkpoints/step-5",
        "--set",
        "train.keep_steps=[8]",
    ]);
    assert!(stdout.contains("24 steps done"), "{stdout}");
    assert_eq!(steps(&place), [8, 24]);
    assert!(place.text("run/config.toml").contains("keep_steps = [8]"));
    for wrong in ["train.keep_steps=[25]", "train.keep_steps=[0]"] {
        place.fails(
            &strs(&place.train("other", &["--set", wrong])),
            &["train.keep_steps", "from 1 to train.max_steps = 24"],
        );
    }
    place.fails(&strs(&place.train("other", &["--set", "train.keep_steps=8"])), &["train.keep_steps"]);
}

/// What a version before this left of a checkpoint that it was deleting when it was killed.
#[test]
fn half_a_checkpoint_is_never_offered() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "train.keep_checkpoints=3"])));
    std::fs::remove_file(place.path("run/checkpoints/latest")).unwrap();
    std::fs::remove_file(place.path("run/checkpoints/step-24/optimizer.safetensors")).unwrap();
    let found = lnfree::checkpoint::latest(&place.path("run")).unwrap();
    assert!(found.ends_with("step-20"), "{found:?}");
    std::fs::remove_file(place.path("run/checkpoints/step-20/SHA256SUMS")).unwrap();
    place.ok(&["train", "--device", "cpu", "--resume", "run"]);
    assert_eq!(steps(&place), [16, 20, 24]);
    lnfree::atomic::verify_checksums(&place.path("run/checkpoints/step-20")).unwrap();
}
