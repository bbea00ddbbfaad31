//! What `native/` exports, declared here alone: build.rs makes the C++ header of it that the definitions are
//! compiled against, so that two signatures of one function do not compile. What each function does stands at
//! its definition.

use std::ffi::{c_char, c_void};

use torch_sys::C_tensor;

/// What is known of one position after some blocks of the vocabulary.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct TokenSums {
    /// Σ e^(x − top).
    pub total: f64,
    /// Σ (x − top) e^(x − top).
    pub weighted: f64,
    /// The token with the largest logit.
    pub best: i64,
    /// The largest logit.
    pub top: f32,
    /// The target's logit.
    pub target: f32,
}

const _: () = assert!(size_of::<TokenSums>() == 32 && align_of::<TokenSums>() == 8, "as in native/loops.hpp");

unsafe extern "C" {
    pub(crate) fn lnfree_last_error() -> *const c_char;
    pub(crate) fn lnfree_last_error_is_memory() -> bool;
    #[cfg(test)]
    pub(crate) fn lnfree_fail(kind: i32) -> i32;
    pub(crate) fn lnfree_set_product_precision(tf32: bool) -> i32;
    #[cfg(test)]
    pub(crate) fn lnfree_adds_up_in_bfloat16() -> i32;
    pub(crate) fn lnfree_set_allocator(settings: *const c_char) -> i32;
    #[cfg(test)]
    pub(crate) fn lnfree_allocator_settings() -> *const c_char;
    pub(crate) fn lnfree_empty_cuda_cache() -> i32;
    pub(crate) fn lnfree_pinned(x: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn lnfree_cuda_free_memory(device: i32) -> i64;
    pub(crate) fn lnfree_cuda_peak_memory(device: i32) -> i64;
    pub(crate) fn lnfree_reset_cuda_peak_memory(device: i32) -> i32;
    pub(crate) fn lnfree_kernels() -> i32;
    pub(crate) fn lnfree_best_kernels() -> i32;
    pub(crate) fn lnfree_set_kernels(level: i32) -> i32;
    pub(crate) fn lnfree_time_products(m: i64, k: i64, n: i64, seconds: *mut f64) -> i32;
    pub(crate) fn lnfree_choose_products(onednn: bool, bfloat16: bool);
    pub(crate) fn lnfree_set_gpu_kernels(
        device: i64,
        driver: *const *mut c_void,
        context: *mut c_void,
        kernels: *const *mut c_void,
        n: i32,
    ) -> i32;
    pub(crate) fn lnfree_add_logits(
        logits: *const C_tensor,
        first: i64,
        targets: *const i64,
        sums: *mut TokenSums,
    ) -> i32;
    pub(crate) fn lnfree_linear(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        weight_grad: *const C_tensor,
        bias_grad: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_product(a: *const C_tensor, b: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn lnfree_add_product(into: *mut C_tensor, a: *const C_tensor, b: *const C_tensor) -> i32;
    pub(crate) fn lnfree_gelu(x: *const C_tensor) -> *mut C_tensor;
    pub(crate) fn lnfree_causal_attention(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_sigma(x: *const C_tensor, eps: f64) -> *mut C_tensor;
    pub(crate) fn lnfree_logits_to_gradient(
        logits: *mut C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
        coefficient: f32,
        losses: *mut C_tensor,
    ) -> i32;
    pub(crate) fn lnfree_distilled_gradient(
        logits: *mut C_tensor,
        teacher: *const C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
        weight: f64,
        temperature: f64,
        coefficient: f32,
        losses: *mut C_tensor,
    ) -> i32;
    pub(crate) fn lnfree_backward(
        tensors: *const *const C_tensor,
        grads: *const *const C_tensor,
        n: i32,
    ) -> i32;
    pub(crate) fn lnfree_set_grad(parameter: *const C_tensor, grad: *const C_tensor) -> i32;
    pub(crate) fn lnfree_fused_adamw(
        parameters: *const *const C_tensor,
        grads: *const *const C_tensor,
        exp_avgs: *const *const C_tensor,
        exp_avg_sqs: *const *const C_tensor,
        step: *const C_tensor,
        n: i32,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        grad_scale: *const C_tensor,
    ) -> i32;
    pub(crate) fn lnfree_fold(
        weight: *const C_tensor,
        gain: *const C_tensor,
        beta: *const C_tensor,
        to: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_unfold(
        grad: *const C_tensor,
        weight: *const C_tensor,
        gain: *const C_tensor,
        beta: *const C_tensor,
        bias_grad: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_fake_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        std: *const C_tensor,
        bfloat16: bool,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_residual(
        x: *const C_tensor,
        branch: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        std: *const C_tensor,
        bfloat16: bool,
        observe: bool,
        eps: f64,
        out: *mut *mut C_tensor,
    ) -> i32;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_meet(
        host: *const c_char,
        port: i32,
        listener: i32,
        size: i32,
        prefix: *const c_char,
        timeout_ms: i64,
    ) -> *mut c_void;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_form_group(group: *mut c_void, rank: i32, size: i32, timeout_ms: i64) -> i32;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_leave_group(group: *mut c_void);
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_group_tell(group: *mut c_void, key: *const c_char, value: *const c_char) -> i32;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_group_hear(
        group: *mut c_void,
        key: *const c_char,
        timeout_ms: i64,
        into: *mut c_char,
        capacity: i64,
    ) -> i64;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_begin_sum(group: *mut c_void, x: *const C_tensor) -> *mut c_void;
    #[cfg(target_os = "linux")]
    pub(crate) fn lnfree_end_sum(sum: *mut c_void) -> i32;
    pub(crate) fn lnfree_gpu_logits_to_gradient(
        logits: *const C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
        weights: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_begin_reading(x: *const C_tensor) -> *mut c_void;
    pub(crate) fn lnfree_end_reading(reading: *mut c_void) -> *mut C_tensor;
    pub(crate) fn lnfree_gpu_token_stats(
        logits: *const C_tensor,
        vocab_size: i64,
        targets: *const C_tensor,
    ) -> *mut C_tensor;
    pub(crate) fn lnfree_watch_reads(on: bool) -> i32;
    pub(crate) fn lnfree_reads_seen() -> i64;
    pub(crate) fn lnfree_read_seen(i: i64) -> *const c_char;
}
