//! `eval-all` by the real binary: the nano study, interrupted and continued, with models that are missing,
//! and its plans.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A folder for results, and caches of its own beside it.
struct Place {
    dir: tempfile::TempDir,
}

struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Place {
    fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// `eval-all` with these arguments, into [`Place::out`], without network.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("lnfree"));
        command.arg("eval-all").args(args).arg("--out").arg(self.out());
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.dir.path().join("hf"));
        command.env("XDG_CACHE_HOME", cache()).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Ended {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// Has to fail with exit code 1 and one line of error that has all of `words`.
    #[track_caller]
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let ended = self.run(args);
        assert_eq!(
            (ended.code, ended.stderr.lines().count()),
            (Some(1), 1),
            "{}{}",
            ended.stdout,
            ended.stderr
        );
        for word in words {
            assert!(ended.stderr.contains(word), "{word} is not in: {}", ended.stderr);
        }
    }

    fn results(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.out().join("results.json")).unwrap()).unwrap()
    }

    /// Label, data set and mean of every evaluation in the results.
    fn means(&self) -> Vec<(String, String, f64)> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let row = |e: &Value| (text(&e["label"]), text(&e["dataset"]), e["mean"].as_f64().unwrap());
        self.results()["evaluations"].as_array().unwrap().iter().map(row).collect()
    }
}

/// The tokenized texts, which all tests of this run share: making them takes longer than evaluating a few
/// sequences.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("suite-cache")
}

const SMALL: [&str; 4] = ["--suite", "nano", "--limit", "12"];

#[test]
fn the_nano_study_ends_with_its_tables() {
    let place = Place::new();
    let ended = place.ok(&SMALL);
    assert!(ended.stdout.contains("LN-free − vanilla"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("6 not comparable"),
        "twelve sequences are another sample: {}",
        ended.stdout
    );
    assert_eq!(ended.stderr.lines().count(), 6, "a line for each evaluation: {}", ended.stderr);
    let labels: Vec<_> = place.means().into_iter().map(|row| (row.0, row.1)).collect();
    let expected = ["original", "vanilla", "LN-free"]
        .map(|l| ["nano-addresses", "nano-moby-dick"].map(|d| (l.into(), d.into())));
    assert_eq!(labels, expected.concat());
    let results = place.results();
    let differences = results["differences"].as_array().unwrap();
    assert_eq!(differences.len(), 6);
    let means = place.means();
    let gap = differences
        .iter()
        .find(|d| d["label"] == "LN-free − original" && d["dataset"] == "nano-moby-dick")
        .unwrap();
    assert!((gap["mean"].as_f64().unwrap() - (means[5].2 - means[1].2)).abs() < 1e-9, "{gap}");
    let markdown = std::fs::read_to_string(place.out().join("results.md")).unwrap();
    let page = std::fs::read_to_string(place.out().join("results.html")).unwrap();
    for title in ["Results", "Paired differences", "Calibration and intervals", "Speed and memory"] {
        assert!(
            markdown.contains(&format!("## {title}\n")) && page.contains(&format!("<h2>{title}</h2>")),
            "{title}"
        );
    }
    assert!(page.contains("Worst sequences") && page.contains("Loss by position"));
    // Nothing is computed twice, and nothing changes.
    let again = place.ok(&SMALL);
    assert!(
        again.stdout.contains("evaluations: 0 to do, 6 finished") && again.stderr.is_empty(),
        "{}",
        again.stdout
    );
    assert_eq!(place.results(), results);
}

#[test]
fn the_embedded_models_are_those_of_the_readme() {
    let place = Place::new();
    // All of the smaller data set, against the figures that the README has to four decimals.
    let ended = place.ok(&["--suite", "nano", "--datasets", "nano-addresses", "--tolerance", "0.0001"]);
    assert!(ended.stdout.contains("3 as recorded"), "{}", ended.stdout);
    let strict = place.ok(&["--suite", "nano", "--datasets", "nano-addresses", "--tolerance", "0"]);
    assert!(strict.stdout.contains("evaluations: 0 to do"), "the tolerance is no setting: {}", strict.stdout);
}

#[test]
fn killed_in_the_middle_it_goes_on_to_the_same_table() {
    let calm = Place::new();
    calm.ok(&SMALL);
    let place = Place::new();
    let mut finished = Vec::new();
    for milliseconds in [150, 900, 700, 1100, 400, 1300] {
        let mut child = spawn_group(&mut place.command(&SMALL));
        std::thread::sleep(Duration::from_millis(milliseconds));
        kill_group(&child);
        child.wait().unwrap();
        let now = results_in(&place.out());
        assert!(finished.iter().all(|name| now.contains(name)), "{finished:?} {now:?}");
        finished = now;
    }
    place.ok(&SMALL);
    assert_eq!(place.means(), calm.means());
    assert_eq!(place.results()["differences"], calm.results()["differences"]);
    let left = std::fs::read_dir(place.out()).unwrap().flatten().map(|e| e.file_name());
    let left: Vec<String> = left.map(|name| name.to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.ends_with(".tmp")), "{left:?}");
}

