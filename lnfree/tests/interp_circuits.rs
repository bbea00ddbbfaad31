//! Circuits from weights against dense products and real forwards, head detectors, prompts, and divergences
//! against the paper's code.

mod common;

use common::{close, json, max_abs, of_the_paper, tensors};
use lnfree::data::Tokenizer;
use lnfree::export::fold;
use lnfree::hook::{Activation, Capture, Hook};
use lnfree::interp::divergence::{Divergences, Predictions};
use lnfree::interp::ioi::{self, Prompts, Words};
use lnfree::interp::{
    AttentionPaths, Circuits, Composition, DetectOptions, ErrorMeasure, FactoredMatrix, HeadKind, PathSource,
    detect_head, detect_pattern, random_composition, similarity,
};
use lnfree::model::{Compute, Gpt2, LoadedModel};
use lnfree::norm::{LnSite, LnState, NormSettings, RemovalKind};
use lnfree::tch::{Device, Kind, Tensor, no_grad};

const LAYERS: usize = 3;
const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Rows of tokens.
fn ids(rows: i64, pos: i64) -> Tensor {
    tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, rows).narrow(1, 0, pos)
}

/// One model without LN in four forms: LNs fake with constants that differ, folded, as exported, and LNs that
/// have a constant of their own for position 0 and for end-of-text, equal to that of the rest.
fn linear() -> Vec<(&'static str, Gpt2, LnState)> {
    let stds: Vec<f64> = (0..2 * LAYERS + 1).map(|i| 0.6 + 0.1 * i as f64).collect();
    let pairs: Vec<(f64, f64)> = stds.iter().map(|&std| (std, std)).collect();
    let mut fake = LnState::real(&pairs, NormSettings::default(), Device::Cpu);
    RemovalKind::ALL.into_iter().for_each(|kind| fake.remove(kind, None));
    let baseline = of_the_paper("baseline").model;
    let alike = apart(&pairs);
    let folded = fold(&baseline, &stds).unwrap();
    let exported = of_the_paper("noLN");
    vec![
        ("fake", baseline, fake),
        ("folded", folded, LnState::plain(LAYERS, Device::Cpu)),
        ("exported", exported.model, exported.ln),
        ("apart, but alike", of_the_paper("baseline").model, alike),
    ]
}

/// All LNs fake, with constants `(average, position 0)`; that of position 0 is end-of-text's too.
fn apart(pairs: &[(f64, f64)]) -> LnState {
    let settings = NormSettings { special_std: true, ..NormSettings::default() };
    let mut ln = LnState::real(pairs, settings, Device::Cpu);
    for kind in [RemovalKind::Ln2, RemovalKind::Ln1Qk, RemovalKind::Ln1V, RemovalKind::LnF] {
        ln.remove(kind, None);
    }
    ln
}

fn wanted(of: impl Fn(usize) -> Vec<Activation>) -> Vec<Activation> {
    (0..LAYERS).flat_map(of).collect()
}

/// Largest difference, in units of the largest expected number.
fn relative(found: &Tensor, expected: &Tensor) -> f64 {
    max_abs(found, expected) / expected.abs().max().double_value(&[])
}

