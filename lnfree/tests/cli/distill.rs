//! Runs that learn from a teacher.

use serde_json::Value;

use super::bad_input::refused;
use super::resume::{STOPS, metrics, same, stopped_and_resumed};
use super::{Place, common, strs};

/// `--set` for the tiny model as its own teacher, and `more`.
pub(super) fn taught(more: &[&str]) -> Vec<String> {
    let teacher = format!("distill.teacher={:?}", common::vector("tiny-a"));
    let sets = [teacher].into_iter().chain(more.iter().map(|set| set.to_string()));
    sets.flat_map(|set| ["--set".to_string(), set]).collect()
}

fn steps(place: &Place, run: &str) -> Vec<Value> {
    metrics(place, run).into_iter().filter(|line| line.get("event").is_none()).collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key}: {line}"))
}

#[test]
fn stopping_with_a_teacher_changes_nothing() {
    let place = Place::new();
    let more = taught(&["distill.weight=0.7", "distill.temperature=2", "train.gradient_checkpointing=true"]);
    place.ok(&strs(&place.train("calm", &strs(&more))));
    stopped_and_resumed(&place, "stopped", &strs(&more), &STOPS);
    same(&place, "calm", "stopped");
    for line in steps(&place, "calm") {
        let (ce, kl) = (number(&line, "ce_loss"), number(&line, "kl_loss"));
        let mixed = 0.3 * ce + 0.7 * 4.0 * kl + number(&line, "aux_loss");
        assert!((number(&line, "loss") - mixed).abs() < 1e-5 && kl > 0.0, "{line}");
    }
}

#[test]
fn a_model_that_is_its_teacher_begins_without_a_distance_and_moves_away_as_ln_goes() {
    let place = Place::new();
    let more = taught(&["train.dropout=0.0", "train.aux_loss_weight=0.0"]);
    place.ok(&strs(&place.train("run", &strs(&more))));
    let kl: Vec<f64> = steps(&place, "run").iter().map(|line| number(line, "kl_loss")).collect();
    // ln_2 of the first block goes at step 1.
    assert!(kl[0].abs() < 1e-6 && kl[1] > 1e-6, "{kl:?}");
}

#[test]
fn a_batch_in_parts_learns_what_a_whole_one_does() {
    let place = Place::new();
    for (run, micro_batch) in [("whole", "train.micro_batch_size=2"), ("parts", "train.micro_batch_size=1")] {
        let hidden = "distill.hidden_weight=2";
        let more = taught(&["distill.weight=0.5", "train.dropout=0.0", hidden, micro_batch]);
        place.ok(&strs(&place.train(run, &strs(&more))));
    }
    for (whole, parts) in steps(&place, "whole").iter().zip(&steps(&place, "parts")) {
        for key in ["loss", "ce_loss", "kl_loss", "hidden_loss", "grad_norm"] {
            let (whole, parts) = (number(whole, key), number(parts, key));
            assert!((whole - parts).abs() < 1e-4 * (1.0 + whole.abs()), "{key}: {whole} and {parts}");
        }
    }
}

#[test]
fn teachers_that_cannot_teach_are_refused() {
    let place = Place::new();
    refused(&place, "distill.weight=0.5", &["distill.weight", "distill.teacher"]);
    refused(&place, "distill.hidden_weight=1.0", &["distill.hidden_weight", "distill.teacher"]);
    refused(&place, "distill.temperature=2.0", &["distill.temperature", "distill.teacher"]);
    refused(&place, "distill.teacher=\"\"", &["distill.teacher", "names no model"]);
    refused(&place, "distill.teacher=\"missing\"", &["distill.teacher", "missing"]);
    refused(&place, "distill.teacher=\"nano\"", &["has 4096 tokens", "256"]);
    for (set, words) in [
        ("distill.weight=1.5", ["distill.weight", "between 0 and 1"]),
        ("distill.weight=nan", ["distill.weight", "between 0 and 1"]),
        ("distill.hidden_weight=-1", ["distill.hidden_weight", "not be negative"]),
        ("distill.weight=0", ["distill.weight", "leave distill.teacher out"]),
        ("distill.temperature=0", ["distill.temperature", "between 0.01 and 100"]),
    ] {
        place.fails(&strs(&place.train("run", &strs(&taught(&[set])))), &words);
    }
    assert!(!place.path("run/checkpoints").exists());
}
