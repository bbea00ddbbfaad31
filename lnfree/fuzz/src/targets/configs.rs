//! Configs of runs and of models.

use lnfree::Result;
use lnfree::config::Config;
use lnfree::config::hf_config;
use lnfree::data::dataset_options;
use lnfree::model::{Gpt2Config, Shape};

use super::USUAL;
use crate::parts::parts;
use crate::{Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "config", read: config, words: CONFIG, limits: USUAL },
    Target { name: "model_config", read: model_config, words: MODEL, limits: USUAL },
];

const CONFIG: &[&str] = &[
    "[model]",
    "[train]",
    "[schedule]",
    "[norm]",
    "[data]",
    "[eval]",
    "name = ",
    "n_layer = ",
    "n_head",
    "n_embd",
    "block_size",
    "vocab_size",
    "batch_size",
    "gradient_accumulation_steps",
    "micro_batch_size",
    "learning_rate",
    "min_lr",
    "warmup_steps",
    "max_steps",
    "weight_decay",
    "dtype",
    "param_dtype",
    "seed",
    "save_every",
    "keep_steps",
    "keep_checkpoints",
    "start_ln2",
    "gap_ln2",
    "start_lnf",
    "start_eot",
    "aux_loss_weight",
    "momentum",
    "init",
    "special_std",
    "special_axis",
    "exclude_position_0",
    "eot_token_id",
    "max_sequences",
    "\"\"\"",
    "'''",
    "inf",
    "nan",
    "1979-05-27T07:32:00Z",
    "0x7fffffffffffffff",
    "train.max_steps=",
    "=",
];

/// TOML, and after it lines for `--set`.
fn config(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [text, overrides] = parts(input);
    let overrides: Vec<String> = String::from_utf8_lossy(overrides).lines().map(String::from).collect();
    let path = scratch.write("config.toml", text);
    let config = Config::read(&path, &overrides)?;
    let again = Config::parse(&config.to_toml(), "what was written", &[])?;
    assert!(again == config, "written and read again it is another config");
    let (schedule, lr) = (config.schedule(), config.lr_schedule());
    let _ = (schedule, lr.at(0), lr.at(config.train.max_steps), config.tokens_per_step());
    Ok(())
}

const MODEL: &[&str] = &[
    "\"model_type\": \"gpt2\"",
    "\"activation_function\"",
    "\"gelu_new\"",
    "\"n_layer\"",
    "\"n_head\"",
    "\"n_embd\"",
    "\"n_positions\"",
    "\"n_ctx\"",
    "\"vocab_size\"",
    "\"n_inner\"",
    "\"layer_norm_epsilon\"",
    "\"resid_pdrop\"",
    "\"bos_token_id\"",
    "\"eos_token_id\"",
    "\"pad_token_id\"",
    "\"tie_word_embeddings\"",
    "\"torch_dtype\"",
    "\"dtype\"",
    "\"float16\"",
    "\"bfloat16\"",
    "\"lnfree_format\"",
    "\"folded\"",
    "\"architectures\"",
    "\"initializer_range\"",
    "\"scale_attn_weights\"",
    "\"reorder_and_upcast_attn\"",
    "\"add_cross_attention\"",
    "\"do_sample\"",
];

/// config.json, and generation_config.json beside it.
fn model_config(scratch: &Scratch, input: &[u8]) -> Result<()> {
    let [config, generation] = parts(input);
    scratch.write("model/config.json", config);
    scratch.write("model/generation_config.json", generation);
    let folder = scratch.file("model");
    let config = Gpt2Config::read(&folder)?;
    let _ = (hf_config::expected(&config).len(), Shape::of(&config), dataset_options(&folder, 16));
    let out = scratch.file("written");
    std::fs::create_dir_all(&out).map_err(lnfree::Error::io(&out))?;
    config.write(&out)?;
    let again = Gpt2Config::read(&out)?;
    assert!(again == config, "written and read again it is another config: {again:?} {config:?}");
    Ok(())
}
