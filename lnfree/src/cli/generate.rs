//! `generate`.

use std::path::Path;

use clap::Args;
use lnfree::data::Tokenizer;
use lnfree::generate::{Generator, SampleOptions};
use lnfree::hub::locate_tokenizer;
use lnfree::model::{GenerationConfig, LoadOptions, LoadedModel};

use super::DeviceArgs;
use super::out::{is_closed, out};

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// The tokenizer, where the model's folder has none or another is wanted: a folder, `nano`, or a name on
    /// the hub.
    #[arg(long, value_name = "DIR|NAME")]
    tokenizer: Option<String>,
    /// Text to continue; without it the text begins after the begin-of-text token.
    #[arg(short, long, default_value = "")]
    prompt: String,
    /// Tokens to add at most. This and what follows go before the model's generation_config.json. [default:
    /// 100]
    // -n means sequences elsewhere; as it was before, it is still understood.
    #[arg(long, short_alias = 'n')]
    max_new_tokens: Option<usize>,
    /// 0 always takes the most likely token. [default: 0.8]
    #[arg(short, long)]
    temperature: Option<f64>,
    /// Draw from the k most likely tokens; 0 from all. [default: 40]
    #[arg(short = 'k', long)]
    top_k: Option<usize>,
    /// Draw from the most likely tokens that together have this probability. [default: 1, from all]
    #[arg(long)]
    top_p: Option<f64>,
    /// Make tokens that the text has less likely; 1 does not. [default: 1]
    #[arg(long)]
    repetition_penalty: Option<f64>,
    /// The same seed gives the same text.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    /// Load weights with NaN or infinities all the same.
    #[arg(long)]
    allow_non_finite: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl GenerateArgs {
    /// What is asked for here, then what the model's folder says, then the defaults.
    fn options(&self, config: &GenerationConfig, n_prompt: usize) -> SampleOptions {
        let said = SampleOptions::of(config, n_prompt);
        // Who says what to draw from wants to draw.
        let draws = self.top_k.is_some() || self.top_p.is_some();
        let temperature = match said.temperature == 0.0 && draws {
            true => config.temperature.filter(|&t| t > 0.0).unwrap_or(SampleOptions::default().temperature),
            false => said.temperature,
        };
        SampleOptions {
            max_new_tokens: self.max_new_tokens.unwrap_or(said.max_new_tokens),
            temperature: self.temperature.unwrap_or(temperature),
            top_k: self.top_k.unwrap_or(said.top_k),
            top_p: self.top_p.unwrap_or(said.top_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(said.repetition_penalty),
            seed: self.seed,
            ..said
        }
    }
}

pub(super) fn generate(args: GenerateArgs) -> anyhow::Result<()> {
    // What cannot be is said before a model is loaded.
    args.options(&GenerationConfig::default(), 0).check()?;
    let device = args.device.device()?;
    let dir = lnfree::checkpoint::locate_model(&args.model)?;
    let tokenizer = tokenizer(&args, &dir)?;
    let load = LoadOptions { device, allow_non_finite: args.allow_non_finite, ..LoadOptions::default() };
    let loaded = LoadedModel::load_with(&dir, load)?;
    let config = loaded.generation_config()?;
    if !config.unused.is_empty() {
        crate::panics::warn(&format!("{}: not used: {}", config.path.display(), config.unused.join(", ")));
    }
    let mut prompt = tokenizer.encode(&args.prompt)?;
    if prompt.is_empty() {
        let begin = config.bos_token_id.and_then(|id| u32::try_from(id).ok());
        prompt.push(begin.unwrap_or_else(|| tokenizer.eot_id()));
    }
    let options = args.options(&config, prompt.len());
    let generator = Generator::new(&loaded.model, &loaded.ln, args.dtype)?
        .ending_at(&config.eos_token_ids)
        .tokens_of(&tokenizer);
    write_text(&args.prompt, &tokenizer, |on_token| Ok(generator.generate(&prompt, options, on_token)?))
}

/// The one asked for, or else the model's own.
fn tokenizer(args: &GenerateArgs, dir: &Path) -> anyhow::Result<Tokenizer> {
    let named = args.tokenizer.as_ref().map(|name| locate_tokenizer(name)).transpose()?;
    let found = Tokenizer::from_dir(named.as_deref().unwrap_or(dir));
    match (found, &named) {
        (Err(error), None) => anyhow::bail!("{error}; --tokenizer names another"),
        (found, _) => Ok(found?),
    }
}

/// Writes the prompt, and what follows as it comes.
fn write_text(
    prompt: &str,
    tokenizer: &Tokenizer,
    generate: impl FnOnce(&mut dyn FnMut(u32) -> bool) -> anyhow::Result<Vec<u32>>,
) -> anyhow::Result<()> {
    let mut all = tokenizer.encode(prompt)?;
    let mut printed = prompt.len();
    out!("{prompt}");
    // Decoding everything anew keeps characters whole that several tokens make together.
    let mut failure = None;
    let ended = generate(&mut |id| {
        all.push(id);
        let mut step = || -> anyhow::Result<()> {
            let text = tokenizer.decode(&all)?;
            if let Some(new) = text.get(printed..).filter(|t| !t.ends_with('\u{FFFD}')) {
                out!("{new}");
                printed = text.len();
            }
            Ok(())
        };
        failure = step().err();
        failure.is_none() && !is_closed()
    });
    // What there is of the text stands on a line of its own, whatever ended it.
    out!("\n");
    ended?;
    failure.map_or(Ok(()), Err)
}
