//! `inspect`.

use clap::Args;
use lnfree::inspect::{Inspection, inspect as look_at};

use super::out::outln;

#[derive(Args)]
pub(super) struct InspectArgs {
    /// A folder, a run directory, `nano…`, or a name on the Hugging Face hub (ORG/NAME, ORG/NAME@REVISION).
    model: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn inspect(args: InspectArgs) -> anyhow::Result<()> {
    let found = look_at(&args.model)?;
    match args.json {
        true => outln!("{}", serde_json::to_string_pretty(&found)?),
        false => print(&found),
    }
    Ok(())
}

fn print(found: &Inspection) {
    outln!("{}: {}", found.model, found.what.name());
    outln!("  folder      {}", found.folder.display());
    outln!("  format      {}", found.format);
    let Inspection { n_layer, n_head, n_embd, block_size, vocab_size, .. } = found;
    outln!(
        "  shape       {n_layer} blocks, {n_head} heads, n_embd {n_embd}, {block_size} positions, {vocab_size} tokens"
    );
    outln!("  parameters  {} in {}", found.parameters, found.dtype);
    outln!("  tokenizer   {}", if found.tokenizer { "beside it" } else { "none" });
    for (at, line) in found.evidence.iter().enumerate() {
        outln!("  {:<11} {line}", if at == 0 { "evidence" } else { "" });
    }
    for (at, tool) in found.tools.iter().enumerate() {
        let sign = if tool.loads { "yes" } else { "no " };
        outln!("  {:<11} {sign} {}: {}", if at == 0 { "loads it" } else { "" }, tool.tool, tool.how);
    }
}
