//! Logits and LN states in every stage of removal, equal to those of the paper's code.

mod common;

use common::{close, json, max_abs, relative_rms, settings, tensors, vector};
use lnfree::hook::NoHook;
use lnfree::model::{Compute, LoadedModel};
use lnfree::norm::{LnState, RemovalKind, ln_names};
use lnfree::stds::StdDict;
use lnfree::tch::{Device, Kind, no_grad_guard};
use serde_json::Value;

/// `ln1qk` takes the kind out of all blocks, `ln1qk_0` out of block 0 alone.
fn remove(ln: &mut LnState, event: &str) {
    let (name, layer) = match event.split_once('_') {
        Some((name, layer)) => (name, Some(layer.parse().unwrap())),
        None => (event, None),
    };
    let kind = RemovalKind::ALL.into_iter().find(|k| k.name() == name).unwrap();
    ln.remove(kind, layer);
}

fn check_state(ln: &LnState, expected: &Value, what: &str) {
    for (row, name) in ln_names(ln.n_layer()).iter().enumerate() {
        let want = &expected[name];
        let what = format!("{what} {name}");
        let (is_fake, v_fake) = match (ln.blocks.get(row / 2), row % 2) {
            (Some(block), 0) => (block.ln1_qk.is_fake(), block.ln1_v.is_fake()),
            (Some(block), _) => (block.ln2.is_fake(), false),
            (None, _) => (ln.lnf.is_fake(), false),
        };
        assert_eq!(want["is_fake"], is_fake, "{what}");
        assert_eq!(want["attn_v_is_fake"], v_fake, "{what}");
        assert_eq!(want["bos_special_treatment"], ln.is_special(row), "{what}");
        let row = row as i64;
        let running = |column| ln.statistics.running.double_value(&[row, column]);
        close(running(0), want["real_average_std"].as_f64().unwrap(), 1e-5, &format!("{what} average"));
        close(running(1), want["real_bos_std"].as_f64().unwrap(), 1e-5, &format!("{what} position 0"));
        for (column, buffer, element) in [
            (0, "average_std_buffer", "rest"),
            (1, "average_std_buffer", "v0"),
            (2, "bos_std_buffer", "rest"),
            (3, "bos_std_buffer", "v0"),
        ] {
            let found = ln.statistics.frozen.double_value(&[row, column]);
            close(
                found,
                want[buffer][element].as_f64().unwrap(),
                1e-5,
                &format!("{what} {buffer} {element}"),
            );
        }
    }
}

fn check_group(name: &str) {
    let _guard = no_grad_guard();
    let loaded = LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap();
    let initial = StdDict::read(&vector("tiny-a_std_dict.json")).unwrap().initial(3).unwrap();
    let group = &json("forward_states.json")["groups"][name];
    let vectors = tensors(group["file"].as_str().unwrap());
    let input_ids = &vectors["input_ids"];
    let compute = Compute { observe: true, ..Compute::default() };
    let mut compared = 0;
    for (state, expected) in group["states"].as_object().unwrap() {
        let mut ln = LnState::real(&initial, settings(&group["env"]), Device::Cpu);
        for event in expected["events"].as_array().unwrap() {
            remove(&mut ln, event.as_str().unwrap());
        }
        check_state(&ln, &expected["before"], &format!("{name}/{state} before"));
        for (call, after) in expected["after_call"].as_array().unwrap().iter().enumerate() {
            let mut pass = loaded.model.pass(input_ids, &ln, compute).unwrap();
            let residual = loaded.model.residual(input_ids, &mut pass, &mut NoHook);
            let last = loaded.model.final_norm(&residual, &mut pass, &mut NoHook);
            let logits = loaded.model.unembed(&last, &pass);
            let observed = pass.observations().unwrap();
            ln.observe(&observed);
            let what = format!("{name}/{state} call {}", call + 1);
            check_state(&ln, after, &what);
            let keys = [format!("logits.{state}.call{}", call + 1), format!("logits.{state}")];
            let Some(want) = keys.iter().find_map(|key| vectors.get(key)) else { continue };
            let rms = relative_rms(&logits, want);
            assert!(rms < 1e-5, "{what}: relative RMS {rms:e}");
            let limit = if want.abs().max().double_value(&[]) > 10.0 { 5e-4 } else { 1e-4 };
            let worst = max_abs(&logits, want);
            assert!(worst < limit, "{what}: largest difference {worst:e}");
            compared += 1;
        }
    }
    assert!(compared >= group["states"].as_object().unwrap().len(), "{name}: {compared} logits compared");
}

#[test]
fn default_settings() {
    check_group("default");
}

#[test]
fn special_std_at_position_0() {
    check_group("correct_bos");
}

#[test]
fn special_std_at_feature_0() {
    check_group("nembd_bos");
}

#[test]
fn follow_while_real() {
    check_group("recompute_real");
}

#[test]
fn follow_always() {
    check_group("recompute_both");
}

#[test]
fn follow_always_with_special_std() {
    check_group("correct_bos_recompute_both");
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
