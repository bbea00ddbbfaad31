//! Who makes the host wait for a device.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Result;
use crate::base::ffi::check;
use crate::base::ffi::symbols::*;

/// One thread is watched at a time.
static WATCHED: Mutex<()> = Mutex::new(());

/// A watch over this thread, and the backwards that it starts, for operations of libtorch that read numbers
/// of a device, until it is dropped. Where all is on a CPU it goes by what the operations are called with,
/// see native/reads.cpp.
pub(crate) struct ReadWatch {
    _alone: MutexGuard<'static, ()>,
    stays_here: PhantomData<*const ()>,
}

impl ReadWatch {
    /// Begins.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub(crate) fn begin() -> Result<ReadWatch> {
        let alone = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: sets a callback of this thread.
        check(unsafe { lnfree_watch_reads(true) })?;
        Ok(ReadWatch { _alone: alone, stays_here: PhantomData })
    }

    /// The operations so far.
    pub(crate) fn seen(&self) -> Vec<String> {
        // SAFETY: C strings that stay until the next watch begins, which is not before this one is dropped.
        let name = |i| unsafe { CStr::from_ptr(lnfree_read_seen(i)) }.to_string_lossy().into_owned();
        // SAFETY: reads a count.
        (0..unsafe { lnfree_reads_seen() }).map(name).collect()
    }
}

impl Drop for ReadWatch {
    fn drop(&mut self) {
        let _ = self.stays_here;
        // SAFETY: takes the callback of this thread away.
        let _ = unsafe { lnfree_watch_reads(false) };
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind, Tensor};

    use super::*;

    fn seen(work: impl FnOnce(&Tensor)) -> Vec<String> {
        let x = Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
        let watch = ReadWatch::begin().unwrap();
        work(&x);
        watch.seen()
    }

    #[test]
    fn what_reads_numbers_is_seen_and_nothing_else() {
        assert_eq!(seen(|x| assert_eq!(x.double_value(&[1, 1]), 1.0)), ["aten::_local_scalar_dense"]);
        assert_eq!(seen(|x| drop(x.to_device(Device::Cpu))), ["aten::to"]);
        assert_eq!(seen(|x| drop(x.nonzero())), ["aten::nonzero"]);
        assert_eq!(seen(|x| drop(x.masked_select(&x.gt(0.5)))).first().unwrap(), "aten::masked_select");
        let computed = |x: &Tensor| {
            let x = x.to_kind(Kind::BFloat16).set_requires_grad(true);
            let y = (x.matmul(&x.tr()) * 2.0).to_kind(Kind::Double).sum(Kind::Float);
            y.backward();
            drop(x.grad().narrow(1, 0, 2).masked_fill(&x.narrow(1, 0, 2).gt(0.5), 0.0));
        };
        assert!(seen(computed).is_empty());
        // Other threads are their own business.
        let elsewhere = || Tensor::ones([1], (Kind::Float, Device::Cpu)).double_value(&[0]);
        assert!(seen(|_| assert_eq!(std::thread::spawn(elsewhere).join().unwrap(), 1.0)).is_empty());
    }
}
