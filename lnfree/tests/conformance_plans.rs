//! Schedules, learning rates and standard-deviation files, equal to those of the paper's code.

mod common;

use common::{close, json, map, tensors, token_file, vector};
use lnfree::config::Config;
use lnfree::config::LrSchedule;
use lnfree::data::TokenFile;
use lnfree::model::LoadedModel;
use lnfree::norm::{RemovalKind, SpecialAxis};
use lnfree::schedule::{Schedule, ScheduleConfig};
use lnfree::stds::{StdDict, measure};
use lnfree::tch::{Device, Kind};
use serde_json::Value;

/// Configs that the crate ships under the paper's names.
const SHIPPED: [&str; 12] = [
    "gpt2",
    "gpt2_aux",
    "gpt2-medium_fasttune",
    "gpt2-medium_fasttune_aux",
    "gpt2-large",
    "gpt2-large_aux",
    "gpt2-xl",
    "gpt2-xl_aux",
    "gpt2_lora_lr1e-3",
    "gpt2-medium_lora_lr1e-3",
    "gpt2-large_lora_lr1e-3",
    "gpt2-xl_lora_lr1e-3",
];

fn schedule_config(fields: &Value) -> ScheduleConfig {
    let get = |name: &str| fields[name].as_u64().map(|v| v as usize);
    ScheduleConfig {
        start_ln2: get("start_ln2"),
        gap_ln2: get("gap_ln2").unwrap_or(0),
        start_ln1qk: get("start_ln1qk"),
        gap_ln1qk: get("gap_ln1qk").unwrap_or(0),
        start_ln1v: get("start_ln1v"),
        gap_ln1v: get("gap_ln1v").unwrap_or(0),
        start_lnf: get("start_lnf"),
        start_eot: get("start_eot"),
        gap_eot: get("gap_eot").unwrap_or(0),
        start_bos: get("start_bos"),
        gap_bos: get("gap_bos").unwrap_or(0),
        ..ScheduleConfig::default()
    }
}

/// `[step, kind, layer]` as the vectors write it.
fn events(schedule: &Schedule, max_steps: usize) -> Vec<Value> {
    let fired = schedule.removals().iter().filter(|r| r.step < max_steps);
    fired.map(|r| serde_json::json!([r.step, r.kind.name(), r.layer])).collect()
}

