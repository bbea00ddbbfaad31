//! When the next LNs go, decided by how far the model is from its teacher.

use crate::config::schedule::{ListedRemoval, Schedule};
use crate::config::{AdaptiveConfig, AdaptiveState};

/// A schedule that is found while the run goes on. Pure: it knows steps and KLs, and nothing of a model.
#[derive(Debug, Clone)]
pub struct Adaptive {
    config: AdaptiveConfig,
    /// What goes together, in the order of the config's schedule, with the steps that this takes at first.
    groups: Vec<Vec<ListedRemoval>>,
    /// Step of the first removal, and the one by which the last is to be done.
    first: usize,
    last: usize,
    state: AdaptiveState,
}

/// Why removals begin.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Reason {
    /// They are the first.
    First,
    /// The KL, a mean over the window in nats per token, is within the tolerance.
    Recovered {
        /// That mean.
        kl: f64,
    },
    /// The steps that are left are needed.
    Time,
}

impl Adaptive {
    /// One at its beginning, if the config wants one and there is something to remove.
    pub fn new(config: &AdaptiveConfig, schedule: &Schedule) -> Option<Adaptive> {
        config.tolerance?;
        let mut groups: Vec<Vec<ListedRemoval>> = Vec::new();
        for removal in schedule.listed() {
            match groups.last_mut().filter(|group| group[0].step == removal.step) {
                Some(group) => group.push(removal),
                None => groups.push(vec![removal]),
            }
        }
        let (first, last) = (groups.first()?[0].step, groups.last()?[0].step);
        Some(Adaptive { config: config.clone(), groups, first, last, state: AdaptiveState::default() })
    }

    /// What it has come to.
    pub fn state(&self) -> &AdaptiveState {
        &self.state
    }

    /// Goes on where `state` was taken.
    pub fn restore(&mut self, state: AdaptiveState) {
        self.state = state;
    }

    /// What has been found so far, as a schedule.
    pub fn schedule(&self) -> Schedule {
        Schedule::of(self.state.begun.clone())
    }

    /// Whether every removal has begun.
    pub fn is_done(&self) -> bool {
        self.begun() == self.groups.len()
    }

    /// Whether [`Adaptive::begin`] would begin with removals before `step`.
    pub fn begins(&self, step: usize) -> bool {
        self.reason(self.begun(), step).is_some()
    }

    /// Begins with the next removals if it is time, before `step` runs.
    pub fn begin(&mut self, step: usize) -> Option<(Vec<ListedRemoval>, Reason)> {
        let group = self.begun();
        let reason = self.reason(group, step)?;
        let taper_steps = self.taper(group);
        let removals = self.groups[group].iter();
        let removals: Vec<_> =
            removals.map(|r| ListedRemoval { step: step + taper_steps, taper_steps, ..*r }).collect();
        self.state.begun.extend(&removals);
        self.state.recent.clear();
        Some((removals, reason))
    }

    /// Takes note of the KL of `step`, once what has begun is complete.
    pub fn observe(&mut self, step: usize, kl: f64) {
        if self.state.begun.last().is_some_and(|last| last.step > step) {
            return;
        }
        let recent = &mut self.state.recent;
        recent.push(kl);
        let old = recent.len().saturating_sub(self.config.window);
        recent.drain(..old);
    }

    /// Whether a step with this KL, or without a finite loss (`None`), shows that a removal has failed.
    pub fn has_exploded(&self, kl: Option<f64>) -> bool {
        !self.state.begun.is_empty() && kl.is_none_or(|kl| kl.is_nan() || kl > self.config.explodes_at)
    }

    /// Makes the removals that began last slower, for a run that goes back to before them: their steps from
    /// then on, or `None` when they have been tried often enough, or only a special σ̄ went, which has no
    /// taper. [`Adaptive::restore`] the state of that checkpoint, with the tapers of this one.
    pub fn slow_down(&mut self) -> Option<usize> {
        let group = self.begun().checked_sub(1)?;
        let tried = self.state.slower.iter().find(|(of, ..)| *of == group).map_or(0, |(_, times, _)| *times);
        let has_a_gate = self.groups[group].iter().any(|r| r.site().is_some());
        if tried >= self.config.retries || !has_a_gate {
            return None;
        }
        let steps = (2 * self.taper(group)).max(FIRST_TAPER);
        self.state.slower.retain(|(of, ..)| *of != group);
        self.state.slower.push((group, tried + 1, steps));
        Some(steps)
    }

    /// How many groups have begun.
    fn begun(&self) -> usize {
        let ends = self.groups.iter().scan(0, |end, group| {
            *end += group.len();
            Some(*end)
        });
        ends.take_while(|end| *end <= self.state.begun.len()).count()
    }

    /// Steps over which a group goes.
    fn taper(&self, group: usize) -> usize {
        let slower = self.state.slower.iter().find(|(of, ..)| *of == group);
        let gated = self.groups[group].iter().filter(|r| r.site().is_some());
        slower.map_or(gated.map(|r| r.taper_steps).max().unwrap_or(0), |(.., steps)| *steps)
    }

