//! The hub itself: what a name needs is found in the cache, or fetched into it.

use std::path::{Path, PathBuf};

use super::cache::{CONFIG, Has, RepoCache, TOKENIZER, WEIGHTS, Want};
use super::client::Client;
use super::dataset::DatasetRepo;
use super::download::persist;
use super::failure::{Failure, Kind, one_line};
use super::fetch::Fetch;
use super::settings::Settings;
use crate::base::console::say;
use crate::config::Gpt2Config;
use crate::hub::names::RepoId;
use crate::{Error, Result};

/// Beside config and weights, what a model's repository may have.
const GENERATION: &str = "generation_config.json";

/// [`Hub::model`] with the settings of the environment.
///
/// # Errors
/// As [`Settings::from_env`] and [`Hub::model`].
pub fn model(name: &str) -> Result<PathBuf> {
    Hub::new(Settings::from_env()?).model(name)
}

/// [`Hub::tokenizer`] with the settings of the environment.
///
/// # Errors
/// As [`Settings::from_env`] and [`Hub::tokenizer`].
pub fn tokenizer(name: &str) -> Result<PathBuf> {
    Hub::new(Settings::from_env()?).tokenizer(name)
}

/// [`Hub::dataset`] with the settings of the environment.
///
/// # Errors
/// As [`Settings::from_env`] and [`Hub::dataset`].
pub fn dataset(name: &str) -> Result<DatasetRepo> {
    Hub::new(Settings::from_env()?).dataset(name)
}

/// The Hugging Face hub or a mirror of it, and the cache of what came from there.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) settings: Settings,
}

impl Hub {
    /// A hub with these settings; nothing is asked yet.
    pub fn new(settings: Settings) -> Hub {
        Hub { settings }
    }

    /// The snapshot folder of a GPT-2 named `ORG/NAME`, `ORG/NAME@REVISION`, or shortly (`gpt2-xl`): config,
    /// weights (safetensors if there are any, in one file or in shards, else `pytorch_model.bin`), and the
    /// tokenizer if it has one.
    ///
    /// What the cache lacks is downloaded, an interrupted download is continued, and every file is checked
    /// before it is used. A branch that is in the cache is not looked up again.
    ///
    /// # Errors
    /// One line: not a name, no such repository, gated or private, no network, offline and not cached, not a
    /// GPT-2, no weights, no room, or a file that arrives damaged.
    pub fn model(&self, name: &str) -> Result<PathBuf> {
        self.snapshot(name, Want::Model)
    }

    /// The snapshot folder of a repository, named as for [`Hub::model`], with its tokenizer.
    ///
    /// # Errors
    /// As [`Hub::model`]; or it has no tokenizer.
    pub fn tokenizer(&self, name: &str) -> Result<PathBuf> {
        self.snapshot(name, Want::Tokenizer)
    }

    /// The data set repository named `ORG/NAME` or `ORG/NAME@REVISION`, at the commit that it stands for now;
    /// none of its files is fetched. Offline, or without a network, at the commit that it stood for last,
    /// with the files that the cache has.
    ///
    /// # Errors
    /// One line: not a name, no such repository, gated or private, no network, or offline and not cached.
    pub fn dataset(&self, name: &str) -> Result<DatasetRepo> {
        DatasetRepo::find(&self.settings, RepoId::dataset(name)?)
    }