#[test]
fn factored_matrices_are_their_products() {
    lnfree::tch::manual_seed(3);
    let (left, right) = (Tensor::randn([2, 9, 4], DOUBLE), Tensor::randn([2, 4, 9], DOUBLE));
    let factored = FactoredMatrix::new(left.shallow_clone(), right.shallow_clone()).unwrap();
    let dense = left.matmul(&right);
    assert!(max_abs(&factored.product().unwrap(), &dense) < 1e-12);
    assert!(max_abs(&factored.transpose().unwrap().product().unwrap(), &dense.transpose(1, 2)) < 1e-12);
    let norm = dense.square().sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Double).sqrt();
    assert!(max_abs(&factored.norm().unwrap(), &norm) < 1e-10);
    let diagonal = dense.diagonal(0, 1, 2).sum_dim_intlist(-1i64, false, Kind::Double);
    assert!(max_abs(&factored.trace().unwrap(), &diagonal) < 1e-10);
    let index = Tensor::from_slice(&[7i64, 0]);
    assert!(max_abs(&factored.rows(&index).unwrap(), &dense.index_select(1, &index)) < 1e-12);
    assert!(max_abs(&factored.columns(&index).unwrap(), &dense.index_select(2, &index)) < 1e-12);
    // The four largest eigenvalues of the dense matrix, the others being zero.
    let sizes = |values: &Tensor, n: i64| {
        let sizes = values.square().sum_dim_intlist(-1i64, false, Kind::Double).sqrt();
        sizes.sort(-1, true).0.narrow(-1, 0, n)
    };
    let found = factored.eigenvalues().unwrap();
    let expected = dense.linalg_eigvals().view_as_real();
    assert!(max_abs(&sizes(&found, 4), &sizes(&expected, 4)) < 1e-9);
    let sum = found.sum_dim_intlist(1i64, false, Kind::Double);
    assert!(max_abs(&sum.select(-1, 0), &diagonal) < 1e-9);
    let svd = factored.svd().unwrap();
    let again = (&svd.u * svd.s.unsqueeze(1)).matmul(&svd.v.transpose(1, 2));
    assert!(max_abs(&again, &dense) < 1e-10);
    let unit = svd.u.transpose(1, 2).matmul(&svd.u);
    assert!(max_abs(&unit, &Tensor::eye(4, DOUBLE).expand_as(&unit)) < 1e-10);
    let (values, expected) = (svd.s, dense.svd(true, true).1.narrow(1, 0, 4));
    assert!(max_abs(&values, &expected) < 1e-10);
}

#[test]
fn products_of_factored_matrices_go_through_the_smaller_side() {
    let matrix = |m: i64, r: i64, n: i64| {
        FactoredMatrix::new(Tensor::randn([m, r], DOUBLE), Tensor::randn([r, n], DOUBLE)).unwrap()
    };
    for (a, b) in [(2, 5), (5, 2)] {
        let (first, second) = (matrix(6, a, 8), matrix(8, b, 7));
        let product = first.matmul(&second).unwrap();
        assert_eq!((product.rank(), product.size()), (2, vec![6, 7]));
        let dense = first.product().unwrap().matmul(&second.product().unwrap());
        assert!(max_abs(&product.product().unwrap(), &dense) < 1e-12);
    }
    assert!(FactoredMatrix::new(Tensor::randn([6, 2], DOUBLE), Tensor::randn([3, 6], DOUBLE)).is_err());
    let oblong = matrix(6, 2, 7);
    assert!(oblong.trace().is_err() && oblong.eigenvalues().is_err() && oblong.get(0).is_err());
    let vocabulary = matrix(50_000, 2, 50_000);
    assert!(vocabulary.product().unwrap_err().to_string().contains("take rows of it"));
    assert_eq!(vocabulary.rows(&Tensor::from_slice(&[49_999i64])).unwrap().size(), [1, 50_000]);
}

