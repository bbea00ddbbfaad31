//! A folder with a model to a repository of the hub, in one commit.
//!
//! hf-hub 0.5 has no uploads, and 1.0 sends large files through xet with an asynchronous runtime: this is the
//! protocol that every hub speaks (create, preupload, git-lfs batch, commit), on ureq.

mod files;
mod lfs;
mod writer;

use std::io::{Seek, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::client::Client;
use super::download::{persist, persist_with};
use super::failure::{Failure, Kind, one_line};
use super::repositories::Hub;
use super::settings::Settings;
use crate::hub::names::RepoId;
use crate::{Error, Result};
use files::{LocalFile, base64_of, files_of};
use writer::Writer;

/// Files in one question about how they are to be uploaded.
const MANY: usize = 256;

/// How a folder is pushed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushOptions {
    /// Whether a repository that is made for it is private; one that is there already stays as it is.
    pub private: bool,
    /// The commit's message; its first line is the title. By default it names this program.
    pub message: Option<String>,
    /// The branch, which has to be there; by default `main`.
    pub revision: Option<String>,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The page of the repository.
    pub url: String,
    /// The commit that the branch stands for now; none if an empty branch got nothing new.
    pub commit: String,
    /// Names of the files that are new or changed.
    pub changed: Vec<String>,
    /// Bytes of large files that were sent; what the hub had already was not.
    pub sent: u64,
}

/// What the hub says of a file before it is sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
    /// What the branch has under this name.
    oid: Option<String>,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_oid: String,
}

/// [`Hub::push`] with the settings of the environment.
///
/// # Errors
/// As [`Settings::from_env`] and [`Hub::push`].
pub fn push(folder: &Path, repo: &str, options: &PushOptions) -> Result<Pushed> {
    Hub::new(Settings::from_env()?).push(folder, repo, options)
}

impl Hub {
    /// Whether a push to `repo` could begin: a name of the form `ORG/NAME`, a token, and not offline. Nobody
    /// is asked.
    ///
    /// # Errors
    /// One line that says what is missing, and where a token comes from.
    pub fn check_push(&self, repo: &str) -> Result<()> {
        self.push_target(repo, None).map(|_| ())
    }

    /// Makes the model repository `ORG/NAME` if there is none, and puts the files of `folder` there in one
    /// commit, with progress bars. Large files go first, one at a time, streamed from the disk; what an
    /// interrupted push has brought is not sent again. Files that the repository has and the folder has not
    /// stay.
    ///
    /// # Errors
    /// As [`Hub::check_push`]; a folder without a model; a token that the hub does not accept or that may not
    /// write there; no such branch; no network. The branch is as it was then.
    pub fn push(&self, folder: &Path, repo: &str, options: &PushOptions) -> Result<Pushed> {
        let id = self.push_target(repo, options.revision.as_deref())?;
        let files = files_of(folder)?;
        let client = Client::new(&self.settings)?;
        let writer = Writer { client: &client, id: &id };
        create(&writer, options.private)?;
        let mut modes = Vec::new();
        for files in files.chunks(MANY) {
            modes.extend(persist(|_| ask_modes(&writer, files))?);
        }
        let changed = changed(&id, &files, &modes)?;
        let mut sent = 0;
        for (file, large) in &changed {
            if *large && lfs::upload(&writer, file)? {
                sent += file.size;
            }
        }
        let commit = match changed.is_empty() {
            true => persist(|_| client.info(&id))?.sha,
            false => commit(&writer, &changed, options.message.as_deref())?,
        };
        let url = format!("{}/{}", self.settings.shown_endpoint(), id.id);
        Ok(Pushed { url, commit, changed: changed.iter().map(|(file, _)| file.name.clone()).collect(), sent })
    }

    fn push_target(&self, repo: &str, revision: Option<&str>) -> Result<RepoId> {
        let id = RepoId::to_write(repo, revision)?;
        if self.settings.offline {
            return Err(Error::invalid(format!(
                "cannot push to {repo}: HF_HUB_OFFLINE is set; unset it to push"
            )));
        }
        if self.settings.token.is_none() {
            return Err(Error::invalid(format!(
                "cannot push to {repo} without a token: make one with write access at {}/settings/tokens, and set HF_TOKEN to it \
                 or give it to `hf auth login`",
                self.settings.shown_endpoint()
            )));
        }
        Ok(id)
    }
}