    fn snapshot(&self, name: &str, want: Want) -> Result<PathBuf> {
        let id = RepoId::parse(name)?;
        let found = id
            .cached_as()
            .iter()
            .filter_map(|cached| {
                RepoCache::new(&self.settings.cache, id.kind, cached, &id.revision).find(want)
            })
            .max_by_key(|(_, has)| *has);
        match found {
            Some((folder, Has::All)) => return Ok(folder),
            Some((folder, Has::Enough)) if self.settings.offline => return Ok(folder),
            _ if self.settings.offline => return Err(self.offline(&id)),
            _ => {}
        }
        match (self.download(&id, want), found) {
            (Ok(folder), _) => Ok(folder),
            (Err(failure), Some((folder, Has::Enough))) if failure.kind != Kind::Final => {
                say(&format!(
                    "{}: using the cache, which has no tokenizer for it ({})",
                    id.id, failure.message
                ));
                Ok(folder)
            }
            (Err(mut failure), _) => {
                // A hub that answers says it with its answer.
                if failure.kind == Kind::Unreachable {
                    failure.message += &id.hint();
                }
                Err(failure.into())
            }
        }
    }

    fn offline(&self, id: &RepoId) -> Error {
        let at = if id.revision == "main" { String::new() } else { format!(" at {}", id.revision) };
        Error::invalid(format!(
            "model {}: no such file or folder here, and {}{at} is not (completely) in {}{}; HF_HUB_OFFLINE is set: unset it \
             to download",
            id.typed,
            id.id,
            self.settings.cache.display(),
            id.hint()
        ))
    }

    fn download(&self, id: &RepoId, want: Want) -> Result<PathBuf, Failure> {
        let client = Client::new(&self.settings)?;
        let info = persist(|_| client.info(id))?;
        let files: Vec<&str> = info.siblings.iter().map(|s| s.rfilename.as_str()).collect();
        let weights = check_files(id, &files, want)?;
        let cache = RepoCache::new(&self.settings.cache, id.kind, &id.id, &info.sha);
        let fetch = Fetch { client: &client, cache: &cache, id, commit: &info.sha };
        let folder = cache.snapshot(&info.sha);
        cache.create(&info.sha)?;
        if let Some(weights) = weights {
            fetch.all(&[CONFIG])?;
            check_config(id, &folder)?;
            fetch.small(&files, &TOKENIZER)?;
            fetch.small(&files, &[GENERATION])?;
            fetch.weights(weights, &files)?;
        } else {
            fetch.small(&files, &TOKENIZER)?;
        }
        RepoCache::new(&self.settings.cache, id.kind, &id.id, &id.revision).note_ref(&info.sha)?;
        Ok(folder)
    }
}

/// The file with the weights (none for a tokenizer), if the repository has all that is needed.
pub(super) fn check_files(id: &RepoId, files: &[&str], want: Want) -> Result<Option<&'static str>, Failure> {
    let has = |name: &str| files.contains(&name);
    let lacks = |what: &str| {
        let shown =
            files.iter().filter(|f| !f.starts_with('.')).take(8).map(|f| one_line(f)).collect::<Vec<_>>();
        let more = if files.len() > 8 { format!(" … ({} files)", files.len()) } else { String::new() };
        let there = if shown.is_empty() { "nothing".into() } else { shown.join(", ") };
        Failure::new(Kind::Final, format!("{} has no {what}; it has {there}{more}", id.id))
    };
    if want == Want::Tokenizer {
        let any = has("tokenizer.json") || (has("vocab.json") && has("merges.txt"));
        return if any {
            Ok(None)
        } else {
            Err(lacks("tokenizer (tokenizer.json, or vocab.json and merges.txt)"))
        };
    }
    if !has(CONFIG) {
        return Err(lacks("config.json, so it is no model that can be loaded"));
    }
    let weights = WEIGHTS.into_iter().find(|name| has(name));
    weights.map(Some).ok_or_else(|| lacks(&format!("weights (none of {})", WEIGHTS.join(", "))))
}

/// Whether it is a GPT-2: known before gigabytes have come.
fn check_config(id: &RepoId, folder: &Path) -> Result<(), Failure> {
    Gpt2Config::read(folder).map(|_| ()).map_err(|error| {
        let why = match error {
            Error::File { message, .. } => message,
            other => other.to_string(),
        };
        Failure::new(Kind::Final, format!("{}: its config.json {}", id.id, one_line(&why)))
    })
}
