//! When which LN goes, as a pure function of the optimizer step.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::norm::{LnSite, RemovalKind};

/// First step and gap in steps per layer of every kind of removal: the `[schedule]` table of a config.
///
/// With a gap, the layer that is `i`-th in `order` goes at `start + i · gap`; gap 0 takes all layers at once.
/// A kind without a start never goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ScheduleConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ln2: Option<usize>,
    pub gap_ln2: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ln1qk: Option<usize>,
    pub gap_ln1qk: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ln1v: Option<usize>,
    pub gap_ln1v: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_lnf: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_eot: Option<usize>,
    pub gap_eot: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_bos: Option<usize>,
    pub gap_bos: usize,
    /// Steps over which the gate of an LN closes, from real to fake, before it goes; 0 removes it in one
    /// piece.
    pub taper_steps: usize,
    /// The blocks in the order in which they lose an LN; unset, from the first on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Vec<usize>>,
    /// Every removal by itself, instead of all of the above: what an adaptive schedule came to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<ListedRemoval>,
}

/// A removal by itself, over steps of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedRemoval {
    /// 0-based optimizer step before which it is complete.
    pub step: usize,
    /// What goes.
    pub kind: RemovalKind,
    /// 0-based block; none for ln_f.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Steps before it over which the gate closes.
    #[serde(default)]
    pub taper_steps: usize,
}

/// One removal: before optimizer step `step` (0-based), `kind` of block `layer` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Removal {
    /// 0-based optimizer step.
    pub step: usize,
    /// What goes.
    pub kind: RemovalKind,
    /// 0-based block; `None` for ln_f.
    pub layer: Option<usize>,
}

impl Removal {
    /// The LN site that goes; `None` where only a special standard deviation does.
    pub fn site(&self) -> Option<LnSite> {
        match (self.kind, self.layer) {
            (RemovalKind::Ln2, Some(layer)) => Some(LnSite::Ln2(layer)),
            (RemovalKind::Ln1Qk, Some(layer)) => Some(LnSite::Ln1Qk(layer)),
            (RemovalKind::Ln1V, Some(layer)) => Some(LnSite::Ln1V(layer)),
            (RemovalKind::LnF, _) => Some(LnSite::LnF),
            _ => None,
        }
    }
}

impl fmt::Display for Removal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{} of block {layer}", self.kind.label()),
            None => f.write_str(self.kind.label()),
        }
    }
}

impl ScheduleConfig {
    /// Start and gap of one kind.
    pub fn of(&self, kind: RemovalKind) -> (Option<usize>, usize) {
        match kind {
            RemovalKind::Ln2 => (self.start_ln2, self.gap_ln2),
            RemovalKind::Ln1Qk => (self.start_ln1qk, self.gap_ln1qk),
            RemovalKind::Ln1V => (self.start_ln1v, self.gap_ln1v),
            RemovalKind::LnF => (self.start_lnf, 0),
            RemovalKind::Eot => (self.start_eot, self.gap_eot),
            RemovalKind::Bos => (self.start_bos, self.gap_bos),
        }
    }

    /// The same plan for a run `steps` times as long, of a model with `gaps` times as many steps from block
    /// to block: every kind begins and ends at the same part of the run, to the nearest step. `gaps` is 1 for
    /// the same model.
    ///
    /// ```
    /// use lnfree::schedule::ScheduleConfig;
    ///
    /// let plan = ScheduleConfig { start_ln2: Some(20), gap_ln2: 2, start_lnf: Some(100), ..ScheduleConfig::default() };
    /// let twice = plan.stretched(2.0, 1.0);
    /// assert_eq!((twice.start_ln2, twice.gap_ln2, twice.start_lnf), (Some(40), 4, Some(200)));
    /// ```
    pub fn stretched(&self, steps: f64, gaps: f64) -> ScheduleConfig {
        let round = |x: f64| x.round() as usize;
        let start = |start: Option<usize>| start.map(|start| round(start as f64 * steps).max(1));
        let gap = |gap: usize| round(gap as f64 * steps * gaps);
        ScheduleConfig {
            start_ln2: start(self.start_ln2),
            gap_ln2: gap(self.gap_ln2),
            start_ln1qk: start(self.start_ln1qk),
            gap_ln1qk: gap(self.gap_ln1qk),
            start_ln1v: start(self.start_ln1v),
            gap_ln1v: gap(self.gap_ln1v),
            start_lnf: start(self.start_lnf),
            start_eot: start(self.start_eot),
            gap_eot: gap(self.gap_eot),
            start_bos: start(self.start_bos),
            gap_bos: gap(self.gap_bos),
            taper_steps: gap(self.taper_steps),
            order: self.order.clone().filter(|_| gaps == 1.0),
            removals: self.removals.iter().filter(|_| gaps == 1.0).map(|r| r.stretched(steps)).collect(),
        }
    }
}

