//! The functions of `native/`, made safe.

use tch::{Device, Kind, Tensor};

use crate::{Error, Result};

/// What [`token_stats`] says of a token, in this order.
pub(crate) const TOKEN_STATS: usize = 4;

unsafe extern "C" {
    fn lnfree_token_stats_float32(
        logits: *const f32,
        n_rows: i64,
        n_cols: i64,
        stride: i64,
        targets: *const i64,
        out: *mut f32,
    );
    fn lnfree_token_stats_bfloat16(
        logits: *const u16,
        n_rows: i64,
        n_cols: i64,
        stride: i64,
        targets: *const i64,
        out: *mut f32,
    );
    fn lnfree_allow_tf32(allow: bool) -> i32;
    fn lnfree_cuda_free_memory(device: i32) -> i64;
    fn lnfree_cuda_peak_memory(device: i32) -> i64;
    fn lnfree_reset_cuda_peak_memory(device: i32) -> i32;
}

/// Cross-entropy, entropy (nats), the largest probability, and whether the target has it (1 or 0) for each row of logits.
///
/// `logits` float32 or bfloat16 `[n, vocab_size]` on the CPU, rows without gaps; `targets` `n` ids. Result float32
/// `[n, 4]` as a flat vector.
///
/// # Errors
/// Logits of another type, shape or device, or targets outside the vocabulary.
pub(crate) fn token_stats(logits: &Tensor, targets: &[i64], threads: usize) -> Result<Vec<f32>> {
    let (kind, size, stride) = (logits.kind(), logits.size(), logits.stride());
    if !matches!(kind, Kind::Float | Kind::BFloat16) {
        return Err(Error::invalid(format!("logits must be float32 or bfloat16, not {kind:?}")));
    }
    let &[n, vocab_size] = size.as_slice() else {
        return Err(Error::invalid(format!("logits must be [n, vocab_size], not {size:?}")));
    };
    let fits = n as usize == targets.len() && targets.iter().all(|t| (0..vocab_size).contains(t));
    if !fits || stride[1] != 1 || logits.device() != Device::Cpu {
        return Err(Error::invalid("logits and targets do not belong together"));
    }
    let mut out = vec![0.0; targets.len() * TOKEN_STATS];
    let per_thread = targets.len().div_ceil(threads.max(1)).max(1);
    let (base, stride) = (logits.data_ptr() as usize, stride[0]);
    std::thread::scope(|scope| {
        let parts = targets.chunks(per_thread).zip(out.chunks_mut(per_thread * TOKEN_STATS));
        for (i, (targets, out)) in parts.enumerate() {
            let first = i as i64 * per_thread as i64 * stride;
            let mut work = move || rows(kind, base, first, vocab_size, stride, targets, out);
            // The last part is this thread's own.
            if (i + 1) * per_thread >= n as usize { work() } else { drop(scope.spawn(work)) }
        }
    });
    Ok(out)
}

/// [`token_stats`] of the rows from element `first` on of the logits at address `base`.
fn rows(kind: Kind, base: usize, first: i64, n_cols: i64, stride: i64, targets: &[i64], out: &mut [f32]) {
    let (n, targets, out) = (targets.len() as i64, targets.as_ptr(), out.as_mut_ptr());
    // SAFETY: the caller holds the tensor, whose rows and columns these are; targets were checked; out has 4 floats a row.
    unsafe {
        match kind {
            Kind::Float => {
                let logits = (base as *const f32).offset(first as isize);
                lnfree_token_stats_float32(logits, n, n_cols, stride, targets, out);
            }
            _ => {
                let logits = (base as *const u16).offset(first as isize);
                lnfree_token_stats_bfloat16(logits, n, n_cols, stride, targets, out);
            }
        }
    }
}

/// Lets float32 matrix products on a GPU round their factors to TF32, or forbids it.
///
/// # Errors
/// When libtorch refuses.
pub(crate) fn allow_tf32(allow: bool) -> Result<()> {
    // SAFETY: sets one flag, and catches what libtorch may throw.
    match unsafe { lnfree_allow_tf32(allow) } {
        0 => Ok(()),
        _ => Err(Error::Torch("TF32 cannot be set".into())),
    }
}

/// Bytes of a CUDA device that nobody holds.
pub(crate) fn cuda_free_memory(device: usize) -> Option<u64> {
    // SAFETY: reads counters, and catches what libtorch may throw.
    u64::try_from(unsafe { lnfree_cuda_free_memory(i32::try_from(device).ok()?) }).ok()
}

/// The most bytes of a CUDA device that tensors held at once since [`reset_cuda_peak_memory`].
pub(crate) fn cuda_peak_memory(device: usize) -> Option<u64> {
    // SAFETY: as above.
    u64::try_from(unsafe { lnfree_cuda_peak_memory(i32::try_from(device).ok()?) }).ok()
}

/// Starts the count of [`cuda_peak_memory`] anew.
pub(crate) fn reset_cuda_peak_memory(device: usize) {
    if let Ok(device) = i32::try_from(device) {
        // SAFETY: as above. A count that cannot be reset only goes on.
        let _ = unsafe { lnfree_reset_cuda_peak_memory(device) };
    }
}
