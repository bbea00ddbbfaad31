//! (placeholder)
pub mod hf_config;
pub mod weights;
