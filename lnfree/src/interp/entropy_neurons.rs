//! Neurons of the last MLP that say little about any token and much about how sure the model is.

use tch::{Device, Kind, Tensor, no_grad};

use crate::model::hook::{Activation, Capture, NoHook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// How much every neuron of the last MLP writes, and how differently that bears on the tokens of the
/// vocabulary.
///
/// An entropy (or confidence) neuron writes much where the unembedding hardly reads: with an LN it then makes
/// everything else smaller, and so the model less sure (Stolfo et al., "Confidence Regulation Neurons in
/// Language Models", arXiv 2406.16254). The measures are those of the paper's code. Its unembedding is what
/// the logits read behind the LN: γ of ln_f folded in, centred over n_embd and over the vocabulary. Output
/// weights are centred over n_embd. Both hold for a model of any format, with LN or without.
#[derive(Debug)]
pub struct EntropyNeurons {
    /// L2 norm of the output weights, `[n_inner]`.
    pub norms: Vec<f64>,
    /// Variance (unbiased) over the vocabulary of the cosine of output weights and unembedding, `[n_inner]`.
    pub logit_variances: Vec<f64>,
    /// Singular values of the unembedding, largest first, divided by the largest, `[n_embd]`.
    pub singular_values: Vec<f64>,
    /// Squared cosine of each neuron's output weights with each left singular vector of the unembedding, in
    /// the order of the singular values: float64 `[n_inner, n_embd]`; each row sums to 1.
    pub alignment: Tensor,
}

impl EntropyNeurons {
    /// Of a model's weights, in float64. Takes no `[n_inner, vocab_size]` matrix.
    ///
    /// # Errors
    /// If the model has no blocks, or memory is short.
    pub fn of(model: &Gpt2) -> Result<Self> {
        let last = model.h.last().ok_or_else(|| Error::invalid("a model without blocks has no neurons"))?;
        let _guard = tch::no_grad_guard();
        // [n_inner, n_embd]
        let out = centred(&last.mlp.c_proj.weight.f_to_kind(Kind::Double)?, -1)?;
        let norms = out.f_square()?.f_sum_dim_intlist(-1i64, true, Kind::Double)?.f_sqrt()?;
        let directions = out / &norms;
        let unembedding = read_unembedding(model)?;
        // Var cos = (E[(û·w)²] − E[û·w]²) V/(V − 1), from second moments of the vocabulary alone.
        let size = unembedding.size()[0] as f64;
        let tokens = unembedding.f_square()?.f_sum_dim_intlist(-1i64, true, Kind::Double)?.f_sqrt()?;
        let tokens = unembedding.f_div(&tokens)?;
        let moments = tokens.f_tr()?.f_matmul(&tokens)? / size;
        let mean = directions.f_matmul(&tokens.f_mean_dim(0i64, false, Kind::Double)?)?;
        let squares =
            (directions.f_matmul(&moments)? * &directions).f_sum_dim_intlist(-1i64, false, Kind::Double)?;
        let variances = (squares - mean.square()) * (size / (size - 1.0));
        // Singular values and left vectors of the unembedding `[n_embd, vocab_size]`, smallest first.
        let (eigenvalues, vectors) = unembedding.f_tr()?.f_matmul(&unembedding)?.f_linalg_eigh("L")?;
        let values = eigenvalues.f_clamp_min(0.0)?.f_sqrt()?.f_flip([0])?;
        let values = values.f_div(&values.f_max()?)?;
        let alignment = directions.f_matmul(&vectors.f_flip([1])?)?.f_square()?;
        Ok(Self {
            norms: numbers(&norms.squeeze_dim(-1))?,
            logit_variances: numbers(&variances)?,
            singular_values: numbers(&values)?,
            alignment: alignment.f_to_device(Device::Cpu)?,
        })
    }

    /// Norm over variance, by which entropy neurons are ranked.
    pub fn ratio(&self, neuron: usize) -> f64 {
        self.norms[neuron] / self.logit_variances[neuron]
    }

    /// All neurons, the largest ratio first.
    pub fn ranked(&self) -> Vec<usize> {
        let mut neurons: Vec<usize> = (0..self.norms.len()).collect();
        neurons.sort_by(|&a, &b| self.ratio(b).total_cmp(&self.ratio(a)));
        neurons
    }

    /// The part of a neuron's output in the `n` directions that the unembedding reads least, 0 to 1.
    pub fn in_smallest(&self, neuron: usize, n: i64) -> f64 {
        let row = self.alignment.get(neuron as i64);
        let n = n.clamp(0, row.size()[0]);
        row.narrow(0, row.size()[0] - n, n).sum(Kind::Double).double_value(&[])
    }
}

/// What neurons of the last MLP do to the predictions, by replacing what they are with their mean.
#[derive(Debug)]
pub struct MeanAblation<'a> {
    model: &'a Gpt2,
    ln: &'a LnState,
    /// int64 `[batch, pos]`.
    ids: Tensor,
    /// The residual stream after the last block, `[batch, pos, n_embd]`.
    residual: Tensor,
    /// Activations after the non-linearity, `[batch, pos, n_inner]`.
    neurons: Tensor,
    /// Their means over all positions that predict a token, `[n_inner]`.
    means: Tensor,
}

