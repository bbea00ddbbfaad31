//! Parameters by Hugging Face name: building a model from them, listing them, making new ones.

use tch::{Device, Kind, Tensor};

use super::check_shapes::check_shapes;
use super::layer_norm::FoldedFaces;
use super::weights::Weights;
use super::{Attention, Block, Conv1d, Gpt2, LayerNorm, Mlp};
use crate::config::hf_config::{Gpt2Config, expected};
use crate::{Error, Result};

/// Takes named tensors out of a set of weights, in one dtype on one device.
struct Source {
    weights: Weights,
    kind: Kind,
    device: Device,
}

impl Source {
    fn take(&mut self, name: &str) -> Result<Tensor> {
        let tensor = self.weights.remove(name).ok_or_else(|| Error::invalid(format!("no tensor {name}")))?;
        let _guard = tch::no_grad_guard();
        Ok(tensor.detach().to_device(self.device).to_kind(self.kind).contiguous())
    }

    fn conv1d(&mut self, prefix: &str) -> Result<Conv1d> {
        Ok(Conv1d::new(self.take(&format!("{prefix}.weight"))?, self.take(&format!("{prefix}.bias"))?))
    }

    fn layer_norm(&mut self, prefix: &str, eps: f64) -> Result<Option<LayerNorm>> {
        let weight = format!("{prefix}.weight");
        if !self.weights.contains_key(&weight) {
            return Ok(None);
        }
        let (weight, bias) = (self.take(&weight)?, self.take(&format!("{prefix}.bias"))?);
        Ok(Some(LayerNorm { weight, bias, eps, folded: FoldedFaces::default() }))
    }

    fn block(&mut self, layer: usize, config: &Gpt2Config) -> Result<Block> {
        let eps = config.layer_norm_epsilon;
        let at = |name: &str| format!("h.{layer}.{name}");
        Ok(Block {
            ln_1: self.layer_norm(&at("ln_1"), eps)?,
            attn: Attention {
                c_attn: self.conv1d(&at("attn.c_attn"))?,
                c_proj: self.conv1d(&at("attn.c_proj"))?,
                n_head: config.n_head,
                attn_pdrop: config.attn_pdrop,
            },
            ln_2: self.layer_norm(&at("ln_2"), eps)?,
            mlp: Mlp { c_fc: self.conv1d(&at("mlp.c_fc"))?, c_proj: self.conv1d(&at("mlp.c_proj"))? },
            resid_pdrop: config.resid_pdrop,
        })
    }
}

impl Gpt2 {
    /// A model from weights under Hugging Face names, converted to `kind` on `device`. LNs that are not there
    /// are taken for folded ones.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than `config` says; names it.
    pub fn from_weights(weights: Weights, config: Gpt2Config, kind: Kind, device: Device) -> Result<Gpt2> {
        let _ = check_shapes(&weights, &config)?;
        let mut source = Source { weights, kind, device };
        let wte = source.take("wte.weight")?;
        let wpe = source.take("wpe.weight")?;
        let h = (0..config.n_layer as usize).map(|l| source.block(l, &config)).collect::<Result<_>>()?;
        let ln_f = source.layer_norm("ln_f", config.layer_norm_epsilon)?;
        // A tied head that is stored all the same is the embedding again, as in transformers.
        let lm_head = match config.tie_word_embeddings {
            true => None,
            false => Some(source.take("lm_head.weight")?),
        };
        Ok(Gpt2 { config, wte, wpe, h, ln_f, lm_head })
    }

    /// A new model: N(0, `config.initializer_range`) weights, the projections into the residual stream scaled
    /// by 1/sqrt(2 · n_layer) (the GPT-2 paper), zero biases, LNs of one and zero. The same `seed` makes the
    /// same model.
    ///
    /// # Errors
    /// When `config` contradicts itself.
    pub fn init(config: Gpt2Config, seed: u64, device: Device) -> Result<Gpt2> {
        tch::manual_seed(seed as i64);
        let std = config.initializer_range;
        let residual_std = std / (2.0 * config.n_layer as f64).sqrt();
        let mut weights = Weights::new();
        for (name, shape) in expected(&config) {
            let is_ln = name.starts_with("ln_f") || name.contains(".ln_");
            let tensor = if name.ends_with(".bias") {
                Tensor::zeros(&shape, (Kind::Float, Device::Cpu))
            } else if is_ln {
                Tensor::ones(&shape, (Kind::Float, Device::Cpu))
            } else {
                let std = if name.ends_with("c_proj.weight") { residual_std } else { std };
                Tensor::randn(&shape, (Kind::Float, Device::Cpu)) * std
            };
            weights.insert(name, tensor);
        }
        Gpt2::from_weights(weights, config, Kind::Float, device)
    }

