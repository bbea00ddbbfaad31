//! Tensors put together into messages of a good size.

use tch::{Kind, Tensor};

use super::on_host;
use crate::Result;

/// Numbers of a message: 25 MiB, as PyTorch's data parallel training has them.
const NUMBERS: usize = 25 << 18;

/// Tensors that travel together.
pub(super) struct Bucket {
    flat: Tensor,
    of: Vec<Tensor>,
}

/// `tensors` in order, each in one message, small ones together.
pub(super) fn buckets(tensors: &[Tensor]) -> impl Iterator<Item = Result<Bucket>> {
    let mut rest = tensors;
    std::iter::from_fn(move || {
        let mut numbers = 0;
        let fitting = rest.iter().take_while(|x| {
            numbers += x.numel();
            numbers <= NUMBERS
        });
        let n = fitting.count().max(1).min(rest.len());
        let (of, others) = rest.split_at(n);
        rest = others;
        (n > 0).then(|| Bucket::new(of))
    })
}

impl Bucket {
    fn new(of: &[Tensor]) -> Result<Bucket> {
        // What is in one piece on the CPU is added up where it is.
        let flat = match of {
            [one] => on_host(one),
            many => Tensor::f_cat(&many.iter().map(|x| on_host(x).view(-1)).collect::<Vec<_>>(), 0)?,
        };
        Ok(Bucket { flat, of: of.iter().map(Tensor::shallow_clone).collect() })
    }

    /// All numbers in one piece, float32 on the CPU.
    pub(super) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Puts them back where they came from.
    pub(super) fn hand_back(self) -> Result<()> {
        let mut start = 0;
        let flat = self.flat.view(-1);
        for mut x in self.of {
            let n = x.numel() as i64;
            let shares_memory = x.kind() == Kind::Float && x.data_ptr() == self.flat.data_ptr();
            if !shares_memory {
                x.f_copy_(&flat.f_narrow(0, start, n)?.f_view_as(&x)?)?;
            }
            start += n;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn all_numbers_travel_and_come_back() {
        let sizes = [3, NUMBERS as i64 - 3, 1, NUMBERS as i64 + 5, 2, 0, 4];
        let tensors: Vec<Tensor> =
            sizes.iter().map(|&n| Tensor::full([n], n as f64, (Kind::Double, Device::Cpu))).collect();
        let mut messages = Vec::new();
        for bucket in buckets(&tensors) {
            let bucket = bucket.unwrap();
            messages.push(bucket.flat().numel());
            let _ = bucket.flat().shallow_clone().g_mul_scalar_(2.0);
            bucket.hand_back().unwrap();
        }
        assert_eq!(messages, [NUMBERS, 1, NUMBERS + 5, 6]);
        for (x, n) in tensors.iter().zip(sizes).filter(|(x, _)| x.numel() > 0) {
            assert_eq!([x.min(), x.max()].map(|x| x.double_value(&[])), [2.0 * n as f64; 2]);
        }
        let transposed = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]).transpose(0, 1);
        for bucket in buckets(&[transposed.shallow_clone()]) {
            let bucket = bucket.unwrap();
            let _ = bucket.flat().shallow_clone().g_add_scalar_(1.0);
            bucket.hand_back().unwrap();
        }
        assert_eq!(Vec::<f32>::try_from(transposed.reshape([-1])).unwrap(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
