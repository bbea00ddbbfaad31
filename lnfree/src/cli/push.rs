//! `push`, and the end of `export --push`.

use std::path::{Path, PathBuf};

use clap::Args;
use lnfree::hub::{Hub, PushOptions, Settings};

use super::out::outln;

#[derive(Args)]
pub(super) struct PushArgs {
    /// Folder with the model, such as `export` writes.
    folder: PathBuf,
    /// Model repository, made if there is none; your user name or an organization of yours, and a name.
    #[arg(value_name = "ORG/NAME")]
    repo: String,
    /// Make the repository private, if it has to be made.
    #[arg(long)]
    private: bool,
    /// Title of the commit.
    #[arg(long)]
    message: Option<String>,
    /// Branch to commit to, which has to be there; by default main.
    #[arg(long)]
    revision: Option<String>,
}

pub(super) fn push(args: PushArgs) -> anyhow::Result<()> {
    let options = PushOptions { private: args.private, message: args.message, revision: args.revision };
    upload(&Hub::new(Settings::from_env()?), &args.folder, &args.repo, &options)
}

/// Pushes, and says what came of it.
pub(super) fn upload(hub: &Hub, folder: &Path, repo: &str, options: &PushOptions) -> anyhow::Result<()> {
    let pushed = hub.push(folder, repo, options)?;
    match pushed.changed.len() {
        0 => outln!("{}: has all of {} already, commit {}", pushed.url, folder.display(), pushed.commit),
        n => outln!("{}: {n} file(s) of {}, commit {}", pushed.url, folder.display(), pushed.commit),
    }
    Ok(())
}
