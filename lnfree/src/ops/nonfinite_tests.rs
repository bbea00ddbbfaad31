//! Kernels against their formulas where operands hold NaN or infinity: neither may vanish, nor come from
//! nowhere

use tch::{Device, IndexOp, Kind, Tensor};

use super::LinearNorm;
use super::*;
use crate::base::device::Kernels;

/// NaN with several payloads, one of them signalling, and both infinities.
const BAD: [u32; 7] =
    [0x7FC0_0000, 0xFFC0_0000, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x7F80_0001, 0x7F80_0000, 0xFF80_0000];

/// Numbers without a pattern, about as large as one, float32.
fn noise(shape: &[i64], frequency: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let steps = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 1.0) * frequency;
    (((steps * 12.9898).sin() * 43758.5453).frac() * 2.0).view(shape).to_kind(Kind::Float)
}

/// `x` with `bits` at a place, in its type.
fn spoiled(x: &Tensor, place: i64, bits: u32) -> Tensor {
    let mut numbers = Vec::<f32>::try_from(x.to_kind(Kind::Float).contiguous().view(-1)).unwrap();
    numbers[place as usize] = f32::from_bits(bits);
    Tensor::from_slice(&numbers).view(x.size().as_slice()).to_kind(x.kind())
}

/// First, last, and between: within a register and after whole ones.
fn places(x: &Tensor) -> Vec<i64> {
    let n = x.numel() as i64;
    let mut places = vec![0, n / 3, 2 * n / 3, n - 1];
    places.dedup();
    places
}

/// What is wrong with `found`, float32 or bfloat16, where `wanted`, float64, is right.
fn difference(found: &Tensor, wanted: &Tensor) -> Option<String> {
    let tolerance = if found.kind() == Kind::BFloat16 { 2e-2 } else { 2e-5 };
    let numbers = |x: &Tensor| Vec::<f64>::try_from(x.to_kind(Kind::Double).contiguous().view(-1)).unwrap();
    // In the type of what was found: it may be too large for it.
    let (found, wanted) = (numbers(found), numbers(&wanted.to_kind(found.kind())));
    assert_eq!(found.len(), wanted.len());
    let scale = wanted.iter().filter(|x| x.is_finite()).fold(1.0f64, |a, x| a.max(x.abs()));
    let close = |a: f64, b: f64| {
        a == b || a.is_nan() && b.is_nan() || b.is_finite() && (a - b).abs() <= tolerance * scale
    };
    let at = (0..found.len()).find(|&i| !close(found[i], wanted[i]))?;
    Some(format!("at {at}: {} should be {}", found[at], wanted[at]))
}

