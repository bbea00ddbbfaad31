//! The shipped configs, embedded from `configs/`.

use std::path::Path;

use crate::base::closest::did_you_mean;
use crate::{Error, Result};

/// A shipped config.
#[derive(Debug, Clone, Copy)]
pub struct Preset {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Its TOML.
    pub text: &'static str,
}

impl Preset {
    /// Its first comment line: what it is for.
    pub fn summary(&self) -> &'static str {
        self.text.lines().next().unwrap_or_default().trim_start_matches('#').trim()
    }
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Every shipped config.
        pub const PRESETS: &[Preset] =
            &[$(Preset { name: $name, text: include_str!(concat!("../../configs/", $name, ".toml")) }),*];
    };
}

presets![
    "nano",
    "nano_pretrain",
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

/// A shipped config of this name, or the path of one.
///
/// # Errors
/// When it is neither.
pub(super) fn source(name_or_path: &str) -> Result<Source<'_>> {
    if let Some(preset) = PRESETS.iter().find(|p| p.name == name_or_path) {
        return Ok(Source::Shipped(preset));
    }
    let path = Path::new(name_or_path);
    if !path.exists() {
        let names: Vec<&str> = PRESETS.iter().map(|p| p.name).collect();
        return Err(Error::invalid(format!(
            "config {name_or_path}: neither a file nor one of {}{}",
            names.join(", "),
            did_you_mean(name_or_path, names.iter().copied())
        )));
    }
    Ok(Source::File(path))
}

/// Where a config is from.
pub(super) enum Source<'a> {
    Shipped(&'static Preset),
    File(&'a Path),
}
