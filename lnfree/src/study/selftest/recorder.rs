//! Makes comparisons: numbers to compute with, differences, and failures that do not end the rest.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tch::{Device, Kind, Tensor};

use super::Comparison;
use crate::Result;
use crate::base::caught::text_of;
use crate::config::FloatType;

/// Tolerances in each type, as a share of the largest number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    /// In float32.
    pub float32: f64,
    /// In TF32, whose factors have 10 bits of mantissa.
    pub tf32: f64,
    /// In bfloat16, with 7.
    pub bfloat16: f64,
}

impl Tolerance {
    /// What rounding makes of one operation without sums.
    pub(super) const ROUNDING: Tolerance = Tolerance { float32: 2e-6, tf32: 2e-6, bfloat16: 8e-3 };
    /// Of one or two products and sums.
    pub(super) const PRODUCT: Tolerance = Tolerance { float32: 1e-5, tf32: 4e-3, bfloat16: 2e-2 };
}

/// Gathers comparisons on one device.
pub(super) struct Recorder<'a> {
    /// Where everything of ours is computed.
    pub device: Device,
    dtype: FloatType,
    fault: Option<String>,
    comparisons: Vec<Comparison>,
    seen: Box<dyn FnMut(&Comparison) + 'a>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(
        device: Device,
        fault: Option<String>,
        seen: impl FnMut(&Comparison) + 'a,
    ) -> Recorder<'a> {
        let dtype = FloatType::Float32;
        Recorder { device, dtype, fault, comparisons: Vec::new(), seen: Box::new(seen) }
    }

    /// Sets the type of the comparisons to come.
    pub(super) fn dtype(&mut self, dtype: FloatType) -> Result<()> {
        self.dtype = dtype;
        dtype.prepare(self.device)
    }

    /// The type of matrix products at present.
    pub(super) fn float(&self) -> FloatType {
        self.dtype
    }

    /// libtorch's name for it.
    pub(super) fn kind(&self) -> Kind {
        self.dtype.kind()
    }

    /// `x` float64 as the device has it in the type of products, and the same numbers again in float64 for
    /// the formula.
    pub(super) fn both(&self, x: Tensor) -> (Tensor, Tensor) {
        let ours = x.to_kind(self.kind());
        (ours.to_device(self.device), ours.to_kind(Kind::Double))
    }

    /// `x` likewise in float32, whatever the type of products.
    pub(super) fn both_wide(&self, x: Tensor) -> (Tensor, Tensor) {
        let ours = x.to_kind(Kind::Float);
        (ours.to_device(self.device), ours.to_kind(Kind::Double))
    }

    /// One comparison for each of what `work` returns: a name, what was found and what is right. Where it
    /// fails, one that says so.
    pub(super) fn compare(
        &mut self,
        group: &'static str,
        name: &str,
        tolerance: Tolerance,
        work: impl FnOnce(&Recorder) -> Result<Vec<(&'static str, Tensor, Tensor)>>,
    ) {
        let tolerance = self.tolerance(tolerance);
        match caught(|| work(self)) {
            Ok(pairs) => {
                for (what, found, right) in pairs {
                    let name = if what.is_empty() { name.to_string() } else { format!("{name}, {what}") };
                    let found = self.falsified(&name, found);
                    self.add(group, name, tolerance, Ok(difference(&found, &right)));
                }
            }
            Err(why) => self.add(group, name.into(), tolerance, Err(why)),
        }
    }

    /// One comparison whose difference `work` finds out.
    pub(super) fn measure(
        &mut self,
        group: &'static str,
        name: &str,
        tolerance: Tolerance,
        work: impl FnOnce(&Recorder) -> Result<f64>,
    ) {
        let tolerance = self.tolerance(tolerance);
        let found = caught(|| work(self)).map(|found| if self.falsifies(name) { found + 1.0 } else { found });
        self.add(group, name.into(), tolerance, found);
    }

    fn tolerance(&self, tolerance: Tolerance) -> f64 {
        match self.dtype {
            FloatType::Float32 => tolerance.float32,
            FloatType::Tf32 => tolerance.tf32,
            FloatType::Bfloat16 => tolerance.bfloat16,
        }
    }

    fn add(&mut self, group: &'static str, name: String, tolerance: f64, found: Result<f64, String>) {
        let (difference, failure) = match found {
            Ok(difference) => (difference, None),
            Err(why) => (f64::NAN, Some(why)),
        };
        let passed = failure.is_none() && difference <= tolerance;
        let dtype = self.dtype.name();
        let comparison = Comparison { group, name, dtype, difference, tolerance, failure, passed };
        (self.seen)(&comparison);
        self.comparisons.push(comparison);
    }

    fn falsifies(&self, name: &str) -> bool {
        self.fault.as_ref().is_some_and(|fault| fault.split('|').any(|fault| name.contains(fault)))
    }

    /// `found`, with its largest number half as large again if that is asked for.
    fn falsified(&self, name: &str, found: Tensor) -> Tensor {
        if !self.falsifies(name) || found.numel() == 0 {
            return found;
        }
        let found = found.to_device(Device::Cpu).to_kind(Kind::Double).contiguous().view(-1).copy();
        let at = found.abs().argmax(0, false).int64_value(&[]);
        let _ = found.narrow(0, at, 1).g_mul_scalar_(1.5);
        found
    }

    pub(super) fn finish(self) -> Vec<Comparison> {
        self.comparisons
    }
}

/// What `work` comes to; an error or a panic as one line.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    let text = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(error)) => error.to_string(),
        Err(panic) => text_of(panic.as_ref()),
    };
    Err(text.lines().find(|line| !line.trim().is_empty()).unwrap_or("it failed").trim().to_string())
}

/// The largest difference as a share of the largest number that is right, in float64 on the CPU; not a
/// number where shapes differ.
pub(super) fn difference(found: &Tensor, right: &Tensor) -> f64 {
    let [found, right] =
        [found, right].map(|x| x.detach().to_device(Device::Cpu).to_kind(Kind::Double).reshape([-1]));
    if found.numel() != right.numel() || right.numel() == 0 {
        return f64::NAN;
    }
    let largest = right.abs().max().double_value(&[]);
    (found - right).abs().max().double_value(&[]) / largest.max(f64::MIN_POSITIVE)
}

/// Numbers without a pattern, about as large as one, float64 on the CPU; another `frequency` gives others.
/// libtorch's random generator would give another device others.
pub(super) fn noise(shape: &[i64], frequency: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let steps = (Tensor::arange(n, (Kind::Double, Device::Cpu)) + 1.0) * frequency;
    (((steps * 12.9898).sin() * 43758.5453).frac() * 2.0).view(shape)
}