/// What predicting the next token came to, each `[batch, pos − 1]`, float32.
#[derive(Debug)]
pub struct Outcome {
    /// Cross-entropy of the next token, nats.
    pub loss: Tensor,
    /// Entropy of the prediction, nats.
    pub entropy: Tensor,
}

impl<'a> MeanAblation<'a> {
    /// Runs the model once on `ids`, int64 `[batch, pos]`, without padding.
    ///
    /// # Errors
    /// If the model cannot take the ids, or they are single tokens.
    pub fn new(model: &'a Gpt2, ln: &'a LnState, ids: &Tensor) -> Result<Self> {
        let last = model.h.len().checked_sub(1);
        let last = last.ok_or_else(|| Error::invalid("a model without blocks has no neurons"))?;
        if ids.size().get(1).is_some_and(|&pos| pos < 2) {
            return Err(Error::invalid("a single token predicts nothing: sequences of two tokens or more"));
        }
        let ids = ids.to_device(model.device());
        let [residual, neurons] = [Activation::ResidPost(last), Activation::MlpPost(last)];
        let mut cache = Capture::of([residual, neurons])?;
        let mut pass = model.pass(&ids, ln, Compute::default())?;
        let _kept_in_cache = no_grad(|| model.residual(&ids, &mut pass, &mut cache));
        pass.check()?;
        let [residual, neurons] = [cache.get(residual)?, cache.get(neurons)?].map(Tensor::shallow_clone);
        let predicting = neurons.narrow(1, 0, ids.size()[1] - 1);
        let means = predicting.f_mean_dim([0i64, 1].as_slice(), false, Kind::Double)?;
        Ok(Self { model, ln, ids, residual, neurons, means: means.to_kind(Kind::Float) })
    }

    /// What a neuron is on average.
    pub fn mean(&self, neuron: usize) -> f64 {
        self.means.double_value(&[neuron as i64])
    }

    /// The predictions with all of `neurons` at their means; without any, the model's own. ln_f sees the
    /// stream without what they added, so that an effect through its scale is counted. Only ln_f and the
    /// unembedding are computed again, a sequence at a time.
    ///
    /// # Errors
    /// If a neuron is none of the last MLP's.
    pub fn of(&self, neurons: &[usize]) -> Result<Outcome> {
        let n_inner = self.means.size()[0];
        if let Some(none) = neurons.iter().find(|&&n| n as i64 >= n_inner) {
            return Err(Error::invalid(format!("the last MLP has {n_inner} neurons and none {none}")));
        }
        let _guard = tch::no_grad_guard();
        let residual = match neurons {
            [] => self.residual.shallow_clone(),
            _ => self.residual.f_add(&self.change(neurons)?)?,
        };
        let sequences = (0..self.ids.size()[0]).map(|row| self.predictions(row, &residual));
        let (losses, entropies): (Vec<_>, Vec<_>) =
            sequences.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Outcome { loss: Tensor::f_stack(&losses, 0)?, entropy: Tensor::f_stack(&entropies, 0)? })
    }

    /// What the residual stream gets when `neurons` are at their means.
    fn change(&self, neurons: &[usize]) -> Result<Tensor> {
        let index: Vec<i64> = neurons.iter().map(|&n| n as i64).collect();
        let index = Tensor::from_slice(&index).to_device(self.means.device());
        let apart = self.means.f_index_select(0, &index)? - self.neurons.f_index_select(-1, &index)?;
        let out = self.model.h.last().map(|block| block.mlp.c_proj.weight.index_select(0, &index));
        let out = out.ok_or_else(|| Error::invalid("a model without blocks has no neurons"))?;
        Ok(apart.to_kind(Kind::Float).f_matmul(&out.to_kind(Kind::Float))?)
    }

    /// Losses and entropies of a sequence, `[pos − 1]` each.
    fn predictions(&self, row: i64, residual: &Tensor) -> Result<(Tensor, Tensor)> {
        let ids = self.ids.narrow(0, row, 1);
        let mut pass = self.model.pass(&ids, self.ln, Compute::default())?;
        let last = self.model.final_norm(&residual.narrow(0, row, 1), &mut pass, &mut NoHook);
        let n = ids.size()[1] - 1;
        let logits = self.model.unembed(&last.narrow(1, 0, n).squeeze_dim(0), &pass);
        let logp = logits.f_log_softmax(-1, Kind::Float)?;
        let targets = ids.squeeze_dim(0).narrow(0, 1, n).unsqueeze(-1);
        let loss = -logp.f_gather(-1, &targets, false)?.squeeze_dim(-1);
        let entropy = -(logp.exp() * logp).f_sum_dim_intlist(-1i64, false, Kind::Float)?;
        Ok((loss, entropy))
    }
}

