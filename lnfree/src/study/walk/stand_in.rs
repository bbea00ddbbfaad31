//! What is trained where a size cannot be.

use crate::Result;
use crate::config::Config;

/// Nano's config with the schedule of another size, scaled to nano's steps and blocks: every kind begins and
/// ends at the same part of the run.
pub(super) fn config(size: &Config) -> Result<Config> {
    let mut config = Config::load("nano", &[])?;
    let steps = config.train.max_steps as f64 / size.train.max_steps as f64;
    let gaps = config.model.n_layer.saturating_sub(1).max(1);
    let mut plan =
        size.schedule.stretched(steps, size.model.n_layer.saturating_sub(1).max(1) as f64 / gaps as f64);
    // Rounded up, a gap would carry a kind's last blocks beyond the first of the next.
    let at_most = |start: Option<usize>, next: Option<usize>, gap: usize| match (start, next) {
        (Some(start), Some(next)) if next > start => gap.min((next - start - 1) / gaps),
        _ => gap,
    };
    plan.gap_ln2 = at_most(plan.start_ln2, plan.start_ln1qk, plan.gap_ln2);
    plan.gap_ln1qk = at_most(plan.start_ln1qk, plan.start_ln1v, plan.gap_ln1qk);
    plan.gap_ln1v = at_most(plan.start_ln1v, plan.start_lnf, plan.gap_ln1v);
    config.schedule = plan;
    Ok(config)
}