/// What the hub says to the first questions about the files of `folder`, each asked once.
pub(super) fn ask_once(client: &Client, id: &RepoId, folder: &Path) -> Result<(), Failure> {
    let files = files_of(folder)?;
    let writer = Writer { client, id };
    let modes = ask_modes(&writer, &files)?;
    changed(id, &files, &modes)?.iter().try_for_each(|(file, _)| lfs::ask_once(&writer, file))
}

/// Makes the repository, unless it is there.
fn create(writer: &Writer, private: bool) -> Result<(), Failure> {
    let (organization, name) = writer.id.id.split_once('/').unwrap_or_default();
    let mut asked = json!({ "type": "model", "organization": organization, "name": name });
    // Not said otherwise: an organization may have settings of its own.
    if private {
        asked["private"] = true.into();
    }
    persist(|_| {
        let response = writer.post_json(&writer.api("repos/create"), &asked)?;
        match response.status().as_u16() {
            200..=299 => Ok(()),
            // "Another conflicting operation is in progress" is a 409 too.
            409 => match writer.said(response) {
                (_, said) if said.contains("in progress") => Err(Failure::new(Kind::Transient, said)),
                _ => Ok(()),
            },
            // Who may not make repositories there may still write to this one.
            403 => match writer.client.info(writer.id) {
                Ok(_) => Ok(()),
                Err(_) => Err(writer.refused("a new repository", response)),
            },
            _ => Err(writer.refused("a new repository", response)),
        }
    })
}

/// Asks which of the files are large ones to the hub, and what it has of them.
fn ask_modes(writer: &Writer, files: &[LocalFile]) -> Result<Vec<Mode>, Failure> {
    let files: Vec<_> = files
        .iter()
        .map(|file| json!({ "path": file.name, "size": file.size, "sample": base64_of(&file.sample) }))
        .collect();
    let response = writer.post_json(&writer.at_revision("preupload"), &json!({ "files": files }))?;
    Ok(writer.read::<Modes>("how to upload", response)?.files)
}

/// The files that are not on the branch as they are here, and whether each is large.
fn changed<'a>(
    id: &RepoId,
    files: &'a [LocalFile],
    modes: &[Mode],
) -> Result<Vec<(&'a LocalFile, bool)>, Failure> {
    let mut changed = Vec::new();
    for file in files {
        let mode = modes.iter().find(|mode| mode.path == file.name).ok_or_else(|| {
            Failure::new(Kind::Final, format!("{}: the hub does not say how to upload {}", id.id, file.name))
        })?;
        // Nothing cannot be stored outside of git.
        let large = mode.upload_mode == "lfs" && file.size > 0;
        let here = if large { file.sha256.clone() } else { file.git_hash()? };
        if !mode.should_ignore && mode.oid.as_ref() != Some(&here) {
            changed.push((file, large));
        }
    }
    Ok(changed)
}

/// Puts the files into one commit on the branch; the large ones are there by their hashes.
fn commit(writer: &Writer, files: &[(&LocalFile, bool)], message: Option<&str>) -> Result<String, Failure> {
    let default = concat!("Upload model with lnfree ", env!("CARGO_PKG_VERSION"));
    let (summary, description) =
        message.unwrap_or(default).split_once('\n').unwrap_or((message.unwrap_or(default), ""));
    // Lines of JSON in a file: never all files in memory.
    let spooled = || -> std::io::Result<std::fs::File> {
        let mut lines = std::io::BufWriter::new(tempfile::tempfile()?);
        let header = json!({ "summary": summary.trim(), "description": description.trim() });
        writeln!(lines, "{}", json!({ "key": "header", "value": header }))?;
        for (file, large) in files {
            file.write_line(*large, &mut lines)?;
        }
        lines.into_inner().map_err(|e| e.into_error())
    };
    let cannot = |e: std::io::Error| {
        Failure::new(Kind::Final, format!("{}: cannot make the commit: {e}", writer.id.id))
    };
    let mut lines = spooled().map_err(cannot)?;
    let length = lines.stream_position().map_err(cannot)?;
    persist_with(true, |_| {
        lines.rewind().map_err(cannot)?;
        let response = writer.send_lines(&writer.at_revision("commit"), length, &mut lines)?;
        Ok(one_line(&writer.read::<Commit>("a commit", response)?.commit_oid))
    })
}
