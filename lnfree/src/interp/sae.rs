//! Sparse autoencoders: activations as sums of a few of many directions, in SAELens' file format.

mod files;
mod hook;
mod quality;
mod train;

use tch::{Device, Kind, Tensor};

use crate::model::hook::Activation;
use crate::{Error, Result};

pub use hook::SaeHook;
pub use quality::SaeQuality;
pub use train::{SaeTraining, train_small};

/// A sparse autoencoder as SAELens has it (`sae_lens/saes/`), float32.
///
/// ```
/// use lnfree::interp::{SaeTraining, train_small};
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let ids = open_dataset("nano-addresses", 128)?.batch(&[0, 1])?;
/// let mut cache = Capture::of(["blocks.3.hook_resid_pre"])?;
/// nano.model.forward(&ids, &nano.ln, Compute::default(), &mut cache)?;
/// let options = SaeTraining { d_sae: 256, steps: 20, ..SaeTraining::default() };
/// let stream = cache.get("blocks.3.hook_resid_pre")?;
/// let (sae, _losses) = train_small(stream, "blocks.3.hook_resid_pre", options)?;
/// // The reconstruction goes on through the model.
/// let mut hook = sae.hook()?;
/// let logits = nano.model.forward(&ids, &nano.ln, Compute::default(), &mut hook)?;
/// assert_eq!(hook.features().map(Tensor::size), Some(vec![2, 128, 256]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sae {
    /// What reads features, `[d_in, d_sae]`.
    pub w_enc: Tensor,
    /// What features write, `[d_sae, d_in]`.
    pub w_dec: Tensor,
    /// Bias of what is written, `[d_in]`.
    pub b_dec: Tensor,
    /// What makes features of what is read.
    pub encoder: SaeEncoder,
    /// How it is used.
    pub config: SaeConfig,
}

/// The architecture, with the parameters that only it has; vectors are `[d_sae]`.
#[derive(Debug)]
pub enum SaeEncoder {
    /// ReLU.
    Standard {
        /// Bias.
        b_enc: Tensor,
    },
    /// ReLU of the k largest (Gao et al. 2024, arXiv 2406.04093).
    TopK {
        /// Bias.
        b_enc: Tensor,
        /// How many features are on at most.
        k: i64,
    },
    /// What is above a threshold of its own, and 0 (Rajamanoharan et al. 2024, arXiv 2407.14435).
    JumpRelu {
        /// Bias.
        b_enc: Tensor,
        /// Thresholds.
        threshold: Tensor,
    },
    /// Where a gate is open, the ReLU of a rescaled pre-activation (Rajamanoharan et al. 2024, arXiv
    /// 2404.16014).
    Gated {
        /// Bias of the gate.
        b_gate: Tensor,
        /// Logarithm of the rescaling.
        r_mag: Tensor,
        /// Bias of the magnitude.
        b_mag: Tensor,
    },
}

/// What is done to activations before they are read, and undone after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaeNorm {
    /// Nothing.
    #[default]
    None,
    /// Every vector is scaled to the norm √d_in (`constant_norm_rescale`).
    ConstantNorm,
    /// Every vector is centred and divided by its standard deviation + 1e-5 (`layer_norm`).
    LayerNorm,
}

/// What beside its weights says how an SAE is used.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SaeConfig {
    /// Whether the bias of what is written is taken off what is read.
    pub apply_b_dec_to_input: bool,
    /// Normalisation of activations.
    pub norm: SaeNorm,
    /// Whether it was trained on a residual stream without its mean over n_embd, or on what is added to such
    /// a one (TransformerLens' `center_writing_weights`): the mean then goes past it.
    pub centred: bool,
    /// TransformerLens' name of the activation that it was trained on.
    pub hook_name: Option<String>,
    /// The model that it was trained on.
    pub model_name: Option<String>,
}

/// Activations as an SAE sees them.
#[derive(Debug)]
pub struct SaeRun {
    /// Features, `[.., d_sae]`; none is below 0.
    pub features: Tensor,
    /// The sum of what they write, in the shape of the activations.
    pub reconstruction: Tensor,
}

impl Sae {
    /// Width of the activations.
    pub fn d_in(&self) -> i64 {
        self.w_enc.size()[0]
    }

    /// Number of features.
    pub fn d_sae(&self) -> i64 {
        self.w_enc.size()[1]
    }

    /// The activation that it was trained on.
    ///
    /// # Errors
    /// If its file does not say, or names what a GPT-2 does not have.
    pub fn place(&self) -> Result<Activation> {
        match &self.config.hook_name {
            Some(name) => name.parse(),
            None => Err(Error::invalid("the SAE does not say which activation it is for; use Sae::hook_at")),
        }
    }

    /// Features of activations `[.., d_in]` (or `[.., head, d_head]`), and what they come to.
    ///
    /// # Errors
    /// If the width is another.
    pub fn run(&self, x: &Tensor) -> Result<SaeRun> {
        let (flat, mean) = self.centred(self.flat(x)?)?;
        let (read, undo) = self.normalised(&flat)?;
        let features = self.features_of(&read)?;
        let written = undo.apply(self.decode(&features)?)?;
        let written = mean.map_or(Ok(written.shallow_clone()), |mean| written.f_add(&mean))?;
        Ok(SaeRun { features, reconstruction: written.f_reshape(x.size().as_slice())? })
    }

