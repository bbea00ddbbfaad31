//! Fake LNs and sums on the residual stream against their formulas in float64 and autograd.

use tch::{Device, Kind, Tensor};

use super::reference;
use super::{FusedOutputs, LinearNorm, backward_from, fake_norm, residual};

/// Numbers without a pattern, about as large as one, in float64.
fn noise(shape: &[i64], frequency: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let steps = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 1.0) * frequency;
    (((steps * 12.9898).sin() * 43758.5453).frac() * 2.0).view(shape)
}

/// The largest difference as a share of the largest number.
fn error(found: &Tensor, wanted: &Tensor) -> f64 {
    let wanted = wanted.to_kind(Kind::Double);
    let difference = (found.to_kind(Kind::Double) - &wanted).abs().max().double_value(&[]);
    difference / wanted.abs().max().double_value(&[])
}

fn assert_near(found: &Tensor, wanted: &Tensor, tolerance: f64, what: &str) {
    let error = error(found, wanted);
    assert!(error < tolerance, "{what}: {error:e}");
}

/// A LN, and the same in float64.
fn linear_norm(n: i64) -> (LinearNorm, LinearNorm) {
    let (gain, beta) = (noise(&[n], 0.31).to_kind(Kind::Float), noise(&[n], 0.57).to_kind(Kind::Float));
    let exact = LinearNorm { gain: gain.to_kind(Kind::Double), beta: beta.to_kind(Kind::Double) };
    (LinearNorm { gain, beta }, exact)
}

/// What the rounding of a result may change.
fn rounding(kind: Kind) -> f64 {
    if kind == Kind::BFloat16 { 4e-3 } else { 2e-6 }
}

/// Rows, columns of the whole matrix, and the first and the number of those that the LN is in: less than a
/// strip, several, not whole ones.
const SHAPES: [(i64, i64, i64, i64); 5] =
    [(2, 1, 0, 1), (5, 7, 0, 7), (130, 384, 128, 256), (67, 300, 13, 250), (768, 131, 1, 129)];

#[test]
fn a_fake_ln_goes_into_a_matrix() {
    for (rows, all, start, len) in SHAPES {
        let (ln, exact) = linear_norm(rows);
        for (from, into) in [
            (Kind::Float, Kind::Float),
            (Kind::Float, Kind::BFloat16),
            (Kind::BFloat16, Kind::Float),
            (Kind::BFloat16, Kind::BFloat16),
        ] {
            let what = format!("{rows} × {len} of {all}, {from:?} into {into:?}");
            let weight = noise(&[rows, all], 0.9).to_kind(from);
            let columns = weight.narrow(1, start, len);
            let to = Tensor::full([rows, all], 7.0, (into, Device::Cpu));
            let carried = ln.fold(&columns, &to.narrow(1, start, len)).unwrap();

            let wide = columns.to_kind(Kind::Double);
            // With one row nothing is left but rounding.
            let scaled = &wide * exact.gain.unsqueeze(1);
            let wanted = &scaled - scaled.mean_dim(0i64, true, Kind::Double);
            let difference = (to.narrow(1, start, len).to_kind(Kind::Double) - wanted).abs().max();
            let largest = scaled.abs().max().double_value(&[]);
            assert!(
                difference.double_value(&[]) < rounding(into) * largest,
                "{what}: {difference:?} of {largest}"
            );
            assert_near(&carried, &exact.beta.unsqueeze(0).matmul(&wide).squeeze_dim(0), 4e-6, &what);
            // Columns beside it are left alone.
            let untouched = to.narrow(1, 0, start).not_equal(7.0).any();
            assert!(!bool::try_from(untouched).unwrap(), "{what}");
            assert!(start + len == all || to.double_value(&[0, start + len]) == 7.0, "{what}");

            // Other devices take libtorch's operations.
            let plain = to.zeros_like();
            let plainly = reference::fold(&exact, &columns, &plain.narrow(1, start, len)).unwrap();
            assert_near(&carried, &plainly, 4e-6, &what);
            let difference = (plain - &to).narrow(1, start, len).abs().max().double_value(&[]);
            assert!(difference <= 2.0 * rounding(into) * largest, "{what}: {difference:e}");
        }
    }
}

