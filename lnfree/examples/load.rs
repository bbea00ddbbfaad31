//! Loads a model without LN and asks it what comes next: `cargo run --example load -- data/nano_LNFree200`.

#[rustfmt::skip]
mod readme {
use lnfree::prelude::*;

/// What README shows; `name` is a released model's there.
pub fn logits(name: &str) -> Result<Tensor> {
let dir = locate_model(name)?; // or a folder, or a run of your own
let loaded = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu)?;
let ids = Tensor::from_slice(&[464i64, 29598, 4269]).unsqueeze(0);
let logits = loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut NoHook)?;
Ok(logits)
}
}

fn main() -> lnfree::Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "schaeff/gpt2-small_LNFree300".into());
    let logits = readme::logits(&name)?;
    println!("logits {:?}", logits.size());
    Ok(())
}
