//! Checkpoints with wrong bits: the file is named, and the checkpoint that is still whole; continuing from it
//! works.

use super::{Place, strs};

/// A complete run with the checkpoints step-20 and step-24.
fn complete(place: &Place) {
    place.ok(&strs(&place.train("run", &[])));
}

/// Changes one bit in the middle of a file.
fn flip(place: &Place, name: &str) {
    let mut bytes = place.read(name);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(place.path(name), bytes).unwrap();
}

#[test]
fn one_wrong_bit_is_found_and_the_checkpoint_before_serves() {
    let place = Place::new();
    complete(&place);
    let whole = "run/checkpoints/step-20";
    let resume = ["train", "--device", "cpu", "--resume", "run"];
    for file in ["model.safetensors", "optimizer.safetensors", "trainer.json", "config.json", "SHA256SUMS"] {
        let path = format!("run/checkpoints/step-24/{file}");
        let good = place.read(&path);
        flip(&place, &path);
        // A wrong bit in the list of sums looks like a wrong file, if it hits a sum.
        let named = if file == "SHA256SUMS" { "step-24" } else { &path[..] };
        place.fails(&resume, &[named, &format!("--resume {whole}")]);
        std::fs::remove_file(place.path(&path)).unwrap();
        place.fails(&resume, &[named, &format!("--resume {whole}")]);
        std::fs::write(place.path(&path), &good[..good.len() / 2]).unwrap();
        place.fails(&resume, &[named, &format!("--resume {whole}")]);
        std::fs::write(place.path(&path), good).unwrap();
    }
    place.ok(&resume);
}

#[test]
fn an_older_checkpoint_leads_to_the_same_end() {
    let place = Place::new();
    complete(&place);
    let good = place.read("run/checkpoints/step-24/model.safetensors");
    let log = place.text("run/metrics.jsonl").lines().count();
    flip(&place, "run/checkpoints/step-24/model.safetensors");
    let stdout = place.ok(&["train", "--device", "cpu", "--resume", "run/checkpoints/step-20"]);
    assert!(stdout.contains("run/checkpoints/step-24"), "{stdout}");
    assert!(place.read("run/checkpoints/step-24/model.safetensors") == good);
    assert_eq!(place.text("run/metrics.jsonl").lines().count(), log);
}

#[test]
fn retention_never_takes_what_was_just_written() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "train.keep_checkpoints=0"])));
    let steps = || {
        let mut names: Vec<String> = std::fs::read_dir(place.path("run/checkpoints"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(steps(), ["latest", "step-12", "step-16", "step-20", "step-24", "step-4", "step-8"]);
    // Back to step 4, keeping one: what lies ahead is neither counted nor taken away before its time.
    for step in [4, 8, 12, 16, 20, 24] {
        let file = format!("run/checkpoints/step-{step}/trainer.json");
        let text = place.text(&file).replace("\"keep_checkpoints\": 0", "\"keep_checkpoints\": 1");
        std::fs::write(place.path(&file), text).unwrap();
        lnfree::atomic::write_checksums(&place.path(&format!("run/checkpoints/step-{step}"))).unwrap();
    }
    let child = place
        .command(&["train", "--device", "cpu", "--resume", "run/checkpoints/step-4"])
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    let link = place.path("run/checkpoints/latest");
    while child.try_wait().unwrap().is_none() {
        // The link always leads to a whole checkpoint.
        assert!(link.join("SHA256SUMS").is_file() && link.join("trainer.json").is_file());
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(steps(), ["latest", "step-24"]);
}

#[test]
fn no_whole_checkpoint_left() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "train.keep_checkpoints=1"])));
    flip(&place, "run/checkpoints/step-24/optimizer.safetensors");
    let resume = ["train", "--device", "cpu", "--resume", "run"];
    place.fails(&resume, &["step-24/optimizer.safetensors", "no other whole checkpoint"]);
}

#[test]
fn other_data_than_the_run_began_with() {
    let place = Place::new();
    complete(&place);
    super::write_tokens(&place.path("other.arrow"), 30, 64, 255);
    let resume = ["train", "--device", "cpu", "--resume", "run"];
    place.fails(&[&resume[..], &["--data", "other.arrow"]].concat(), &["other.arrow", "not the data"]);
    std::fs::rename(place.path("tokens.arrow"), place.path("moved.arrow")).unwrap();
    place.fails(&resume, &["tokens.arrow", "--data"]);
    place.ok(&[&resume[..], &["--data", "moved.arrow", "--eval-data", "moved.arrow"]].concat());
}
