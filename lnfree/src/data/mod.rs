//! Token files, text files, tokenizers and the order in which training sees its data.

pub mod prepare;
pub mod text;
pub mod tokenizer;
pub mod tokens;

pub use tokens::TokenFile;
