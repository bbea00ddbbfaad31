//! Decoding from kept keys and values, folding for inference, and texts: all equal to whole forwards.

mod common;

use common::{max_abs, relative_rms, tensors, vector};
use lnfree::generate::{Generator, SampleOptions, generate};
use lnfree::hook::NoHook;
use lnfree::model::{Compute, Gpt2, KvCache, LoadedModel};
use lnfree::norm::{LnMode, LnState, NormSettings, SpecialAxis};
use lnfree::prelude::{FloatType, locate_model};
use lnfree::tch::{self, Device, Kind, Tensor, no_grad_guard};

fn tiny() -> LoadedModel {
    // Several tests at once with two threads each would wait for each other most of the time.
    tch::set_num_threads(1);
    LoadedModel::load(&vector("tiny-a"), None, Kind::Float, Device::Cpu).unwrap()
}

fn nano(name: &str) -> LoadedModel {
    tch::set_num_threads(1);
    LoadedModel::load(&locate_model(name).unwrap(), None, Kind::Float, Device::Cpu).unwrap()
}

/// int64 `[3, 64]` with end-of-text tokens among them, the first at position 5 of row 0.
fn ids() -> Tensor {
    let ids = tensors("eval_tokens.safetensors")["tokens"].narrow(0, 0, 3).copy();
    for (row, pos) in [(0, 5), (0, 63), (1, 0), (2, 31)] {
        let _ = ids.narrow(0, row, 1).narrow(1, pos, 1).fill_(255);
    }
    ids
}

/// What a state is like.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Real,
    /// Every LN fake with one constant.
    Fake,
    /// Every LN fake, with other constants at position 0 and for end-of-text.
    Special(SpecialAxis),
    /// As in the middle of a removal: some real, some fake, one ln_1 with two faces, one block still special.
    Mixed,
}

const CASES: [Case; 5] = [
    Case::Real,
    Case::Fake,
    Case::Special(SpecialAxis::Position),
    Case::Special(SpecialAxis::Feature),
    Case::Mixed,
];

/// A state of that kind whose constants are the σ that the model has on `ids`.
fn state(case: Case, model: &Gpt2, ids: &Tensor) -> LnState {
    let _guard = no_grad_guard();
    let settings = NormSettings {
        special_std: !matches!(case, Case::Real | Case::Fake),
        special_axis: if let Case::Special(axis) = case { axis } else { SpecialAxis::Position },
        ..NormSettings::default()
    };
    let n_ln = 2 * model.h.len() + 1;
    let real = LnState::real(
        &vec![(1.0, 1.0); n_ln],
        NormSettings { special_std: true, ..NormSettings::default() },
        Device::Cpu,
    );
    let mut pass = model.pass(ids, &real, Compute { observe: true, ..Compute::default() }).unwrap();
    let residual = model.residual(ids, &mut pass, &mut NoHook);
    let _ = model.final_norm(&residual, &mut pass, &mut NoHook);
    let seen = pass.observations().unwrap().to_kind(Kind::Double);
    let initial: Vec<(f64, f64)> =
        (0..n_ln as i64).map(|row| (seen.double_value(&[row, 0]), seen.double_value(&[row, 1]))).collect();
    let mut ln = LnState::real(&initial, settings, Device::Cpu);
    if case == Case::Real {
        return ln;
    }
    for block in &mut ln.blocks {
        (block.ln1_qk, block.ln1_v, block.ln2) = (LnMode::Fake, LnMode::Fake, LnMode::Fake);
    }
    ln.lnf = LnMode::Fake;
    // End-of-text by a constant of its own.
    let _ = ln.statistics.frozen.narrow(1, 2, 2).g_mul_scalar_(1.25);
    if case == Case::Mixed {
        ln.blocks[0].ln1_v = LnMode::Real;
        ln.blocks[1].ln1_special = false;
        ln.blocks[2].ln2 = LnMode::Real;
    }
    ln
}

