//! A crate of one's own that uses lnfree, ready to build.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;

use super::out::outln;

#[derive(Args)]
pub struct NewArgs {
    /// Folder to make; its name is the crate's.
    folder: PathBuf,
    /// lnfree's source; by default where this program was built.
    #[arg(long, value_name = "DIR")]
    lnfree: Option<PathBuf>,
}

/// What an own crate begins with.
const MAIN: &str = r#"use lnfree::prelude::*;

fn main() -> Result<()> {
    let loaded = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
    let tokens = open_dataset("nano-addresses", 128)?;
    let options = EvalOptions { max_sequences: 16, ..EvalOptions::default() };
    let losses = evaluate(&loaded.model, &loaded.ln, &tokens, options, |_| {})?;
    println!("{:.4} nats per token", Summary::new(&losses.losses).mean);
    Ok(())
}
"#;

/// Makes the folder.
pub fn new(args: NewArgs) -> anyhow::Result<()> {
    let folder = std::path::absolute(&args.folder)?;
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if !valid {
        bail!("{}: a crate's name has letters, digits, - and _, and begins with a letter", folder.display());
    }
    if folder.exists() {
        bail!("{}: is there already; choose another folder", folder.display());
    }
    let source = source(args.lnfree)?;
    let libtorch = lnfree::device::libtorch_folder()
        .and_then(|lib| Some(lib.parent()?.to_path_buf()))
        .context("which libtorch this program has loaded cannot be found out")?;
    if !libtorch.join("include/torch").is_dir() {
        bail!(
            "{}: has no headers of libtorch, which lnfree is compiled with; run setup.sh",
            libtorch.display()
        );
    }
    let text = |path: &Path| toml_string(&path.to_string_lossy());
    let cargo = format!(
        "[package]\nname = {}\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[dependencies]\nlnfree = {{ path = {}, \
         default-features = false, features = [\"kernels\", \"study\"] }}\n\n[workspace]\n",
        toml_string(&name),
        text(&source)
    );
    let rpath = format!("-Clink-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
    let config = format!(
        "# The libtorch that lnfree is compiled with, and found with when the program runs.\n[env]\nLIBTORCH = {}\n\n\
         [build]\nrustflags = [{}]\n",
        text(&libtorch),
        toml_string(&rpath)
    );
    // The versions that lnfree is tested with, which its notebooks use too.
    let lock =
        source.parent().and_then(|repository| std::fs::read_to_string(repository.join("Cargo.lock")).ok());
    let files = [
        ("Cargo.toml", Some(cargo.as_str())),
        ("Cargo.lock", lock.as_deref()),
        (".cargo/config.toml", Some(&config)),
        ("src/main.rs", Some(MAIN)),
        (".gitignore", Some("/target\n")),
    ];
    for (name, content) in files.into_iter().filter_map(|(name, content)| Some((name, content?))) {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(&folder);
        std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
    }
    outln!("{}: cd there and cargo run --release", folder.display());
    Ok(())
}

/// The folder of lnfree's own `Cargo.toml`.
fn source(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let is_source =
        |folder: &Path| folder.join("native/torch.cpp").is_file() && folder.join("Cargo.toml").is_file();
    if let Some(given) = given {
        let given = std::path::absolute(&given)?;
        let found = [given.clone(), given.join("lnfree")].into_iter().find(|folder| is_source(folder));
        return found.with_context(|| format!("{}: is not lnfree's source", given.display()));
    }
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    match is_source(&built) {
        true => Ok(built),
        false => {
            bail!("{}: lnfree's source is no longer there; give its folder with --lnfree", built.display())
        }
    }
}

/// A string as TOML writes it.
fn toml_string(text: &str) -> String {
    toml::Value::from(text).to_string()
}
