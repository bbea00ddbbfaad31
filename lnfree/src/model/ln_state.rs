//! The state of every LN of one model, how a forward reads it and how training moves it.

use tch::{Device, Kind, Tensor};

use super::ln_statistics::{Divisor, LnStatistics, columns_from};
use crate::base::device::{pin, send};
use crate::config::norm::{
    LnMode, LnSite, NormSettings, RemovalKind, SpecialAxis, StdAverage, UpdateCount, ln1_row, ln2_row,
    lnf_row,
};

/// What one forward does to the statistics of one LN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Move {
    /// How often its running values move.
    updates: i64,
    /// After which of these moves its frozen values are set to the running ones; 0 for never.
    last_follow: i64,
    /// Whether position 0 is apart.
    special: bool,
}

/// The [`Move`]s of all LNs as columns on the device, `[n_ln, 1]`.
#[derive(Debug)]
struct Masks {
    rows: Vec<Move>,
    updates: Tensor,
    last_follow: Tensor,
    special: Tensor,
}

impl Masks {
    fn new(rows: Vec<Move>, device: Device) -> Masks {
        let column = |field: fn(&Move) -> i64| {
            let values: Vec<i64> = rows.iter().map(field).collect();
            // Without waiting for what a GPU still computes.
            send(&pin(Tensor::from_slice(&values).view([-1, 1]), device), device)
        };
        Masks {
            updates: column(|m| m.updates),
            last_follow: column(|m| m.last_follow),
            special: column(|m| i64::from(m.special)).to_kind(Kind::Bool),
            rows,
        }
    }

    fn most_updates(&self) -> i64 {
        self.rows.iter().map(|m| m.updates).max().unwrap_or(0)
    }
}

/// The LNs of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockLn {
    /// ln_1 as seen by queries and keys.
    pub ln1_qk: LnMode,
    /// ln_1 as seen by values.
    pub ln1_v: LnMode,
    /// ln_2.
    pub ln2: LnMode,
    /// Whether ln_1 still treats position 0 and end-of-text tokens apart.
    pub ln1_special: bool,
}

/// Which LNs of a model are fake, and the standard deviations they divide by.
#[derive(Debug)]
pub struct LnState {
    /// Per block, in order.
    pub blocks: Vec<BlockLn>,
    /// The final LN.
    pub lnf: LnMode,
    /// Running and frozen standard deviations.
    pub statistics: LnStatistics,
    /// How they are followed.
    pub settings: NormSettings,
    /// Real sites on their way out, each with its gate, see [`LnState::set_gates`].
    gates: Vec<(LnSite, f64)>,
    /// Kept between forwards, see [`LnState::observe`].
    masks: Option<Masks>,
}

impl LnState {
    /// All LNs real, with standard deviations `(average, position 0)` per LN in the order of
    /// [`crate::config::norm::ln_names`].
    pub fn real(initial: &[(f64, f64)], settings: NormSettings, device: Device) -> LnState {
        let special = settings.special_std;
        let block =
            BlockLn { ln1_qk: LnMode::Real, ln1_v: LnMode::Real, ln2: LnMode::Real, ln1_special: special };
        LnState {
            blocks: vec![block; initial.len() / 2],
            lnf: LnMode::Real,
            statistics: LnStatistics::new(initial, special, device),
            settings,
            gates: Vec::new(),
            masks: None,
        }
    }

    /// All LNs real and nothing measured: what an ordinary GPT-2 has. Nothing may be removed from it.
    pub fn plain(n_layer: usize, device: Device) -> LnState {
        LnState::real(&vec![(1.0, 1.0); 2 * n_layer + 1], NormSettings::default(), device)
    }

    /// A deep copy.
    pub fn copy(&self) -> LnState {
        LnState {
            blocks: self.blocks.clone(),
            lnf: self.lnf,
            statistics: self.statistics.copy(),
            settings: self.settings.clone(),
            gates: self.gates.clone(),
            masks: None,
        }
    }

    /// Number of blocks.
    pub fn n_layer(&self) -> usize {
        self.blocks.len()
    }

    /// Whether no LN is real any more.
    pub fn all_fake(&self) -> bool {
        self.lnf.is_fake()
            && self.blocks.iter().all(|b| b.ln1_qk.is_fake() && b.ln1_v.is_fake() && b.ln2.is_fake())
    }

    /// The mode of one site.
    pub fn mode(&self, site: LnSite) -> LnMode {
        match site {
            LnSite::Ln1Qk(l) => self.blocks[l].ln1_qk,
            LnSite::Ln1V(l) => self.blocks[l].ln1_v,
            LnSite::Ln2(l) => self.blocks[l].ln2,
            LnSite::LnF => self.lnf,
        }
    }

    /// Lets real sites be partly fake: with gate t, 0 to 1, a site is (1 − t) LN + t FakeLN (TaperNorm's
    /// interpolation, arXiv 2602.10408), which divides by the harmonic mean of σ and σ̄. Sites that are not
    /// among `gates` are what their mode says; fake ones stay so. Gates are no part of a checkpoint: a
    /// schedule gives them anew.
    pub fn set_gates(&mut self, gates: Vec<(LnSite, f64)>) {
        self.gates = gates;
    }

