//! (placeholder)
pub mod weights;
