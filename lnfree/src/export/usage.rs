//! How each tool loads an export: the shortest code, for its card.

use super::{CardFacts, ExportFormat, Proof};
use crate::config::Gpt2Config;
use crate::model::Shape;

/// What the format is, and code that loads it from the folder or from the repository that it will be in.
pub(super) fn usage(format: ExportFormat, config: &Gpt2Config, proof: &Proof, facts: &CardFacts) -> String {
    let text = match format {
        ExportFormat::Identity => format!("{IDENTITY}{}", hooked(config)),
        ExportFormat::Folded => FOLDED
            .replace("LENS", &format!("{:.1e}", proof.lens))
            .replace("ATTRIBUTION", &format!("{:.1e}", proof.attribution)),
        ExportFormat::Scaled => SCALED.into(),
    };
    let place = facts.repo.as_deref().unwrap_or(".");
    text.replace("\".\"", &format!("\"{place}\""))
}

/// Code for `HookedTransformer`, which knows the shapes of the released models by their names.
fn hooked(config: &Gpt2Config) -> String {
    Shape::released(config).map_or_else(String::new, |name| HOOKED.replace("SHAPE", name))
}

const IDENTITY: &str = "\
Every LayerNorm is there, and is the identity: γ = 2¹⁵, ε = 2³⁰, β = 0. Centring is folded into the matrices that write to the
residual stream, scale and bias into those that read it; ln_f's scale is in the unembedding, which is untied, and ln_f's shift is
ln_f's bias and nowhere else. Any library's code for GPT-2 computes it, in float32, bfloat16 or float16, and direct logit attribution
and logit lenses are those of the model that it was made of. It is as good as its ε: a program that puts another one there (1e-5)
computes something else.

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(\".\")
```

```python
from transformer_lens.model_bridge import TransformerBridge  # TransformerLens 3 and 4
model = TransformerBridge.boot_transformers(\".\")
```

```python
from nnsight import LanguageModel
model = LanguageModel(\".\", dispatch=True)
```

";

const HOOKED: &str = "\
TransformerLens 2 and 3 take ε from the model of that name, so it is set again:

```python
from transformer_lens import HookedTransformer
from transformers import AutoModelForCausalLM
hf = AutoModelForCausalLM.from_pretrained(\".\")
model = HookedTransformer.from_pretrained_no_processing(\"SHAPE\", hf_model=hf)
for norm in [model.ln_final, *(norm for block in model.blocks for norm in (block.ln1, block.ln2))]:
    norm.eps = hf.config.layer_norm_epsilon
```

";

const FOLDED: &str = "\
There is no LN left: centring is folded into the matrices that write to the residual stream, scale and bias into those that read
it, and the unembedding is untied. ln_f's shift is in the bias of the last MLP: the direct logit attribution of that MLP and the
logit lens before it are not those of the model that this was made of (relative RMS differences up to ATTRIBUTION and LENS on
the tokens of the check); the format `identity` has them as they were. Skip the LNs of the architecture, or the model is another one:

```python
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(\".\")
for block in model.transformer.h:
    block.ln_1 = block.ln_2 = torch.nn.Identity()
model.transformer.ln_f = torch.nn.Identity()
```

(transformers says that LN weights are newly initialised. They are not used once these lines have run; without them they are,
and the model computes something else.)

";

const SCALED: &str = "\
LN is still there in name, with ε = 1e12 and its weights multiplied by 1e6/σ, so that it divides by a constant. It loads like any
GPT-2 and must run in float32 or bfloat16, not float16:

```python
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(\".\")
```

";