/// Files of finished evaluations.
fn results_in(folder: &Path) -> Vec<String> {
    let entries =
        std::fs::read_dir(folder).map(|entries| entries.flatten().collect()).unwrap_or_else(|_| Vec::new());
    let names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.contains("--") && name.ends_with(".json")).collect()
}

/// In a process group of its own, as a shell starts it.
fn spawn_group(command: &mut Command) -> Child {
    use std::os::unix::process::CommandExt;
    command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn kill_group(child: &Child) {
    // SAFETY: the group of a child that has not been waited for.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
}

#[test]
fn a_signal_stops_the_evaluation_and_keeps_what_is_finished() {
    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143)] {
        let place = Place::new();
        // Long enough not to end before it is told to.
        let args = ["--suite", "nano", "--datasets", "nano-moby-dick", "--batch-size", "1"];
        let mut command = place.command(&args);
        let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        while !place.out().join("suite.json").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(Duration::from_millis(300));
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(child.id() as i32, signal) };
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.lines().last().unwrap().contains("the same command goes on from there"), "{said}");
    }
}

#[test]
fn data_sets_may_be_called_by_the_names_that_they_had() {
    let place = Place::new();
    place.ok(&["--suite", "nano", "--limit", "2", "--models", "nano", "--datasets", "nano-owt,NANO-PILE"]);
    let names: Vec<_> = place.means().into_iter().map(|row| row.1).collect();
    assert_eq!(names, ["nano-addresses", "nano-moby-dick"]);
}

#[test]
fn a_model_that_is_missing_costs_only_itself() {
    let place = Place::new();
    let args =
        [&SMALL[..], &["--datasets", "nano-addresses", "--add", "ghost=nobody/no-such-model"]].concat();
    let ended = place.run(&args);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.lines().last().unwrap().contains("1 of 4 evaluations failed"), "{}", ended.stderr);
    let results = place.results();
    let failure = &results["failures"][0];
    assert_eq!((&failure["label"], &failure["dataset"]), (&"ghost".into(), &"nano-addresses".into()));
    assert!(failure["why"].as_str().unwrap().contains("nobody/no-such-model"), "{failure}");
    assert_eq!(place.means().len(), 3);
    let page = std::fs::read_to_string(place.out().join("results.html")).unwrap();
    assert!(page.contains("<h2>Failed</h2>") && page.contains("nobody/no-such-model"));
    // The others are not computed again when it is tried again.
    assert!(place.run(&args).stdout.contains("evaluations: 1 to do, 3 finished"));
}

