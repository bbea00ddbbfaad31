//! Which of the study's roles an evaluated model plays, so that tables and figures can compare like with
//! like.

use std::collections::HashSet;
use std::fmt;

use super::data::{EvalRow, last_component};
use crate::model::ModelFormat;

/// The three models of the study, and everything else, in the order in which tables list them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// As released, with LN.
    Original,
    /// Fine-tuned with LN kept: the control.
    Vanilla,
    /// Fine-tuned while LN was removed.
    LnFree,
    /// Anything else.
    Other,
}

/// Spellings by which a role is recognised. LN-free comes first: `without_ln` also ends in `out_ln`, and a
/// name may hold more than one word.
const SPELLINGS: [(Role, &[&str]); 3] = [
    (Role::LnFree, &["ln-free", "ln_free", "lnfree", "ln free", "without_ln", "without-ln", "noln"]),
    (Role::Vanilla, &["vanilla", "with_ln", "with-ln"]),
    (Role::Original, &["original"]),
];

/// A model's name taken apart: `gpt2-small_LNFree300` is the LN-free model of `gpt2-small`, variant `300`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelName {
    /// The family that it is compared within; empty where there is only one.
    pub group: String,
    /// Its part in the study.
    pub role: Role,
    /// What tells it from others of the same group and role; empty where nothing needs to.
    pub variant: String,
}

impl ModelName {
    /// The name of an evaluated model, from its label or else from its path and format.
    pub fn of(row: &EvalRow) -> ModelName {
        match row.label.as_deref().map(str::trim) {
            Some(label) if !label.is_empty() => name_of(label),
            _ => from_model(row),
        }
    }

    /// Role and variant, without the group.
    pub fn short(&self) -> String {
        let role = match self.role {
            Role::Original => "original",
            Role::Vanilla => "vanilla",
            Role::LnFree => "LN-free",
            Role::Other => "",
        };
        join(role, &self.variant)
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join(&self.group, &self.short()))
    }
}

/// The names of `rows`, made distinct where two rows would share both name and data set: by format, or else
/// by number.
pub fn distinct_names(rows: &[EvalRow]) -> Vec<ModelName> {
    let mut names: Vec<ModelName> = rows.iter().map(ModelName::of).collect();
    // What the family is called is its original: `nano` beside `nano_LNFree200`.
    let families: HashSet<String> = names.iter().map(|name| name.group.clone()).collect();
    for name in names.iter_mut().filter(|name| name.role == Role::Other) {
        if !name.variant.is_empty() && families.contains(&name.variant) {
            let group = std::mem::take(&mut name.variant);
            *name = ModelName { group, role: Role::Original, variant: String::new() };
        }
    }
    let mut seen = HashSet::new();
    let shared: HashSet<ModelName> = (names.iter().zip(rows))
        .filter(|(name, row)| !seen.insert((*name, &row.dataset)))
        .map(|(name, _)| name.clone())
        .collect();
    for (name, row) in names.iter_mut().zip(rows) {
        if shared.contains(name) {
            name.variant = join(&name.variant, &row.format);
        }
    }
    let mut seen = HashSet::new();
    for (name, row) in names.iter_mut().zip(rows) {
        let variant = name.variant.clone();
        let mut n = 1;
        while !seen.insert((name.clone(), row.dataset.clone())) {
            n += 1;
            name.variant = join(&variant, &format!("#{n}"));
        }
    }
    names
}

fn from_model(row: &EvalRow) -> ModelName {
    let model = last_component(&row.model);
    let mut name = split(model);
    if name.role == Role::Other {
        let role = match row.format.parse() {
            Ok(ModelFormat::Transformers) if model.starts_with("gpt2") => Role::Original,
            Ok(ModelFormat::Transformers) | Err(_) => return name,
            Ok(_) => Role::LnFree,
        };
        name = ModelName { group: model.to_string(), role, variant: String::new() };
    }
    // The hub calls the smallest original `gpt2` and the models made from it `gpt2-small…`.
    if name.group == "gpt2" {
        name.group = "gpt2-small".into();
    }
    name
}

/// The name of what is only called something.
pub(super) fn name_of(label: &str) -> ModelName {
    split(label.trim())
}