type Differences = Vec<(&'static str, Option<String>)>;

/// Calls `check` for every level of our kernels that this processor has, with each operand spoiled in turn.
fn each_spoiled(operands: &[Tensor], check: impl Fn(&[Tensor]) -> Differences) {
    each_spoiled_at(Kernels::usable().filter(|level| *level != Kernels::Plain), operands, check);
}

fn each_spoiled_at(
    levels: impl Iterator<Item = Kernels>,
    operands: &[Tensor],
    check: impl Fn(&[Tensor]) -> Differences,
) {
    for level in levels {
        let _guard = level.on_this_thread();
        for i in 0..operands.len() {
            for place in places(&operands[i]) {
                for bits in BAD {
                    let mut spoilt: Vec<Tensor> = operands.iter().map(Tensor::copy).collect();
                    spoilt[i] = spoiled(&operands[i], place, bits);
                    for (what, difference) in check(&spoilt) {
                        assert!(
                            difference.is_none(),
                            "{level:?}, operand {i} at {place} is {bits:#x}: {what} {}",
                            difference.unwrap()
                        );
                    }
                }
            }
        }
    }
}

/// Outputs and gradients of `f` of leaves, when `grads` arrive at the outputs.
fn with_gradients(
    kind: Kind,
    leaves: &[&Tensor],
    grads: &[&Tensor],
    f: impl Fn(&[Tensor]) -> Vec<Tensor>,
) -> Vec<Tensor> {
    let leaf = |x: &&Tensor| {
        let x = if kind == Kind::Double { x.to_kind(kind) } else { x.shallow_clone() };
        x.detach().copy().set_requires_grad(true)
    };
    let leaves: Vec<Tensor> = leaves.iter().map(leaf).collect();
    let outputs = f(&leaves);
    let grads: Vec<Tensor> = outputs.iter().zip(grads).map(|(y, g)| g.to_kind(y.kind())).collect();
    let roots: Vec<_> = outputs.iter().zip(grads.iter().map(Some)).collect();
    backward_from(&roots).unwrap();
    let grads = leaves.iter().map(|x| if x.grad().defined() { x.grad() } else { x.zeros_like() });
    outputs.iter().map(Tensor::detach).chain(grads).collect()
}

/// Compares all that two ways of computing bring.
fn compare(names: &[&'static str], found: Vec<Tensor>, wanted: Vec<Tensor>) -> Differences {
    assert!(found.len() == names.len() && wanted.len() == names.len());
    names.iter().zip(found.iter().zip(&wanted)).map(|(name, (a, b))| (*name, difference(a, b))).collect()
}

#[test]
fn gelu_keeps_nan_and_infinity() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let operands = [noise(&[3, 17], 0.7).to_kind(kind), noise(&[3, 17], 1.3).to_kind(kind)];
        each_spoiled(&operands, |x| {
            let found = with_gradients(kind, &[&x[0]], &[&x[1]], |x| vec![gelu(&x[0]).unwrap()]);
            let wanted = with_gradients(Kind::Double, &[&x[0]], &[&x[1]], |x| vec![x[0].gelu("tanh")]);
            compare(&["y", "dx"], found, wanted)
        });
    }
}

#[test]
fn gelu_of_huge_numbers_is_the_number_or_zero() {
    for level in Kernels::usable() {
        let _guard = level.on_this_thread();
        let x = Tensor::from_slice(&[-3e38f32, -1e30, -1e10, -90.0, -12.0, 12.0, 90.0, 1e30, 3e38]);
        let y = gelu(&x).unwrap();
        assert_eq!(difference(&y, &x.to_kind(Kind::Double).gelu("tanh")), None, "{level:?}");
        assert!(y.i(..5).abs().max().double_value(&[]) < 1e-6, "{level:?}");
    }
}

#[test]
fn sigma_keeps_nan_and_infinity() {
    let operands = [noise(&[3, 70], 0.7), noise(&[3], 1.3)];
    each_spoiled(&operands, |x| {
        let found = with_gradients(Kind::Float, &[&x[0]], &[&x[1]], |x| vec![sigma(&x[0], 1e-5).unwrap()]);
        let wanted = with_gradients(Kind::Double, &[&x[0]], &[&x[1]], |x| vec![sigma(&x[0], 1e-5).unwrap()]);
        compare(&["sigma", "dx"], found, wanted)
    });
}

/// Logits of which one row has no target.
#[test]
fn cross_entropy_keeps_nan_and_infinity() {
    let targets = Tensor::from_slice(&[3i64, -100, 36, 0]);
    for kind in [Kind::Float, Kind::BFloat16] {
        each_spoiled(&[noise(&[4, 37], 0.7).to_kind(kind)], |x| {
            let mut grad = x[0].copy();
            let losses = logits_to_gradient(&mut grad, 37, &targets, &Tensor::from(0.5f64)).unwrap();
            let wanted = with_gradients(
                Kind::Double,
                &[&x[0]],
                &[&(Tensor::ones([4], (Kind::Float, Device::Cpu)) * 0.5)],
                |x| {
                    let p = x[0].log_softmax(-1, Kind::Double);
                    let losses = -p.gather(1, &targets.clamp_min(0).unsqueeze(-1), false).squeeze_dim(-1);
                    let nothing = losses.zeros_like();
                    vec![losses.where_self(&targets.ge(0), &nothing)]
                },
            );
            compare(&["losses", "gradient"], vec![losses, grad], wanted)
        });
    }
}