fn forward(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Tensor {
    model.forward(ids, ln, Compute::default(), &mut NoHook).unwrap()
}

/// Decodes in pieces of these lengths and compares every piece's last position with a forward over
/// everything.
#[track_caller]
fn decodes(model: &Gpt2, ln: &LnState, whole: &Tensor, pieces: &[i64], what: &str) {
    let n: i64 = pieces.iter().sum();
    let mut cache = KvCache::new(model, whole.size()[0], n, Kind::Float);
    let (ids, mut at) = (ids(), 0);
    for &piece in pieces {
        let found = model.decode(&ids.narrow(1, at, piece), ln, &mut cache).unwrap();
        at += piece;
        assert_eq!(cache.len() as i64, at);
        let worst = max_abs(&found, &whole.select(1, at - 1));
        let limit = 1e-5 * whole.abs().max().double_value(&[]).max(1.0);
        assert!(worst < limit, "{what}, position {}: {worst:e}", at - 1);
    }
    assert!(cache.is_full());
}

#[test]
fn decoding_is_the_forward_at_every_position() {
    let _guard = no_grad_guard();
    let loaded = tiny();
    for case in CASES {
        let ln = state(case, &loaded.model, &ids());
        let whole = forward(&loaded.model, &ln, &ids());
        for pieces in [&[1; 64][..], &[7, 1, 1, 20, 1, 34], &[64]] {
            decodes(&loaded.model, &ln, &whole, pieces, &format!("{case:?}"));
        }
        // The same with what can be folded folded.
        let ready = loaded.model.for_inference(&ln, Kind::Float).unwrap();
        decodes(&ready, &ln, &whole, &[3; 20], &format!("{case:?}, for inference"));
    }
}

#[test]
fn bfloat16_decodes_as_exactly_as_it_forwards() {
    let _guard = no_grad_guard();
    let loaded = tiny();
    for case in [Case::Real, Case::Fake, Case::Special(SpecialAxis::Position)] {
        let ln = state(case, &loaded.model, &ids());
        let exact = forward(&loaded.model, &ln, &ids());
        let ready = loaded.model.for_inference(&ln, Kind::BFloat16).unwrap();
        let mut cache = KvCache::new(&ready, 3, 64, Kind::BFloat16);
        let _ = ready.decode(&ids().narrow(1, 0, 40), &ln, &mut cache).unwrap();
        let found: Vec<Tensor> = (40..64)
            .map(|at| ready.decode(&ids().narrow(1, at, 1), &ln, &mut cache).unwrap().unsqueeze(1))
            .collect();
        let bf16 = Compute { dtype: Kind::BFloat16, ..Compute::default() };
        let whole = ready.forward(&ids(), &ln, bf16, &mut NoHook).unwrap();
        // The unembedding for bfloat16 moves all logits of a position together.
        let centred = |x: &Tensor| {
            let x = x.to_kind(Kind::Double);
            &x - x.mean_dim(-1i64, true, Kind::Double)
        };
        let error = |x: &Tensor| relative_rms(&centred(x), &centred(&exact.narrow(1, 40, 24)));
        let (decoded, forwarded) = (error(&Tensor::cat(&found, 1)), error(&whole.narrow(1, 40, 24)));
        assert!(decoded < 1.25 * forwarded && decoded < 0.05, "{case:?}: {decoded:e}, whole {forwarded:e}");
    }
}

#[test]
fn folding_for_inference_changes_no_logit() {
    let _guard = no_grad_guard();
    for name in ["tiny-a", "checkpoint/step30", "checkpoint/step60", "exported_noln"] {
        let loaded = LoadedModel::load(&vector(name), None, Kind::Float, Device::Cpu).unwrap();
        let ready = loaded.model.for_inference(&loaded.ln, Kind::Float).unwrap();
        let error =
            relative_rms(&forward(&ready, &loaded.ln, &ids()), &forward(&loaded.model, &loaded.ln, &ids()));
        assert!(error < 1e-5, "{name}: {error:e}");
    }
    let loaded = tiny();
    for case in CASES {
        let ln = state(case, &loaded.model, &ids());
        let ready = loaded.model.for_inference(&ln, Kind::Float).unwrap();
        let error = relative_rms(&forward(&ready, &ln, &ids()), &forward(&loaded.model, &ln, &ids()));
        assert!(error < 1e-5, "{case:?}: {error:e}");
        let left = ready.h.iter().flat_map(|b| [b.ln_1.is_some(), b.ln_2.is_some()]);
        let left: Vec<bool> = left.chain([ready.ln_f.is_some()]).collect();
        let expected = match case {
            Case::Fake => vec![false; 7],
            Case::Mixed => vec![true, true, false, true, true, true, true],
            _ => vec![true; 7],
        };
        assert_eq!(left, expected, "{case:?}: which LNs are left");
    }
}

/// ln_f's bias cannot be folded where its weight is zero: then ln_f stays, and the rest is folded all the
/// same.
#[test]
fn a_bias_that_cannot_be_folded_stays() {
    let _guard = no_grad_guard();
    let loaded = tiny();
    let ln_f = loaded.model.ln_f.as_ref().unwrap();
    let _ = ln_f.weight.narrow(0, 3, 1).fill_(0.0);
    let _ = ln_f.bias.narrow(0, 3, 1).fill_(0.7);
    let ln = state(Case::Fake, &loaded.model, &ids());
    for kind in [Kind::Float, Kind::BFloat16] {
        let ready = loaded.model.for_inference(&ln, kind).unwrap();
        assert!(ready.ln_f.is_some() && ready.h.iter().all(|b| b.ln_1.is_none() && b.ln_2.is_none()));
        if kind == Kind::Float {
            let error = relative_rms(&forward(&ready, &ln, &ids()), &forward(&loaded.model, &ln, &ids()));
            assert!(error < 1e-5, "{error:e}");
        }
    }
}

#[test]
fn a_cache_refuses_what_it_cannot_hold() {
    let loaded = tiny();
    let ln = state(Case::Real, &loaded.model, &ids());
    let mut cache = KvCache::new(&loaded.model, 3, 10, Kind::Float);
    let long = loaded.model.decode(&ids().narrow(1, 0, 11), &ln, &mut cache).unwrap_err().to_string();
    assert!(long.contains("11") && long.contains("10"), "{long}");
    assert!(loaded.model.decode(&ids().narrow(0, 0, 2), &ln, &mut cache).is_err());
    assert!(loaded.model.decode(&ids().narrow(1, 0, 0), &ln, &mut cache).is_err());
    assert!(cache.is_empty());
    // More than the model's positions cannot be asked for.
    assert!(KvCache::new(&loaded.model, 1, 1 << 40, Kind::Float).is_empty());
}

/// Texts as they were made before anything was kept: the whole context for every token.
fn plainly(model: &Gpt2, ln: &LnState, prompt: &[u32], n: usize) -> Vec<u32> {
    let _guard = no_grad_guard();
    let mut ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
    for _ in 0..n {
        let context = &ids[ids.len().saturating_sub(model.config.block_size as usize)..];
        let logits = forward(model, ln, &Tensor::from_slice(context).unsqueeze(0));
        let next = logits.get(0).get(-1).argmax(-1, false).int64_value(&[]);
        if model.config.eot_token_id() == Some(next) {
            break;
        }
        ids.push(next);
    }
    ids[prompt.len()..].iter().map(|&id| id as u32).collect()
}

fn greedy(max_new_tokens: usize) -> SampleOptions {
    SampleOptions { max_new_tokens, temperature: 0.0, ..SampleOptions::default() }
}

#[test]
fn texts_are_those_of_whole_forwards() {
    // 60 tokens fit nano's 128 positions, 140 do not: the window slides.
    for (name, n) in [("nano", 60), ("nano", 140), ("nano_LNFree200", 60), ("nano_LNFree200", 140)] {
        let loaded = nano(name);
        let prompt = [312u32, 18, 700, 5];
        let found = generate(&loaded.model, &loaded.ln, &prompt, greedy(n), |_| true).unwrap();
        assert_eq!(found, plainly(&loaded.model, &loaded.ln, &prompt, n), "{name}, {n} tokens");
        assert!(!found.is_empty());
    }
    let loaded = nano("nano");
    let special = state(Case::Special(SpecialAxis::Position), &loaded.model, &ids());
    for (prompt, n) in [(&[4095u32][..], 20), (&[9, 4095, 7], 20)] {
        let found = generate(&loaded.model, &special, prompt, greedy(n), |_| true).unwrap();
        assert_eq!(found, plainly(&loaded.model, &special, prompt, n));
    }
}

#[test]
fn long_empty_and_finished_prompts() {
    let loaded = nano("nano");
    let long: Vec<u32> = (0..200).map(|i| 1 + (i * 37) % 4000).collect();
    let found = generate(&loaded.model, &loaded.ln, &long, greedy(5), |_| true).unwrap();
    assert_eq!(found, plainly(&loaded.model, &loaded.ln, &long, 5), "a prompt longer than the positions");
    let mut calls = 0;
    let nothing = generate(&loaded.model, &loaded.ln, &long, greedy(0), |_| {
        calls += 1;
        true
    });
    assert_eq!((nothing.unwrap(), calls), (vec![], 0));
    let empty = generate(&loaded.model, &loaded.ln, &[], greedy(5), |_| true).unwrap_err().to_string();
    assert!(empty.contains("end-of-text"), "{empty}");
    // The text stops after the token that it was stopped at.
    let stopped = generate(&loaded.model, &loaded.ln, &long, greedy(5), |_| false).unwrap();
    assert_eq!(stopped, found[..1]);
}

#[test]
fn texts_made_together_are_those_made_alone() {
    let loaded = nano("nano");
    for dtype in [FloatType::Float32, FloatType::Bfloat16] {
        let generator = Generator::new(&loaded.model, &loaded.ln, dtype).unwrap();
        let prompts: [&[u32]; 5] = [&[312, 18], &[700], &[312, 18], &[5, 6], &[701]];
        let options = SampleOptions { max_new_tokens: 30, seed: 11, ..SampleOptions::default() };
        let mut told = vec![Vec::new(); 5];
        let together = generator.generate_many(&prompts, options, |i, id| {
            told[i].push(id);
            // Text 3 is stopped early; the others go on.
            i != 3 || told[3].len() < 4
        });
        let together = together.unwrap();
        assert_eq!(told, together);
        assert_eq!(together[3].len(), 4);
        assert_ne!(together[0], together[2], "the same prompt twice is two samples");
        if dtype == FloatType::Float32 {
            for (i, prompt) in prompts.iter().enumerate() {
                let alone = SampleOptions { seed: 11 + i as u64, ..options };
                let alone = generator.generate(prompt, alone, |_| true).unwrap();
                assert_eq!(together[i], alone[..together[i].len()], "text {i}");
            }
        }
        assert!(generator.generate_many(&[], options, |_, _| true).unwrap().is_empty());
    }
}

#[test]
fn each_end_token_ends_a_text() {
    let mut loaded = nano("nano");
    let prompt = [312u32, 18, 700, 5];
    let whole = generate(&loaded.model, &loaded.ln, &prompt, greedy(30), |_| true).unwrap();
    let at = |id: &u32| whole.iter().position(|other| other == id).unwrap();
    let (early, late) = (whole[3], whole[8]);
    for ids in [vec![early], vec![4095, early], vec![early, 4095], vec![late, early], vec![late]] {
        let first = ids.iter().filter(|&&id| id != 4095).map(at).min().unwrap();
        loaded.model.config.eos_token_ids = ids.iter().map(|&id| i64::from(id)).collect();
        let text = generate(&loaded.model, &loaded.ln, &prompt, greedy(30), |_| true).unwrap();
        assert_eq!(text, whole[..first], "{ids:?}");
    }
    // A generator can be told otherwise.
    let generator = Generator::new(&loaded.model, &loaded.ln, FloatType::Float32).unwrap();
    let generator = generator.ending_at(&[i64::from(early)]);
    assert_eq!(generator.generate(&prompt, greedy(30), |_| true).unwrap(), whole[..at(&early)]);
}

#[test]
fn all_of_this_at_every_level_of_kernels() {
    common::again_at_every_level("all_of_this_at_every_level_of_kernels");
}
