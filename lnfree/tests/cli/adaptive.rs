//! Schedules that wait for the model to recover.

use serde_json::Value;

use super::bad_input::refused;
use super::distill::taught;
use super::resume::{STOPS, metrics, same, stopped_and_resumed};
use super::{Place, strs};

fn events(place: &Place, run: &str, event: &str) -> Vec<Value> {
    metrics(place, run).into_iter().filter(|line| line["event"] == event).collect()
}

/// Steps and kinds of what went.
fn removed(place: &Place, run: &str) -> Vec<(u64, Value, Value)> {
    let removals = events(place, run, "remove").into_iter();
    removals
        .map(|line| (line["step"].as_u64().unwrap(), line["kind"].clone(), line["layer"].clone()))
        .collect()
}

const ADAPTIVE: [&str; 3] = ["adaptive.tolerance=50", "adaptive.window=1", "adaptive.explodes_at=100"];

#[test]
fn a_schedule_that_was_found_is_run_again_with_the_same_result() {
    let place = Place::new();
    place.ok(&strs(&place.train("fixed", &[])));
    place.ok(&strs(&place.train("found", &strs(&taught(&ADAPTIVE)))));
    let (fixed, found) = (removed(&place, "fixed"), removed(&place, "found"));
    let order = |removed: &[(u64, Value, Value)]| -> Vec<(Value, Value)> {
        removed.iter().map(|(_, kind, layer)| (kind.clone(), layer.clone())).collect()
    };
    assert_eq!(order(&fixed), order(&found));
    assert_eq!(fixed[0].0, found[0].0);
    assert!(found.last().unwrap().0 < fixed.last().unwrap().0, "{fixed:?} {found:?}");
    let begun = events(&place, "found", "begin");
    assert_eq!(begun[0]["why"], "first");
    assert!(begun[1..].iter().all(|line| line["why"] == "recovered"), "{begun:?}");

    let replay = [
        "train",
        "--mode",
        "without_ln",
        "--config",
        "found/replay.toml",
        "--device",
        "cpu",
        "--out",
        "replay",
    ];
    place.ok(&replay);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &str| place.read(&format!("{run}/checkpoints/latest/{file}"));
        assert!(read("found") == read("replay"), "{file}");
    }
    assert_eq!(removed(&place, "replay"), found);
}

#[test]
fn stopping_changes_nothing() {
    let place = Place::new();
    let more = taught(&[&ADAPTIVE[..], &["schedule.taper_steps=1"]].concat());
    place.ok(&strs(&place.train("calm", &strs(&more))));
    stopped_and_resumed(&place, "stopped", &strs(&more), &STOPS);
    same(&place, "calm", "stopped");
}

#[test]
fn stopping_with_fitted_channels_changes_nothing() {
    let place = Place::new();
    let more = ["--set", "norm.per_channel=true"];
    place.ok(&strs(&place.train("plain", &[])));
    place.ok(&strs(&place.train("calm", &more)));
    stopped_and_resumed(&place, "stopped", &more, &STOPS);
    same(&place, "calm", "stopped");
    let loss = |run: &str, step: usize| steps(&place, run)[step]["loss"].as_f64().unwrap();
    // ln_2 of the first block goes at step 1.
    assert_eq!(loss("plain", 0), loss("calm", 0));
    assert_ne!(loss("plain", 1), loss("calm", 1));
}

/// Takes `[schedule]` out of the config, so that removals can be listed.
fn without_schedule(place: &Place) {
    let text = place.text("tiny.toml");
    let (before, rest) = text.split_once("[schedule]").unwrap();
    let (_, after) = rest.split_once("[norm]").unwrap();
    std::fs::write(place.path("tiny.toml"), format!("{before}[norm]{after}")).unwrap();
}