/// The unembedding as the logits read it behind ln_f, float64 `[vocab_size, n_embd]`, centred both ways.
fn read_unembedding(model: &Gpt2) -> Result<Tensor> {
    let mut read = model.unembedding().f_to_kind(Kind::Double)?;
    if let Some(ln_f) = model.ln_f.as_ref().filter(|ln_f| !ln_f.folded.main) {
        read = read.f_mul(&ln_f.weight.f_to_kind(Kind::Double)?)?;
    }
    centred(&centred(&read, -1)?, 0)
}

/// Without its mean over a dimension.
fn centred(x: &Tensor, dim: i64) -> Result<Tensor> {
    Ok(x.f_sub(&x.f_mean_dim(dim, true, Kind::Double)?)?)
}

fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(x.to_device(Device::Cpu))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Gpt2Config;
    use crate::model::hook::only;

    fn model() -> (Gpt2, LnState, Tensor) {
        let model = Gpt2::init(Gpt2Config::new(2, 2, 16, 12, 50).unwrap(), 0, Device::Cpu).unwrap();
        tch::manual_seed(5);
        let last = &model.h[1].mlp;
        for weight in [&last.c_fc.weight, &last.c_proj.weight, &model.wte] {
            let _ = no_grad(|| weight.shallow_clone().g_mul_scalar_(20.0));
        }
        let ids = Tensor::randint(50, [3, 12], (Kind::Int64, Device::Cpu));
        (model, LnState::plain(2, Device::Cpu), ids)
    }

    #[test]
    fn variances_are_those_of_all_cosines() {
        let (model, ..) = model();
        let found = EntropyNeurons::of(&model).unwrap();
        let unembedding = read_unembedding(&model).unwrap();
        let out = centred(&model.h[1].mlp.c_proj.weight.to_kind(Kind::Double), -1).unwrap();
        let unit = |x: &Tensor| x / x.square().sum_dim_intlist(-1i64, true, Kind::Double).sqrt();
        let cosines = unit(&out).matmul(&unit(&unembedding).tr());
        let plain = numbers(&cosines.var_dim(-1i64, true, false)).unwrap();
        for (a, b) in found.logit_variances.iter().zip(&plain) {
            assert!((a - b).abs() < 1e-12 * (1.0 + b), "{a} {b}");
        }
        let ranked = found.ranked();
        assert!(ranked.windows(2).all(|pair| found.ratio(pair[0]) >= found.ratio(pair[1])));
        assert!((found.in_smallest(3, 16) - 1.0).abs() < 1e-9);
        // Centred weights have nothing in the direction that the centred unembedding does not read at all.
        assert!(found.singular_values[15] < 1e-6 && found.in_smallest(3, 1) < 1e-9);
    }

    #[test]
    fn an_ablation_is_the_forward_with_the_neurons_replaced() {
        let (model, ln, ids) = model();
        let ablation = MeanAblation::new(&model, &ln, &ids).unwrap();
        let mut seen = Capture::of(["blocks.1.mlp.hook_post"]).unwrap();
        let _ = model.forward(&ids, &ln, Compute::default(), &mut seen).unwrap();
        let predicting = seen.get("blocks.1.mlp.hook_post").unwrap().narrow(1, 0, 11);
        let means = predicting.mean_dim([0i64, 1].as_slice(), false, Kind::Float);
        for neurons in [&[][..], &[5], &[5, 63, 0]] {
            let mut replace = only("blocks.1.mlp.hook_post", |post| {
                let post = post.copy();
                for &n in neurons {
                    post.select(-1, n as i64).copy_(&means.get(n as i64).expand([3, 12], false));
                }
                post
            })
            .unwrap();
            let logits = model.forward(&ids, &ln, Compute::default(), &mut replace).unwrap();
            let logp = logits.narrow(1, 0, 11).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
            let loss = -logp.gather(-1, &ids.narrow(1, 1, 11).unsqueeze(-1), false).squeeze_dim(-1);
            let entropy = -(logp.exp() * logp).sum_dim_intlist(-1i64, false, Kind::Double);
            let found = ablation.of(neurons).unwrap();
            for (found, plain) in [(found.loss, loss), (found.entropy, entropy)] {
                let apart = (found - plain).abs().max().double_value(&[]);
                assert!(apart < 2e-5, "{neurons:?}: {apart:e}");
            }
        }
        let own = ablation.of(&[]).unwrap().loss;
        assert!((ablation.of(&[5]).unwrap().loss - own).abs().max().double_value(&[]) > 1e-4);
        let refused = ablation.of(&[64]).unwrap_err().to_string();
        assert_eq!(refused, "the last MLP has 64 neurons and none 64");
        assert!(MeanAblation::new(&model, &ln, &ids.narrow(1, 0, 1)).is_err());
    }
}
