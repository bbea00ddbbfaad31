//! What people type for a model or a data set, and the repository it means.

// Without the hub, names are told apart only to refuse them.
#![cfg_attr(not(feature = "hub"), allow(dead_code))]

use std::path::Path;

#[cfg(feature = "hub")]
use hf_hub::RepoType;

use crate::base::closest::closest;
use crate::{Error, Result};

/// The models that the repository of lnfree carries: the original, whose tokenizer serves all, the control,
/// the LN-free one.
pub(super) const EMBEDDED: [&str; 3] = ["nano", "nano_vanilla200", "nano_LNFree200"];
/// The branch that a name without `@revision` means.
const MAIN: &str = "main";
/// The originals under the names that everybody uses, and where they live.
const ORIGINALS: [(&str, &str); 5] = [
    ("gpt2", "openai-community/gpt2"),
    ("gpt2-small", "openai-community/gpt2"),
    ("gpt2-medium", "openai-community/gpt2-medium"),
    ("gpt2-large", "openai-community/gpt2-large"),
    ("gpt2-xl", "openai-community/gpt2-xl"),
];
/// The models that the paper released: with LN and without, fine-tuned for that many steps.
const RELEASED: [&str; 8] = [
    "schaeff/gpt2-small_vanilla300",
    "schaeff/gpt2-medium_vanilla500",
    "schaeff/gpt2-large_vanilla600",
    "schaeff/gpt2-xl_vanilla800",
    "schaeff/gpt2-small_LNFree300",
    "schaeff/gpt2-medium_LNFree500",
    "schaeff/gpt2-large_LNFree600",
    "schaeff/gpt2-xl_LNFree800",
];
/// What the repositories of the first GPT-2s without LN begin with (arXiv 2409.13710).
const WITHOUT_LN: &str = "apollo-research/gpt2_noLN";
/// The hub takes no longer names.
const MAX_NAME: usize = 96;

/// What a repository holds; the hub keeps the kinds apart, and so does the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepoKind {
    Model,
    Dataset,
}

impl RepoKind {
    /// hf-hub's word for it.
    #[cfg(feature = "hub")]
    pub(super) fn repo_type(self) -> RepoType {
        match self {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        }
    }

    /// The word that messages begin with.
    pub(super) fn noun(self) -> &'static str {
        match self {
            RepoKind::Model => "model",
            RepoKind::Dataset => "data set",
        }
    }
}

/// A repository on the hub at a branch, tag or commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoId {
    pub(super) kind: RepoKind,
    /// `org/name`, or a bare name, which the hub redirects.
    pub(super) id: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
    /// What was typed.
    pub(super) typed: String,
}

impl RepoId {
    /// Reads a model's `org/name`, `org/name@revision` or short name.
    ///
    /// # Errors
    /// If it can only be meant as a path: the message says that nothing is there.
    pub(super) fn parse(name: &str) -> Result<RepoId> {
        let (id, revision) = name.split_once('@').unwrap_or((name, MAIN));
        if !plausible(id) {
            return Err(no_such_path(name));
        }
        RepoId::at(RepoKind::Model, full(id), revision, name)
    }

    /// Reads a data set's `org/name` or `org/name@revision`.
    ///
    /// # Errors
    /// If it has another form.
    pub(super) fn dataset(name: &str) -> Result<RepoId> {
        let (id, revision) = name.split_once('@').unwrap_or((name, MAIN));
        if !plausible(id) || !id.contains('/') {
            return Err(Error::invalid(format!(
                "data set {}: not the form of a hub id, which is ORG/NAME or ORG/NAME@REVISION",
                name.escape_debug()
            )));
        }
        RepoId::at(RepoKind::Dataset, id.into(), revision, name)
    }

    /// Reads `org/name`, a model repository to be written to at a branch.
    ///
    /// # Errors
    /// If it has another form.
    pub(super) fn to_write(name: &str, revision: Option<&str>) -> Result<RepoId> {
        if !plausible(name) || !name.contains('/') {
            return Err(Error::invalid(format!(
                "cannot push to {}: not the name of a repository, which is ORG/NAME: your user name or an organization of \
                 yours, and letters, digits, `-`, `_` and `.`",
                name.escape_debug()
            )));
        }
        RepoId::at(RepoKind::Model, name.into(), revision.unwrap_or(MAIN), name)
    }

