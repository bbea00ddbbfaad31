//! Outputs that cannot be written, before and after the work, and a standard output that is full or closed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Stdio;

use lnfree::eval::EvalRecord;

use super::disk::SmallDisk;
use super::{Ended, Place, common, ended, one_line, strs};

fn tiny() -> String {
    common::vector("tiny-a").display().to_string()
}

fn eval<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["eval", "-m", model, "-d", "tokens.arrow", "--label", "tiny"], more].concat()
}

/// A place with things in the way of outputs.
fn obstructed() -> Place {
    let place = Place::new();
    std::fs::write(place.path("file"), "old").unwrap();
    std::fs::create_dir(place.path("dir")).unwrap();
    symlink("nowhere", place.path("dangling")).unwrap();
    place
}

#[test]
fn files_that_cannot_be_written_are_refused_before_the_work() {
    let place = obstructed();
    let long = "x".repeat(300);
    let paths = [
        ("missing/a", "there is no folder"),
        ("file/a", "there is no folder"),
        ("dir", "is a folder"),
        ("new/", "names a folder"),
        ("dangling", "is a link to nowhere"),
        ("/dev/full", "No space left"),
        (&long, "too long"),
    ];
    for (path, why) in paths {
        // None of these commands could do its work: it is not begun.
        let none = "no-such-model";
        for args in [
            eval(none, &["--json", path]),
            eval(none, &["--losses", path]),
            vec!["std", "-m", none, "-d", "none", "--out", path],
            vec!["report", "no-such-run", "--out", path],
            vec!["data", "prepare", "no-such-data", "--out", path],
        ] {
            place.fails(&args, &[path, why]);
        }
    }
    assert_eq!(place.text("file"), "old");
    assert!(!place.path("nowhere").exists() && !place.path("new").exists());
}

#[test]
fn folders_that_cannot_be_written_are_refused_before_the_work() {
    let place = obstructed();
    for (path, why) in [
        ("file", "is a file"),
        ("file/a", "is a file"),
        ("dangling", "is a link to nowhere"),
        ("/proc/lnfree", "cannot be written into"),
    ] {
        let none = "no-such-model";
        for args in [
            eval(none, &["--out", path]),
            vec!["train", "--mode", "with_ln", "--config", "tiny.toml", "--model", none, "--out", path],
            vec!["pretrain", "--config", "tiny.toml", "--tokenizer", none, "--out", path],
            vec!["eval-all", "--suite", "nano", "--out", path],
        ] {
            place.fails(&args, &[path, why]);
        }
    }
    for (path, why) in
        [("file", "is a file"), ("file/a", "there is no folder"), ("no/a", "there is no folder")]
    {
        place.fails(&["export", "no-such-run", "--format", "folded", "--out", path], &["--out", path, why]);
    }
    let label = "x".repeat(300);
    std::fs::create_dir(place.path("results")).unwrap();
    let args = ["eval", "-m", "no", "-d", "tokens.arrow", "--out", "results", "--label", &label];
    place.fails(&args, &["--out", "too long"]);
}

#[test]
fn one_file_is_not_written_twice_nor_over_an_input() {
    let place = Place::new();
    let before = place.read("tokens.arrow");
    std::fs::create_dir(place.path("dir")).unwrap();
    let none = "no-such-model";
    place.fails(&eval(none, &["--json", "a", "--losses", "dir/../a"]), &["--losses", "--json"]);
    place.fails(&eval(none, &["--losses", "tokens.arrow"]), &["--losses", "--data"]);
    place.fails(&["std", "-m", none, "-d", "tokens.arrow", "--out", "tokens.arrow"], &["--out", "--data"]);
    place.fails(&["data", "prepare", "tokens.arrow", "--out", "tokens.arrow"], &["--out", "source"]);
    let twice = eval(none, &["-d", "tokens.arrow", "--out", "results"]);
    place.fails(&twice, &["--out of tokens.arrow"]);
    let weights = format!("{}/model.safetensors", tiny());
    place.fails(&eval(&tiny(), &["--json", &weights]), &["--json", "--model"]);
    assert!(place.read("tokens.arrow") == before);
}

#[test]
fn a_pipe_is_written_to_and_stays_one() {
    let place = Place::new();
    let fifo = place.path("fifo");
    let path = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a string that ends in a zero byte.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read_to_string(fifo).unwrap()
    });
    place.ok(&eval(&tiny(), &["-n", "2", "--json", "fifo"]));
    let record: EvalRecord = serde_json::from_str(&reader.join().unwrap()).unwrap();
    assert_eq!(record.n_sequences, 2);
    assert!(std::fs::metadata(fifo).unwrap().file_type().is_fifo());
}

/// What a command does whose standard output is full.
fn onto_full_disk(place: &Place, args: &[&str]) -> Ended {
    let full = File::options().write(true).open("/dev/full").unwrap();
    ended(place.command(args).stdout(full).output().unwrap())
}

/// What a command does whose reader has gone away.
fn without_reader(place: &Place, args: &[&str]) -> Ended {
    let mut child = place.command(args);
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    ended(child.wait_with_output().unwrap())
}