/// Either model's logits; one row has no target.
#[test]
fn distillation_keeps_nan_and_infinity() {
    let targets = Tensor::from_slice(&[3i64, -100, 36, 0]);
    let mixture = Mixture { weight: 0.5, temperature: 2.0 };
    for kind in [Kind::Float, Kind::BFloat16] {
        let logits = [0.7, 0.9].map(|frequency| noise(&[4, 37], frequency).to_kind(kind));
        each_spoiled(&logits, |x| {
            let mut grad = x[0].copy();
            let half = Tensor::from(0.5f64);
            let losses = distilled_gradient(&mut grad, &x[1], 37, &targets, &half, mixture).unwrap();
            let of_losses = Tensor::from_slice(&[0.5f32, 2.0]).expand([4, 2], false) * 0.5;
            let wanted = with_gradients(Kind::Double, &[&x[0]], &[&of_losses], |student| {
                let rows = |x: Tensor| x.sum_dim_intlist([-1i64].as_slice(), true, Kind::Double);
                let at = targets.clamp_min(0).unsqueeze(-1);
                let ce = -student[0].log_softmax(-1, Kind::Double).gather(1, &at, false);
                let log_p = (&student[0] / 2.0).log_softmax(-1, Kind::Double);
                let log_q = (x[1].to_kind(Kind::Double) / 2.0).log_softmax(-1, Kind::Double);
                let q = log_q.exp();
                let kl = rows(q.xlogy(&q) - &q * log_p);
                let losses = Tensor::cat(&[ce, kl], -1);
                let nothing = losses.zeros_like();
                vec![losses.where_self(&targets.ge(0).unsqueeze(-1), &nothing)]
            });
            compare(&["losses", "gradient"], vec![losses, grad], wanted)
        });
    }
}

#[cfg(feature = "kernels")]
#[test]
fn sums_over_blocks_of_logits_keep_nan_and_infinity() {
    let targets = [3i64, 30, 36];
    for kind in [Kind::Float, Kind::BFloat16] {
        each_spoiled(&[noise(&[3, 37], 0.7).to_kind(kind)], |x| {
            let blocks = [(0, 20), (20, 17)].map(|(start, len)| Ok((start, x[0].narrow(1, start, len))));
            let found = super::native::stats_of_blocks(blocks.into_iter(), &targets).unwrap();
            let wide = x[0].to_kind(Kind::Double);
            let log_p = wide.log_softmax(-1, Kind::Double);
            let at = Tensor::from_slice(&targets).unsqueeze(-1);
            // A token that is impossible adds nothing to the entropy.
            let terms = log_p.exp() * &log_p;
            let nothing = terms.zeros_like();
            let entropy = -terms.where_self(&wide.not_equal(f64::NEG_INFINITY), &nothing).sum_dim_intlist(
                [1i64].as_slice(),
                false,
                Kind::Double,
            );
            let wanted = Tensor::stack(
                &[
                    -log_p.gather(1, &at, false).squeeze_dim(-1),
                    entropy,
                    log_p.exp().amax([1i64].as_slice(), false),
                    wide.argmax(1, false).eq_tensor(&at.squeeze_dim(-1)).to_kind(Kind::Double),
                ],
                1,
            );
            compare(&["loss, entropy, confidence, correct"], vec![found], vec![wanted])
        });
    }
}

#[test]
fn fake_norm_keeps_nan_and_infinity() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let std = noise(&[1, 3, 1], 0.2).abs() + 0.5;
        let operands =
            [noise(&[2, 3, 21], 0.7), noise(&[21], 0.3), noise(&[21], 0.9), std, noise(&[2, 3, 21], 1.3)];
        each_spoiled(&operands, |x| {
            let leaves = [&x[0], &x[1], &x[2]];
            let found = with_gradients(Kind::Float, &leaves, &[&x[4].to_kind(kind)], |y| {
                vec![fake_norm(&y[0], &y[1], &y[2], &x[3], kind)]
            });
            let wanted = with_gradients(Kind::Double, &leaves, &[&x[4].to_kind(kind)], |y| {
                vec![reference::fake_norm(&y[0], &y[1], &y[2], &x[3].to_kind(Kind::Double), Kind::Double)]
            });
            compare(&["y", "dx", "dweight", "dbias"], found, wanted)
        });
    }
}

