//! Standard deviations of a model's residual stream, measured or read from a file.
//!
//! The file has the shape that the paper's code uses: `{"std_dict": {HOOK: σ}, "std_bos_dict": {HOOK: σ}}`
//! with TransformerLens hook names.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::base::interrupt;
use crate::data::TokenFile;
use crate::model::hook::{Activation, Hook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// One standard deviation per place in the residual stream, over positions 1.. and at position 0.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StdDict {
    /// Over positions 1.. and all features jointly, unbiased.
    pub std_dict: BTreeMap<String, f64>,
    /// Over position 0 and all features jointly, unbiased.
    pub std_bos_dict: BTreeMap<String, f64>,
}

impl StdDict {
    /// Reads a std file.
    ///
    /// # Errors
    /// When it cannot be read or is not of the documented shape.
    pub fn read(path: &Path) -> Result<StdDict> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        crate::base::json::from_str(&text).map_err(|e| Error::file(path, format!("not a std file: {e}")))
    }

    /// Writes a std file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(path, e))?;
        crate::base::atomic::write_text(path, &text)
    }

    fn check_finite(&self) -> Result<()> {
        let all = self.std_dict.iter().chain(&self.std_bos_dict);
        let lost: Vec<&str> =
            all.filter(|entry| !entry.1.is_finite()).map(|entry| entry.0.as_str()).collect();
        // In the order of the model; there are no other names.
        let mut hooks = (0..self.std_dict.len()).flat_map(|l| stream(l).map(|at| at.to_string()));
        match hooks.find(|hook| lost.contains(&hook.as_str())) {
            None => Ok(()),
            Some(first) => Err(Error::NotFinite(format!(
                "the residual stream is not finite at {first} ({} of {} standard deviations are no numbers); \
                 are the model's weights finite?",
                lost.len(),
                self.std_dict.len() + self.std_bos_dict.len()
            ))),
        }
    }

    /// `(average, position 0)` per LN, in the order of [`crate::config::norm::ln_names`]: ln_1 reads
    /// hook_resid_pre, ln_2 hook_resid_mid, ln_f the last hook_resid_post.
    ///
    /// # Errors
    /// When a hook is missing or its value is not a positive number; names it.
    pub fn initial(&self, n_layer: usize) -> Result<Vec<(f64, f64)>> {
        let before_lns = (0..n_layer).flat_map(|l| [Activation::ResidPre(l), Activation::ResidMid(l)]);
        let hooks = before_lns.chain([Activation::ResidPost(n_layer - 1)]).map(|at| at.to_string());
        let get = |table: &BTreeMap<String, f64>, name: &str, hook: &str| match table.get(hook) {
            Some(std) if std.is_finite() && *std > 0.0 => Ok(*std),
            Some(std) => Err(Error::invalid(format!("{name}: {hook} is {std}, not a positive number"))),
            None => Err(Error::invalid(format!("{name} has no {hook}; was it measured on a smaller model?"))),
        };
        hooks
            .map(|hook| {
                Ok((get(&self.std_dict, "std_dict", &hook)?, get(&self.std_bos_dict, "std_bos_dict", &hook)?))
            })
            .collect()
    }
}

/// The residual stream before, inside and after block `layer`.
fn stream(layer: usize) -> [Activation; 3] {
    [Activation::ResidPre(layer), Activation::ResidMid(layer), Activation::ResidPost(layer)]
}

/// Sums over what has been seen at one hook, apart for position 0.
#[derive(Default)]
struct Moments {
    sum: [f64; 2],
    squares: [f64; 2],
    n: [f64; 2],
}

impl Moments {
    /// `x` `[batch, pos, n_embd]`, centred over features as the paper's code does by centring the writing
    /// weights.
    fn add(&mut self, x: &Tensor) {
        let x = x.to_kind(Kind::Double);
        let x = &x - x.mean_dim(-1i64, true, Kind::Double);
        let pos = x.size()[1];
        for (i, (start, len)) in [(1, pos - 1), (0, 1)].into_iter().enumerate() {
            let part = x.narrow(1, start, len);
            self.sum[i] += part.sum(Kind::Double).double_value(&[]);
            self.squares[i] += part.square().sum(Kind::Double).double_value(&[]);
            self.n[i] += part.numel() as f64;
        }
    }

    /// Unbiased standard deviation of group `i`; not a number where what has been seen was not.
    fn std(&self, i: usize) -> f64 {
        let variance = (self.squares[i] - self.sum[i] * self.sum[i] / self.n[i]) / (self.n[i] - 1.0);
        // Rounding may take it below zero; `max` would make zero of NaN.
        if variance < 0.0 { 0.0 } else { variance.sqrt() }
    }
}

#[derive(Default)]
struct MomentsHook(BTreeMap<String, Moments>);

impl Hook for MomentsHook {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if self.wants(activation) {
            self.0.entry(activation.to_string()).or_default().add(&value);
        }
        value
    }

    fn wants(&self, activation: Activation) -> bool {
        matches!(activation, Activation::ResidPre(_) | Activation::ResidMid(_) | Activation::ResidPost(_))
    }
}

/// Measures the residual stream over the first `max_sequences` sequences of `tokens`, `batch_size` at a time.
///
/// # Errors
/// When a sequence is shorter than two tokens, too long for the model, or unreadable, or a notebook's stop
/// button; [`Error::NotFinite`] when the residual stream is not finite somewhere.
pub fn measure(
    model: &Gpt2,
    ln: &LnState,
    tokens: &TokenFile,
    max_sequences: usize,
    batch_size: usize,
) -> Result<StdDict> {
    let _guard = tch::no_grad_guard();
    let n = tokens.n_sequences().min(max_sequences);
    let mut hook = MomentsHook::default();
    let listening = interrupt::listen();
    let _sharing = crate::base::device::share_cores(model.device());
    for start in (0..n).step_by(batch_size.max(1)) {
        listening.check()?;
        let rows: Vec<usize> = (start..(start + batch_size.max(1)).min(n)).collect();
        let batch = tokens.batch(&rows)?.to_device(model.device());
        if batch.size()[1] < 2 {
            return Err(Error::invalid("standard deviations need sequences of at least two tokens"));
        }
        let mut pass = model.pass(&batch, ln, Compute::default())?;
        let _ = model.residual(&batch, &mut pass, &mut hook);
    }
    let of = |i: usize| hook.0.iter().map(|(name, m)| (name.clone(), m.std(i))).collect();
    let stds = StdDict { std_dict: of(0), std_bos_dict: of(1) };
    stds.check_finite()?;
    Ok(stds)
}
