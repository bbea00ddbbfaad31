//! Edge attribution patching: what edges add up to, single edges against small steps along them and against
//! path patching, which edges there are, and circuits of them.

mod common;
#[path = "common/ln_states.rs"]
mod ln_states;

use common::max_abs;
use ln_states::{apart, load, real, states, texts};
use lnfree::eval::locate_model;
use lnfree::hook::{Activation, Capture, Hook, only, without_patterns};
use lnfree::interp::{
    AttributionPatching, Edge, EdgeAttribution, HeadSite, Metric, Patching, Receiver, Sender,
};
use lnfree::model::{Compute, Gpt2, LoadedModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind, SpecialAxis};
use lnfree::tch::{self, Kind, Tensor};

/// A model in some state of its LNs, and texts for it.
struct Case {
    name: &'static str,
    model: Gpt2,
    ln: LnState,
    clean: Tensor,
    corrupted: Tensor,
    answers: Tensor,
    /// Whether the logits are linear in what is written.
    linear: bool,
}

impl Case {
    /// Of the paper's tiny model.
    fn tiny(name: &'static str, model: Gpt2, ln: LnState, linear: bool) -> Case {
        let [clean, corrupted, answers] = texts();
        Case { name, model, ln, clean, corrupted, answers, linear }
    }

    /// Of an embedded model: `[2, 8]`, at whose end what was said before is to be said again.
    fn nano(name: &'static str, linear: bool) -> Case {
        let loaded = LoadedModel::load(&locate_model(name).unwrap(), None, Kind::Float, tch::Device::Cpu);
        let LoadedModel { model, ln, .. } = loaded.unwrap();
        let clean = [511i64, 443, 283, 759, 90, 1200, 511, 443, 5, 9, 2, 31, 5, 9, 2, 5];
        let corrupted = [511i64, 443, 2000, 759, 90, 1200, 511, 443, 5, 8, 2, 31, 5, 9, 2, 5];
        let [clean, corrupted] = [clean, corrupted].map(|ids| Tensor::from_slice(&ids).view([2, 8]));
        let answers = Tensor::from_slice(&[283i64, 2000, 9, 8]).view([2, 2]);
        Case { name, model, ln, clean, corrupted, answers, linear }
    }

    fn metric(&self) -> Metric<'static> {
        Metric::logit_difference(&self.answers)
    }

    fn edges(&self) -> EdgeAttribution {
        let Case { model, ln, clean, corrupted, .. } = self;
        EdgeAttribution::of(model, ln, clean, corrupted, &self.metric()).unwrap()
    }

    fn run(&self, ids: &Tensor, hook: &mut dyn Hook) -> Tensor {
        let _guard = tch::no_grad_guard();
        self.model.forward(ids, &self.ln, Compute::default(), hook).unwrap()
    }

    fn value(&self, ids: &Tensor, at: Activation) -> Tensor {
        let mut kept = Capture::of([at]).unwrap();
        let _ = self.run(ids, &mut kept);
        kept.get(at).unwrap().shallow_clone()
    }

    /// The metric of a run over the corrupted texts.
    fn measured(&self, hook: &mut dyn Hook) -> Tensor {
        let logits = self.run(&self.corrupted, hook);
        self.metric().of_logits(&logits.select(1, logits.size()[1] - 1)).unwrap()
    }

    /// What a sender writes. A head's is found by leaving it out of what attention adds.
    fn writes(&self, sender: Sender, ids: &Tensor) -> Tensor {
        let (layer, head) = match sender {
            Sender::Embed => return self.value(ids, Activation::ResidPre(0)),
            Sender::Mlp { layer } => return self.value(ids, Activation::MlpOut(layer)),
            Sender::Head { layer, head } => (layer, head),
        };
        let at = Activation::AttnOut(layer);
        let mut without = Capture::of([at]).unwrap();
        let mut hook = without_patterns(|here: Activation, x: Tensor| {
            if here == Activation::Z(layer) {
                let _ = x.select(2, head as i64).zero_();
            }
            without.on(here, x)
        });
        let _ = self.run(ids, &mut hook);
        self.value(ids, at) - without.get(at).unwrap()
    }

    /// The corrupted run's `seen` where `change` is added at `stream`.
    fn with_change(&self, change: &Tensor, stream: Activation, seen: Activation) -> Tensor {
        let mut kept = Capture::of([seen]).unwrap();
        let mut hook = without_patterns(|here: Activation, x: Tensor| {
            kept.on(here, if here == stream { x + change } else { x })
        });
        let _ = self.run(&self.corrupted, &mut hook);
        kept.get(seen).unwrap().shallow_clone()
    }

    /// The metric where `change` is in what one receiver reads and nowhere else, by whole forwards.
    fn along(&self, receiver: Receiver, change: &Tensor) -> Tensor {
        let (at, layer, head) = match receiver {
            Receiver::Q { layer, head } => (HeadSite::Q, layer, head),
            Receiver::K { layer, head } => (HeadSite::K, layer, head),
            Receiver::V { layer, head } => (HeadSite::V, layer, head),
            Receiver::Mlp { layer } => {
                let at = Activation::MlpOut(layer);
                let out = self.with_change(change, Activation::ResidMid(layer), at);
                return self.measured(&mut only(at, |_| out.shallow_clone()).unwrap());
            }
            Receiver::Logits => {
                let last = Activation::ResidPost(self.model.h.len() - 1);
                return self.measured(&mut only(last, |x| x + change).unwrap());
            }
        };
        let at = at.activation(layer);
        let own = self.with_change(change, Activation::ResidPre(layer), at).select(2, head as i64);
        let mut hook = only(at, |x| {
            let x = x.copy();
            x.select(2, head as i64).copy_(&own);
            x
        })
        .unwrap();
        self.measured(&mut hook)
    }
}