/// Every query–key score and every head's output, from the stream and the weights alone.
#[test]
fn circuits_without_ln_are_what_a_forward_does() {
    let ids = ids(2, 20);
    for (name, model, ln) in linear() {
        let circuits = Circuits::of(&model, &ln).unwrap();
        assert!(circuits.exact(), "{name}: {:?}", circuits.left_out);
        let mut cache = Capture::of(wanted(|l| {
            use Activation::*;
            vec![ResidPre(l), AttnScores(l), Pattern(l), AttnOut(l), ResidPost(l)]
        }))
        .unwrap();
        let logits = model.forward(&ids, &ln, Compute::default(), &mut cache).unwrap();
        let seen = Tensor::ones([20, 20], (Kind::Float, Device::Cpu)).tril(0);
        for layer in 0..LAYERS {
            let x = cache.get(Activation::ResidPre(layer)).unwrap();
            let scores = circuits.attention_scores(layer, x).unwrap() * &seen;
            let expected = cache.get(Activation::AttnScores(layer)).unwrap();
            let expected = expected.zeros_like().where_self(&seen.eq(0.0), expected);
            assert!(relative(&scores, &expected) < 1e-4, "{name} {layer}");
            let pattern = cache.get(Activation::Pattern(layer)).unwrap();
            let results = circuits.head_results(layer, pattern, x).unwrap();
            let out = results.sum_dim_intlist(1i64, false, Kind::Float) + &circuits.blocks[layer].b_o;
            let expected = cache.get(Activation::AttnOut(layer)).unwrap();
            assert!(relative(&out, expected) < 1e-4, "{name} {layer}");
            // What is left of the scores without their biases is the QK circuit, and of outputs the OV one.
            let (a, b) = (x.get(0).get(4).unsqueeze(0), x.get(0).get(2).unsqueeze(0));
            let zero = x.zeros_like().get(0).get(0).unsqueeze(0);
            let score = |q: &Tensor, k: &Tensor| {
                let scores = circuits.attention_scores(layer, &Tensor::cat(&[q, k], 0).unsqueeze(0)).unwrap();
                scores.get(0).select(1, 0).select(1, 1)
            };
            let alone = score(&a, &b) - score(&a, &zero) - score(&zero, &b) + score(&zero, &zero);
            let by_circuit = a.matmul(&circuits.qk(layer).unwrap().product().unwrap()).matmul(&b.tr());
            assert!(relative(&by_circuit.view([-1]), &alone) < 1e-3, "{name} {layer}");
            let itself = Tensor::eye(1, (Kind::Float, Device::Cpu)).expand([1, 4, 1, 1], false);
            let moved = |x: &Tensor| circuits.head_results(layer, &itself, &x.unsqueeze(0)).unwrap();
            let moved = (moved(&a) - moved(&zero)).get(0).squeeze_dim(1);
            let by_circuit = a.matmul(&circuits.ov(layer).unwrap().product().unwrap()).squeeze_dim(1);
            assert!(relative(&by_circuit, &moved) < 1e-3, "{name} {layer}");
        }
        let last = cache.get(Activation::ResidPost(LAYERS - 1)).unwrap();
        let found = last.matmul(&circuits.w_u) + &circuits.b_u;
        assert!(relative(&found, &logits) < 1e-4, "{name}");
    }
}

