//! (placeholder)
pub struct TokenFile;
