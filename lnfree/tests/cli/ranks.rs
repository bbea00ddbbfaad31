//! Several processes that train one model: the same as one, whatever becomes of them.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::resume::{metrics, same, signal, wait_for_step};
use super::{Ended, Place, ended, one_line, strs};

/// Four sequences a batch and no dropout, of which each rank draws its own.
const SHARED: [&str; 4] = ["--set", "train.batch_size=4", "--set", "train.dropout=0"];

/// A run of four sequences a batch, as one process or, with `--nproc`, as several.
fn run(place: &Place, out: &str, ranks: usize, more: &[&str]) {
    let n = ranks.to_string();
    let more: Vec<&str> = SHARED.iter().chain(more).copied().chain(["--nproc", &n]).collect();
    place.ok(&strs(&place.train(out, &more)));
}

/// The same numbers but for the order of sums, and the same events.
#[track_caller]
fn nearly(here: &Value, there: &Value, what: &str) {
    match (here, there) {
        (Value::Number(a), Value::Number(b)) => {
            let [a, b] = [a, b].map(|number| number.as_f64().unwrap());
            assert!((a - b).abs() <= 2e-4 * (1.0 + b.abs()), "{what}: {a} and {b}");
        }
        (Value::Object(a), Value::Object(b)) => {
            assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{what}");
            a.iter().for_each(|(key, value)| nearly(value, &b[key], &format!("{what}: {key}")));
        }
        _ => assert_eq!(here, there, "{what}"),
    }
}

#[track_caller]
fn nearly_the_same(place: &Place, a: &str, b: &str) {
    let (x, y) = (metrics(place, a), metrics(place, b));
    assert_eq!(x.len(), y.len(), "{a} and {b}");
    for (at, (x, y)) in x.iter().zip(&y).enumerate() {
        nearly(x, y, &format!("line {at} of {a} and {b}"));
    }
}

#[test]
fn ranks_train_what_one_process_does() {
    let ways: [&[&str]; 4] = [
        &[],
        &["--set", "train.micro_batch_size=1", "--set", "train.gradient_accumulation_steps=2"],
        // What every forward moves cannot be computed in shares.
        &["--set", "norm.recompute_on_fake=true"],
        &["--set", "lora.rank=2", "--set", "train.gradient_checkpointing=true"],
    ];
    for way in ways {
        let place = Place::new();
        run(&place, "one", 1, way);
        for (out, ranks) in [("two", 2), ("four", 4)] {
            run(&place, out, ranks, way);
            nearly_the_same(&place, out, "one");
        }
        let losses = metrics(&place, "four");
        assert!(losses.iter().any(|line| line["event"] == "eval") && losses.len() > 40, "{}", losses.len());
    }
}

#[test]
fn any_number_of_ranks_goes_on_with_a_run() {
    let place = Place::new();
    run(&place, "one", 1, &[]);
    run(&place, "mixed", 2, &["--stop-after", "7"]);
    for (ranks, stop) in [("1", Some("15")), ("4", None)] {
        let mut args = vec!["train", "--device", "cpu", "--resume", "mixed", "--nproc", ranks];
        args.extend(stop.into_iter().flat_map(|step| ["--stop-after", step]));
        place.ok(&args);
    }
    nearly_the_same(&place, "mixed", "one");
}

/// A port that nobody listens at.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

