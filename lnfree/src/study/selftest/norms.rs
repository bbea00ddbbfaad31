//! LNs, real and fake, wherever they are computed: alone, in the matrix that reads them, with the sum that
//! they read.

use tch::{Device, Kind, Tensor};

use super::recorder::{Recorder, Tolerance, noise};
use crate::Result;
use crate::base::device::has_cpu_kernels;
use crate::ops::{self, FusedOutputs, LinearNorm, backward_from};

type Pairs = Vec<(&'static str, Tensor, Tensor)>;

pub(super) fn all(recorder: &mut Recorder) {
    let op = "operation";
    for (name, rows, columns) in [("a narrow", 48, 33), ("a wide", 64, 384), ("a tall", 768, 129)] {
        recorder.compare(op, &format!("fold into {name} matrix"), Tolerance::PRODUCT, |recorder| {
            fold(recorder, rows, columns)
        });
        recorder.compare(op, &format!("unfold from {name} matrix"), Tolerance::PRODUCT, |recorder| {
            unfold(recorder, rows, columns)
        });
    }
    for (name, shape) in [
        ("one std", &[][..]),
        ("a std for each position", &[1, 21, 1]),
        ("a std for each token", &[3, 21, 1]),
        ("a std for each feature", &[1, 1, 96]),
    ] {
        let name = format!("fake LN, {name}");
        recorder.compare(op, &name, Tolerance::PRODUCT, |recorder| fake_norm(recorder, shape));
    }
    recorder.compare(op, "residual sum", Tolerance::PRODUCT, residual_sum);
    recorder.compare(op, "residual sum that is read", Tolerance::PRODUCT, residual_read);
    recorder.compare(op, "residual sum with its fake LN", Tolerance::PRODUCT, residual_with_norm);
}

/// A LN in float32, and the same in float64 on the CPU.
fn linear_norm(recorder: &Recorder, n: i64) -> (LinearNorm, LinearNorm) {
    let (gain, wide_gain) = recorder.both_wide(noise(&[n], 0.31) + 1.5);
    let (beta, wide_beta) = recorder.both_wide(noise(&[n], 0.57));
    (LinearNorm { gain, beta }, LinearNorm { gain: wide_gain, beta: wide_beta })
}

/// C diag(gain) W and βᵀ W by their definition.
fn folded(ln: &LinearNorm, weight: &Tensor) -> (Tensor, Tensor) {
    let scaled = weight * ln.gain.unsqueeze(1);
    (&scaled - scaled.mean_dim(0i64, true, Kind::Double), ln.beta.unsqueeze(0).matmul(weight).squeeze())
}

fn fold(recorder: &Recorder, rows: i64, columns: i64) -> Result<Pairs> {
    let (ln, wide_ln) = linear_norm(recorder, rows);
    let (weight, wide) = recorder.both_wide(noise(&[rows, columns + 7], 0.37));
    // Columns of wider matrices, as values are.
    let to = Tensor::zeros([rows, columns + 7], (recorder.kind(), recorder.device)).narrow(1, 3, columns);
    let carried = ln.fold(&weight.narrow(1, 5, columns), &to)?;
    let (right, right_carried) = folded(&wide_ln, &wide.narrow(1, 5, columns));
    Ok(vec![("", to, right), ("bias", carried, right_carried)])
}

/// Against autograd through the definition.
fn unfold(recorder: &Recorder, rows: i64, columns: i64) -> Result<Pairs> {
    let (ln, wide_ln) = linear_norm(recorder, rows);
    let (weight, wide) = recorder.both_wide(noise(&[rows, columns], 0.37));
    let (grad, wide_grad) = recorder.both_wide(noise(&[rows, columns], 0.71));
    let (bias_grad, wide_bias_grad) = recorder.both_wide(noise(&[columns], 0.83));
    let by_row = ln.unfold(&grad, &weight, &bias_grad)?;
    let leaf = |x: Tensor| x.set_requires_grad(true);
    let (gain, beta, w) = (leaf(wide_ln.gain), leaf(wide_ln.beta), leaf(wide));
    let (out, carried) = folded(&LinearNorm { gain: gain.shallow_clone(), beta: beta.shallow_clone() }, &w);
    ((out * wide_grad).sum(Kind::Double) + (carried * wide_bias_grad).sum(Kind::Double)).backward();
    Ok(vec![
        ("of weight", grad, w.grad()),
        ("of gain", by_row.get(0), gain.grad()),
        ("of beta", by_row.get(1), beta.grad()),
    ])
}

/// (x − mean) / std ⊙ γ + β.
fn plain(x: &Tensor, weight: &Tensor, bias: &Tensor, std: &Tensor) -> Tensor {
    (x - x.mean_dim(-1i64, true, x.kind())) / std * weight + bias
}

fn fake_norm(recorder: &Recorder, std: &[i64]) -> Result<Pairs> {
    let shape: &[i64] = &[3, 21, 96];
    let inputs =
        [noise(shape, 0.31), noise(&[96], 0.57) + 1.0, noise(&[96], 0.73), noise(std, 0.19).abs() + 0.5];
    let inputs = inputs.map(|x| recorder.both_wide(x));
    let (above, wide_above) = recorder.both(noise(shape, 0.91));
    let run = |[x, weight, bias, std]: [&Tensor; 4], above: &Tensor, ours: bool| {
        let [x, weight, bias] = [x, weight, bias].map(|x| x.detach().copy().set_requires_grad(true));
        let y = match ours {
            true => ops::fake_norm(&x, &weight, &bias, std, recorder.kind()),
            false => plain(&x, &weight, &bias, std),
        };
        (&y * above).sum(y.kind()).backward();
        [y.detach(), x.grad(), weight.grad(), bias.grad()]
    };
    let found = run([&inputs[0].0, &inputs[1].0, &inputs[2].0, &inputs[3].0], &above, true);
    let right = run([&inputs[0].1, &inputs[1].1, &inputs[2].1, &inputs[3].1], &wide_above, false);
    let names = ["", "gradient of x", "gradient of weight", "gradient of bias"];
    Ok(names.into_iter().zip(found.into_iter().zip(right)).map(|(name, (x, y))| (name, x, y)).collect())
}

/// x, a branch in the type of products, γ, β, σ̄, ours and float64.
fn residual_inputs(recorder: &Recorder) -> [(Tensor, Tensor); 5] {
    let shape: &[i64] = &[3, 21, 96];
    [
        recorder.both_wide(noise(shape, 0.31)),
        recorder.both(noise(shape, 0.47)),
        recorder.both_wide(noise(&[96], 0.57) + 1.0),
        recorder.both_wide(noise(&[96], 0.73)),
        recorder.both_wide(noise(&[], 0.19).abs() + 0.5),
    ]
}

/// The sum alone, float32 plus the type of products; as devices without our kernels make it too.
fn residual_sum(recorder: &Recorder) -> Result<Pairs> {
    let inputs = residual_inputs(recorder);
    let (above, wide_above) = recorder.both_wide(noise(&[3, 21, 96], 0.91));
    let leaf = |x: &Tensor| x.detach().copy().set_requires_grad(true);
    let (x, branch) = (leaf(&inputs[0].0), leaf(&inputs[1].0));
    let sum = match ops::residual_is_ours(&x) {
        true => ops::residual(&x, &branch, &FusedOutputs::default()).x,
        false => &x + &branch,
    };
    backward_from(&[(&sum, Some(&above))])?;
    let right = &inputs[0].1 + &inputs[1].1;
    Ok(vec![
        ("", sum.detach(), right),
        ("gradient of x", x.grad(), wide_above.shallow_clone()),
        ("gradient of branch", branch.grad(), wide_above),
    ])
}

/// The sum, read in bfloat16 too, with its σ; backwards, gradients of both meet.
fn residual_read(recorder: &Recorder) -> Result<Pairs> {
    let inputs = residual_inputs(recorder);
    let leaf = |x: &Tensor| x.detach().copy().set_requires_grad(true);
    let (x, branch) = (leaf(&inputs[0].0), leaf(&inputs[1].0));
    if !ops::residual_is_ours(&x) {
        return Ok(Vec::new());
    }
    let (above, wide_above) = recorder.both_wide(noise(&[3, 21, 96], 0.91));
    let of_read = noise(&[3, 21, 96], 0.83).to_kind(Kind::BFloat16);
    let stream = ops::residual(&x, &branch, &FusedOutputs { norm: None, bfloat16: true, sigma: Some(1e-5) });
    let read = stream.read.ok_or_else(|| crate::Error::invalid("nothing was made for the reader"))?;
    let sigma = stream.sigma.ok_or_else(|| crate::Error::invalid("no sigma was made"))?;
    let arrived = of_read.to_device(recorder.device);
    backward_from(&[(&stream.x, Some(&above)), (&read, Some(&arrived))])?;
    let right = &inputs[0].1 + &inputs[1].1;
    let right_sigma = (right.var_dim([-1i64].as_slice(), false, false) + 1e-5).sqrt();
    let met = wide_above + of_read.to_kind(Kind::Double);
    let rounded = stream.x.to_kind(Kind::BFloat16).to_device(Device::Cpu).to_kind(Kind::Double);
    Ok(vec![
        ("", stream.x.detach(), right),
        ("in bfloat16", read.detach(), rounded),
        ("sigma", sigma, right_sigma),
        ("gradient of x", x.grad(), met.shallow_clone()),
        ("gradient of branch", branch.grad(), met),
    ])
}

/// The kernel for CPUs alone, see [`crate::ops::residual`].
fn residual_with_norm(recorder: &Recorder) -> Result<Pairs> {
    if !has_cpu_kernels(recorder.device) {
        return Ok(Vec::new());
    }
    let inputs = residual_inputs(recorder);
    let (above, wide_above) = recorder.both(noise(&[3, 21, 96], 0.91));
    let leaf = |x: &Tensor| x.detach().copy().set_requires_grad(true);
    let [x, branch, weight, bias] = [0, 1, 2, 3].map(|i| leaf(&inputs[i].0));
    let fused = FusedOutputs {
        norm: Some((&weight, &bias, inputs[4].0.shallow_clone())),
        bfloat16: recorder.kind() == Kind::BFloat16,
        sigma: Some(1e-5),
    };
    let stream = ops::residual(&x, &branch, &fused);
    let read = stream.read.ok_or_else(|| crate::Error::invalid("nothing was made for the reader"))?;
    let sigma = stream.sigma.ok_or_else(|| crate::Error::invalid("no sigma was made"))?;
    backward_from(&[(&read, Some(&above))])?;
    let [wide_x, wide_branch, wide_weight, wide_bias] = [0, 1, 2, 3].map(|i| leaf(&inputs[i].1));
    let sum = &wide_x + &wide_branch;
    let right = plain(&sum, &wide_weight, &wide_bias, &inputs[4].1);
    (&right * &wide_above).sum(Kind::Double).backward();
    let right_sigma = (sum.detach().var_dim([-1i64].as_slice(), false, false) + 1e-5).sqrt();
    Ok(vec![
        ("", read.detach(), right.detach()),
        ("sigma", sigma, right_sigma),
        ("gradient of x", x.grad(), wide_x.grad()),
        ("gradient of branch", branch.grad(), wide_branch.grad()),
        ("gradient of weight", weight.grad(), wide_weight.grad()),
        ("gradient of bias", bias.grad(), wide_bias.grad()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ln_in_a_matrix_is_the_ln_before_it() {
        let (gain, beta, weight) = (noise(&[6], 0.3), noise(&[6], 0.5), noise(&[6, 4], 0.7));
        let ln = LinearNorm { gain: gain.shallow_clone(), beta: beta.shallow_clone() };
        let (matrix, bias) = folded(&ln, &weight);
        let x = noise(&[3, 6], 0.9);
        let one = Tensor::ones([], (Kind::Double, Device::Cpu));
        let error = (x.matmul(&matrix) + bias - plain(&x, &gain, &beta, &one).matmul(&weight)).abs().max();
        assert!(error.double_value(&[]) < 1e-12);
    }
}