    /// Multiplies the token and the position embedding, for a new model whose embeddings are to have another
    /// range than its matrices.
    pub fn scale_embeddings(&mut self, factor: f64) {
        tch::no_grad(|| {
            for embedding in [&mut self.wte, &mut self.wpe] {
                let _ = embedding.g_mul_scalar_(factor);
            }
        });
    }

    /// Makes the position embedding sinusoids of this amplitude, sin and cos by turns, with angular
    /// frequencies that fall geometrically from 1 to nearly 1/(4 · block_size) ("Attention Is All You Need",
    /// with a shorter longest wave). A step by one position is then the same rotation everywhere, all
    /// that a head that looks at the token before has to learn.
    pub fn set_sinusoidal_positions(&mut self, amplitude: f64) {
        let waves = self.sinusoids(amplitude);
        tch::no_grad(|| self.wpe.copy_(&waves));
    }

    /// Adds these sinusoids, less their mean over the positions, to the position embedding: a trained model
    /// without a head that looks one position back then learns one sooner.
    pub fn add_sinusoidal_positions(&mut self, amplitude: f64) {
        let waves = self.sinusoids(amplitude);
        let centred = &waves - waves.mean_dim(0i64, true, Kind::Float);
        let _ = tch::no_grad(|| self.wpe.g_add_(&centred));
    }

    /// See [`Gpt2::set_sinusoidal_positions`]; `[block_size, n_embd]`, float32.
    fn sinusoids(&self, amplitude: f64) -> Tensor {
        let (n_positions, width) = (self.config.block_size, self.config.n_embd);
        let longest = (4 * n_positions) as f64;
        let wave = |position: i64, i: i64| {
            let angle = position as f64 * longest.powf(-(2 * (i / 2)) as f64 / width as f64);
            (amplitude * if i % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
        };
        let values: Vec<f32> =
            (0..n_positions).flat_map(|position| (0..width).map(move |i| wave(position, i))).collect();
        Tensor::from_slice(&values).view([n_positions, width]).to_device(self.device())
    }

    /// Forgets the gradients that parameters have gathered.
    pub fn clear_gradients(&self) {
        let _guard = tch::no_grad_guard();
        for (_, parameter) in self.named_parameters() {
            let mut grad = parameter.grad();
            if grad.defined() {
                let _ = grad.zero_();
            }
        }
    }

    /// Every parameter with its Hugging Face name, in Hugging Face's order; the tensors share the model's
    /// storage.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut out: Vec<(String, Tensor)> = Vec::new();
        let mut push = |name: String, tensor: &Tensor| out.push((name, tensor.shallow_clone()));
        push("wte.weight".into(), &self.wte);
        push("wpe.weight".into(), &self.wpe);
        for (l, block) in self.h.iter().enumerate() {
            let pairs = [
                ("ln_1", block.ln_1.as_ref().map(|n| (&n.weight, &n.bias))),
                ("attn.c_attn", Some((&block.attn.c_attn.weight, &block.attn.c_attn.bias))),
                ("attn.c_proj", Some((&block.attn.c_proj.weight, &block.attn.c_proj.bias))),
                ("ln_2", block.ln_2.as_ref().map(|n| (&n.weight, &n.bias))),
                ("mlp.c_fc", Some((&block.mlp.c_fc.weight, &block.mlp.c_fc.bias))),
                ("mlp.c_proj", Some((&block.mlp.c_proj.weight, &block.mlp.c_proj.bias))),
            ];
            for (name, pair) in pairs {
                let Some((weight, bias)) = pair else { continue };
                push(format!("h.{l}.{name}.weight"), weight);
                push(format!("h.{l}.{name}.bias"), bias);
            }
        }
        if let Some(ln_f) = &self.ln_f {
            push("ln_f.weight".into(), &ln_f.weight);
            push("ln_f.bias".into(), &ln_f.bias);
        }
        if let Some(head) = &self.lm_head {
            push("lm_head.weight".into(), head);
        }
        out
    }

    /// The parameters as weights to be written, sharing storage.
    pub fn to_weights(&self) -> Weights {
        self.named_parameters().into_iter().map(|(name, t)| (name, t.detach())).collect()
    }

    /// Makes every parameter a leaf that gathers gradients (or not).
    pub fn set_requires_grad(&self, requires_grad: bool) {
        for (_, parameter) in self.named_parameters() {
            let _ = parameter.set_requires_grad(requires_grad);
        }
    }

    /// The device that the parameters are on.
    pub fn device(&self) -> Device {
        self.wte.device()
    }
}