/// The states of [`states`], and LNs on their way out, with values still real, and with feature 0 apart.
fn cases() -> Vec<Case> {
    let tiny = || load("tiny-a").0;
    let mut values_real = real(NormSettings::default());
    values_real.remove(RemovalKind::Ln1Qk, None);
    let mut on_their_way = real(NormSettings::default());
    let sites = (0..3).flat_map(|l| [(LnSite::Ln1Qk(l), 0.3), (LnSite::Ln1V(l), 0.6), (LnSite::Ln2(l), 0.8)]);
    on_their_way.set_gates(sites.collect());
    let mut out = vec![
        Case::tiny("feature 0 apart", tiny(), apart(SpecialAxis::Feature), false),
        Case::tiny("values real", tiny(), values_real, false),
        Case::tiny("on their way out", tiny(), on_their_way, false),
    ];
    out.extend(states().into_iter().map(|(name, model, ln)| {
        let linear = ["folded", "checkpoint/step60"].contains(&name);
        Case::tiny(name, model, ln, linear)
    }));
    out.extend([Case::nano("nano", false), Case::nano("nano_LNFree200", true)]);
    out
}

/// What a kind of receiver is called, and whether one is of it.
type ReceiverKind = (&'static str, fn(Receiver) -> bool);

const KINDS: [ReceiverKind; 5] = [
    ("queries", |receiver| matches!(receiver, Receiver::Q { .. })),
    ("keys", |receiver| matches!(receiver, Receiver::K { .. })),
    ("values", |receiver| matches!(receiver, Receiver::V { .. })),
    ("MLPs", |receiver| matches!(receiver, Receiver::Mlp { .. })),
    ("logits", |receiver| receiver == Receiver::Logits),
];

fn largest(x: &Tensor) -> f64 {
    x.abs().max().double_value(&[])
}

/// Fails where `found` is further from `expected` than `limit` allows, number by number.
#[track_caller]
fn within(found: &Tensor, expected: &Tensor, limit: &Tensor, what: &str) {
    assert_eq!(found.size(), expected.size(), "{what}");
    let beyond = ((found - expected).abs() - limit).max().double_value(&[]);
    assert!(beyond <= 0.0, "{what}: {beyond:e} beyond the limit");
}

/// The gradient of a sender is libtorch's there, through all LNs that read it at once.
#[test]
fn a_senders_edges_add_up_to_its_attribution_patching() {
    for case in cases() {
        let Case { name, model, ln, clean, corrupted, .. } = &case;
        let edges = case.edges();
        let nodes = AttributionPatching::of(model, ln, clean, corrupted, &case.metric()).unwrap();
        let over_positions = |x: Tensor| x.sum_dim_intlist(0i64, false, Kind::Float);
        let expected = edges.senders.iter().map(|sender| match *sender {
            Sender::Embed => over_positions(nodes.resid_pre.get(0)),
            Sender::Head { layer, head } => over_positions(nodes.z.get(layer as i64).select(1, head as i64)),
            Sender::Mlp { layer } => over_positions(nodes.mlp_out.get(layer as i64)),
        });
        let expected = Tensor::stack(&expected.collect::<Vec<Tensor>>(), 0);
        // What is rounded is of the size of the summands.
        let sizes = edges.scores.abs().sum_dim_intlist(0i64, false, Kind::Float);
        let limit = (&sizes * 1e-3).clamp_min(1e-6 * largest(&sizes));
        within(&edges.by_sender(), &expected, &limit, name);
        assert!(max_abs(&edges.clean, &nodes.clean) < 1e-4, "{name}");
        assert!(max_abs(&edges.corrupted, &nodes.corrupted) < 1e-4, "{name}");
        // It would be seen if the edges to one kind of receivers were not there.
        for (kind, is_of_it) in KINDS.iter().filter(|_| name.starts_with("nano")) {
            let rows = (0i64..).zip(&edges.receivers).filter(|(_, receiver)| is_of_it(**receiver));
            let rows: Vec<i64> = rows.map(|(row, _)| row).collect();
            let of_kind = edges.scores.index_select(0, &Tensor::from_slice(&rows));
            let of_kind = of_kind.sum_dim_intlist(0i64, false, Kind::Float).abs();
            let seen = (of_kind - &limit * 3.0).max().double_value(&[]);
            assert!(seen > 0.0, "{name}: edges to {kind} would not be missed");
        }
    }
}

/// A small part of the sender's change, put into what the receiver reads by whole forwards, changes the
/// metric by that part of the score.
#[test]
fn an_edge_is_the_slope_along_its_path() {
    for case in cases() {
        let (name, edges) = (case.name, case.edges());
        // Of metrics that are rounded, a step apart.
        let rounding = 3e-5 * (1.0 + largest(&edges.corrupted));
        for (kind, is_of_it) in KINDS {
            let strongest = edges.strongest(usize::MAX).unwrap();
            let strongest = strongest.into_iter().filter(|edge| is_of_it(edge.receiver)).take(2);
            for (place, edge) in strongest.enumerate() {
                let [clean, corrupted] =
                    [&case.clean, &case.corrupted].map(|ids| case.writes(edge.sender, ids));
                let (change, step) = (clean - corrupted, 0.03);
                let moved = |by: f64| case.along(edge.receiver, &(&change * by));
                let slope = (moved(step) - moved(-step)) / (2.0 * step);
                let score = edges.get(edge.sender, edge.receiver).unwrap();
                let limit = rounding + 3e-2 * largest(&score);
                let worst = max_abs(&score, &slope);
                assert!(worst < limit, "{name}: {kind}: {edge}: {worst:e} beyond {limit:e}");
                let sees = place > 0 || !name.starts_with("nano") || largest(&score) > 10.0 * rounding;
                assert!(sees, "{name}: the strongest edge to {kind}, {edge}, is nothing");
            }
        }
    }
}

#[test]
fn without_ln_edges_to_the_logits_are_effects() {
    for case in cases().into_iter().filter(|case| case.linear) {
        let Case { name, model, ln, clean, corrupted, .. } = &case;
        let (metric, edges) = (case.metric(), case.edges());
        let patching = Patching::new(model, ln, clean, corrupted, &metric).unwrap();
        let found = edges.scores.get(edges.receivers.len() as i64 - 1);
        let expected = patching.paths(&edges.senders, Receiver::Logits).unwrap() - &patching.corrupted;
        // The logits, of which differences are taken, are rounded.
        let limit = Tensor::from(2e-5 * largest(&patching.corrupted).max(1.0));
        within(&found, &expected, &limit, name);
        assert!(largest(&expected) > 1e-3, "{name}: no effects to compare with");
        // All that is written is all that there is.
        let whole = edges.by_receiver().get(edges.receivers.len() as i64 - 1);
        within(&whole, &(&patching.clean - &patching.corrupted), &(&limit * 10.0), name);
    }
}

#[test]
fn paths_from_the_embedding_are_its_change_at_the_receivers_input() {
    for case in cases() {
        let Case { name, model, ln, clean, corrupted, .. } = &case;
        let metric = case.metric();
        let patching = Patching::new(model, ln, clean, corrupted, &metric).unwrap();
        let change = case.writes(Sender::Embed, clean) - case.writes(Sender::Embed, corrupted);
        for receiver in [Receiver::K { layer: 0, head: 1 }, Receiver::Mlp { layer: 2 }, Receiver::Logits] {
            let found = patching.path(Sender::Embed, receiver).unwrap();
            let expected = case.along(receiver, &change);
            let limit = Tensor::from(2e-5 * largest(&expected).max(1.0));
            within(&found, &expected, &limit, &format!("{name}: embed → {receiver}"));
        }
    }
}

/// There is an edge where a sender reaches what a receiver reads at all: found by adding to what it writes.
#[test]
fn edges_go_to_what_reads_later() {
    let case = Case::nano("nano_LNFree200", true);
    let (edges, n_layer) = (case.edges(), case.model.h.len());
    let of_block = |l| [Activation::Q(l), Activation::K(l), Activation::V(l), Activation::MlpPre(l)];
    let last = Activation::ResidPost(n_layer - 1);
    let read: Vec<Activation> = (0..n_layer).flat_map(of_block).chain([last]).collect();
    let run = |changed: Option<(Activation, Option<usize>)>| {
        let mut kept = Capture::of(read.iter().copied()).unwrap();
        let mut hook = without_patterns(|here: Activation, x: Tensor| {
            let x = x.copy();
            if let Some((_, head)) = changed.filter(|(at, _)| *at == here) {
                let mut part = part_of(&x, head);
                let _ = part.g_add_(&Tensor::arange(part.size()[2], (Kind::Float, x.device())));
            }
            kept.on(here, x)
        });
        let _ = case.run(&case.corrupted, &mut hook);
        kept
    };
    let own = run(None);
    for (column, sender) in edges.senders.iter().enumerate() {
        let other = run(Some(match *sender {
            Sender::Embed => (Activation::ResidPre(0), None),
            Sender::Head { layer, head } => (Activation::Z(layer), Some(head)),
            Sender::Mlp { layer } => (Activation::MlpOut(layer), None),
        }));
        for (row, receiver) in edges.receivers.iter().enumerate() {
            let (at, head) = match *receiver {
                Receiver::Q { layer, head } => (Activation::Q(layer), Some(head)),
                Receiver::K { layer, head } => (Activation::K(layer), Some(head)),
                Receiver::V { layer, head } => (Activation::V(layer), Some(head)),
                Receiver::Mlp { layer } => (Activation::MlpPre(layer), None),
                Receiver::Logits => (last, None),
            };
            let [own, other] = [&own, &other].map(|kept| part_of(kept.get(at).unwrap(), head));
            let reached = max_abs(&own, &other) > 0.0;
            let scores = edges.scores.get(row as i64).get(column as i64);
            match edges.get(*sender, *receiver) {
                Ok(found) => assert!(reached && found == scores, "{sender} → {receiver}"),
                Err(error) => {
                    assert!(!reached && largest(&scores) == 0.0, "{sender} → {receiver}");
                    assert!(error.to_string().contains(&format!("from {sender} to {receiver}")), "{error}");
                }
            }
        }
    }
    // Of 6 blocks of 4 heads: 12 readers of block l read 1 + 5 l senders, its MLP 5 + 5 l, the logits all 31.
    assert_eq!(edges.edges().unwrap().len(), 12 * (6 + 5 * 15) + 6 * 5 + 5 * 15 + 31);
    assert!(largest(&edges.scores) > 0.0);
}

/// All of an activation, or a head of it.
fn part_of(x: &Tensor, head: Option<usize>) -> Tensor {
    match head {
        Some(head) => x.select(2, head as i64),
        None => x.shallow_clone(),
    }
}

/// More texts than are computed together.
#[test]
fn texts_do_not_change_each_others_edges() {
    let (model, ln) = load("checkpoint/step30");
    let case = Case::tiny("alone", model, ln, false);
    let edges = case.edges();
    let (model, ln) = load("checkpoint/step30");
    let [clean, corrupted, answers] =
        [&case.clean, &case.corrupted, &case.answers].map(|x| x.repeat([60, 1]));
    let many = Case { name: "many", model, ln, clean, corrupted, answers, linear: false }.edges();
    assert_eq!(many.scores.size(), [40, 16, 180]);
    let limit = Tensor::from(1e-4 * largest(&edges.scores));
    for start in [0, 81, 84, 177] {
        let some = many.scores.narrow(2, start, 3);
        within(&some, &edges.scores, &limit, &format!("texts from {start}"));
    }
    assert_eq!(many.clean.size(), [180]);
}

/// Two blocks of one head, with scores of our own.
fn by_hand(scores: &[(Sender, Receiver, f32)]) -> EdgeAttribution {
    let (head, mlp) = (|layer| Sender::Head { layer, head: 0 }, |layer| Sender::Mlp { layer });
    let senders = vec![Sender::Embed, head(0), mlp(0), head(1), mlp(1)];
    let of_block = |layer| {
        let (q, k, v) =
            (Receiver::Q { layer, head: 0 }, Receiver::K { layer, head: 0 }, Receiver::V { layer, head: 0 });
        [q, k, v, Receiver::Mlp { layer }]
    };
    let receivers: Vec<Receiver> = (0..2).flat_map(of_block).chain([Receiver::Logits]).collect();
    let mut flat = vec![0f32; receivers.len() * senders.len() * 2];
    for (sender, receiver, score) in scores {
        let row = receivers.iter().position(|other| other == receiver).unwrap();
        let column = senders.iter().position(|other| other == sender).unwrap();
        // The mean of two texts.
        let at = (row * senders.len() + column) * 2;
        (flat[at], flat[at + 1]) = (score + 1.0, score - 1.0);
    }
    let size = [receivers.len() as i64, senders.len() as i64, 2];
    let scores = Tensor::from_slice(&flat).view(size);
    let [clean, corrupted] = [1.0f32, 0.0].map(|x| Tensor::from_slice(&[x, x]));
    EdgeAttribution { senders, receivers, scores, clean, corrupted }
}

#[test]
fn a_circuit_is_what_leads_from_the_embedding_to_the_logits() {
    let head = |layer| Sender::Head { layer, head: 0 };
    let [k, v] = [Receiver::K { layer: 1, head: 0 }, Receiver::V { layer: 1, head: 0 }];
    let q = Receiver::Q { layer: 0, head: 0 };
    let way = [
        (Sender::Embed, q, 2.0),
        (head(0), k, -4.0),
        (Sender::Embed, v, 3.0),
        (head(1), Receiver::Logits, -2.5),
    ];
    let dead_ends = [
        // Strong, but nothing that MLP 0 reads is.
        (Sender::Mlp { layer: 0 }, Receiver::Logits, 9.0),
        // Strong, but nothing hears MLP 1.
        (head(1), Receiver::Mlp { layer: 1 }, -8.0),
        // Too weak.
        (Sender::Embed, Receiver::Logits, 1.5),
    ];
    let edges = by_hand(&[&way[..], &dead_ends[..]].concat());
    let as_tuple = |edge: &Edge| (edge.sender, edge.receiver, edge.score as f32);
    let found = edges.in_circuit(2.0).unwrap();
    let found: Vec<_> = found.iter().map(as_tuple).collect();
    // By receiver in the order of a forward.
    assert_eq!(found, [way[0], way[1], way[2], way[3]]);
    // Without the head's way to the logits there is none but the direct one.
    let found = by_hand(&[&way[..3], &dead_ends[..]].concat()).in_circuit(1.5).unwrap();
    assert_eq!(found.iter().map(as_tuple).collect::<Vec<_>>(), [dead_ends[2]]);
    assert!(edges.in_circuit(100.0).unwrap().is_empty());

    let strongest: Vec<_> = edges.strongest(3).unwrap().iter().map(as_tuple).collect();
    assert_eq!(strongest, [dead_ends[0], dead_ends[1], way[1]]);
    assert!(edges.strongest(0).unwrap().is_empty());
    let labels: Vec<String> = edges.strongest(3).unwrap().iter().map(Edge::to_string).collect();
    assert_eq!(labels, ["0_mlp_out → logits", "L1H0 → 1_mlp_in", "L0H0 → L1H0.k"]);
}

#[test]
fn what_cannot_be_attributed_is_refused() {
    let (model, ln) = load("checkpoint/step60");
    let case = Case::tiny("step60", model, ln, true);
    let refused = |clean: &Tensor, metric: &Metric, says: &str| {
        let found = EdgeAttribution::of(&case.model, &case.ln, clean, &case.corrupted, metric);
        let error = found.map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    refused(&case.clean.narrow(1, 0, 5), &case.metric(), "[3, 5]");
    refused(&case.clean, &case.metric().at(6), "position 6");
    let which = Metric::new(|logits| logits.argmax(-1, false).to_kind(Kind::Float));
    refused(&case.clean, &which, "differentiable");
    let none = case.clean.narrow(0, 0, 0);
    let found = EdgeAttribution::of(&case.model, &case.ln, &none, &none, &case.metric());
    assert!(found.map(drop).unwrap_err().to_string().contains("nothing to patch"));
    // What comes behind the position that is read changes nothing.
    let (at_2, early) = (case.metric().at(2), case.clean.narrow(1, 0, 3));
    let cut = case.corrupted.narrow(1, 0, 3);
    let whole = EdgeAttribution::of(&case.model, &case.ln, &case.clean, &case.corrupted, &at_2).unwrap();
    let cut = EdgeAttribution::of(&case.model, &case.ln, &early, &cut, &case.metric()).unwrap();
    assert!(max_abs(&whole.scores, &cut.scores) <= 1e-5 * largest(&cut.scores));
    // Its backward needs no gradients around it.
    let _guard = tch::no_grad_guard();
    let outside = tch::with_grad(|| case.edges());
    assert!(max_abs(&case.edges().scores, &outside.scores) <= 1e-6 * largest(&outside.scores));
}