#[test]
fn a_plan_needs_no_network_and_writes_nothing() {
    let place = Place::new();
    let ended = place.ok(&["--dry-run"]);
    for words in [
        "12 models × 3 data sets; evaluations: 36 to do",
        "schaeff/gpt2-xl_LNFree800",
        "up to 5.80 GiB",
        "pile-apollo-luca",
        "FLOP",
        "memory:",
    ] {
        assert!(ended.stdout.contains(words), "{words} is not in: {}", ended.stdout);
    }
    let few = place.ok(&[
        "--dry-run",
        "--models",
        "small,gpt2-xl_LNFree800",
        "--datasets",
        "The Pile",
        "-n",
        "100",
    ]);
    assert!(few.stdout.contains("4 models × 1 data sets; evaluations: 4 to do"), "{}", few.stdout);
    assert!(few.stdout.contains("about 100 sequences"), "{}", few.stdout);
    // The original of XL is fetched to compare with, although it is not chosen; once, for both models.
    let xl = ["--dry-run", "--models", "gpt2-xl_LNFree800,gpt2-xl_vanilla800", "-n", "100"];
    let disk = |args: &[&str]| {
        let plan = place.ok(args).stdout;
        let line = plan.lines().find(|line| line.contains("disk: up to")).unwrap().to_string();
        line.split(" GiB").next().unwrap().rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (alone, compared) = (disk(&xl), disk(&[&xl[..], &["--distances"]].concat()));
    // 1.56G parameters of four bytes.
    assert!((compared - alone - 5.80).abs() < 0.02, "{alone} {compared}");
    let entries: Vec<_> = std::fs::read_dir(place.dir.path()).unwrap().collect();
    assert!(entries.is_empty(), "{entries:?}");
}

#[test]
fn what_is_not_known_is_refused_with_what_there_is() {
    let place = Place::new();
    place.refuses(&["--suite", "mini"], &["suite mini", "paper and nano"]);
    place.refuses(
        &["--models", "gpt3"],
        &["model gpt3", "small, medium, large, xl", "gpt2-xl_LNFree800", "--add"],
    );
    place.refuses(&["--suite", "nano", "--models", "small"], &["model small", "nano_LNFree200"]);
    place.refuses(&["--datasets", "c4"], &["data set c4", "pile-apollo-luca"]);
    place.refuses(&["--suite", "nano", "--add", "mine"], &["--add mine", "LABEL=MODEL"]);
    place.refuses(&["--suite", "nano", "--add", "vanilla=x"], &["nano_vanilla200", "another"]);
    place.refuses(&["--limit", "0"], &["--limit", "at least 1"]);
    place.refuses(&["--tolerance", "NaN"], &["--tolerance NaN"]);
    place.refuses(&["--device", "tpu"], &["device tpu"]);
    assert!(!place.out().exists());
}

#[test]
fn one_folder_holds_one_studys_settings() {
    let place = Place::new();
    let first = ["--suite", "nano", "--limit", "2", "--models", "nano", "--datasets", "nano-addresses"];
    place.ok(&first);
    let other = ["--suite", "nano", "--limit", "3", "--models", "nano", "--datasets", "nano-addresses"];
    place.refuses(&other, &["--limit 2", "--limit 3", "--fresh", "--out"]);
    place.refuses(&[&other[..], &["--dry-run"]].concat(), &["--limit 2"]);
    // A file of the user's stays, whatever is thrown away.
    std::fs::write(place.out().join("notes.txt"), "mine").unwrap();
    place.ok(&[&other[..], &["--fresh"]].concat());
    assert_eq!(place.results()["evaluations"][0]["n_sequences"], 3);
    assert!(place.out().join("notes.txt").exists());
    std::fs::write(place.out().join("suite.json"), "{").unwrap();
    place.refuses(&other, &["suite.json", "--fresh"]);
}

/// Every model but the original is compared with it, one's own by its shape, chosen or not.
#[test]
fn with_distances_models_are_compared_with_their_original() {
    let place = Place::new();
    let own = place.dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    for entry in std::fs::read_dir(lnfree::hub::locate_model("nano_vanilla200").unwrap()).unwrap().flatten() {
        std::fs::copy(entry.path(), own.join(entry.file_name())).unwrap();
    }
    let mine = format!("mine={}", own.display());
    let chosen =
        ["--suite", "nano", "--limit", "4", "--models", "original,vanilla", "--datasets", "nano-addresses"];
    let args = [&chosen[..], &["--add", &mine, "--distances"]].concat();
    let said = place.ok(&args).stdout;
    let results = place.results();
    let distance = |label: &str| {
        let rows = results["evaluations"].as_array().unwrap();
        rows.iter().find(|row| row["label"] == label).unwrap()["faithfulness"].clone()
    };
    assert!(distance("original").is_null());
    let [vanilla, mine] = ["vanilla", "mine"].map(distance);
    assert_eq!((&vanilla["reference"], &vanilla["kl"]), (&"nano".into(), &mine["kl"]));
    assert!(vanilla["kl"].as_f64().is_some_and(|kl| kl > 0.0), "{vanilla}");
    assert!(said.contains("vanilla on nano-addresses, from nano: KL 0."), "{said}");
    assert!(place.run(&args).stdout.contains("evaluations: 0 to do, 3 finished"));
    let page = std::fs::read_to_string(place.out().join("results.md")).unwrap();
    assert!(page.contains("Distance to another model"));
    // Without, it is another study; with the original left out it is compared with all the same.
    place.refuses(&[&chosen[..], &["--dry-run"]].concat(), &["--distances"]);
    let alone = ["--suite", "nano", "--limit", "4", "--models", "vanilla", "--datasets", "nano-addresses"];
    place.ok(&[&alone[..], &["--distances", "--fresh"]].concat());
    assert_eq!(place.results()["evaluations"][0]["faithfulness"]["kl"], vanilla["kl"]);
}

#[test]
fn a_result_older_than_its_model_or_damaged_is_made_again() {
    let place = Place::new();
    let model = place.dir.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let nano = lnfree::hub::locate_model("nano").unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(nano.join(name), model.join(name)).unwrap();
    }
    let add = format!("mine={}", model.display());
    let args =
        ["--suite", "nano", "--limit", "2", "--models", "nano", "--datasets=nano-addresses", "--add", &add];
    place.ok(&args);
    let means = place.means();
    assert_eq!((means[1].0.as_str(), means[0].2), ("mine", means[1].2));
    assert!(place.ok(&args).stdout.contains("evaluations: 0 to do"));
    let vanilla = lnfree::hub::locate_model("nano_vanilla200").unwrap();
    std::fs::copy(vanilla.join("model.safetensors"), model.join("model.safetensors")).unwrap();
    assert!(place.ok(&args).stdout.contains("evaluations: 1 to do, 1 finished"));
    assert_ne!(place.means()[1].2, means[1].2);
    let file = place.out().join("original--nano-addresses.json");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    assert!(place.ok(&args).stdout.contains("evaluations: 1 to do, 1 finished"));
    assert_eq!(place.means()[0].2, means[0].2);
}

