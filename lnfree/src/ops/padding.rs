//! Rows up to a number that libraries multiply fast.

use tch::Tensor;

/// Matrix products are fastest with rows in multiples of it: with 1023 or 50257, as a GPT-2 has, they take up
/// to 1.7 times as long as with 1024 and 50304 (oneDNN on an AMD EPYC, bfloat16).
pub(crate) const ROWS: i64 = 64;

/// `x` `[n, ..]` with rows of `value` up to the next multiple of [`ROWS`]; `x` itself where there is nothing
/// to add.
pub(crate) fn padded(x: &Tensor, value: f64) -> Tensor {
    let mut size = x.size();
    let (n, rows) = (size[0], (size[0] + ROWS - 1) / ROWS * ROWS);
    if n == rows {
        return x.shallow_clone();
    }
    size[0] = rows;
    let out = Tensor::empty(&size, (x.kind(), x.device()));
    out.narrow(0, 0, n).copy_(x);
    let _ = out.narrow(0, n, rows - n).fill_(value);
    out
}
