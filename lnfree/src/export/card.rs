//! The card of an exported model.

use std::fmt::Write as _;
use std::path::Path;

use super::{ExportFormat, Proof};
use crate::config::norm::ln_names;
use crate::eval::EvalRecord;
use crate::hub::full_name;
use crate::model::Gpt2;
use crate::{Error, Result};

/// What the card says about where the model comes from.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardFacts {
    /// Title of the card.
    pub name: String,
    /// The model that was fine-tuned.
    pub base_model: String,
    /// Training data.
    pub data: String,
    /// Optimizer steps of fine-tuning.
    pub steps: usize,
    /// Where it will be on the Hugging Face hub, `ORG/NAME`, which the card's code then loads it from.
    pub repo: Option<String>,
    /// What evaluations of the checkpoint came to.
    pub evaluations: Vec<EvalRecord>,
}

/// Writes `README.md`, the model card.
pub(super) fn write_card(
    model: &Gpt2,
    format: ExportFormat,
    stds: &[f64],
    proof: &Proof,
    facts: &CardFacts,
    dir: &Path,
) -> Result<()> {
    let (tag, use_it) = match format {
        ExportFormat::Scaled => ("scaled", loaded_from(SCALED_USE, facts)),
        ExportFormat::Folded => ("folded", loaded_from(FOLDED_USE, facts)),
    };
    let mut text = format!("{}# {}: GPT-2 without LayerNorm ({tag})\n\n", front_matter(facts), facts.name);
    let config = &model.config;
    let _ = writeln!(
        text,
        "Made by [lnfree](https://arxiv.org/abs/2507.02559) {} from `{}`: its LayerNorms were taken out one at a time during {} \
         steps of fine-tuning on {}.\n\n{} blocks, {} heads, n_embd {}, {} positions, {} tokens, {} parameters.\n\n{use_it}",
        env!("CARGO_PKG_VERSION"),
        facts.base_model,
        facts.steps,
        facts.data,
        config.n_layer,
        config.n_head,
        config.n_embd,
        config.block_size,
        config.vocab_size,
        model.n_parameters(),
    );
    let _ = writeln!(
        text,
        "## Check\n\nLogits of this export against the training checkpoint, {} of them, float32: largest difference {:.1e}, relative \
         RMS {:.1e}.\n\n## Constants that took the place of each standard deviation\n\n| LN | σ |\n|---|---|",
        proof.n_logits, proof.max_abs, proof.relative_rms
    );
    for (name, std) in ln_names(model.h.len()).iter().zip(stds) {
        let _ = writeln!(text, "| {name} | {std:.6} |");
    }
    text += &evaluations(&facts.evaluations);
    let path = dir.join("README.md");
    std::fs::write(&path, text).map_err(Error::io(&path))
}

/// A table of losses, and one of distances where they were measured; empty without evaluations.
fn evaluations(records: &[EvalRecord]) -> String {
    let mut text = String::new();
    if !records.is_empty() {
        text += "\n## Evaluation\n\nCross-entropy in nats per token with its 95% interval over sequences, and expected calibration error.\n\n\
                 | data | sequences | loss | 95% interval | calibration error |\n|---|---:|---:|---:|---:|\n";
    }
    for record in records {
        let ([low, high], name) = (record.mean_interval, &record.dataset);
        let (n, mean, error) = (record.n_sequences, record.summary.mean, record.calibration_error);
        let _ = writeln!(text, "| {name} | {n} | {mean:.4} | {low:.4} to {high:.4} | {error:.4} |");
    }
    let mut distances =
        records.iter().filter_map(|r| Some((&r.dataset, r.faithfulness.as_ref()?))).peekable();
    if distances.peek().is_some() {
        text += "\nHow far its predictions lie from another model's: KL(that ‖ this) and Jensen–Shannon divergence in nats per token, \
                 with 95% intervals, and the share of tokens on which both find the same most likely.\n\n\
                 | data | from | KL | JSD | same top token |\n|---|---|---:|---:|---:|\n";
    }
    for (name, found) in distances {
        let ([kl_low, kl_high], [jsd_low, jsd_high]) = (found.kl_interval, found.jsd_interval);
        let _ = writeln!(
            text,
            "| {name} | {} | {:.4} ({kl_low:.4} to {kl_high:.4}) | {:.4} ({jsd_low:.4} to {jsd_high:.4}) | {:.1}% |",
            found.reference,
            found.kl,
            found.jsd,
            100.0 * found.agreement
        );
    }
    text
}

/// What the hub reads of a card.
fn front_matter(facts: &CardFacts) -> String {
    // It refuses a card whose base model it does not know.
    let base = full_name(&facts.base_model).map_or_else(String::new, |id| format!("base_model: {id}\n"));
    format!("---\nlibrary_name: transformers\ntags: [gpt2, lnfree, interpretability]\n{base}---\n\n")
}

/// The lines of code, for the folder they lie in or the repository they will be in.
fn loaded_from(text: &str, facts: &CardFacts) -> String {
    let place = facts.repo.as_deref().unwrap_or(".");
    text.replace("from_pretrained(\".\")", &format!("from_pretrained(\"{place}\")"))
}

const SCALED_USE: &str = "\
LN is still there in name, with ε = 1e12 and its weights multiplied by 1e6/σ, so that it divides by a constant. It loads like any
GPT-2 and must run in float32 or bfloat16, not float16:

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(\".\")
```

";

const FOLDED_USE: &str = "\
There is no LN left: centring is folded into the matrices that write to the residual stream, scale and bias into those that read
it, and the unembedding is untied. Skip the LNs of the architecture:

```python
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(\".\")
for block in model.transformer.h:
    block.ln_1 = block.ln_2 = torch.nn.Identity()
model.transformer.ln_f = torch.nn.Identity()
```

(transformers says that LN weights are newly initialised; they are not used.)

";