/// Splits a name at the first spelling of a role: group before it, variant behind it.
fn split(text: &str) -> ModelName {
    let lower = text.to_ascii_lowercase();
    for (role, spellings) in SPELLINGS {
        let found = spellings.iter().filter_map(|s| Some((lower.find(s)?, s.len()))).min();
        if let Some((at, len)) = found {
            let group = text[..at].trim_matches(is_separator).to_string();
            let variant = text[at + len..].trim_matches(is_separator).to_string();
            return ModelName { group, role, variant };
        }
    }
    ModelName { group: String::new(), role: Role::Other, variant: text.to_string() }
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || "-_/.,:".contains(c)
}

fn join(a: &str, b: &str) -> String {
    match (a, b) {
        ("", b) => b.to_string(),
        (a, "") => a.to_string(),
        (a, b) => format!("{a} {b}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: Option<&str>, model: &str, format: &str) -> EvalRow {
        EvalRow {
            label: label.map(String::from),
            model: model.into(),
            format: format.into(),
            ..EvalRow::default()
        }
    }

    fn shown(label: Option<&str>, model: &str, format: &str) -> (Role, String) {
        let name = ModelName::of(&row(label, model, format));
        (name.role, name.to_string())
    }

    #[test]
    fn labels_give_role_and_group() {
        assert_eq!(shown(Some("original"), "x", "transformers"), (Role::Original, "original".into()));
        assert_eq!(shown(Some("Small LN-free"), "x", "folded"), (Role::LnFree, "Small LN-free".into()));
        assert_eq!(shown(Some("without_ln"), "x", "folded"), (Role::LnFree, "LN-free".into()));
        assert_eq!(shown(Some("with_ln"), "x", "transformers"), (Role::Vanilla, "vanilla".into()));
        assert_eq!(shown(Some("Pythia"), "gpt2", "transformers"), (Role::Other, "Pythia".into()));
    }

    #[test]
    fn released_models_of_one_size_share_a_group() {
        let group = |model: &str, format: &str| ModelName::of(&row(None, model, format)).group;
        assert_eq!(group("openai-community/gpt2", "transformers"), "gpt2-small");
        assert_eq!(group("schaeff/gpt2-small_vanilla300", "transformers"), "gpt2-small");
        assert_eq!(group("schaeff/gpt2-small_LNFree300", "noLN_HF_model"), "gpt2-small");
        assert_eq!(group("openai-community/gpt2-xl", "transformers"), "gpt2-xl");
        assert_eq!(group("schaeff/gpt2-xl_LNFree800", "noLN_HF_model"), "gpt2-xl");
        assert_eq!(
            ModelName::of(&row(Some(" "), "openai-community/gpt2", "transformers")).role,
            Role::Original
        );
    }

    #[test]
    fn a_family_s_name_is_its_original() {
        let rows = ["nano", "nano_LNFree200", "other"].map(|label| row(Some(label), "x", "transformers"));
        let found: Vec<_> = distinct_names(&rows).iter().map(|name| (name.role, name.to_string())).collect();
        let names =
            [(Role::Original, "nano original"), (Role::LnFree, "nano LN-free 200"), (Role::Other, "other")];
        assert_eq!(found, names.map(|(role, name)| (role, name.to_string())));
    }

    #[test]
    fn two_rows_never_share_name_and_data_set() {
        let rows = [
            row(Some("LN-free"), "a", "fakeln_checkpoint"),
            row(Some("LN-free"), "b", "folded"),
            row(Some("LN-free"), "c", "folded"),
            row(Some("vanilla"), "d", "transformers"),
        ];
        let names: Vec<_> = distinct_names(&rows).iter().map(ModelName::to_string).collect();
        assert_eq!(names, ["LN-free fakeln_checkpoint", "LN-free folded", "LN-free folded #2", "vanilla"]);
    }

    #[test]
    fn text_of_any_kind_is_a_name() {
        assert_eq!(shown(Some("İ LN-free ß"), "", ""), (Role::LnFree, "İ LN-free ß".into()));
        assert_eq!(shown(None, "", ""), (Role::Other, "".into()));
    }
}