    /// How much of a real site is fake already, 0 to 1.
    pub fn gate(&self, site: LnSite) -> f64 {
        self.gates.iter().find(|(of, _)| *of == site).map_or(0.0, |(_, gate)| *gate)
    }

    /// The row of a site in per-LN tensors.
    pub fn row(&self, site: LnSite) -> usize {
        match site {
            LnSite::Ln1Qk(l) | LnSite::Ln1V(l) => ln1_row(l),
            LnSite::Ln2(l) => ln2_row(l),
            LnSite::LnF => lnf_row(self.n_layer()),
        }
    }

    /// Carries out one removal of the schedule; doing it again changes nothing.
    pub fn remove(&mut self, kind: RemovalKind, layer: Option<usize>) {
        let layers = match layer {
            Some(l) => l..l + 1,
            None => 0..self.n_layer(),
        };
        if kind == RemovalKind::LnF {
            self.lnf = LnMode::Fake;
            return;
        }
        for l in layers {
            match kind {
                RemovalKind::Ln2 => self.blocks[l].ln2 = LnMode::Fake,
                RemovalKind::Ln1Qk => self.blocks[l].ln1_qk = LnMode::Fake,
                RemovalKind::Ln1V => self.blocks[l].ln1_v = LnMode::Fake,
                RemovalKind::Eot => self.copy_columns(ln1_row(l), 0, 2, 2),
                RemovalKind::Bos => {
                    self.blocks[l].ln1_special = false;
                    self.copy_columns(ln1_row(l), 0, 1, 1);
                    self.copy_columns(ln1_row(l), 0, 3, 1);
                    self.copy_columns(ln1_row(l), 0, 2, 1);
                }
                RemovalKind::LnF => {}
            }
        }
    }

    fn copy_columns(&mut self, row: usize, from: i64, to: i64, n: i64) {
        let _guard = tch::no_grad_guard();
        let row = self.statistics.frozen.get(row as i64);
        let source = row.narrow(0, from, n).copy();
        row.narrow(0, to, n).copy_(&source);
    }

    /// Whether the LN of `row` still treats position 0 (and, for ln_1, end-of-text) apart.
    pub fn is_special(&self, row: usize) -> bool {
        let is_ln1 = row < 2 * self.n_layer() && row.is_multiple_of(2);
        if is_ln1 { self.blocks[row / 2].ln1_special } else { self.settings.special_std }
    }

    fn special_axis(&self, row: usize) -> Option<SpecialAxis> {
        self.is_special(row).then_some(self.settings.special_axis)
    }

    /// Whether the divisors of block `layer`'s ln_1 differ between its calls because each moves them before
    /// it uses them; only in a forward that observes.
    fn moves_between_calls(&self, layer: usize) -> bool {
        let per_face = self.settings.ln1_updates == UpdateCount::PerFace;
        per_face && self.settings.recompute_on_fake && self.blocks[layer].ln1_v.is_fake()
    }

    /// Whether values at end-of-text tokens of block `layer` may be divided by something else than other
    /// values.
    pub fn eot_apart(&self, layer: usize, observing: bool) -> bool {
        let block = &self.blocks[layer];
        block.ln1_v.is_fake() && (block.ln1_special || (observing && self.moves_between_calls(layer)))
    }

    /// The constant that a fake site divides everything by, float32, 0-dim; None where it is real, where
    /// there is more than one, or where it may move from one forward to the next.
    pub fn constant(&self, site: LnSite, observing: bool) -> Option<Tensor> {
        // While values still read the real ln_1, what queries and keys divide by follows it from forward to
        // forward.
        let moves = observing && self.calls(self.row(site)).iter().any(|&mode| self.follows(mode));
        let apart = matches!(site, LnSite::Ln1V(layer) if self.eot_apart(layer, observing));
        if !self.mode(site).is_fake() || moves || apart {
            return None;
        }
        match self.divisor(site, false, None) {
            Divisor::Uniform(std) => Some(std),
            Divisor::Special { .. } => None,
        }
    }

    /// Whether queries, keys and values of block `layer` read the very same normalisation.
    pub fn faces_agree(&self, layer: usize, observing: bool) -> bool {
        let block = &self.blocks[layer];
        let gates = [LnSite::Ln1Qk(layer), LnSite::Ln1V(layer)].map(|site| self.gate(site));
        block.ln1_qk == block.ln1_v && gates[0] == gates[1] && !self.eot_apart(layer, observing)
    }

    /// The modes of the calls made to an LN in one forward, in order.
    /// The paper's code makes three to an ln_1: for queries and keys, for values, for values at end-of-text.
    fn calls(&self, row: usize) -> Vec<LnMode> {
        if row == lnf_row(self.n_layer()) {
            return vec![self.lnf];
        }
        let block = &self.blocks[row / 2];
        if row % 2 == 1 { vec![block.ln2] } else { vec![block.ln1_qk, block.ln1_v, block.ln1_v] }
    }