#[test]
fn its_gradients_come_out_again() {
    for (rows, all, start, len) in SHAPES {
        let (ln, exact) = linear_norm(rows);
        for kind in [Kind::Float, Kind::BFloat16] {
            let what = format!("{rows} × {len} of {all}, {kind:?}");
            let (weight, grad) =
                (noise(&[rows, all], 0.9).to_kind(kind), noise(&[rows, all], 1.3).to_kind(kind));
            let bias_grad = noise(&[len], 0.4).to_kind(Kind::Float);
            let cut = |x: &Tensor| x.narrow(1, start, len);

            // Autograd through what the LN makes of the matrix, in float64.
            let leaf = |x: &Tensor| x.to_kind(Kind::Double).detach().copy().set_requires_grad(true);
            let (w, gain, beta) = (leaf(&cut(&weight)), leaf(&exact.gain), leaf(&exact.beta));
            let scaled = &w * gain.unsqueeze(1);
            let folded = &scaled - scaled.mean_dim(0i64, true, Kind::Double);
            let carried = beta.unsqueeze(0).matmul(&w).squeeze_dim(0);
            let total = (folded * cut(&grad).to_kind(Kind::Double)).sum(Kind::Double)
                + (carried * bias_grad.to_kind(Kind::Double)).sum(Kind::Double);
            total.backward();

            for plainly in [false, true] {
                let found = grad.copy();
                let by_row = if plainly {
                    reference::unfold(&ln, &cut(&found), &cut(&weight), &bias_grad)
                } else {
                    ln.unfold(&cut(&found), &cut(&weight), &bias_grad)
                }
                .unwrap();
                // The plain one rounds what it makes of bfloat16 on its way.
                let (near, nearer) = match (plainly || cfg!(not(feature = "kernels")), kind) {
                    (true, Kind::BFloat16) => (2e-2, 2e-2),
                    _ => (rounding(kind), 2e-5),
                };
                let what = format!("{what}, plainly: {plainly}");
                assert_near(&cut(&found), &w.grad(), near, &what);
                assert_near(&by_row.get(1), &beta.grad(), nearer, &what);
                let difference = (by_row.get(0) - gain.grad()).abs().max().double_value(&[]);
                let scale = (len as f64).sqrt();
                assert!(difference < nearer * scale, "{what}: {difference:e}");
                let beside = (&found - &grad).narrow(1, 0, start).not_equal(0.0).any();
                assert!(!bool::try_from(beside).unwrap(), "{what}");
            }
        }
    }
}

/// Batch, positions, width, and the shape of what is divided by.
const NORMS: [([i64; 3], &[i64]); 5] = [
    ([2, 3, 7], &[]),
    ([3, 50, 64], &[1, 50, 1]),
    ([2, 67, 33], &[2, 67, 1]),
    ([1, 200, 128], &[]),
    ([2, 5, 16], &[1, 1, 16]),
];

#[test]
fn a_fake_ln_of_activations_is_the_formula() {
    for (shape, std_shape) in NORMS {
        let n = shape[2];
        let std = (noise(std_shape, 0.23).abs() + 0.5).to_kind(Kind::Float);
        let inputs = [&noise(&shape, 0.7) + 3.0, noise(&[n], 0.3), noise(&[n], 0.9)];
        for kind in [Kind::Float, Kind::BFloat16] {
            let what = format!("{shape:?} by {std_shape:?} into {kind:?}");
            let run = |of: Kind, f: &dyn Fn(&[Tensor]) -> Tensor| {
                let leaves: Vec<Tensor> = inputs
                    .iter()
                    .map(|x| x.to_kind(Kind::Float).to_kind(of).detach().copy().set_requires_grad(true))
                    .collect();
                let y = f(&leaves);
                (&y * noise(&shape, 1.7).to_kind(kind)).sum(Kind::Float).backward();
                (y.detach(), leaves.iter().map(Tensor::grad).collect::<Vec<_>>())
            };
            let (y, grads) = run(Kind::Float, &|x| fake_norm(&x[0], &x[1], &x[2], &std, kind));
            let (wanted, wanted_grads) = run(Kind::Double, &|x| {
                reference::fake_norm(&x[0], &x[1], &x[2], &std.to_kind(Kind::Double), Kind::Double)
            });
            assert_eq!(y.kind(), kind, "{what}");
            assert_near(&y, &wanted, rounding(kind), &what);
            for (found, wanted) in grads.iter().zip(wanted_grads) {
                assert_near(found, &wanted, 4e-6, &what);
            }
        }
    }
}