#[test]
fn a_sum_on_the_residual_stream_keeps_nan_and_infinity() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let shape = [2, 3, 21];
        let operands = [
            noise(&shape, 0.7),
            noise(&shape, 1.1).to_kind(kind),
            noise(&[21], 0.3),
            noise(&[21], 0.9),
            Tensor::from(0.7f32),
            noise(&shape, 1.3),
            noise(&shape, 0.4).to_kind(kind),
        ];
        let bfloat16 = kind == Kind::BFloat16;
        each_spoiled(&operands, |x| {
            let leaves = [&x[0], &x[1], &x[2], &x[3]];
            let found = with_gradients(Kind::Float, &leaves, &[&x[5], &x[6]], |y| {
                let norm = Some((&y[2], &y[3], x[4].shallow_clone()));
                let sum = residual(&y[0], &y[1], &FusedOutputs { norm, bfloat16, sigma: Some(1e-5) });
                vec![sum.x, sum.read.unwrap()]
            });
            let wanted = with_gradients(Kind::Double, &leaves, &[&x[5], &x[6]], |y| {
                let sum = &y[0] + &y[1];
                let read =
                    reference::fake_norm(&sum, &y[2], &y[3], &x[4].to_kind(Kind::Double), Kind::Double);
                vec![sum, read]
            });
            compare(&["sum", "read", "dx", "dbranch", "dweight", "dbias"], found, wanted)
        });
    }
}

#[test]
fn folding_keeps_nan_and_infinity() {
    for kind in [Kind::Float, Kind::BFloat16] {
        let operands = [
            noise(&[19, 37], 0.7).to_kind(kind),
            noise(&[19], 0.3),
            noise(&[19], 0.9),
            noise(&[19, 37], 1.3).to_kind(kind),
            noise(&[37], 0.4),
        ];
        each_spoiled(&operands, |x| {
            let ln = |of: Kind| LinearNorm { gain: x[1].to_kind(of), beta: x[2].to_kind(of) };
            let (to, wide) = (x[0].empty_like(), x[0].to_kind(Kind::Double).empty_like());
            let carried = ln(Kind::Float).fold(&x[0], &to).unwrap();
            let carried_wide = reference::fold(&ln(Kind::Double), &x[0], &wide).unwrap();
            let grad = x[3].copy();
            let by_row = ln(Kind::Float).unfold(&grad, &x[0], &x[4]).unwrap();
            // Straight from the formula: what libtorch's operations take in another order is infinity minus
            // infinity.
            let [weight_wide, grad_wide] = [&x[0], &x[3]].map(|x| x.to_kind(Kind::Double));
            let (g, exact) = (x[4].to_kind(Kind::Double), ln(Kind::Double));
            let centred = &grad_wide - grad_wide.mean_dim(0i64, true, Kind::Double);
            let rows = (&weight_wide * &centred).sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
            let by_row_wide = Tensor::stack(&[rows, weight_wide.matmul(&g)], 0);
            let grad_wide = exact.gain.unsqueeze(1) * centred + exact.beta.unsqueeze(1) * g;
            compare(
                &["carried", "folded", "by row", "unfolded"],
                vec![carried, to, by_row, grad],
                vec![carried_wide, wide, by_row_wide, grad_wide],
            )
        });
    }
}

