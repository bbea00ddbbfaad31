//! What loads a model, a line for each tool.

use serde::Serialize;

use super::What;
use crate::config::Gpt2Config;
use crate::model::Shape;

/// A tool, and how it loads the model or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tool {
    /// Its name, with the versions meant.
    pub tool: &'static str,
    /// Whether its usual line computes the model.
    pub loads: bool,
    /// That line, or what is wrong with it.
    pub how: String,
}

const TRANSFORMERS: &str = "transformers";
const BRIDGE: &str = "TransformerLens 3 and 4, TransformerBridge";
const HOOKED: &str = "TransformerLens 2 and 3, HookedTransformer";
const NNSIGHT: &str = "nnsight";

/// What loads a model that is `what`.
pub(super) fn of(what: What, config: &Gpt2Config) -> Vec<Tool> {
    let mut tools = vec![lnfree(what)];
    match what {
        What::Original | What::Vanilla | What::WithLn | What::Identity => {
            tools.extend(usual(""));
            tools.push(hooked(what, config));
        }
        What::Scaled => {
            tools.extend(usual(", in float32 or bfloat16, not float16"));
            tools.push(hooked(what, config));
        }
        What::Folded => tools.extend(without(
            "makes LNs anew, without an error: replace them by torch.nn.Identity, or lnfree export to `identity`",
        )),
        What::Checkpoint => tools.extend(without("computes real LNs: lnfree export to `identity`")),
        What::HalfRemoved => tools.extend(without("computes real LNs in all places; it is for lnfree train")),
        What::WrittenOver => tools.extend(without("computes something else, without an error")),
    }
    tools
}

fn lnfree(what: What) -> Tool {
    let how = match what {
        What::WrittenOver => "says what is wrong with its config.json",
        _ => "eval, generate, LoadedModel::load",
    };
    Tool { tool: "lnfree", loads: what != What::WrittenOver, how: how.into() }
}

/// The tools that run transformers' own code.
fn usual(limits: &str) -> [Tool; 3] {
    let lines = [
        (TRANSFORMERS, "AutoModelForCausalLM.from_pretrained(FOLDER)"),
        (BRIDGE, "TransformerBridge.boot_transformers(FOLDER)"),
        (NNSIGHT, "LanguageModel(FOLDER, dispatch=True)"),
    ];
    lines.map(|(tool, line)| Tool { tool, loads: true, how: format!("{line}{limits}") })
}

/// It has its own LNs, takes their ε from the released model of the name that it is given, and knows no other
/// shapes than those.
fn hooked(what: What, config: &Gpt2Config) -> Tool {
    let name = Shape::released(config);
    let has_ln = matches!(what, What::Original | What::Vanilla | What::WithLn);
    let how = match (name, has_ln) {
        (Some(name), true) => format!("HookedTransformer.from_pretrained(\"{name}\", hf_model=MODEL)"),
        (Some(name), false) => format!(
            "from_pretrained_no_processing(\"{name}\", hf_model=MODEL) puts another ε there: set each LN's eps to {:e} again",
            config.layer_norm_epsilon
        ),
        (None, _) => "knows no released model of this shape and vocabulary".into(),
    };
    Tool { tool: HOOKED, loads: name.is_some() && has_ln, how }
}

/// Nothing but lnfree computes it.
fn without(why: &str) -> [Tool; 4] {
    [TRANSFORMERS, BRIDGE, NNSIGHT, HOOKED].map(|tool| Tool { tool, loads: false, how: why.into() })
}
