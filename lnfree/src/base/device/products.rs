//! What multiplies matrices fastest on this CPU: measured, not guessed from the processor's name.
//!
//! libtorch hands float32 products to MKL. On some processors oneDNN, which is in libtorch too, is twice as
//! fast; on others it is slower. And some multiply bfloat16 at half of float32's speed although they have an
//! instruction for it. Which library computes changes the last digits of a result, so what was measured is
//! kept in `~/.cache/lnfree/products.json` for the next run on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use tch::Device;

use super::{Kernels, LIBTORCH_VERSION, cache, device_name};
use crate::Result;
use crate::base::ffi;
use crate::base::places::cache_folder;

/// What is multiplied, `[m, k]` by `[k, n]`: a sequence by GPT-2 small's widest matrix. Libraries that are as
/// fast as another at small squares may not be here.
const SIZE: [i64; 3] = [1024, 768, 3072];
/// How much faster oneDNN has to be to be taken: what is nearly as fast must not be chosen by chance.
/// Measured: 1.2 to 2.1 on AMD EPYCs, at most 1.0 on Intel Xeons.
const CLEARLY: f64 = 1.1;
/// How much faster bfloat16 has to be: conversions cost, too.
const WORTH_IT: f64 = 1.1;

/// Operations per second of matrix products on this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Products {
    /// float32, by libtorch's own choice of library.
    pub float32: f64,
    /// float32, by oneDNN; 0 where it cannot be called.
    pub float32_onednn: f64,
    /// bfloat16.
    pub bfloat16: f64,
}

impl Products {
    /// Whether oneDNN multiplies float32 clearly faster than libtorch's own choice.
    pub fn takes_onednn(&self) -> bool {
        self.float32_onednn > CLEARLY * self.float32
    }

    /// The fastest float32 product.
    pub fn fastest_float32(&self) -> f64 {
        if self.takes_onednn() { self.float32_onednn } else { self.float32 }
    }

    /// Whether computing in bfloat16 is faster than in float32.
    pub fn bfloat16_pays(&self) -> bool {
        self.bfloat16 > WORTH_IT * self.fastest_float32()
    }

    fn measured() -> Result<Products> {
        let [float32, onednn, bfloat16] =
            ffi::time_products(SIZE)?.map(|seconds| 2.0 * SIZE.iter().product::<i64>() as f64 / seconds);
        Ok(Products { float32, float32_onednn: onednn, bfloat16 })
    }
}

/// What this machine's CPU does, measured at the first call ever and from then on read from the user's cache.
/// From here on libtorch's products and ours go to the faster library.
pub fn products() -> Products {
    static KNOWN: OnceLock<Products> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let file = file();
        let known = file.as_deref().and_then(|path| read(path).remove(&machine()));
        let products = known.unwrap_or_else(|| {
            let fresh = Products::measured();
            // Without a number there is nothing to prefer.
            let fresh = fresh.unwrap_or(Products { float32: 1.0, float32_onednn: 0.0, bfloat16: 0.0 });
            if let Some(path) = &file {
                keep(path, fresh);
            }
            fresh
        });
        ffi::choose_products(products.takes_onednn(), products.bfloat16_pays());
        products
    })
}

/// Whether bfloat16 is computed in bfloat16 on the CPU: where that is faster, or where a test forces it.
pub(crate) fn bfloat16_is_computed() -> bool {
    matches!(Kernels::in_force(), Ok(Kernels::Bf16 | Kernels::Plain)) || products().bfloat16_pays()
}

/// What the numbers are of.
fn machine() -> String {
    let [m, k, n] = SIZE;
    format!("{}, libtorch {LIBTORCH_VERSION}, {m} × {k} × {n}", device_name(Device::Cpu))
}

fn file() -> Option<PathBuf> {
    Some(cache_folder()?.join("products.json"))
}

/// What is known of machines that share this home; nothing where the file cannot be read.
fn read(path: &Path) -> BTreeMap<String, Products> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Adds this machine's numbers. A home that cannot be written costs a measurement in every run, nothing else.
fn keep(path: &Path, products: Products) {
    let mut all = read(path);
    all.insert(machine(), products);
    if let Ok(text) = serde_json::to_string_pretty(&all) {
        cache::keep(path, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_taken_only_when_it_is_clearly_faster() {
        let amd = Products { float32: 230e9, float32_onednn: 497e9, bfloat16: 989e9 };
        assert!(amd.takes_onednn() && amd.bfloat16_pays() && amd.fastest_float32() == 497e9);
        let intel = Products { float32: 310e9, float32_onednn: 280e9, bfloat16: 160e9 };
        assert!(!intel.takes_onednn() && !intel.bfloat16_pays() && intel.fastest_float32() == 310e9);
        let equal = Products { float32: 100e9, float32_onednn: 105e9, bfloat16: 104e9 };
        assert!(!equal.takes_onednn() && !equal.bfloat16_pays());
    }

    #[test]
    fn what_was_measured_is_kept_beside_other_machines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lnfree/products.json");
        let other = Products { float32: 1e9, float32_onednn: 0.0, bfloat16: 2e9 };
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, serde_json::to_string(&BTreeMap::from([("other", other)])).unwrap()).unwrap();
        let mine = Products::measured().unwrap();
        assert!(mine.float32 > 1e8 && mine.bfloat16 > 1e7, "{mine:?}");
        keep(&path, mine);
        assert_eq!(read(&path), BTreeMap::from([("other".to_string(), other), (machine(), mine)]));
        std::fs::write(&path, "{ no JSON").unwrap();
        assert!(read(&path).is_empty());
    }
}