#[test]
fn products_keep_nan_and_infinity() {
    // Large enough for every library.
    let operands = |kind| [noise(&[128, 96], 0.7).to_kind(kind), noise(&[96, 112], 0.3).to_kind(kind)];
    for kind in [Kind::Float, Kind::BFloat16] {
        let [a, b] = operands(kind);
        let (bias, dy) = (noise(&[112], 0.9).to_kind(kind), noise(&[128, 112], 1.1).to_kind(kind));
        each_spoiled_at([Kernels::Auto].into_iter(), &[a, b, bias, dy], |x| {
            let leaves = [&x[0], &x[1], &x[2]];
            let mut found =
                with_gradients(kind, &leaves, &[&x[3]], |y| vec![linear(&y[0], &y[1], &y[2], None).unwrap()]);
            let mut wanted =
                with_gradients(Kind::Double, &leaves, &[&x[3]], |y| vec![y[0].matmul(&y[1]) + &y[2]]);
            let mut sum = Tensor::ones([128, 112], (Kind::Float, Device::Cpu));
            add_product(&mut sum, &x[0], &x[1]).unwrap();
            found.extend([product(&x[0], &x[1]).unwrap(), sum]);
            let exact = x[0].to_kind(Kind::Double).matmul(&x[1].to_kind(Kind::Double));
            wanted.extend([exact.shallow_clone(), exact + 1.0]);
            // What is rounded to bfloat16 on its way is as near as that.
            if kind == Kind::BFloat16 {
                found = found.iter().map(|x| x.to_kind(kind)).collect();
            }
            compare(&["y", "dx", "dw", "db", "product", "sum"], found, wanted)
        });
    }
}

/// Softmax over the keys up to each query alone.
fn attention_by_slices(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let scale = 1.0 / (q.size()[3] as f64).sqrt();
    let rows: Vec<Tensor> = (0..q.size()[2])
        .map(|t| {
            let scores = q.narrow(2, t, 1).matmul(&k.narrow(2, 0, t + 1).transpose(2, 3)) * scale;
            scores.softmax(-1, Kind::Double).matmul(&v.narrow(2, 0, t + 1))
        })
        .collect();
    Tensor::cat(&rows, 2)
}

/// A NaN may reach what it reaches in the formula with a mask, where zero times NaN is NaN, and must reach
/// what it reaches by slices.
#[test]
fn attention_keeps_nan_and_infinity() {
    let shape = [1, 2, 66, 16];
    for kind in [Kind::Float, Kind::BFloat16] {
        let operands = [0.7, 0.3, 1.1, 1.7].map(|f| noise(&shape, f).to_kind(kind));
        for level in Kernels::usable().filter(|level| *level != Kernels::Plain) {
            let _guard = level.on_this_thread();
            for i in 0..4 {
                for (place, bits) in
                    [(5 * 16 + 3, BAD[0]), (65 * 16 + 15, BAD[3]), (40 * 16, BAD[5]), (70 * 16, BAD[6])]
                {
                    let mut x = operands.each_ref().map(Tensor::copy);
                    x[i] = spoiled(&operands[i], place, bits);
                    let [q, k, v, dz] = &x;
                    let run = |kind, f: &dyn Fn(&[Tensor]) -> Tensor| {
                        with_gradients(kind, &[q, k, v], &[dz], |x| vec![f(x)])
                    };
                    let found = run(kind, &|x| causal_attention(&x[0], &x[1], &x[2]).unwrap());
                    let least = run(Kind::Double, &|x| attention_by_slices(&x[0], &x[1], &x[2]));
                    let most = run(Kind::Double, &|x| causal_attention(&x[0], &x[1], &x[2]).unwrap());
                    for (j, name) in ["z", "dq", "dk", "dv"].into_iter().enumerate() {
                        let what = format!("{level:?} {kind:?}, operand {i} at {place} is {bits:#x}: {name}");
                        let finite = |x: &Tensor| x.to_kind(Kind::Double).isfinite();
                        let lost = finite(&found[j]).logical_and(&finite(&least[j]).logical_not()).any();
                        assert!(!bool::try_from(lost).unwrap(), "{what}: lost");
                        let invented = finite(&found[j]).logical_not().logical_and(&finite(&most[j])).any();
                        assert!(!bool::try_from(invented).unwrap(), "{what}: invented");
                        let both = finite(&found[j]).logical_and(&finite(&least[j]));
                        let pick = |x: &Tensor| x.to_kind(Kind::Double).masked_select(&both).to_kind(kind);
                        let difference = difference(&pick(&found[j]), &pick(&least[j]).to_kind(Kind::Double));
                        assert_eq!(difference, None, "{what}");
                    }
                }
            }
        }
    }
}