#[test]
fn every_schedule_of_the_paper() {
    let configs = map(&json("schedules.json")["configs"]);
    assert!(configs.len() >= 17);
    for (name, config) in &configs {
        let fields = &config["fields"];
        let n_layer = fields["n_layers"].as_u64().unwrap() as usize;
        let max_steps = fields["max_steps"].as_u64().unwrap() as usize;
        let schedule = Schedule::new(&schedule_config(fields), n_layer);
        let expected = config["correct_bos_1"]["events"].as_array().unwrap();
        assert_eq!(&events(&schedule, max_steps), expected, "{name}");
        let without = schedule.without(RemovalKind::Bos);
        assert_eq!(
            &events(&without, max_steps),
            config["correct_bos_0"]["events"].as_array().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn shipped_configs_are_the_papers() {
    let configs = map(&json("schedules.json")["configs"]);
    for name in SHIPPED {
        let want = &configs[name];
        let fields = &want["fields"];
        let mut config = Config::load(name, &[]).unwrap();
        let train = &config.train;
        let is = |found: f64, field: &str| assert_eq!(fields[field].as_f64(), Some(found), "{name} {field}");
        is(config.model.n_layer as f64, "n_layers");
        is(train.batch_size as f64, "batch_size");
        is(train.gradient_accumulation_steps as f64, "gradient_accumulation_steps");
        is(train.max_steps as f64, "max_steps");
        is(train.warmup_steps as f64, "warmup_steps");
        is(train.learning_rate, "learning_rate");
        is(train.weight_decay, "weight_decay");
        is(train.aux_loss_weight, "aux_loss_weight");
        is(train.max_grad_norm, "max_grad_norm");
        is(config.norm.momentum, "momentum");
        is(config.data.block_size as f64, "block_size");
        assert_eq!(fields["lr_scheduler_kwargs"]["min_lr"].as_f64(), Some(train.min_lr), "{name}");
        // The paper's code has a rank in every config, and reads it for those with LoRA.
        let rank = fields["lora_rank"].as_u64().filter(|_| name.contains("_lora_"));
        assert_eq!(rank, config.lora.rank.map(|rank| rank as u64), "{name}");
        assert_eq!(fields["gradient_checkpointing"], train.gradient_checkpointing, "{name}");
        assert_eq!(fields["model_name"], config.model.name, "{name}");
        assert_eq!(want["tokens_per_optimizer_step"], config.tokens_per_step(), "{name}");
        let expected = want["correct_bos_1"]["events"].as_array().unwrap();
        assert_eq!(&events(&config.schedule(), config.train.max_steps), expected, "{name}");
        config.norm.special_axis = SpecialAxis::Feature;
        let expected = want["correct_bos_0"]["events"].as_array().unwrap();
        assert_eq!(&events(&config.schedule(), config.train.max_steps), expected, "{name}");
    }
}

#[test]
fn state_at_a_step_is_everything_due_until_then() {
    let schedule = Config::load("gpt2", &[]).unwrap().schedule();
    for step in 0..300 {
        let due: usize = (0..=step).map(|s| schedule.at(s).len()).sum();
        assert_eq!(schedule.states_at(step).len(), due);
        assert!(schedule.next_after(step).is_none_or(|r| r.step > step));
    }
}

#[test]
fn learning_rates() {
    for (name, recorded) in map(&json("lr_schedules.json")["configs"]) {
        let number = |field: &str| recorded[field].as_f64().unwrap();
        let schedule = LrSchedule {
            learning_rate: number("learning_rate"),
            min_lr: number("min_lr"),
            warmup_steps: number("warmup_steps") as usize,
            max_steps: number("max_steps") as usize,
        };
        let used = recorded["lr_used"].as_array().unwrap();
        for (step, want) in used.iter().enumerate() {
            close(schedule.at(step), want.as_f64().unwrap(), 1e-12, &format!("{name} step {step}"));
        }
        close(schedule.at(used.len()), number("lr_after_last"), 1e-12, &name);
    }
}

#[test]
fn std_files_of_the_paper() {
    for (name, n_layer) in [("gpt2", 12), ("gpt2-medium", 24), ("gpt2-large", 36), ("gpt2-xl", 48)] {
        let file = &json("std_dicts.json")[name];
        let stds: StdDict = serde_json::from_value(file.clone()).unwrap();
        let initial = stds.initial(n_layer).unwrap();
        let table = &file["std_dict"];
        for l in 0..n_layer {
            assert_eq!(table[format!("blocks.{l}.hook_resid_pre")], initial[2 * l].0);
            assert_eq!(table[format!("blocks.{l}.hook_resid_mid")], initial[2 * l + 1].0);
        }
        assert_eq!(table[format!("blocks.{}.hook_resid_post", n_layer - 1)], initial[2 * n_layer].0);
        let last = &file["std_bos_dict"][format!("blocks.{}.hook_resid_post", n_layer - 1)];
        assert_eq!(*last, initial[2 * n_layer].1);
        assert_eq!(serde_json::to_value(&stds).unwrap(), *file);
        assert!(stds.initial(n_layer + 1).unwrap_err().to_string().contains("blocks."));
    }
}

#[test]
fn measured_standard_deviations() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokens.arrow");
    token_file(&path, &tensors("std_tokens.safetensors")["tokens"]);
    let loaded = LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap();
    let tokens = TokenFile::open(&path).unwrap();
    let found = measure(&loaded.model, &loaded.ln, &tokens, 64, 8).unwrap();
    let expected = StdDict::read(&vector("tiny-a_std_dict.json")).unwrap();
    assert_eq!(found.std_dict.len(), expected.std_dict.len());
    for (hook, want) in &expected.std_dict {
        close(found.std_dict[hook], *want, 2e-6, hook);
    }
    for (hook, want) in &expected.std_bos_dict {
        close(found.std_bos_dict[hook], *want, 2e-6, hook);
    }
}
