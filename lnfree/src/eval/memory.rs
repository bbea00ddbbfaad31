//! How much is computed at a time.

use tch::Device;

use crate::base::device::{available_memory, has_cpu_kernels};
use crate::config::FloatType;
use crate::model::Gpt2Config;

/// Logits that are made at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Positions.
    pub rows: usize,
    /// Tokens of the vocabulary; a GPU always takes all of them.
    pub tokens: usize,
}

/// On a CPU: enough rows to share the cost of reading the unembedding, and 16 MiB of logits, which the last
/// cache still has when they are read again at once.
const CPU_CHUNK: Chunk = Chunk { rows: 2048, tokens: 2048 };
/// Bytes of logits at a time on a GPU, where large pieces keep it busy.
const CUDA_LOGITS: u64 = 1 << 30;
/// Copies of them that are there at once.
const CUDA_COPIES: u64 = 4;
/// float32 numbers per position and model dimension that a block keeps alive at its widest place: the
/// residual stream and its norm, queries, keys and values, and the MLP's 4 · n_embd before and after its
/// activation.
const LIVE_PER_EMBD: u64 = 16;

/// Logits that are made at a time.
pub(super) fn chunk(config: &Gpt2Config, device: Device) -> Chunk {
    if has_cpu_kernels(device) {
        return CPU_CHUNK;
    }
    let row = 4 * config.vocab_size.max(1) as u64;
    let bytes =
        available_memory(device).map_or(CUDA_LOGITS, |free| CUDA_LOGITS.min(free / (2 * CUDA_COPIES)));
    Chunk { rows: (bytes / row).clamp(16, 65536) as usize, tokens: config.vocab_size as usize }
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
    fn at_least_one_sequence_is_computed() {
        let xl = Gpt2Config::new(48, 25, 1600, 1024, 50257).unwrap();
        assert!(sequences_at_a_time(&xl, 1024, Device::Cpu, FloatType::Float32) >= 1);
        let huge = Gpt2Config { vocab_size: 1 << 40, n_embd: 1 << 40, ..xl };
        assert_eq!(sequences_at_a_time(&huge, 1024, Device::Cpu, FloatType::Bfloat16), 1);
    }
}