#[test]
fn results_are_written_though_nobody_can_be_told() {
    let place = Place::new();
    super::write_tokens(&place.path("b.arrow"), 7, 64, 255);
    let model = tiny();
    let json = eval(&model, &["-n", "4", "--json", "a.json", "--losses", "a.arrow"]);
    let both = eval(&model, &["-n", "4", "-d", "b.arrow", "--out", "results"]);
    let std = ["std", "-m", &model, "-d", "tokens.arrow", "-n", "2", "--out", "std.json"];
    let outputs: [(&[&str], &[&str]); 3] = [
        (&json, &["a.json", "a.arrow"]),
        (&both, &["results/tiny--tokens.arrow.json", "results/tiny--b.arrow.json"]),
        (&std, &["std.json"]),
    ];
    for (args, files) in outputs {
        for full in [true, false] {
            let ended = if full { onto_full_disk(&place, args) } else { without_reader(&place, args) };
            for file in files {
                assert!(place.path(file).is_file(), "{args:?}: {ended:?}");
                std::fs::remove_file(place.path(file)).unwrap();
            }
            if full {
                assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
                one_line(&ended, &["standard output", "No space left"]);
            } else {
                assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}: {ended:?}");
            }
        }
    }
}

#[test]
fn every_command_says_that_its_output_cannot_be_written() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "eval.every=0"])));
    let model = tiny();
    let commands: [&[&str]; 13] = [
        &["--help"],
        &["--version"],
        &["config", "list"],
        &["config", "show", "nano"],
        &["schedule", "nano", "--json"],
        &["eval", "-m", &model, "-d", "tokens.arrow", "-n", "1"],
        &["std", "-m", &model, "-d", "tokens.arrow", "-n", "1"],
        &["generate", "-m", "nano", "--max-new-tokens", "3"],
        &["data", "info", "tokens.arrow"],
        &["report", "run", "--out", "report.html"],
        &["bench", "--size", "1,1,16,50", "--seq", "8", "--steps", "1", "--warmup", "0"],
        &["eval-all", "--suite", "nano", "--dry-run"],
        &["train", "--mode", "with_ln", "--config", "tiny.toml", "--plan"],
    ];
    for args in commands {
        let ended = onto_full_disk(&place, args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        one_line(&ended, &["standard output", "No space left"]);
        let ended = without_reader(&place, args);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}: {ended:?}");
    }
}

#[test]
fn what_cannot_be_written_after_the_work_is_put_elsewhere() {
    let place = Place::new();
    std::fs::create_dir(place.path("tmp")).unwrap();
    let model = tiny();
    let args = eval(&model, &["-n", "4", "--json", "/dev/stdout", "--losses", "losses.arrow"]);
    // A pipe may close at any time, so it is no reason to refuse it.
    let mut child = place.command(&args);
    child.env("TMPDIR", place.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    drop(child.stdout.take());
    let ended = ended(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    one_line(&ended, &["/dev/stdout", "Broken pipe", "what was computed is in", "/tmp/lnfree-", "instead"]);
    let kept = ended.stderr.split(" is in ").nth(1).unwrap().split(" instead").next().unwrap();
    let record: EvalRecord = serde_json::from_str(&std::fs::read_to_string(kept).unwrap()).unwrap();
    assert_eq!(record.n_sequences, 4);
    assert!(place.path("losses.arrow").is_file(), "the other output is where it was to be");
}

#[test]
fn a_full_or_read_only_disk_is_refused_before_and_costs_nothing_afterwards() {
    let place = Place::new();
    let at = place.path("disk");
    // Room for two pages: the losses of 40 sequences take three.
    let Some(disk) = SmallDisk::mount(&at, 8) else {
        println!("SKIPPED: no tmpfs can be mounted here");
        return;
    };
    std::fs::create_dir(place.path("tmp")).unwrap();
    std::fs::write(at.join("a.arrow"), "old").unwrap();
    let model = tiny();
    let args = eval(&model, &["--losses", "disk/a.arrow", "--json", "a.json"]);
    let mut command = place.command(&args);
    let ended = ended(command.env("TMPDIR", place.path("tmp")).output().unwrap());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    one_line(&ended, &["disk/a.arrow", "what was computed is in", "a.arrow instead"]);
    let kept = ended.stderr.split(" is in ").nth(1).unwrap().split(" instead").next().unwrap();
    assert!(std::fs::metadata(kept).unwrap().len() > 40 * 63 * 4);
    assert_eq!(place.text("disk/a.arrow"), "old");
    assert!(place.path("a.json").is_file() && ended.stdout.contains("mean"));
    std::fs::write(at.join("b"), [1; 4096]).unwrap();
    let none = "no-such-model";
    let both = |words: [&str; 2]| {
        for option in ["--losses", "--json"] {
            place.fails(&eval(none, &[option, "disk/a.arrow"]), &words);
        }
        place.fails(&eval(none, &["--out", "disk/results"]), &words);
        place.fails(&["export", "no-such-run", "--format", "folded", "--out", "disk/out"], &words);
    };
    both(["disk", "no space left"]);
    disk.make_read_only();
    both(["disk", "Read-only"]);
}

#[test]
fn json_goes_to_standard_output_with_the_text_where_that_is_named() {
    let place = Place::new();
    let out = File::create(place.path("out.txt")).unwrap();
    let model = tiny();
    let args = eval(&model, &["-n", "2", "--json", "/dev/stdout"]);
    let status = place.command(&args).stdout(out).status().unwrap();
    assert!(status.success());
    let mut text = String::new();
    File::open(place.path("out.txt")).unwrap().read_to_string(&mut text).unwrap();
    let json = text.find("\n}").unwrap();
    let record: EvalRecord = serde_json::from_str(&text[..json + 2]).unwrap();
    assert_eq!(record.n_sequences, 2);
    assert!(text[json..].contains("2 sequences"), "{text}");
}