/// One of several ranks, started by hand as torchrun does.
fn rank(place: &Place, args: &[&str], rank: usize, size: usize, port: &str) -> Command {
    let mut command = place.command(args);
    command.env("RANK", rank.to_string()).env("LOCAL_RANK", rank.to_string());
    command.env("WORLD_SIZE", size.to_string()).env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(place: &Place, args: &[&str]) -> Vec<Child> {
    let port = free_port();
    (0..2).map(|n| rank(place, args, n, 2, &port).spawn().unwrap()).collect()
}

fn wait(child: Child) -> Ended {
    ended(child.wait_with_output().unwrap())
}

#[test]
fn a_run_that_lost_a_rank_ends_as_if_it_had_not() {
    let place = Place::new();
    run(&place, "calm", 2, &[]);
    let mut args = place.train("hurt", &SHARED);
    for (step, victim) in [(2, 1), (6, 0), (11, 1), (17, 0), (21, 1)] {
        let mut ranks = start(&place, &strs(&args));
        wait_for_step(&place, "hurt", &mut ranks[victim], step);
        signal(&ranks[victim], libc::SIGKILL);
        for (n, child) in ranks.into_iter().enumerate() {
            let ended = wait(child);
            if n == victim {
                assert_eq!(ended.code, None, "{ended:?}");
            } else {
                assert_eq!(ended.code, Some(1), "{ended:?}");
                assert!(
                    ended.stderr.contains(&format!("lnfree: rank {n}: another rank is gone")),
                    "{ended:?}"
                );
            }
        }
        // Rank 0 saves what was done when it is left alone; killed, its last checkpoint is there.
        assert!(place.path("hurt/checkpoints/latest").exists());
        args = ["train", "--device", "cpu", "--resume", "hurt"].map(String::from).to_vec();
    }
    for ended in start(&place, &strs(&args)).into_iter().map(wait) {
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    same(&place, "calm", "hurt");
}

#[test]
fn a_signal_to_one_stops_all_after_the_same_step() {
    let place = Place::new();
    run(&place, "calm", 2, &[]);
    let mut ranks = start(&place, &strs(&place.train("stopped", &SHARED)));
    wait_for_step(&place, "stopped", &mut ranks[0], 5);
    signal(&ranks[1], libc::SIGUSR1);
    let [first, second] = [ranks.remove(0), ranks.remove(0)].map(wait);
    assert_eq!([first.code, second.code], [Some(130), Some(138)], "{first:?}, {second:?}");
    let line = |ended: &Ended| ended.stderr.lines().last().unwrap_or_default().replace("rank 1", "rank 0");
    assert_eq!(line(&first), line(&second));
    // Of the processes of --nproc, the one that started them passes the signal on.
    let resume = ["train", "--device", "cpu", "--resume", "stopped", "--nproc", "2"];
    let mut starter = place.command(&resume).stderr(Stdio::piped()).spawn().unwrap();
    wait_for_step(&place, "stopped", &mut starter, 14);
    signal(&starter, libc::SIGTERM);
    let ended = wait(starter);
    assert_eq!(ended.code, Some(143), "{ended:?}");
    place.ok(&resume);
    same(&place, "calm", "stopped");
}

#[test]
fn what_keeps_ranks_from_meeting_is_one_line() {
    let place = Place::new();
    let args = place.train("run", &SHARED);
    let args = strs(&args);
    let port = free_port();
    let refused = |command: &mut Command, words: &[&str]| {
        let ended = ended(command.env("LNFREE_JOIN_SECONDS", "1").output().unwrap());
        assert_eq!(ended.code, Some(1), "{ended:?}");
        one_line(&ended, words);
    };
    refused(rank(&place, &args, 0, 2, &port).env_remove("WORLD_SIZE"), &["WORLD_SIZE is not set"]);
    refused(&mut rank(&place, &args, 2, 2, &port), &["RANK=2", "WORLD_SIZE=2"]);
    refused(&mut rank(&place, &args, 0, 2, "none"), &["MASTER_PORT=none"]);
    refused(&mut rank(&place, &args, 0, 2, &port), &["rank 1 of 2 has not come", &port]);
    refused(&mut rank(&place, &args, 1, 2, &port), &["rank 1", "nobody", &port]);
    let taken = TcpListener::bind(("0.0.0.0", port.parse().unwrap())).unwrap();
    refused(&mut rank(&place, &args, 0, 2, &port), &["port", &port, "in use", "MASTER_PORT"]);
    drop(taken);
    let both = [&args[..], &["--nproc", "2"]].concat();
    refused(&mut rank(&place, &both, 0, 2, &port), &["--nproc 2", "leave --nproc out"]);
    assert!(!place.path("run/checkpoints").exists());
}

#[test]
fn ranks_that_do_not_fit_together_are_refused() {
    let place = Place::new();
    let few = place.train("few", &["--set", "train.batch_size=1"]);
    for ended in start(&place, &strs(&few)).into_iter().map(wait) {
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("train.batch_size: 1 sequences are too few for 2 ranks"), "{ended:?}");
    }
    let port = free_port();
    let other = [&SHARED[..], &["--set", "train.seed=8"]].concat();
    let commands = [place.train("run", &SHARED), place.train("run", &other)];
    let spawned = commands.iter().enumerate().map(|(n, args)| rank(&place, &strs(args), n, 2, &port).spawn());
    let ranks: Vec<Child> = spawned.map(Result::unwrap).collect();
    let ends: Vec<Ended> = ranks.into_iter().map(wait).collect();
    assert!(ends[0].stderr.contains("rank 1 could not go on"), "{ends:?}");
    assert!(ends[1].stderr.contains("rank 1 has another config or data than rank 0"), "{ends:?}");
    assert!(ends.iter().all(|ended| ended.code == Some(1)), "{ends:?}");
}