    fn follows(&self, mode: LnMode) -> bool {
        match mode {
            LnMode::Real => self.settings.recompute_on_real,
            LnMode::Fake => self.settings.recompute_on_fake,
        }
    }

    /// Whether some fake site divides by what the very same forward observes: a batch can then not be
    /// computed in parts.
    pub fn follows_within_a_forward(&self) -> bool {
        (0..2 * self.n_layer() + 1).any(|row| {
            let calls = self.calls(row);
            let first = calls.iter().position(|&mode| self.follows(mode));
            first.is_some_and(|first| calls[first..].iter().any(|mode| mode.is_fake()))
        })
    }

    /// How many times the running value has been moved once call `call` (0-based) has been made.
    fn updates_after(&self, call: usize) -> usize {
        match self.settings.ln1_updates {
            UpdateCount::PerForward => 1,
            UpdateCount::PerFace => call + 1,
        }
    }

    /// What a forward that observes does to every LN.
    fn moves(&self) -> Vec<Move> {
        (0..2 * self.n_layer() + 1)
            .map(|row| {
                let calls = self.calls(row);
                let follow = calls.iter().rposition(|&mode| self.follows(mode));
                Move {
                    updates: self.updates_after(calls.len() - 1) as i64,
                    last_follow: follow.map_or(0, |call| self.updates_after(call) as i64),
                    special: self.is_special(row),
                }
            })
            .collect()
    }

    /// What a fake site divides by. `observed` is this forward's observation of the LN (`[2]`, see
    /// [`LnState::observe`]) when the forward is one that moves the statistics; an evaluation passes `None`
    /// and gets the frozen value.
    pub fn divisor(&self, site: LnSite, eot: bool, observed: Option<&Tensor>) -> Divisor {
        let row = self.row(site);
        let call = match site {
            LnSite::Ln1V(_) => 1 + usize::from(eot),
            _ => 0,
        };
        let frozen = || self.statistics.frozen.get(row as i64);
        let last_follow = self.calls(row)[..=call].iter().rposition(|&mode| self.follows(mode));
        let columns = match (observed, last_follow) {
            (Some(seen), Some(call)) => {
                let mut running = self.statistics.running.get(row as i64);
                for _ in 0..self.updates_after(call) {
                    running = self.moved(&running, seen);
                }
                let special =
                    Tensor::full([1, 1], i64::from(self.is_special(row)), (Kind::Bool, seen.device()));
                columns_from(&running.view([1, 2]), &special).view(-1)
            }
            _ => frozen(),
        };
        Divisor::from_row(&columns, eot, self.special_axis(row))
    }

    fn moved(&self, running: &Tensor, observed: &Tensor) -> Tensor {
        // The momentum is rounded to float32 first, because that is the precision it is stored in.
        let momentum = f64::from(self.settings.momentum as f32);
        running * momentum + observed * (1.0 - momentum)
    }

    /// What a forward reports about one LN: float32 `[2]`, σ over the averaged positions and at position 0,
    /// each in the average of [`NormSettings::average`]. `sigma` is `[batch, pos]`. Both are that over
    /// everything when position 0 is not treated apart.
    pub fn observation(&self, site: LnSite, sigma: &Tensor) -> Tensor {
        let sigma = sigma.detach();
        let apart = self.is_special(self.row(site));
        let averaged = match (sigma.size()[1], apart && self.settings.exclude_position_0) {
            (pos, true) if pos > 1 => sigma.narrow(1, 1, pos - 1),
            _ => sigma.shallow_clone(),
        };
        let average = |of: &Tensor| match (self.settings.average, apart) {
            // First over the batch: the order in which the paper's code sums.
            (StdAverage::Mean, true) => of.mean_dim(0i64, false, Kind::Float).mean(Kind::Float),
            (StdAverage::Mean, false) => of.mean(Kind::Float),
            (StdAverage::LeastSquares, _) => of.square().mean(Kind::Float) / of.mean(Kind::Float),
        };
        match apart {
            true => Tensor::stack(&[average(&averaged), average(&sigma.narrow(1, 0, 1))], 0),
            false => average(&sigma).expand([2], false),
        }
    }

    /// Applies what one training forward observed, float32 `[n_ln, 2]`: moves the running values, and lets
    /// the frozen ones follow where the settings say so. Stays on the device.
    pub fn observe(&mut self, observed: &Tensor) {
        let _guard = tch::no_grad_guard();
        let rows = self.moves();
        // The masks change with the removals only: uploading them for every forward would stall a GPU each
        // time.
        let masks = match self.masks.take() {
            Some(masks) if masks.rows == rows => masks,
            _ => Masks::new(rows, observed.device()),
        };
        let (mut running, mut frozen) =
            (self.statistics.running.shallow_clone(), self.statistics.frozen.shallow_clone());
        for k in 1..=masks.most_updates() {
            running = self.moved(&running, observed).where_self(&masks.updates.ge(k), &running);
            frozen = columns_from(&running, &masks.special).where_self(&masks.last_follow.eq(k), &frozen);
        }
        self.masks = Some(masks);
        self.statistics = LnStatistics { running, frozen };
    }
}
