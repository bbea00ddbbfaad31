//! The model that is looked into.

use std::cell::OnceCell;
use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

use super::Sample;
use crate::data::{Tokenizer, dataset_options, open_dataset_with};
use crate::eval::locate_model;
use crate::hub::locate_tokenizer;
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, LoadOptions, LoadedModel};
use crate::{Error, Result};

/// A model with what analyses need beside it.
#[derive(Debug)]
pub struct Subject {
    /// What tables call it.
    pub label: String,
    /// Its path or name.
    pub name: String,
    /// The model and its LNs, in float32.
    pub loaded: LoadedModel,
    /// The original that predictions are compared with: its name, and the model.
    pub original: Option<(String, LoadedModel)>,
    /// The one asked for, or its own once that is needed: analyses of prompts alone need one.
    tokenizer: OnceCell<Tokenizer>,
    dir: PathBuf,
}

impl Subject {
    /// Loads `name`, a folder, `nano…` or a name on the hub. `tokenizer`: likewise, where the model's own is
    /// not wanted or it has none.
    ///
    /// # Errors
    /// If one of them cannot be had or loaded.
    pub fn load(
        label: &str,
        name: &str,
        original: Option<&str>,
        tokenizer: Option<&str>,
        device: Device,
    ) -> Result<Subject> {
        let options = LoadOptions { device, kind: Kind::Float, ..LoadOptions::default() };
        let dir = locate_model(name)?;
        let loaded = LoadedModel::load_with(&dir, options)?;
        let original = original
            .map(|name| {
                Ok::<_, Error>((name.to_string(), LoadedModel::load_with(&locate_model(name)?, options)?))
            })
            .transpose()?;
        let named = tokenizer.map(|name| Tokenizer::from_dir(locate_tokenizer(name)?)).transpose()?;
        let tokenizer = named.map_or_else(OnceCell::new, OnceCell::from);
        Ok(Subject { label: label.into(), name: name.into(), loaded, original, tokenizer, dir })
    }

    /// The model.
    pub(super) fn model(&self) -> &Gpt2 {
        &self.loaded.model
    }

    /// Its LNs.
    pub(super) fn ln(&self) -> &LnState {
        &self.loaded.ln
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// If it has none and none was asked for.
    pub(super) fn tokenizer(&self) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.tokenizer.get() {
            return Ok(tokenizer);
        }
        let own = Tokenizer::from_dir(&self.dir);
        let own = own.or_else(|_| Tokenizer::from_dir(locate_tokenizer(&self.name)?));
        let own = own.map_err(|error| Error::invalid(format!("{error}; --tokenizer names another")))?;
        Ok(self.tokenizer.get_or_init(|| own))
    }

    /// End-of-text: the config's, or the last token.
    pub(super) fn eot(&self) -> i64 {
        let config = &self.model().config;
        config.eot_token_id().unwrap_or(config.vocab_size - 1)
    }

    /// The ids of a sample, int64 `[sequences, positions]` on the model's device, and a note that says
    /// whether its position 0 begins a text.
    ///
    /// # Errors
    /// If the data set cannot be had, has fewer sequences or positions, or tokens that the model does not
    /// know.
    pub(super) fn ids(&self, sample: &Sample) -> Result<(Tensor, String)> {
        let Sample { data, sequences, positions } = sample;
        let config = &self.model().config;
        let tokens = open_dataset_with(data, &dataset_options(&self.dir, config.block_size as usize))?;
        tokens.check_vocab(config.vocab_size as usize)?;
        if *sequences == 0 || *sequences > tokens.n_sequences() {
            return Err(Error::invalid(format!(
                "{sequences} sequences of {data}: it has {}, and one is needed",
                tokens.n_sequences()
            )));
        }
        let rows: Vec<usize> = (0..*sequences).collect();
        let ids = tokens.batch(&rows)?;
        let length = ids.size()[1];
        if *positions == 0 || *positions as i64 > length {
            return Err(Error::invalid(format!(
                "{positions} positions of {data}: it has sequences of {length}"
            )));
        }
        let ids = ids.f_narrow(1, 0, *positions as i64)?.f_to_device(self.model().device())?;
        let note = self.beginning(&ids)?;
        Ok((ids, note))
    }

    /// Whether position 0 of ids `[batch, pos]` begins a text, as a sentence.
    pub(super) fn beginning(&self, ids: &Tensor) -> Result<String> {
        let (n, begin) = (ids.size()[0], ids.f_select(1, 0)?.f_eq(self.eot())?);
        let begin = begin.f_sum(Kind::Int64)?.f_int64_value(&[])?;
        Ok(match begin {
            0 => "No sequence has end-of-text, which GPT-2 begins texts with, at position 0.".into(),
            all if all == n => "Position 0 is end-of-text, which GPT-2 begins texts with, everywhere.".into(),
            some => format!(
                "Position 0 is end-of-text, which GPT-2 begins texts with, in {some} of {n} sequences."
            ),
        })
    }
}
