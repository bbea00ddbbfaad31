//! Writes a model folder again with its weights in float16, for `data/` to carry: half the size, the same
//! losses to 1e-4
//!
//! ```text
//! cargo run --example nano_half -- runs/demo/vanilla/checkpoints/latest data/nano_vanilla200
//! cargo run --example nano_half -- runs/demo/nano-identity data/nano_LNFree200
//! ```
//!
//! The tokenizer is left out: that of `data/nano` serves all three.

use std::path::Path;

use lnfree::model::names::{hf_names, metadata};
use lnfree::model::weights::{check_finite, read_weights, write_safetensors};
use lnfree::tch::Kind;
use lnfree::{Error, Result};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = args.as_slice() else {
        return Err(Error::invalid("usage: nano_half MODEL_FOLDER OUT_FOLDER"));
    };
    let (from, to) = (Path::new(from), Path::new(to));
    let mut weights = read_weights(from)?;
    weights.values_mut().for_each(|tensor| *tensor = tensor.to_kind(Kind::Half));
    // What is too large for float16 became infinite.
    check_finite(&weights, from)?;
    std::fs::create_dir_all(to).map_err(Error::io(to))?;
    let config = to.join("config.json");
    std::fs::copy(from.join("config.json"), &config).map_err(Error::io(&config))?;
    write_safetensors(&to.join("model.safetensors"), &hf_names(weights), &metadata())?;
    println!("{}: {} tensors in float16", to.display(), read_weights(to)?.len());
    Ok(())
}
