//! The real binary, which knows the hub from its environment alone.

use std::fs;
use std::path::Path;
use std::process;
use std::time::Duration;

use assert_cmd::Command;
use lnfree::data::{Layout, write_tokens};
use predicates::prelude::*;
use predicates::str::contains;

use super::faults::Fault;
use super::repo::{GOOD_TOKEN, Repo};
use super::server::Server;
use super::{home, serve, sharded, single, vector};

/// `lnfree eval` of a model on two sequences, in an environment of its own.
fn eval(model: &str, server: &Server, home: &Path) -> Command {
    Command::from_std(process(model, server, home))
}

fn process(model: &str, server: &Server, home: &Path) -> process::Command {
    let tokens = home.join("tokens.arrow");
    if !tokens.exists() {
        let rows = (0..2u32).map(|row| Ok((0..64).map(|i| (7 * i + row) % 255).collect()));
        write_tokens(&tokens, rows, Layout::Fixed(64), 256).unwrap();
    }
    let mut command = lnfree(server, home);
    command.args(["eval", "-m", model, "-b", "2", "--device", "cpu", "-d"]).arg(&tokens);
    command
}

/// The binary, in an environment of its own.
fn lnfree(server: &Server, home: &Path) -> process::Command {
    let mut command = process::Command::new(env!("CARGO_BIN_EXE_lnfree"));
    for (name, _) in std::env::vars() {
        if name.starts_with("HF_")
            || name.to_uppercase().ends_with("_PROXY")
            || name == "TRANSFORMERS_OFFLINE"
        {
            command.env_remove(name);
        }
    }
    command
        .stdin(process::Stdio::null())
        .current_dir(home)
        .env("HF_ENDPOINT", &server.endpoint)
        .env("HF_HOME", home);
    command
}