    fn at(kind: RepoKind, id: String, revision: &str, typed: &str) -> Result<RepoId> {
        if !plausible_revision(revision) {
            return Err(Error::invalid(format!(
                "{} {}: `{}` cannot be a revision; write {id}@BRANCH, {id}@TAG or {id}@COMMIT",
                kind.noun(),
                typed.escape_debug(),
                revision.escape_debug()
            )));
        }
        Ok(RepoId { kind, id, revision: revision.into(), typed: typed.into() })
    }

    /// The ids under which this repository may lie in the cache: older programs kept `gpt2` as it was typed.
    pub(super) fn cached_as(&self) -> Vec<String> {
        let bare = ORIGINALS.iter().filter(|(_, id)| *id == self.id).map(|(short, _)| short.to_string());
        std::iter::once(self.id.clone()).chain(bare).collect()
    }

    /// ` (did you mean …?)` when the name of a known model is close to what was typed.
    pub(super) fn hint(&self) -> String {
        if self.kind != RepoKind::Model {
            return String::new();
        }
        let bare = self.id.rsplit('/').next().unwrap_or_default();
        let known = ORIGINALS.iter().flat_map(|(short, id)| [*short, id]).chain(RELEASED).chain(EMBEDDED);
        let short = RELEASED.iter().filter_map(|id| id.rsplit('/').next());
        closest(&self.id, known.clone()).or_else(|| closest(bare, known.chain(short))).map_or_else(
            String::new,
            |name| match name == self.typed || name == self.id {
                true => String::new(),
                false => format!(" (did you mean {}?)", full(name)),
            },
        )
    }
}

/// The id behind a short name; any other name as it is.
fn full(id: &str) -> String {
    let original = ORIGINALS.iter().find(|(short, _)| *short == id).map(|(_, id)| *id);
    let released = || RELEASED.iter().find(|whole| whole.split_once('/').is_some_and(|(_, n)| n == id));
    original.or_else(|| released().copied()).unwrap_or(id).to_string()
}

/// The full id of one of the original or released models, under either of its names.
pub(crate) fn full_name(name: &str) -> Option<String> {
    let id = full(name);
    let known = ORIGINALS.iter().map(|(_, id)| *id).chain(RELEASED).any(|known| known == id);
    known.then_some(id)
}

/// The original that a released or embedded model was made of, and after how many steps of fine-tuning, 0
/// where that is not known; `None` for a name that is none of theirs.
pub(crate) fn made_of(name: &str) -> Option<(&'static str, usize)> {
    let id = full(name.split_once('@').map_or(name, |(id, _)| id));
    if id.starts_with(WITHOUT_LN) {
        return Some((ORIGINALS[0].1, 0));
    }
    let known = RELEASED.iter().chain(&EMBEDDED[1..]).any(|known| *known == id);
    let (base, variant) = id.rsplit('/').next().filter(|_| known)?.split_once('_')?;
    let original = ORIGINALS.iter().find(|(short, _)| *short == base).map_or(EMBEDDED[0], |(_, id)| *id);
    let steps = variant.trim_start_matches(|c: char| !c.is_ascii_digit());
    Some((original, steps.parse().unwrap_or(0)))
}

/// Whether the hub could have a repository of this name; a path such as `./model` or `runs/a/b` it could not.
fn plausible(id: &str) -> bool {
    let part = |part: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.starts_with(ends)
            && part.ends_with(ends)
            && part.chars().all(|c| ends(c) || c == '-' || c == '.')
            && !part.contains("--")
            && !part.contains("..")
    };
    let file =
        [".safetensors", ".bin", ".pt", ".pth", ".json", ".toml", ".git"].iter().any(|e| id.ends_with(e));
    id.len() <= MAX_NAME && id.split('/').count() <= 2 && id.split('/').all(part) && !file
}

/// Names that git allows and that stay inside the folder `refs` of the cache.
fn plausible_revision(revision: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c))
    };
    revision.len() <= 200 && revision.split('/').all(part)
}

/// A name that can only be a path, and there is nothing there.
fn no_such_path(name: &str) -> Error {
    let path = Path::new(name);
    let wanted = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside: Vec<String> = std::fs::read_dir(parent)
        .map(|entries| entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    let hint = closest(&wanted, beside.iter().map(String::as_str))
        .map_or_else(String::new, |near| format!(" (did you mean {}?)", parent.join(near).display()));
    Error::invalid(format!(
        "model {}: no such file or folder{hint}, and not the form of a hub id, which is ORG/NAME or ORG/NAME@REVISION",
        name.escape_debug()
    ))
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