    /// Features `[.., d_sae]` of activations `[.., d_in]` (or `[.., head, d_head]`).
    ///
    /// # Errors
    /// If the width is another.
    pub fn encode(&self, x: &Tensor) -> Result<Tensor> {
        let (flat, _) = self.centred(self.flat(x)?)?;
        self.features_of(&self.normalised(&flat)?.0)
    }

    /// Activations as they were in training, and the mean that was taken off them.
    fn centred(&self, x: Tensor) -> Result<(Tensor, Option<Tensor>)> {
        if !self.config.centred {
            return Ok((x, None));
        }
        let mean = x.f_mean_dim(-1i64, true, Kind::Float)?;
        Ok((x.f_sub(&mean)?, Some(mean)))
    }

    /// What features `[.., d_sae]` write, `[.., d_in]`; where activations are normalised, before that is
    /// undone (see [`Sae::run`]).
    ///
    /// # Errors
    /// If the number of features is another.
    pub fn decode(&self, features: &Tensor) -> Result<Tensor> {
        Ok(features.f_matmul(&self.w_dec)?.f_add(&self.b_dec)?)
    }

    /// Float32 with the width last.
    fn flat(&self, x: &Tensor) -> Result<Tensor> {
        let (size, d_in) = (x.size(), self.d_in());
        let x = x.f_to_kind(Kind::Float)?;
        match size.as_slice() {
            [.., last] if *last == d_in => Ok(x),
            [.., head, d_head] if head * d_head == d_in => Ok(x.f_flatten(-2, -1)?),
            _ => Err(Error::invalid(format!("an SAE of width {d_in} cannot read activations {size:?}"))),
        }
    }

    /// Of normalised activations.
    fn features_of(&self, x: &Tensor) -> Result<Tensor> {
        let x = match self.config.apply_b_dec_to_input {
            true => x.f_sub(&self.b_dec)?,
            false => x.shallow_clone(),
        };
        let pre = x.f_matmul(&self.w_enc)?;
        Ok(match &self.encoder {
            SaeEncoder::Standard { b_enc } => pre.f_add(b_enc)?.f_relu()?,
            SaeEncoder::TopK { b_enc, k } => {
                let pre = pre.f_add(b_enc)?;
                let (values, places) = pre.f_topk(*k, -1, true, false)?;
                pre.f_zeros_like()?.f_scatter(-1, &places, &values.f_relu()?)?
            }
            SaeEncoder::JumpRelu { b_enc, threshold } => {
                let pre = pre.f_add(b_enc)?;
                let above = pre.f_gt_tensor(threshold)?.f_to_kind(Kind::Float)?;
                pre.f_relu()?.f_mul(&above)?
            }
            SaeEncoder::Gated { b_gate, r_mag, b_mag } => {
                let open = pre.f_add(b_gate)?.f_gt(0.0)?.f_to_kind(Kind::Float)?;
                pre.f_mul(&r_mag.f_exp()?)?.f_add(b_mag)?.f_relu()?.f_mul(&open)?
            }
        })
    }

    /// Normalised, and how that is undone.
    fn normalised(&self, x: &Tensor) -> Result<(Tensor, Undo)> {
        match self.config.norm {
            SaeNorm::None => Ok((x.shallow_clone(), Undo { scale: None, mean: None })),
            SaeNorm::ConstantNorm => {
                let norm = x.f_square()?.f_sum_dim_intlist(-1i64, true, Kind::Float)?.f_sqrt()?;
                let scale = norm.f_div_scalar((self.d_in() as f64).sqrt())?;
                Ok((x.f_div(&scale)?, Undo { scale: Some(scale), mean: None }))
            }
            SaeNorm::LayerNorm => {
                let mean = x.f_mean_dim(-1i64, true, Kind::Float)?;
                let centred = x.f_sub(&mean)?;
                let std = centred.f_std_dim(-1i64, true, true)?;
                let read = centred.f_div(&std.f_add_scalar(1e-5)?)?;
                Ok((read, Undo { scale: Some(std), mean: Some(mean) }))
            }
        }
    }

    /// The same on a device.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn to_device(&self, device: Device) -> Result<Sae> {
        let to = |x: &Tensor| x.f_to_device(device);
        let encoder = match &self.encoder {
            SaeEncoder::Standard { b_enc } => SaeEncoder::Standard { b_enc: to(b_enc)? },
            SaeEncoder::TopK { b_enc, k } => SaeEncoder::TopK { b_enc: to(b_enc)?, k: *k },
            SaeEncoder::JumpRelu { b_enc, threshold } => {
                SaeEncoder::JumpRelu { b_enc: to(b_enc)?, threshold: to(threshold)? }
            }
            SaeEncoder::Gated { b_gate, r_mag, b_mag } => {
                SaeEncoder::Gated { b_gate: to(b_gate)?, r_mag: to(r_mag)?, b_mag: to(b_mag)? }
            }
        };
        Ok(Sae {
            w_enc: to(&self.w_enc)?,
            w_dec: to(&self.w_dec)?,
            b_dec: to(&self.b_dec)?,
            encoder,
            config: self.config.clone(),
        })
    }
}

/// What gives a reconstruction the scale and mean that normalisation took.
struct Undo {
    scale: Option<Tensor>,
    mean: Option<Tensor>,
}

impl Undo {
    fn apply(&self, mut x: Tensor) -> Result<Tensor> {
        if let Some(scale) = &self.scale {
            x = x.f_mul(scale)?;
        }
        if let Some(mean) = &self.mean {
            x = x.f_add(mean)?;
        }
        Ok(x)
    }
}
