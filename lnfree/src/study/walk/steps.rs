//! The steps of a walk, each a cell of a notebook: what it computes is kept in the walk's folder.

use tch::{Device, Kind, Tensor, no_grad};

use super::Walk;
use crate::Result;
use crate::data::Tokenizer;
use crate::eval::generate::{SampleOptions, generate};
use crate::eval::locate_model;
use crate::eval::stds::{StdDict, measure};
use crate::export::{ExportFormat, Proof, export};
use crate::hub::locate_tokenizer;
use crate::model::hook::{Activation, Capture};
use crate::model::{Compute, LoadedModel};
use crate::study::plot::{
    Figure, Generation, attention_patterns, generations, loss_curve, optimisation, std_over_depth,
    std_over_time,
};
use crate::study::report::read_run;
use crate::train::{Mode, start_or_resume};

/// Sequences that σ is measured on, and how many at a time.
const MEASURED: (usize, usize) = (64, 8);

impl Walk {
    /// Takes the LNs out: starts the run of [`Walk::run_dir`], goes on where it was stopped, or finds it
    /// complete; lines of progress are printed. The figure is the loss with every removal marked.
    ///
    /// # Errors
    /// Those of [`start_or_resume`].
    pub fn train(&self) -> Result<Figure> {
        start_or_resume(&self.config, Mode::WithoutLn, self.run_dir(), self.device)?;
        Ok(self.shown(loss_curve(&[read_run(self.run_dir())?])))
    }

    /// The running average of each σ in the run.
    ///
    /// # Errors
    /// When the run is not there.
    pub fn stds_over_time(&self) -> Result<Figure> {
        Ok(self.shown(std_over_time(&read_run(self.run_dir())?)))
    }

    /// Gradient norm, learning rate and auxiliary loss of the run.
    ///
    /// # Errors
    /// When the run is not there.
    pub fn optimisation(&self) -> Result<Figure> {
        Ok(self.shown(optimisation(&[read_run(self.run_dir())?])))
    }

    /// σ of the residual stream over depth, measured in the original and in the model that the run made.
    ///
    /// # Errors
    /// When a model or the data set cannot be had.
    pub fn stds_over_depth(&self) -> Result<Figure> {
        let tokens = self.tokens()?;
        let measured = |folder| -> Result<StdDict> {
            let loaded = LoadedModel::load(folder, None, Kind::Float, self.device)?;
            measure(&loaded.model, &loaded.ln, &tokens, MEASURED.0, MEASURED.1)
        };
        let (before, after) = (measured(&locate_model(self.model())?)?, measured(&self.checkpoint()?)?);
        Ok(self.shown(std_over_depth(&[("original", &before), ("LN-free", &after)])))
    }

    /// Folds the trained model into one whose LNs change nothing in [`Walk::export_dir`], and compares both.
    ///
    /// # Errors
    /// Those of [`export`].
    pub fn export(&self) -> Result<Proof> {
        let trained = LoadedModel::load(&self.checkpoint()?, None, Kind::Float, self.device)?;
        export(&trained, ExportFormat::Identity, self.export_dir(), false, &self.card())
    }

    /// Attention patterns of the middle layer on `text`, in the original and in the exported model.
    ///
    /// # Errors
    /// When a model or the tokenizer cannot be had, or the text is too long.
    pub fn attention(&self, text: &str) -> Result<Figure> {
        let tokenizer = self.tokenizer()?;
        let ids = tokenizer.encode(text)?;
        let words: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id])).collect::<Result<_>>()?;
        let ids: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let input = Tensor::f_from_slice(&ids)?.unsqueeze(0).to_device(self.device);
        let mut patterns = Vec::new();
        for (name, loaded) in self.original_and_exported()? {
            let layer = Activation::Pattern(loaded.model.h.len() / 2);
            let mut cache = Capture::of([layer])?;
            let _logits =
                no_grad(|| loaded.model.forward(&input, &loaded.ln, Compute::default(), &mut cache))?;
            patterns.push((name, cache.get(layer)?.get(0).to_device(Device::Cpu)));
        }
        let patterns: Vec<(&str, &Tensor)> =
            patterns.iter().map(|(name, pattern)| (*name, pattern)).collect();
        Ok(self.shown(attention_patterns(&patterns, &words)?))
    }

    /// How the original and the exported model go on with `prompts`, with the same seed.
    ///
    /// # Errors
    /// As [`Walk::attention`].
    pub fn continuations(&self, prompts: &[&str]) -> Result<Figure> {
        let tokenizer = self.tokenizer()?;
        let sampling = SampleOptions { max_new_tokens: 40, ..SampleOptions::default() };
        let mut texts = Vec::new();
        for (name, loaded) in self.original_and_exported()? {
            for prompt in prompts {
                let new =
                    generate(&loaded.model, &loaded.ln, &tokenizer.encode(prompt)?, sampling, |_| true)?;
                let text = tokenizer.decode(&new)?;
                texts.push(Generation { model: name.into(), prompt: (*prompt).into(), text });
            }
        }
        Ok(self.shown(generations(&texts)))
    }

    fn tokenizer(&self) -> Result<Tokenizer> {
        Tokenizer::from_dir(locate_tokenizer(self.model())?)
    }

    fn original_and_exported(&self) -> Result<[(&'static str, LoadedModel); 2]> {
        let load = |folder| LoadedModel::load(folder, None, Kind::Float, self.device);
        Ok([("original", load(&locate_model(self.model())?)?), ("LN-free", load(&self.export_dir())?)])
    }
}