#[test]
fn what_a_real_ln_divides_by_is_said_to_be_left_out() {
    let LoadedModel { model, mut ln, .. } = of_the_paper("baseline");
    let circuits = Circuits::of(&model, &ln).unwrap();
    assert_eq!(
        circuits.left_out,
        [0, 1, 2]
            .map(|l| [LnSite::Ln1Qk(l), LnSite::Ln1V(l)])
            .concat()
            .into_iter()
            .chain([LnSite::LnF])
            .collect::<Vec<_>>()
    );
    let x = Tensor::zeros([1, 3, 64], (Kind::Float, Device::Cpu));
    let refused = circuits.attention_scores(1, &x).unwrap_err().to_string();
    assert!(refused.starts_with("h.1.ln_1.qk divides by another number at each token"), "{refused}");
    // Divided by hand, a real LN's circuits are right too.
    let mut cache =
        Capture::of(["blocks.1.ln1.hook_scale", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_q"]).unwrap();
    let _ = model.forward(&ids(1, 9), &ln, Compute::default(), &mut cache).unwrap();
    let x = cache.get("blocks.1.hook_resid_pre").unwrap() / cache.get("blocks.1.ln1.hook_scale").unwrap();
    let heads = &circuits.blocks[1];
    let q = x.unsqueeze(1).matmul(&heads.w_q) + heads.b_q.unsqueeze(1);
    assert!(relative(&q.transpose(1, 2), cache.get("blocks.1.attn.hook_q").unwrap()) < 1e-4);
    ln.remove(RemovalKind::Ln1Qk, None);
    let half = Circuits::of(&model, &ln).unwrap().left_out;
    assert!(!half.contains(&LnSite::Ln1Qk(1)) && half.contains(&LnSite::Ln1V(1)));
    // Constants that differ, of position 0 and end-of-text, and of end-of-text alone.
    let all = circuits.left_out;
    assert_eq!(Circuits::of(&model, &apart(&[(1.5, 2.5); 7])).unwrap().left_out, all);
    let alike = apart(&[(1.5, 1.5); 7]);
    assert!(Circuits::of(&model, &alike).unwrap().exact());
    let _ = no_grad(|| alike.statistics.frozen.get(2).narrow(0, 2, 2).fill_(2.5));
    assert_eq!(Circuits::of(&model, &alike).unwrap().left_out, [LnSite::Ln1V(1)]);
}

#[test]
fn composition_scores_are_those_of_dense_products() {
    let (_, model, ln) = linear().swap_remove(0);
    let circuits = Circuits::of(&model, &ln).unwrap();
    let dense = |x: FactoredMatrix| x.product().unwrap().to_kind(Kind::Double);
    let norm = |x: &Tensor| x.square().sum(Kind::Double).sqrt().double_value(&[]);
    for kind in [Composition::Q, Composition::K, Composition::V] {
        let found = circuits.composition_scores(kind).unwrap();
        assert_eq!(found.size(), [3, 4, 3, 4]);
        assert_eq!(found.get(1).select(1, 1).abs().max().double_value(&[]), 0.0);
        assert_eq!(found.get(2).select(1, 0).abs().max().double_value(&[]), 0.0);
        for (l1, h1, l2, h2) in [(0, 0, 1, 3), (0, 2, 2, 1), (1, 1, 2, 0)] {
            let writes = dense(circuits.ov(l1).unwrap()).get(h1);
            let writes = &writes - writes.mean_dim(-1i64, true, Kind::Double);
            let reads = match kind {
                Composition::Q => dense(circuits.qk(l2).unwrap()).get(h2),
                Composition::K => dense(circuits.qk(l2).unwrap()).get(h2).tr(),
                Composition::V => {
                    let reads = dense(circuits.ov(l2).unwrap()).get(h2);
                    &reads - reads.mean_dim(-1i64, true, Kind::Double)
                }
            };
            let expected = norm(&writes.matmul(&reads)) / (norm(&writes) * norm(&reads));
            let score = found.double_value(&[l1 as i64, h1, l2 as i64, h2]);
            assert!((score - expected).abs() < 1e-5, "{kind:?} {l1} {h1} {l2} {h2}: {score} {expected}");
        }
    }
    // Two random subspaces of 16 of 64 dimensions: near the root of a sixty-fourth for isotropic factors.
    let random = random_composition(64, 16, 8, 0).unwrap();
    assert!((random - 0.125).abs() < 0.02, "{random}");
    assert_eq!(random, random_composition(64, 16, 8, 0).unwrap());
}

#[test]
fn copying_scores_and_directions_are_those_of_the_whole_circuit() {
    let (_, model, ln) = linear().swap_remove(1);
    let circuits = Circuits::of(&model, &ln).unwrap();
    let scores = circuits.copying_scores().unwrap();
    for (layer, head) in [(0, 1), (2, 3)] {
        let full = circuits.full_ov(layer, head).unwrap();
        assert_eq!(full.size(), [256, 256]);
        let whole = full.left().to_kind(Kind::Double).matmul(&full.right().to_kind(Kind::Double));
        let values = whole.linalg_eigvals().view_as_real();
        let sizes = values.square().sum_dim_intlist(-1i64, false, Kind::Double).sqrt();
        let expected = (values.select(-1, 0).sum(Kind::Double) / sizes.sum(Kind::Double)).double_value(&[]);
        let score = scores[layer][head as usize];
        assert!((score - expected).abs() < 1e-3, "{score} {expected}");

        let direction = &circuits.ov_directions(layer, head, 2, 5).unwrap()[0];
        let ov = circuits.ov(layer).unwrap().get(head).unwrap().product().unwrap();
        let centred = (&ov - ov.mean_dim(-1i64, true, Kind::Float)).to_kind(Kind::Double);
        let (u, s, v) = centred.svd(true, true);
        assert!((direction.singular_value - s.double_value(&[0])).abs() < 1e-4 * direction.singular_value);
        let logits = v.select(1, 0).to_kind(Kind::Float).unsqueeze(0).matmul(&circuits.w_u).get(0);
        let (id, logit) = direction.raises[0];
        assert_eq!(id, logits.abs().argmax(-1, false).int64_value(&[]));
        assert!(logit > 0.0 && (logit - logits.abs().max().double_value(&[])).abs() < 1e-3 * logit);
        let sign = logits.double_value(&[id]).signum();
        let reads =
            circuits.w_e.matmul(&u.select(1, 0).to_kind(Kind::Float).unsqueeze(1)).squeeze_dim(1) * sign;
        assert_eq!(direction.reads[0].0, reads.argmax(-1, false).int64_value(&[]));
        assert!(direction.lowers[0].1 <= direction.lowers[4].1 && direction.raises[4].1 <= logit);
    }
    assert!(circuits.ov_directions(0, 0, 17, 5).is_err() && circuits.full_ov(3, 0).is_err());
}

#[test]
fn paths_sum_to_the_logit() {
    let ids = ids(2, 14);
    for (name, model, ln) in linear() {
        let circuits = Circuits::of(&model, &ln).unwrap();
        let mut cache = Capture::of(AttentionPaths::wanted(LAYERS)).unwrap();
        let logits = model.forward(&ids, &ln, Compute::default(), &mut cache).unwrap();
        for (row, position, token) in [(0, 13, 7), (1, 5, 200)] {
            let paths = AttentionPaths::of(&circuits, &cache, row, position, &[(token, 1.0)]).unwrap();
            let logit = logits.double_value(&[row, position, token]);
            assert!(
                (paths.total() - logit).abs() < 1e-4 * (1.0 + logit.abs()),
                "{name}: {} {logit}",
                paths.total()
            );
            // Two ways of summing: path by path from the logit back, and the whole stream from the start on.
            assert_eq!(paths.by_depth.len(), LAYERS + 1);
            for (depth, by_path) in [&paths.direct, &paths.one, &paths.two].into_iter().enumerate() {
                let sum = by_path.sum(Kind::Double).double_value(&[]);
                let size = by_path.abs().sum(Kind::Double).double_value(&[]);
                assert!((sum - paths.by_depth[depth]).abs() < 1e-9 * (1.0 + size), "{name} {depth}");
                assert!(size > 1e-6, "{name} {depth}");
            }
            let longest = paths.largest(3).unwrap();
            let found = &longest[0];
            assert!(found.contribution.abs() >= longest[2].contribution.abs());
            assert!(longest.iter().all(|path| path.heads.len() <= 2));
        }
        let difference = AttentionPaths::of(&circuits, &cache, 0, 9, &[(3, 1.0), (4, -1.0)]).unwrap();
        let expected = logits.double_value(&[0, 9, 3]) - logits.double_value(&[0, 9, 4]);
        assert!((difference.total() - expected).abs() < 1e-4, "{name}");
        assert!(AttentionPaths::of(&circuits, &cache, 2, 0, &[(3, 1.0)]).is_err());
        assert!(AttentionPaths::of(&circuits, &cache, 0, 14, &[(3, 1.0)]).is_err());
        assert!(AttentionPaths::of(&circuits, &cache, 0, 0, &[(256, 1.0)]).is_err());
    }
}

/// A path's places in the tensors are its heads: with all but one head off, all paths go through that one.
#[test]
fn paths_name_their_heads() {
    let (_, model, ln) = linear().swap_remove(1);
    let circuits = Circuits::of(&model, &ln).unwrap();
    let ids = ids(1, 10);
    let mut cache = Capture::of(AttentionPaths::wanted(LAYERS)).unwrap();
    struct Alone<'a>(&'a mut Capture);
    impl Hook for Alone<'_> {
        fn on(&mut self, at: Activation, x: Tensor) -> Tensor {
            let x = match at {
                Activation::Pattern(0) => only_head(&x, 2),
                Activation::Pattern(1) => x.zeros_like(),
                Activation::Pattern(2) => only_head(&x, 1),
                _ => x,
            };
            self.0.on(at, x)
        }
    }
    let logits = model.forward(&ids, &ln, Compute::default(), &mut Alone(&mut cache)).unwrap();
    let paths = AttentionPaths::of(&circuits, &cache, 0, 9, &[(11, 1.0)]).unwrap();
    let logit = logits.double_value(&[0, 9, 11]);
    assert!((paths.total() - logit).abs() < 1e-4 * (1.0 + logit.abs()));
    let all = paths.largest(10_000).unwrap();
    let through: Vec<_> = all.iter().filter(|path| path.heads.len() == 2).collect();
    assert!(!through.is_empty() && through.iter().all(|path| path.heads == [(0, 2), (2, 1)]));
    // What block 0 reads are the embeddings alone.
    assert!(through.iter().all(|path| [PathSource::Embed, PathSource::PosEmbed].contains(&path.source)));
    assert!(
        all.iter().filter(|path| path.heads.len() == 1).all(|path| [(0, 2), (2, 1)].contains(&path.heads[0]))
    );
}