#[test]
fn what_cannot_wait_is_refused() {
    let place = Place::new();
    refused(&place, "adaptive.tolerance=0.1", &["adaptive.tolerance", "needs distill.teacher"]);
    refused(&place, "adaptive.window=3", &["adaptive.window", "without adaptive.tolerance"]);
    refused(&place, "adaptive.retries=3", &["adaptive.retries", "without adaptive.tolerance"]);
    refused(&place, "adaptive.explodes_at=3", &["adaptive.explodes_at", "without adaptive.tolerance"]);
    for (set, words) in [
        ("adaptive.tolerance=0", ["adaptive.tolerance", "positive"]),
        ("adaptive.tolerance=nan", ["adaptive.tolerance", "positive"]),
        ("adaptive.tolerance=1", ["adaptive.explodes_at", "more than"]),
        ("adaptive.window=0", ["adaptive.window", "between 1 and"]),
        ("adaptive.retries=99", ["adaptive.retries", "at most 16"]),
    ] {
        let sets = taught(&["adaptive.tolerance=0.1", set]);
        place.fails(&strs(&place.train("run", &strs(&sets))), &words);
    }
    let listed = |removals: &str| format!("schedule.removals={removals}");
    refused(&place, &listed("[{step=1,kind=\"ln2\",layer=0}]"), &["schedule.removals", "leave start"]);
    without_schedule(&place);
    for (removals, words) in [
        ("[{step=1,kind=\"ln2\"}]", ["schedule.removals", "layer must be a block"]),
        ("[{step=1,kind=\"lnf\",layer=0}]", ["schedule.removals", "left out"]),
        ("[{step=1,kind=\"ln2\",layer=3}]", ["schedule.removals", "layer must be a block"]),
        ("[{step=24,kind=\"lnf\"}]", ["schedule.removals", "max_steps = 24"]),
        ("[{step=1,kind=\"lnf\",taper_steps=2}]", ["schedule.removals", "taper_steps = 2"]),
        ("[{step=1,kind=\"lnf\"},{step=2,kind=\"lnf\"}]", ["schedule.removals", "once is enough"]),
    ] {
        refused(&place, &listed(removals), &words);
    }
    assert!(!place.path("run").exists());
}

/// Lines of optimizer steps.
fn steps(place: &Place, run: &str) -> Vec<Value> {
    metrics(place, run).into_iter().filter(|line| line.get("event").is_none()).collect()
}

#[test]
fn what_explodes_is_taken_back_and_made_more_slowly() {
    let place = Place::new();
    let calm =
        ["train.dropout=0.0", "train.aux_loss_weight=0.0", "train.learning_rate=1e-7", "train.min_lr=0"];
    place.ok(&strs(&place.train("at_once", &strs(&taught(&calm)))));
    // ln_2 of the first block goes at step 1.
    let kl = steps(&place, "at_once")[1]["kl_loss"].as_f64().unwrap();
    let limit = format!("adaptive.explodes_at={:e}", 0.7 * kl);
    let sets = [&calm[..], &[&limit, "adaptive.tolerance=1e-12", "adaptive.retries=1"]].concat();
    let ended = place.fails(
        &strs(&place.train("run", &strs(&taught(&sets)))),
        &["above adaptive.explodes_at, however slowly", "the run up to step"],
    );
    assert!(ended.stderr.contains("back to step 1, and the same removal over 4 steps"), "{ended:?}");
    let back = events(&place, "run", "go_back");
    assert_eq!((back.len(), &back[0]["step"], &back[0]["exploded"]), (1, &1.into(), &1.into()));
    assert!((back[0]["kl"].as_f64().unwrap() - kl).abs() < 1e-9);
    let begun = events(&place, "run", "begin");
    assert_eq!(begun.len(), 1, "the first try is no part of the run any more: {begun:?}");
    assert_eq!((&begun[0]["removals"][0]["taper_steps"], &begun[0]["why"]), (&4.into(), &"first".into()));

    // What came after it is what a fixed schedule would have done.
    without_schedule(&place);
    let listed = "schedule.removals=[{step=5,kind=\"ln2\",layer=0,taper_steps=4}]";
    place.ok(&strs(&place.train("slowly", &strs(&taught(&[&calm[..], &[listed]].concat())))));
    let (run, slowly) = (steps(&place, "run"), steps(&place, "slowly"));
    assert!(run.len() > 3, "{run:?}");
    assert_eq!(run[..], slowly[..run.len()]);
}