/// Widths, what is added in, what is read in bfloat16, and whether a fake LN is read.
const SUMS: [([i64; 3], Kind, bool, bool); 7] = [
    ([2, 3, 7], Kind::Float, false, false),
    ([3, 17, 64], Kind::BFloat16, true, false),
    ([1, 65, 48], Kind::BFloat16, false, false),
    ([2, 4, 33], Kind::Float, true, false),
    ([2, 70, 33], Kind::Float, false, true),
    ([1, 130, 64], Kind::BFloat16, true, true),
    ([3, 2, 5], Kind::Float, true, true),
];

#[test]
fn a_sum_brings_what_is_read_of_it_and_its_sigma() {
    for (shape, branch_kind, bfloat16, normed) in SUMS {
        let what = format!("{shape:?}, {branch_kind:?}, in bfloat16: {bfloat16}, fake LN: {normed}");
        let leaf =
            |shape: &[i64], frequency, kind| noise(shape, frequency).to_kind(kind).set_requires_grad(true);
        let inputs = || {
            let n = &shape[2..];
            let x = [leaf(&shape, 0.7, Kind::Float), leaf(&shape, 1.1, branch_kind)];
            (x, [leaf(n, 0.3, Kind::Float), leaf(n, 0.9, Kind::Float)])
        };
        let std = Tensor::from(0.7f32);
        // Gradients arrive at the sum and at what is read.
        let to_sum = noise(&shape, 0.2).to_kind(Kind::Float);
        let to_read = noise(&shape, 0.5).to_kind(if bfloat16 { Kind::BFloat16 } else { Kind::Float });

        let (x, norm) = inputs();
        let fused = FusedOutputs {
            norm: normed.then(|| (&norm[0], &norm[1], std.shallow_clone())),
            bfloat16,
            sigma: Some(1e-5),
        };
        let sum = residual(&x[0], &x[1], &fused);
        let mut roots = vec![(&sum.x, Some(&to_sum))];
        roots.extend(sum.read.as_ref().map(|read| (read, Some(&to_read))));
        backward_from(&roots).unwrap();

        let (wanted_x, wanted_norm) = inputs();
        let total = &wanted_x[0] + wanted_x[1].to_kind(Kind::Float);
        let read = match normed {
            true => reference::fake_norm(&total, &wanted_norm[0], &wanted_norm[1], &std, Kind::Float),
            false => total.shallow_clone(),
        }
        .to_kind(to_read.kind());
        let mut roots = vec![(&total, Some(&to_sum))];
        roots.extend(sum.read.as_ref().map(|_| (&read, Some(&to_read))));
        backward_from(&roots).unwrap();

        assert_eq!(sum.x, total, "{what}");
        assert_eq!(sum.read.is_some(), bfloat16 || normed, "{what}");
        if let Some(found) = &sum.read {
            assert_eq!(found.kind(), to_read.kind(), "{what}");
            assert_near(found, &read, rounding(found.kind()), &what);
        }
        let sigma = (total.to_kind(Kind::Double).var_dim([2i64].as_slice(), false, false) + 1e-5).sqrt();
        assert_near(&sum.sigma.unwrap(), &sigma, 1e-6, &what);
        for (found, wanted) in x.iter().zip(&wanted_x) {
            assert_near(&found.grad(), &wanted.grad(), rounding(found.kind()), &what);
        }
        for (found, wanted) in norm.iter().zip(&wanted_norm).filter(|_| normed) {
            assert_near(&found.grad(), &wanted.grad(), 4e-6, &what);
        }
    }
}

#[test]
fn gradients_that_arrive_at_one_output_only_are_all() {
    let leaf = |kind| noise(&[2, 3, 8], 0.7).to_kind(kind).set_requires_grad(true);
    for at_the_sum in [true, false] {
        let (x, branch) = (leaf(Kind::Float), leaf(Kind::BFloat16));
        let sum = residual(&x, &branch, &FusedOutputs { bfloat16: true, ..FusedOutputs::default() });
        assert!(sum.sigma.is_none());
        let arrived = noise(&[2, 3, 8], 0.5).to_kind(Kind::BFloat16);
        let at = if at_the_sum { sum.x } else { sum.read.unwrap() };
        backward_from(&[(&at, Some(&arrived.to_kind(at.kind())))]).unwrap();
        assert_eq!(x.grad(), arrived.to_kind(Kind::Float));
        assert_eq!(branch.grad(), arrived);
    }
}