/// The figures that `eval` prints, without the name of the model and the speed.
fn figures(command: &mut Command) -> String {
    let output = command.assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    text.lines().skip(1).filter(|line| !line.contains("tokens/s")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_model_by_name_gives_the_figures_of_its_folder() {
    let (server, home) = (serve(single()), home());
    let by_path = figures(&mut eval(vector("tiny-a").to_str().unwrap(), &server, home.path()));
    assert!(by_path.contains("mean"), "{by_path}");
    assert_eq!(server.requests(), [""; 0]);
    assert_eq!(figures(&mut eval("some/tiny", &server, home.path())), by_path);
    assert!(home.path().join("hub/models--some--tiny/refs/main").is_file());
    server.requests();
    assert_eq!(figures(eval("some/tiny", &server, home.path()).env("HF_HUB_OFFLINE", "1")), by_path);
    assert_eq!(
        figures(eval("some/tiny", &server, home.path()).env("HF_ENDPOINT", "http://127.0.0.1:1")),
        by_path
    );
    assert_eq!(server.requests(), [""; 0], "the cache is enough");
}

#[test]
fn refusals_are_one_line_and_a_code() {
    let gated = Repo { access: super::repo::Access::Gated, ..single() };
    let (server, home) = (Server::start(&[("some/gated", gated)]), home());
    let one_line = || predicate::function(|text: &str| text.lines().count() == 1);
    for (name, words) in [
        ("some/gated", "is gated"),
        ("some/other", "no such repository"),
        ("./modle", "no such file or folder"),
        ("some/other@..", "cannot be a revision"),
    ] {
        eval(name, &server, home.path()).assert().code(1).stderr(contains(words).and(one_line()));
    }
    let offline = |name, value: &str| {
        let mut command = eval("some/gated", &server, home.path());
        command.env(name, value).assert().code(1).stderr(one_line()).get_output().stderr.clone()
    };
    let said = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    assert!(said(offline("HF_HUB_OFFLINE", "1")).contains("HF_HUB_OFFLINE is set"));
    assert!(said(offline("HF_ENDPOINT", "http://127.0.0.1:1")).contains("refuses connections"));
    assert!(said(offline("HF_ENDPOINT", "localhost")).contains("HF_ENDPOINT is localhost"));
    // A token in the file that `hf auth login` writes.
    fs::write(home.path().join("token"), format!("{GOOD_TOKEN}\n")).unwrap();
    figures(&mut eval("some/gated", &server, home.path()));
}

#[test]
fn killed_in_the_middle_and_started_again() {
    let (server, home) = (serve(single()), home());
    server.fault("model.safetensors", Fault::Stall(300_000), 1);
    let mut command = process("some/tiny", &server, home.path());
    let mut child = command.env("HF_HUB_DOWNLOAD_TIMEOUT", "600").spawn().unwrap();
    let blobs = home.path().join("hub/models--some--tiny/blobs");
    let arrived = || {
        let files = fs::read_dir(&blobs).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).any(|size| size == 300_000)
    };
    while !arrived() {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the rest");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    server.requests();
    figures(&mut eval("some/tiny", &server, home.path()));
    let requests = server.requests();
    assert!(
        requests.iter().any(|r| r.ends_with("model.safetensors?signature=1 range=300000")),
        "{requests:?}"
    );
}

#[test]
fn two_processes_download_one_model() {
    let (server, home) = (serve(sharded()), home());
    for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
        server.fault(shard, Fault::Slow, 1);
    }
    // Written before both ask for it.
    eval("nowhere/x", &server, home.path());
    let texts: Vec<String> = std::thread::scope(|scope| {
        let run = || figures(&mut eval("some/tiny", &server, home.path()));
        let both = [scope.spawn(run), scope.spawn(run)];
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(texts[0], texts[1]);
    assert_eq!(server.requests().iter().filter(|r| r.starts_with("GET cdn")).count(), 2);
}

#[test]
fn an_export_is_pushed_and_loaded_by_its_name() {
    let (server, home) = (serve(single()), home());
    let checkpoint = vector("checkpoint/step60").display().to_string();
    let export = |out: &str, repo: &str| {
        let mut command = Command::from_std(lnfree(&server, home.path()));
        command.args([
            "export",
            &checkpoint,
            "--format",
            "folded",
            "--device",
            "cpu",
            "--out",
            out,
            "--push",
            repo,
        ]);
        command
    };
    // Said before anything is computed or asked.
    for (repo, words) in [("tiny", "ORG/NAME"), ("me/tiny", "without a token")] {
        export("early", repo).assert().code(1).stderr(contains(words));
    }
    assert!(!home.path().join("early").exists());
    assert_eq!(server.requests(), [""; 0]);
    fs::write(home.path().join("token"), GOOD_TOKEN).unwrap();
    // A push that fails leaves the export, and says how to try again.
    let failed = export("folded", "theirs/tiny").assert().code(1).get_output().clone();
    let said = String::from_utf8(failed.stderr).unwrap();
    let again = "the export is in folded and was not pushed; `lnfree push folded theirs/tiny` tries again";
    assert!(said.contains(again) && said.contains("may not write to theirs/tiny"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(String::from_utf8(failed.stdout).unwrap().contains("logits compared"));

    let push = |repo: &str| {
        let mut command = Command::from_std(lnfree(&server, home.path()));
        command.args(["push", "folded", repo, "--private", "--message", "First"]);
        command
    };
    push("me/tiny").assert().success().stdout(contains("/me/tiny: 4 file(s) of folded, commit "));
    push("me/tiny").assert().success().stdout(contains("/me/tiny: has all of folded already, commit "));
    assert_eq!(server.commits()[0]["summary"], "First");
    let by_path = figures(&mut eval("folded", &server, home.path()));
    assert_eq!(figures(&mut eval("me/tiny", &server, home.path())), by_path);

    server.fault("upload", Fault::Cut(100_000), 1);
    export("second", "me/second").assert().success().stdout(contains("/me/second: 4 file(s) of second"));
    let card = String::from_utf8(server.files("me/second")["README.md"].clone()).unwrap();
    assert!(card.contains("from_pretrained(\"me/second\")"), "{card}");
    let mut files = server.files("me/second");
    files.remove(".gitattributes");
    assert_eq!(files.into_iter().collect::<Vec<_>>(), super::content(&home.path().join("second")));
}

/// Some network file systems lock nothing: as everywhere else, it goes on.
#[test]
fn a_cache_that_cannot_be_locked_is_filled_all_the_same() {
    if super::calls::library().is_none() {
        return;
    }
    for error in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
        let (server, home) = (serve(sharded()), home());
        let mut command = process("some/tiny", &server, home.path());
        let output = super::calls::without_locks(&mut command, error).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let warnings: Vec<&str> = said.lines().filter(|line| line.contains("cannot be locked")).collect();
        assert_eq!(warnings.len(), 1, "{said}");
        assert!(warnings[0].contains("hub") && warnings[0].contains("one process at a time"), "{said}");
    }
}