#[test]
fn figures_of_another_step_are_not_claimed() {
    let place = Place::new();
    let run = place.dir.path().join("run");
    let mut config = lnfree::config::Config::load("nano", &[]).unwrap();
    config.schedule = Default::default();
    (config.train.max_steps, config.train.warmup_steps, config.data.eval) = (2, 1, None);
    let cpu = lnfree::tch::Device::Cpu;
    lnfree::train::start_or_resume(&config, lnfree::train::Mode::WithLn, &run, cpu).unwrap();
    let add = format!("vanilla={}", run.display());
    let args =
        ["--suite", "nano", "--limit", "2", "--models", "nano", "--datasets=nano-addresses", "--add", &add];
    let said = "vanilla is not held against the recorded figures: it is of step 2, they are of step 200.";
    let ended = place.ok(&args);
    assert!(ended.stdout.contains(said) && ended.stdout.contains("1 of another step"), "{}", ended.stdout);
    let results = place.results();
    let comparison = &results["comparisons"][1];
    assert_eq!(
        (&comparison["label"], &comparison["verdict"]),
        (&"vanilla".into(), &"of another step".into())
    );
    assert_eq!((&comparison["published"], &comparison["difference"]), (&Value::Null, &Value::Null));
    assert!(results["notes"].as_array().unwrap().contains(&said.into()), "{}", results["notes"]);
    assert_eq!(results["models"][1]["steps"], 2);
}
