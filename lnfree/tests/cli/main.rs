//! Runs the real binary in temporary directories: what it writes, how it ends, what it says.

mod adaptive;
mod bad_checkpoints;
mod bad_input;
mod bad_models;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod distill;
mod evaluations;
mod faults;
mod formats;
mod generate;
mod inspect;
mod interp;
mod lora;
mod new_crate;
mod not_finite;
mod outputs;
mod pretrain;
#[cfg(target_os = "linux")]
mod ranks;
mod resume;
mod run_directory;
mod selftest;
mod signals;
mod strangers;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use lnfree::tch::{Kind, Tensor};

/// A temporary folder with a token file `tokens.arrow` (40 sequences of 64) and the config `tiny.toml` in it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// Exit code and what was printed.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub(crate) fn new() -> Place {
        let place = Place { dir: tempfile::tempdir().unwrap() };
        write_tokens(&place.path("tokens.arrow"), 40, 64, 255);
        std::fs::write(place.path("tiny.toml"), config(&common::vector("tiny-a"))).unwrap();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, to be run here with one thread: sums depend on the count of threads.
    pub fn command(&self, args: &[&str]) -> Command {
        self.wrapped(&assert_cmd::cargo::cargo_bin!("lnfree").display().to_string(), &[], args)
    }

    /// The same, begun by another program.
    pub fn wrapped(&self, program: &str, before: &[&str], args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(before).args(args).current_dir(self.dir.path());
        command.env("OMP_NUM_THREADS", "1").env("RUST_BACKTRACE", "1").stdin(Stdio::null());
        // What is no folder is looked for on the hub: never on the real one from here.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.dir.path().join("hf"));
        command
    }

    pub fn lnfree(&self, args: &[&str]) -> Ended {
        ended(self.command(args).output().unwrap())
    }

    /// [`Place::lnfree`], which has to succeed; what it printed on stdout.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.lnfree(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.stdout
    }

    /// [`Place::lnfree`], which has to fail with exit code 1 and one line that names all of `words`.
    /// Progress, which begins with `step` or `resuming`, may come before it.
    #[track_caller]
    pub fn fails(&self, args: &[&str], words: &[&str]) -> Ended {
        let ended = self.lnfree(args);
        assert_eq!(ended.code, Some(1), "{args:?}: {ended:?}");
        one_line(&ended, words);
        ended
    }

    /// `train --config tiny.toml --out OUT` with more arguments.
    pub fn train(&self, out: &str, more: &[&str]) -> Vec<String> {
        let begin =
            ["train", "--mode", "without_ln", "--config", "tiny.toml", "--device", "cpu", "--out", out];
        begin.iter().chain(more).map(|s| s.to_string()).collect()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).unwrap()
    }
}

pub fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

pub fn ended(output: Output) -> Ended {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The one line that an error leaves on stderr, which has to name all of `words`.
#[track_caller]
pub fn one_line(ended: &Ended, words: &[&str]) {
    let progress = |line: &&str| {
        // What a processor multiplies faster is no part of a failure.
        ["step ", "what was done up to step ", "resuming ", "warning: dtype bfloat16: "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let lines: Vec<&str> = ended.stderr.lines().filter(|l| !progress(l)).collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    assert!(lines[0].starts_with("lnfree: ") && !lines[0].contains("internal error"), "{ended:?}");
    for word in words {
        assert!(lines[0].contains(word), "{word} is not in: {}", lines[0]);
    }
}

/// `rows` sequences of `len` ids that follow from nothing but their place; no id is above `highest`.
pub fn write_tokens(path: &Path, rows: i64, len: i64, highest: i64) {
    let i = Tensor::arange(rows * len, (Kind::Int64, lnfree::tch::Device::Cpu));
    // Squares modulo a prime repeat little and are not uniform: there is something to learn.
    let ids = (&i * &i * 31i64 + &i * 7i64).remainder(1009).remainder(highest + 1);
    common::token_file(path, &ids.view([rows, len]));
}

/// 24 steps with removals of every kind spread over them, dropout, shuffling and the auxiliary loss.
pub fn config(model: &Path) -> String {
    format!(
        r#"# All of it in 24 steps.
[model]
name = "{}"
n_layer = 3
[train]
batch_size = 2
max_steps = 24
learning_rate = 1e-3
min_lr = 1e-4
warmup_steps = 3
dropout = 0.1
aux_loss_weight = 0.1
seed = 7
save_every = 4
[schedule]
start_ln2 = 1
gap_ln2 = 2
start_ln1qk = 7
gap_ln1qk = 1
start_ln1v = 10
gap_ln1v = 2
start_lnf = 16
start_eot = 18
start_bos = 21
[norm]
special_std = true
[data]
train = "tokens.arrow"
eval = "tokens.arrow"
block_size = 64
[eval]
every = 6
batch_size = 4
max_sequences = 8
"#,
        model.display()
    )
}
