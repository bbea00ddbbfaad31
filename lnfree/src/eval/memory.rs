//! How much is computed at a time.

use tch::Device;

use crate::config::FloatType;
use crate::device::available_memory;
use crate::model::Gpt2Config;

/// Bytes of a chunk of logits on a CPU: it is read again at once, and should still be in the last cache then.
const CPU_LOGITS: u64 = 48 << 20;
/// The same on a GPU, where large pieces keep it busy.
const CUDA_LOGITS: u64 = 1 << 30;
/// Copies of a chunk of logits that are there at once on a GPU.
const CUDA_COPIES: u64 = 4;
/// float32 numbers per position and model dimension that a block keeps alive at its widest place: the residual stream and its
/// norm, queries, keys and values, and the MLP's 4 · n_embd before and after its activation.
const LIVE_PER_EMBD: u64 = 16;

/// Positions whose logits are made at a time.
pub(super) fn logit_rows(config: &Gpt2Config, device: Device) -> usize {
    let row = 4 * config.vocab_size.max(1) as u64;
    let bytes = match device {
        Device::Cpu => CPU_LOGITS,
        _ => CUDA_LOGITS.min(available_memory(device).map_or(CUDA_LOGITS, |free| free / (2 * CUDA_COPIES))),
    };
    (bytes / row).clamp(16, 65536) as usize
}

/// Sequences of `len` tokens that half of the free memory holds the activations of.
pub(super) fn sequences_at_a_time(
    config: &Gpt2Config,
    len: usize,
    device: Device,
    dtype: FloatType,
) -> usize {
    let bytes = if dtype == FloatType::Bfloat16 { 3 } else { 4 };
    let sequence = LIVE_PER_EMBD * bytes * len.max(1) as u64 * config.n_embd.max(1) as u64;
    let free = available_memory(device).unwrap_or(u64::MAX);
    usize::try_from(free / 2 / sequence).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_stay_small_and_sequences_few() {
        let xl = Gpt2Config::new(48, 25, 1600, 1024, 50257).unwrap();
        let rows = logit_rows(&xl, Device::Cpu);
        assert!((16..1024).contains(&rows), "{rows}");
        assert!(sequences_at_a_time(&xl, 1024, Device::Cpu, FloatType::Float32) >= 1);
        let huge = Gpt2Config { vocab_size: 1 << 40, n_embd: 1 << 40, ..xl };
        assert_eq!(logit_rows(&huge, Device::Cpu), 16);
        assert_eq!(sequences_at_a_time(&huge, 1024, Device::Cpu, FloatType::Bfloat16), 1);
    }
}