    /// Why a group begins before `step`; `None` where it does not.
    fn reason(&self, group: usize, step: usize) -> Option<Reason> {
        let tolerance = self.config.tolerance?;
        if group == self.groups.len() {
            return None;
        }
        if group == 0 {
            return (step + self.taper(0) >= self.first).then_some(Reason::First);
        }
        if self.state.begun.last().is_some_and(|last| last.step >= step) {
            return None;
        }
        let (recent, window) = (&self.state.recent, self.config.window);
        let kl = recent.iter().sum::<f64>() / window as f64;
        if recent.len() == window && kl <= tolerance {
            return Some(Reason::Recovered { kl });
        }
        let tapers: usize = (group..self.groups.len()).map(|group| self.taper(group)).sum();
        let waits = (self.groups.len() - group - 1) * window;
        (step + tapers + waits >= self.last).then_some(Reason::Time)
    }
}

/// Steps of the first taper of removals that exploded in one piece.
const FIRST_TAPER: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schedule::ScheduleConfig;

    fn adaptive(taper_steps: usize) -> Adaptive {
        let plan = ScheduleConfig {
            start_ln2: Some(10),
            gap_ln2: 20,
            start_lnf: Some(60),
            taper_steps,
            ..ScheduleConfig::default()
        };
        let config = AdaptiveConfig { tolerance: Some(0.1), window: 3, ..AdaptiveConfig::default() };
        Adaptive::new(&config, &Schedule::new(&plan, 2)).unwrap()
    }

    /// Steps at which removals are complete, when every step has the KL that `kl` gives it.
    fn found(adaptive: &mut Adaptive, steps: usize, kl: impl Fn(usize) -> f64) -> Vec<usize> {
        for step in 0..steps {
            adaptive.begin(step);
            adaptive.observe(step, kl(step));
        }
        adaptive.schedule().removals().iter().map(|r| r.step).collect()
    }

    #[test]
    fn the_next_removal_waits_for_the_window() {
        // Recovered at once: three steps after each, the removal's own among them.
        assert_eq!(found(&mut adaptive(0), 100, |_| 0.05), [10, 13, 16]);
        // The gate closes over two steps, which do not count.
        assert_eq!(found(&mut adaptive(2), 100, |_| 0.05), [10, 15, 20]);
        // From step 30 on: the first mean within the tolerance is that of 0.19, 0.05, 0.05.
        assert_eq!(found(&mut adaptive(0), 100, |step| if step < 30 { 0.19 } else { 0.05 }), [10, 32, 35]);
    }

    #[test]
    fn without_recovery_all_are_done_by_the_last_step_of_the_schedule() {
        assert_eq!(found(&mut adaptive(0), 100, |_| 0.5), [10, 57, 60]);
        assert_eq!(found(&mut adaptive(2), 100, |_| 0.5), [10, 55, 60]);
        let mut whole = adaptive(0);
        assert!(!whole.is_done());
        found(&mut whole, 61, |_| 0.5);
        assert!(whole.is_done());
    }

    #[test]
    fn what_exploded_goes_more_slowly() {
        let mut adaptive = adaptive(0);
        assert!(!adaptive.has_exploded(None), "nothing has gone yet");
        assert_eq!(adaptive.slow_down(), None);
        let before = adaptive.state().clone();
        adaptive.begin(10).unwrap();
        assert!(adaptive.has_exploded(Some(1.5)) && adaptive.has_exploded(None));
        assert!(adaptive.has_exploded(Some(f64::NAN)) && !adaptive.has_exploded(Some(0.9)));
        for steps in [4, 8, 16, 32] {
            assert_eq!(adaptive.slow_down(), Some(steps));
            let slower = adaptive.state().slower.clone();
            adaptive.restore(AdaptiveState { slower, ..before.clone() });
            let step = 10 - steps.min(10);
            let (removals, reason) = adaptive.begin(step).unwrap();
            assert_eq!((removals[0].step, removals[0].taper_steps), (step + steps, steps));
            assert_eq!(reason, Reason::First);
        }
        assert_eq!(adaptive.slow_down(), None, "four times are enough");
        // What is found is a schedule of its own.
        assert_eq!(adaptive.schedule().listed().collect::<Vec<_>>(), adaptive.state().begun);
    }

    #[test]
    fn what_goes_at_once_stays_together() {
        let plan = ScheduleConfig { start_ln2: Some(3), start_lnf: Some(9), ..ScheduleConfig::default() };
        let config = AdaptiveConfig { tolerance: Some(0.1), window: 1, ..AdaptiveConfig::default() };
        let mut adaptive = Adaptive::new(&config, &Schedule::new(&plan, 4)).unwrap();
        assert_eq!(found(&mut adaptive, 6, |_| 0.0), [3, 3, 3, 3, 4]);
        assert!(Adaptive::new(&AdaptiveConfig::default(), &Schedule::new(&plan, 4)).is_none());
        assert!(Adaptive::new(&config, &Schedule::empty()).is_none());
    }
}
