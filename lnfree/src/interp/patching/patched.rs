//! What patches come to.

use tch::{Kind, Tensor};

use crate::Result;

/// A metric after each of many patches.
#[derive(Debug)]
pub struct Patched {
    /// After each patch, float32; the last axis is `batch`, what those before it are says the function.
    pub metric: Tensor,
    /// Of the clean run, float32 `[batch]`.
    pub clean: Tensor,
    /// Of the corrupted run, float32 `[batch]`.
    pub corrupted: Tensor,
}

impl Patched {
    /// Metric after the patch less that of the corrupted run, in the shape of `metric`.
    pub fn effect(&self) -> Tensor {
        &self.metric - &self.corrupted
    }

    /// The part of the way from the corrupted run (0) to the clean one (1), without the axis `batch`: of the
    /// means over it, as a single text may have nearly no way to go (Wang et al., arXiv 2211.00593). Infinite
    /// or NaN where the two runs are alike.
    pub fn normalised(&self) -> Tensor {
        let mean = |x: &Tensor| x.mean_dim(-1i64, false, Kind::Float);
        (mean(&self.metric) - mean(&self.corrupted)) / (mean(&self.clean) - mean(&self.corrupted))
    }
}

/// The metrics of many patches on their way: what no patch changes is that of the corrupted run.
#[derive(Debug)]
pub(crate) struct Table {
    /// `[patches, batch]`.
    rows: Tensor,
    axes: Vec<i64>,
}

impl Table {
    /// `axes`: those before `batch`.
    pub fn new(corrupted: &Tensor, axes: &[i64]) -> Result<Table> {
        let patches = axes.iter().product::<i64>();
        let rows = corrupted.f_unsqueeze(0)?.f_repeat([patches, 1])?;
        Ok(Table { rows, axes: axes.to_vec() })
    }

    /// Rows `slots`, in order, become `found`, `[slots, batch]`.
    pub fn set(&mut self, slots: &[i64], found: &Tensor) -> Result<()> {
        let slots = Tensor::f_from_slice(slots)?.f_to_device(found.device())?;
        let _ = self.rows.f_index_copy_(0, &slots, found)?;
        Ok(())
    }

    /// `[axes.., batch]`.
    pub fn done(self) -> Result<Tensor> {
        let size: Vec<i64> = self.axes.iter().copied().chain([self.rows.size()[1]]).collect();
        Ok(self.rows.f_reshape(size.as_slice())?)
    }
}
