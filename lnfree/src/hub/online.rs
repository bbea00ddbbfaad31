//! The Hugging Face hub itself: its answers, its cache, downloads and uploads.

mod address;
#[doc(hidden)]
pub mod answers;
mod cache;
mod client;
mod dataset;
mod download;
mod failure;
mod fetch;
mod progress;
mod push;
mod remote;
mod repositories;
mod settings;

pub(crate) use address::without_secrets;
pub use dataset::DatasetRepo;
pub use push::{PushOptions, Pushed, push};
pub use remote::RemoteFile;
pub use repositories::{Hub, dataset, model, tokenizer};
pub use settings::{Settings, Token};