impl ListedRemoval {
    /// Without its taper.
    pub fn removal(self) -> Removal {
        Removal { step: self.step, kind: self.kind, layer: self.layer }
    }

    /// As [`Removal::site`].
    pub fn site(self) -> Option<LnSite> {
        self.removal().site()
    }

    fn stretched(self, steps: f64) -> ListedRemoval {
        let round = |x: usize| (x as f64 * steps).round() as usize;
        ListedRemoval { step: round(self.step), taper_steps: round(self.taper_steps), ..self }
    }
}

/// All removals of a model in the order in which they happen: by step, then kind, then layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Schedule {
    removals: Vec<Removal>,
    /// Of each of them.
    taper_steps: Vec<usize>,
}

impl Schedule {
    /// The schedule of a model with `n_layer` blocks.
    pub fn new(config: &ScheduleConfig, n_layer: usize) -> Schedule {
        if !config.removals.is_empty() {
            return Schedule::of(config.removals.clone());
        }
        let taper_steps = config.taper_steps;
        let mut removals = Vec::new();
        for kind in RemovalKind::ALL {
            let (Some(start), gap) = config.of(kind) else { continue };
            if kind == RemovalKind::LnF {
                removals.push(ListedRemoval { step: start, kind, layer: None, taper_steps });
            } else {
                let step = |place: usize| start.saturating_add(place.saturating_mul(gap));
                let layer = |place: usize| config.order.as_ref().map_or(place, |order| order[place]);
                let removal =
                    |place| ListedRemoval { step: step(place), kind, layer: Some(layer(place)), taper_steps };
                removals.extend((0..n_layer).map(removal));
            }
        }
        Schedule::of(removals)
    }

    /// The schedule of these removals.
    pub fn of(mut listed: Vec<ListedRemoval>) -> Schedule {
        listed.sort_by_key(|r| (r.step, r.kind, r.layer));
        let (removals, taper_steps) = listed.iter().map(|r| (r.removal(), r.taper_steps)).unzip();
        Schedule { removals, taper_steps }
    }

    /// Every removal with its taper: [`Schedule::of`] them is the same schedule.
    pub fn listed(&self) -> impl Iterator<Item = ListedRemoval> {
        self.removals.iter().zip(&self.taper_steps).map(|(&Removal { step, kind, layer }, &taper_steps)| {
            ListedRemoval { step, kind, layer, taper_steps }
        })
    }

    /// The same without one kind.
    pub fn without(self, kind: RemovalKind) -> Schedule {
        Schedule::of(self.listed().filter(|r| r.kind != kind).collect())
    }

    /// A schedule that removes nothing: the vanilla control.
    pub fn empty() -> Schedule {
        Schedule::default()
    }

    /// Every removal, in order.
    pub fn removals(&self) -> &[Removal] {
        &self.removals
    }

    /// The gates of the LNs that are on their way out when `step` runs: a removal at step r over n steps has
    /// gate (i + 1)/(n + 1) at step r − n + i.
    pub fn gates_at(&self, step: usize) -> Vec<(LnSite, f64)> {
        let all = self.removals.iter().zip(self.taper_steps.iter().copied());
        let on_the_way = all.filter(|(r, taper)| r.step > step && r.step <= step + taper);
        let gate = |r: &Removal, taper: usize| (taper - (r.step - step) + 1) as f64 / (taper + 1) as f64;
        on_the_way.filter_map(|(r, taper)| Some((r.site()?, gate(r, taper)))).collect()
    }

    /// Removals due before `step` runs, those of earlier steps included, in order: the state at a step is
    /// these carried out one after the other, so none can be missed and a resumed run ends in the same state.
    pub fn states_at(&self, step: usize) -> &[Removal] {
        let n = self.removals.partition_point(|r| r.step <= step);
        &self.removals[..n]
    }

    /// The removals of exactly this step.
    pub fn at(&self, step: usize) -> &[Removal] {
        let from = self.removals.partition_point(|r| r.step < step);
        &self.removals[from..self.states_at(step).len()]
    }

    /// The next removal after `step`, if any.
    pub fn next_after(&self, step: usize) -> Option<Removal> {
        self.removals.get(self.states_at(step).len()).copied()
    }
}