fn only_head(pattern: &Tensor, head: i64) -> Tensor {
    let out = pattern.zeros_like();
    out.select(1, head).copy_(&pattern.select(1, head));
    out
}

#[test]
fn detectors_see_patterns_that_are_put_in() {
    // 5 7 5 5: the last two tokens have been said before.
    let ids = Tensor::from_slice(&[5i64, 7, 5, 5]).unsqueeze(0);
    let rows =
        |kind: HeadKind| Vec::<Vec<f32>>::try_from(kind.detection_pattern(&ids).unwrap().get(0)).unwrap();
    assert_eq!(rows(HeadKind::PreviousToken)[2], [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(rows(HeadKind::PreviousToken)[0], [0.0; 4]);
    assert_eq!(rows(HeadKind::DuplicateToken)[3], [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(rows(HeadKind::DuplicateToken)[1], [0.0; 4]);
    // What came after the 5s: the 7 and, where one follows the other, the last 5 itself.
    assert_eq!(rows(HeadKind::Induction)[3], [0.0, 1.0, 0.0, 1.0]);
    assert_eq!(rows(HeadKind::Induction)[2], [0.0, 1.0, 0.0, 0.0]);
    // A head that gives three quarters to the token before and a quarter to itself, and all to the first.
    let eye = Tensor::eye(4, DOUBLE);
    let before = Tensor::ones([3], DOUBLE).diag(-1) * 0.75 + &eye * 0.25;
    let before = Tensor::cat(&[eye.narrow(0, 0, 1), before.narrow(0, 1, 3)], 0);
    let first = Tensor::cat(&[Tensor::ones([4, 1], DOUBLE), Tensor::zeros([4, 3], DOUBLE)], 1);
    let pattern = Tensor::stack(&[before, first], 0).unsqueeze(0);
    let detection = HeadKind::PreviousToken.detection_pattern(&ids).unwrap();
    let score = |measure, exclude_bos, exclude_current_token| {
        let options = DetectOptions { error_measure: measure, exclude_bos, exclude_current_token };
        Vec::<f64>::try_from(similarity(&pattern, &detection, options).unwrap().get(0)).unwrap()
    };
    // 2.25 of 4, and 1 of 4: the second token's query.
    assert_eq!(score(ErrorMeasure::Mul, false, false), [0.5625, 0.25]);
    // Without the first key 1.5 of 2.25, its own quarter being there; nothing is left of the other head.
    let [found, none] = score(ErrorMeasure::Mul, true, false)[..] else { panic!() };
    assert!((found - 1.5 / 2.25).abs() < 1e-12 && none.is_nan());
    let without_itself = score(ErrorMeasure::Mul, false, true);
    assert!((without_itself[0] - 1.0).abs() < 1e-12 && (without_itself[1] - 1.0 / 3.0).abs() < 1e-12);
    // 1 + 3 · 0.25 + 3 · 0.25 apart, over 4; the other head 1 + 0 + 2 + 2.
    assert_eq!(score(ErrorMeasure::Abs, false, false), [1.0 - 2.5 / 4.0, 1.0 - 5.0 / 4.0]);
    assert!(similarity(&pattern, &Tensor::ones([4, 4], DOUBLE), DetectOptions::default()).is_err());
    assert!(similarity(&pattern, &Tensor::eye(3, DOUBLE), DetectOptions::default()).is_err());
    assert_eq!("induction_head".parse::<HeadKind>().unwrap(), HeadKind::Induction);
    assert!("induction".parse::<HeadKind>().unwrap_err().to_string().contains("duplicate_token_head"));
}

#[test]
fn detectors_score_every_head_of_a_model() {
    let LoadedModel { model, ln, .. } = of_the_paper("baseline");
    let ids = ids(3, 12);
    let options = DetectOptions { exclude_bos: true, ..DetectOptions::default() };
    let found = detect_head(&model, &ln, &ids, HeadKind::PreviousToken, options).unwrap();
    assert_eq!((found.len(), found[0].len()), (3, 4));
    let mut cache = Capture::of(["blocks.1.attn.hook_pattern"]).unwrap();
    let _ = model.forward(&ids, &ln, Compute::default(), &mut cache).unwrap();
    let pattern = cache.get("blocks.1.attn.hook_pattern").unwrap().select(1, 2).to_kind(Kind::Double);
    let by_hand: f64 = (0..3)
        .map(|row| {
            let pattern = pattern.get(row);
            let before: f64 = (2..12).map(|q| pattern.double_value(&[q, q - 1])).sum();
            let all: f64 =
                (1..12).flat_map(|k| (0..12).map(move |q| [q, k])).map(|at| pattern.double_value(&at)).sum();
            before / all
        })
        .sum();
    assert!((found[1][2] - by_hand / 3.0).abs() < 1e-6, "{} {}", found[1][2], by_hand / 3.0);
    let first = Tensor::cat(&[Tensor::ones([12, 1], DOUBLE), Tensor::zeros([12, 11], DOUBLE)], 1);
    let own = detect_pattern(&model, &ln, &ids, &first, DetectOptions::default()).unwrap();
    assert!(own.iter().flatten().all(|&score| score > 1.0 / 12.0 && score <= 1.0));
    let refused = detect_pattern(&model, &ln, &ids, &first.narrow(0, 0, 11), DetectOptions::default());
    assert!(refused.unwrap_err().to_string().contains("[query, key] of that length"));
    assert!(detect_head(&model, &ln, &ids.narrow(1, 0, 1), HeadKind::Induction, options).is_err());
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_dir(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("data/nano")).unwrap()
}

fn words(names: &[&str]) -> Words {
    let owned = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    Words { names: owned(names), places: owned(&["school", "office"]), objects: owned(&["water"]) }
}

#[test]
fn prompts_are_pairs_that_differ_in_who_gives() {
    let tokenizer = tokenizer();
    let names = ["Mexico", "Spain", "China", "France"];
    let template = "When [A] and [B] went to the [PLACE], [S] gave [OBJECT] to";
    let prompts = ioi::prompts_of(&tokenizer, template, &words(&names), 12, 5).unwrap();
    assert_eq!(prompts.clean.size(), prompts.corrupted.size());
    assert_eq!((prompts.clean.size()[0], prompts.answers.size()), (12, vec![12, 2]));
    assert!(!prompts.starts_with_bos);
    let text = |ids: Tensor| {
        let ids: Vec<u32> = Vec::<i64>::try_from(ids).unwrap().into_iter().map(|id| id as u32).collect();
        tokenizer.decode(&ids).unwrap()
    };
    for i in 0..12 {
        let (clean, corrupted) = (text(prompts.clean.get(i)), text(prompts.corrupted.get(i)));
        let said: Vec<&str> = clean.split([' ', ',']).filter(|word| names.contains(word)).collect();
        let [a, b, subject] = said[..] else { panic!("{clean}") };
        // By turns the one who gives is said first and second.
        assert_eq!(subject, if i % 2 == 0 { a } else { b });
        let other = if i % 2 == 0 { b } else { a };
        assert_ne!(a, b);
        let (start, end) = clean.rsplit_once(subject).unwrap();
        assert_eq!(corrupted, format!("{start}{other}{end}"));
        assert_eq!(text(prompts.answers.get(i)), format!(" {other} {subject}"));
    }
    let again = ioi::prompts_of(&tokenizer, template, &words(&names), 12, 5).unwrap();
    assert_eq!(prompts.clean, again.clean);
    assert_ne!(prompts.clean, ioi::prompts_of(&tokenizer, template, &words(&names), 12, 6).unwrap().clean);
    let begun = prompts.after_token(tokenizer.eot_id()).unwrap();
    assert!(begun.starts_with_bos);
    assert_eq!(begun.clean.size()[1], prompts.clean.size()[1] + 1);
}

#[test]
fn prompts_that_cannot_be_compared_are_refused_by_name() {
    let tokenizer = tokenizer();
    let error = |result: lnfree::Result<Prompts>| result.unwrap_err().to_string();
    let refused = error(ioi::prompts_of(&tokenizer, ioi::TEMPLATES[0], &words(&["Spain", "Zanzibar"]), 2, 0));
    assert!(refused.starts_with("` Zanzibar` is ") && refused.ends_with("tokens, not one"), "{refused}");
    // The nano tokenizer knows no first names.
    let refused = error(ioi::prompts(&tokenizer, 2, 0));
    assert!(refused.contains("give Words of your own"), "{refused}");
    let refused =
        error(ioi::prompts_of(&tokenizer, "[A] and [B] went to", &words(&["Spain", "China"]), 2, 0));
    assert!(refused.ends_with("has no [S]"), "{refused}");
    let answers = [[" Spain", " China"]];
    let refused = error(Prompts::new(&tokenizer, &["The United States of"], &["The United"], &answers));
    assert!(refused.starts_with("`The United` is ") && refused.contains("the first prompt"), "{refused}");
    let refused =
        error(Prompts::new(&tokenizer, &["The United"], &["The United"], &[[" Spain", " Zanzibar"]]));
    assert!(refused.starts_with("the answer ` Zanzibar` is"), "{refused}");
    assert!(Prompts::new(&tokenizer, &["The United"], &["The United"], &[]).is_err());
}

#[test]
fn divergences_are_those_of_the_papers_code() {
    let (recorded, numbers) = (json("interp.json"), tensors("interp_tensors.safetensors"));
    let ids = ids(6, 64);
    let pairs = [("baseline", "finetuned"), ("baseline", "noLN"), ("finetuned", "noLN")];
    for (p, q) in pairs {
        let (first, second) = (of_the_paper(p), of_the_paper(q));
        let found =
            Divergences::between((&first.model, &first.ln), (&second.model, &second.ln), &ids).unwrap();
        let pair = format!("{p}_vs_{q}");
        let near = |found: &Tensor, key: &str| {
            let expected = &numbers[&format!("div.{key}.{pair}")];
            let limit = (expected.abs() * 1e-4).clamp_min(2e-5);
            let over = ((found - expected).abs() - limit).max().double_value(&[]);
            assert!(over <= 0.0, "{pair} {key}: {over} too far");
        };
        // Both at once, of one forward of each model, are the same.
        let (said, apart) =
            Predictions::beside((&first.model, &first.ln), (&second.model, &second.ln), &ids).unwrap();
        let own = Predictions::of(&first.model, &first.ln, &ids).unwrap();
        assert_eq!((&apart.jsd, &apart.jsd_top20), (&found.jsd, &found.jsd_top20));
        assert_eq!(apart.symmetric_kl, found.symmetric_kl);
        assert_eq!(apart.symmetric_kl_top20, found.symmetric_kl_top20);
        assert_eq!((&said.ce_loss, &said.max_prob), (&own.ce_loss, &own.max_prob));
        near(&found.jsd, "jsd");
        near(&found.jsd_top20, "jsd_top20");
        near(&found.symmetric_kl, "symkl");
        let recorded = &recorded["divergence"]["pairs"][&pair];
        for (found, key) in [
            (&found.jsd, "jsd_mean"),
            (&found.jsd_top20, "jsd_top20_mean"),
            (&found.symmetric_kl, "symmetric_kl_mean"),
            (&found.symmetric_kl_top20, "symmetric_kl_top20_mean"),
        ] {
            let mean = found.mean(Kind::Double).double_value(&[]);
            close(mean, recorded[key].as_f64().unwrap(), 1e-4, &format!("{pair} {key}"));
        }
    }
    for name in ["baseline", "finetuned", "noLN"] {
        let LoadedModel { model, ln, .. } = of_the_paper(name);
        let found = Predictions::of(&model, &ln, &ids).unwrap();
        for (found, key) in
            [(&found.ce_loss, "ce_loss"), (&found.entropy, "entropy"), (&found.max_prob, "max_prob")]
        {
            let expected = &numbers[&format!("div.{key}.{name}")];
            let over = ((found - expected).abs() - (expected.abs() * 1e-4).clamp_min(2e-5)).max();
            assert!(over.double_value(&[]) <= 0.0, "{name} {key}");
        }
    }
}

#[test]
fn calibration_is_that_of_ten_bins() {
    let row = |values: &[f32]| Tensor::from_slice(values).view([1, -1]);
    let found = Predictions {
        ce_loss: row(&[0.0; 4]),
        entropy: row(&[0.0; 4]),
        max_prob: row(&[0.82, 0.88, 0.31, 1.0]),
        correct: row(&[1.0, 0.0, 1.0, 1.0]).to_kind(Kind::Bool),
    };
    // One of 0.82 + 0.88 is right, one of 0.31, and the sure one.
    let expected = ((1.0 - 1.7f64).abs() + 0.69) / 4.0;
    assert!((found.calibration_error().unwrap() - expected).abs() < 1e-6);
    let LoadedModel { model, ln, .. } = of_the_paper("baseline");
    assert!(Predictions::of(&model, &ln, &ids(1, 1)).is_err());
}
