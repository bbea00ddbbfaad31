//! What is known of a model that is exported.

use std::path::Path;

use super::header::steps_in_header;
use crate::Result;
use crate::config::run_state;
use crate::eval::EvalRecord;
use crate::hub::made_of;

/// What the card says about where the model comes from. What is empty or zero is not known, and not said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardFacts {
    /// Title of the card; the name of the folder where it is empty.
    pub name: String,
    /// The model that was fine-tuned.
    pub base_model: String,
    /// Training data.
    pub data: String,
    /// Optimizer steps of fine-tuning.
    pub steps: usize,
    /// The model without LN that this is another format of, by path or name; `None` for what a run here made.
    pub converted_from: Option<String>,
    /// Where it will be on the Hugging Face hub, `ORG/NAME`, which the card's code then loads it from.
    pub repo: Option<String>,
    /// What evaluations of the checkpoint came to.
    pub evaluations: Vec<EvalRecord>,
}

impl CardFacts {
    /// What is known of the model called `name`, whose files are in `dir`: a checkpoint of a run says it
    /// itself; of any other model its name does if it is one of the released or embedded ones, and the card
    /// and the weights of an earlier export do.
    ///
    /// # Errors
    /// When the checkpoint's state cannot be read.
    pub fn of(name: &str, dir: &Path) -> Result<CardFacts> {
        if let Some(state) = run_state::state(dir)? {
            let (base_model, data) = (state.config.model.name, state.config.data.train);
            return Ok(CardFacts { base_model, data, steps: state.step, ..CardFacts::default() });
        }
        let steps = steps_in_header(&dir.join("model.safetensors")).map_or(0, |steps| steps as usize);
        let (base_model, steps) = match made_of(name) {
            Some((base, known)) => (base.to_string(), known.max(steps)),
            None => (base_in_card(dir).unwrap_or_default(), steps),
        };
        Ok(CardFacts { base_model, steps, converted_from: Some(name.into()), ..CardFacts::default() })
    }
}

/// What the card in `dir` says that the model was made of: `base_model: NAME` in its front matter.
fn base_in_card(dir: &Path) -> Option<String> {
    let card = std::fs::read_to_string(dir.join("README.md")).ok()?;
    let matter = card.strip_prefix("---\n")?.split("\n---").next()?;
    let base = matter.lines().find_map(|line| line.strip_prefix("base_model:"))?.trim().trim_matches('"');
    (!base.is_empty()).then(|| base.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_a_card_and_a_header_say_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let facts = |name: &str| CardFacts::of(name, dir.path()).unwrap();
        let made = |name: &str| (facts(name).base_model, facts(name).steps);
        assert_eq!(made("schaeff/gpt2-xl_LNFree800"), ("openai-community/gpt2-xl".into(), 800));
        assert_eq!(made("gpt2-small_LNFree300@main"), ("openai-community/gpt2".into(), 300));
        assert_eq!(made("apollo-research/gpt2_noLN"), ("openai-community/gpt2".into(), 0));
        assert_eq!(made("nano_LNFree200"), ("nano".into(), 200));
        assert_eq!(made("somebody/gpt2_LNFree300"), (String::new(), 0));
        assert_eq!(facts("x").converted_from.as_deref(), Some("x"));
        let header = super::super::header::header(7);
        let file = dir.path().join("model.safetensors");
        crate::model::weights::write_safetensors(&file, &Default::default(), &header).unwrap();
        let card =
            "---\nlibrary_name: transformers\nbase_model: openai-community/gpt2\n---\n\nbase_model: no\n";
        std::fs::write(dir.path().join("README.md"), card).unwrap();
        assert_eq!(made("x"), ("openai-community/gpt2".into(), 7));
    }
}
