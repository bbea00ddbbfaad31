//! Constants of every channel, when an LN has gone.

use tch::{Kind, Tensor};

use super::Trainer;
use crate::Result;
use crate::config::norm::LnSite;
use crate::config::schedule::Removal;
use crate::model::Compute;
use crate::model::LayerNorm;
use crate::model::hook::{Activation, Capture};

impl Trainer {
    /// With `norm.per_channel`, brings every channel of the LNs that are fake since `removed` nearest to what
    /// the real LN makes of the batch that comes next: over its tokens, with z = x − μ, Σ (z/σ − a z)² is
    /// least at a = Σ z²/σ / Σ z², and γ is multiplied by a σ̄. An ln_1 is changed once none of its faces is
    /// real. Call it after [`Trainer::apply_removals`], with what that returned.
    ///
    /// # Errors
    /// When the data cannot be read.
    pub fn fit_channels(&mut self, removed: &[Removal]) -> Result<()> {
        if !self.config.norm.per_channel {
            return Ok(());
        }
        let mut sites: Vec<LnSite> = removed.iter().filter_map(Removal::site).collect();
        sites.retain(|&site| self.is_gone(site));
        sites.sort_by_key(|&site| self.ln.row(site));
        sites.dedup_by_key(|site| self.ln.row(*site));
        if sites.is_empty() {
            return Ok(());
        }
        let position = self.batches.position();
        let ids = self.batches.next_batch(self.config.train.batch_size)?;
        self.batches.seek(position);
        let _guard = tch::no_grad_guard();
        let mut sums: Vec<Option<[Tensor; 2]>> = sites.iter().map(|_| None).collect();
        for ids in ids.split(self.micro_batch as i64, 0) {
            let mut inputs = Capture::of(sites.iter().map(|&site| self.input_of(site)))?;
            let dtype = self.config.train.dtype.in_effect(self.model.device()).kind();
            let mut pass = self.model.pass(&ids, &self.ln, Compute { dtype, ..Compute::default() })?;
            let _ = self.model.residual(&ids, &mut pass, &mut inputs);
            pass.check()?;
            for (&site, sums) in sites.iter().zip(&mut sums) {
                let Some(norm) = self.norm(site) else { continue };
                let found = moments(inputs.get(self.input_of(site))?, norm.eps);
                *sums = Some(match sums.take() {
                    Some([a, b]) => [a + &found[0], b + &found[1]],
                    None => found,
                });
            }
        }
        for (&site, sums) in sites.iter().zip(sums) {
            let (Some(norm), Some([over_sigma, squares])) = (self.norm(site), sums) else { continue };
            let std = self.ln.statistics.frozen.get(self.ln.row(site) as i64).get(0);
            // A channel that is always at the mean has nothing to be fitted to.
            let factor = (over_sigma / &squares * std).where_self(&squares.gt(0.0), &squares.ones_like());
            let _ = norm.weight.shallow_clone().f_mul_(&factor.to_kind(norm.weight.kind()))?;
        }
        Ok(())
    }

    /// Whether no face of the LN that `site` belongs to is real.
    fn is_gone(&self, site: LnSite) -> bool {
        let fake = |site| self.ln.mode(site).is_fake();
        match site {
            LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => fake(LnSite::Ln1Qk(l)) && fake(LnSite::Ln1V(l)),
            site => fake(site),
        }
    }

    /// What the LN of `site` reads.
    fn input_of(&self, site: LnSite) -> Activation {
        match site {
            LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => Activation::ResidPre(l),
            LnSite::Ln2(l) => Activation::ResidMid(l),
            LnSite::LnF => Activation::ResidPost(self.model.h.len().saturating_sub(1)),
        }
    }

    fn norm(&self, site: LnSite) -> Option<&LayerNorm> {
        match site {
            LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => self.model.h[l].ln_1.as_ref(),
            LnSite::Ln2(l) => self.model.h[l].ln_2.as_ref(),
            LnSite::LnF => self.model.ln_f.as_ref(),
        }
    }
}

/// Σ z²/σ and Σ z² over all tokens of `[batch, pos, n_embd]`, each `[n_embd]`.
fn moments(x: &Tensor, eps: f64) -> [Tensor; 2] {
    let x = x.to_kind(Kind::Float);
    let squares = (&x - x.mean_dim(-1i64, true, Kind::Float)).square();
    let sigma = (squares.mean_dim(-1i64, true, Kind::Float) + eps).sqrt();
    [&squares / sigma, squares].map(|x| x.sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Float))
}
