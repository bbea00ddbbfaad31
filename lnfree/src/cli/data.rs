//! `data`, `report` and `doctor`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use lnfree::data::{DatasetOptions, Provenance, Tokenizer, copy_prepared, info, prepare_text, resolve_with};
use lnfree::hub::locate_tokenizer;
use lnfree::output::{check_apart, check_file, keep_file};
use lnfree::report::{read_eval, results_table, write_html};

use super::out::outln;

#[derive(Subcommand)]
pub(super) enum DataCommand {
    /// Tokenize a text file or data set and cut it into sequences.
    Prepare {
        /// A text file (Parquet, Arrow, jsonl, jsonl.zst, txt), the name of a data set, or ORG/NAME on the
        /// hub.
        source: String,
        /// Sequences at most, of a data set on the hub; of the Pile's also the rows that are read.
        #[arg(short = 'n', long, default_value_t = 10_000)]
        n_sequences: usize,
        /// Tokenizer, a folder or a name on the hub; by default GPT-2's, and for the embedded texts their
        /// own.
        #[arg(long)]
        tokenizer: Option<String>,
        /// Tokens in a sequence; by default 1024, of the embedded texts 128.
        #[arg(long)]
        block_size: Option<usize>,
        /// Token file to write; by default in the cache, and its path is printed.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Counts, id range, a decoded sample and the provenance of a token file or data set.
    Info {
        /// A token file, a text, or the name of a data set.
        data: String,
        /// Sequences at most, where a data set is prepared on first use.
        #[arg(short = 'n', long, default_value_t = 10_000)]
        n_sequences: usize,
        /// Tokenizer to decode the sample with, a folder or a name on the hub; by default the one that the
        /// tokens were made with, if that is known, else that of the embedded model.
        #[arg(long)]
        tokenizer: Option<String>,
        /// Tokens in a sequence, where a data set is cut on first use; by default 1024, of nano's texts 128.
        #[arg(long)]
        block_size: Option<usize>,
    },
}

#[derive(Args)]
pub(super) struct ReportArgs {
    /// Run directories.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Files that `eval --json` wrote, for the results table.
    #[arg(long = "eval", value_name = "FILE", num_args = 1..)]
    evals: Vec<PathBuf>,
    /// The page to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// What to do where GPT-2's tokenizer is out of reach and no other was asked for.
const NO_TOKENIZER: &str =
    "text is tokenized with GPT-2's tokenizer unless --tokenizer names another one (nano, or a folder)";

/// Tokens in a sequence of the embedded data sets, and of all others.
const BLOCK_SIZES: (usize, usize) = (128, 1024);

fn load_tokenizer(name: &str) -> lnfree::Result<Tokenizer> {
    Tokenizer::from_dir(locate_tokenizer(name)?)
}

fn options(name: &str, n: usize, tokenizer: Option<String>, block_size: Option<usize>) -> DatasetOptions {
    let default = if name.starts_with("nano-") { BLOCK_SIZES.0 } else { BLOCK_SIZES.1 };
    let block_size = block_size.unwrap_or(default);
    DatasetOptions { max_sequences: n, tokenizer, ..DatasetOptions::new(block_size) }
}

/// Names --tokenizer where the hub could not be asked for GPT-2's.
fn with_hint<T>(result: lnfree::Result<T>, options: &DatasetOptions) -> anyhow::Result<T> {
    let asked_for_gpt2 = |error: &lnfree::Error| {
        let said = error.to_string();
        options.tokenizer.is_none() && ["gpt2: ", "model gpt2: "].iter().any(|start| said.starts_with(start))
    };
    result.map_err(|error| match asked_for_gpt2(&error) {
        true => anyhow::anyhow!("{error}; {NO_TOKENIZER}"),
        false => error.into(),
    })
}

pub(super) fn data(command: DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Prepare { source, n_sequences, tokenizer, block_size, out } => {
            let options = options(&source, n_sequences, tokenizer, block_size);
            let Some(out) = out else {
                outln!("{}", with_hint(resolve_with(&source, &options), &options)?.display());
                return Ok(());
            };
            check_file("--out", &out)?;
            check_apart(&[named("--out", &out)], &[named("the source", Path::new(&source))])?;
            if Path::new(&source).exists() {
                let tokenizer = options.tokenizer.as_deref().unwrap_or("gpt2");
                let made = prepare_text(Path::new(&source), tokenizer, options.block_size, &out);
                let made = with_hint(made, &options)?;
                outln!("{}: {made}", out.display());
            } else {
                let prepared = with_hint(resolve_with(&source, &options), &options)?;
                copy_prepared(&prepared, &out).with_context(|| {
                    format!("what was prepared is in {} all the same", prepared.display())
                })?;
                outln!("{}", out.display());
            }
        }
        DataCommand::Info { data, n_sequences, tokenizer, block_size } => {
            let options = options(&data, n_sequences, tokenizer.clone(), block_size);
            let path = with_hint(resolve_with(&data, &options), &options)?;
            let provenance = Provenance::of(&path);
            let tokenizer = match (tokenizer, &provenance) {
                (Some(name), _) => Some(load_tokenizer(&name)?),
                // Counts need none, and it may be out of reach by now.
                (None, Some(made)) => load_tokenizer(&made.request.tokenizer).ok(),
                (None, None) => None,
            };
            // Where nothing tells, nano's is a guess, which ids beyond its vocabulary show to be none.
            let guess =
                if tokenizer.is_none() && provenance.is_none() { load_tokenizer("nano").ok() } else { None };
            let guessed = guess.and_then(|nano| info(&path, Some(&nano)).ok());
            outln!("{}", guessed.map_or_else(|| info(&path, tokenizer.as_ref()), Ok)?);
            if let Some(made) = provenance {
                outln!("{made}");
            }
        }
    }
    Ok(())
}

fn named(option: &str, path: &Path) -> (String, PathBuf) {
    (option.into(), path.into())
}

pub(super) fn report(args: ReportArgs) -> anyhow::Result<()> {
    check_file("--out", &args.out)?;
    let mut inputs: Vec<_> = args.evals.iter().map(|path| named("--eval", path)).collect();
    for files in args.runs.iter().filter_map(|run| std::fs::read_dir(run).ok()) {
        let files = files.flatten().map(|file| file.path()).filter(|path| !path.ends_with("report.html"));
        inputs.extend(files.map(|path| named("a run", &path)));
    }
    check_apart(&[named("--out", &args.out)], &inputs)?;
    keep_file(&args.out, |path| write_html(&args.runs, &args.evals, path)).here()?;
    if !args.evals.is_empty() {
        let rows = args.evals.iter().map(read_eval).collect::<lnfree::Result<Vec<_>>>()?;
        outln!("{}", results_table(&rows).to_text());
    }
    outln!("report: {}", args.out.display());
    Ok(())
}

pub(super) fn doctor() -> anyhow::Result<()> {
    let checks = lnfree::doctor::report();
    outln!("{}", lnfree::doctor::table(&checks));
    outln!("{}", lnfree::doctor::LAST_WORD);
    anyhow::ensure!(lnfree::doctor::healthy(&checks), "something that lnfree needs is missing, see above");
    Ok(())
}
