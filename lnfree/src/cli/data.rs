//! `data`, `report` and `doctor`.

use std::path::Path;

use lnfree::data::{ChunkScheme, Tokenizer, info, prepare, resolve};
use lnfree::hub::locate_tokenizer;

use lnfree::report::{read_eval, results_table, write_html};

use super::{DataCommand, ReportArgs};

fn tokenizer(name: Option<String>) -> anyhow::Result<Tokenizer> {
    let dir = locate_tokenizer(name.as_deref().unwrap_or("nano"))?;
    Ok(Tokenizer::from_dir(dir)?)
}

pub(super) fn data(command: DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Prepare { source, tokenizer: name, block_size, out } => {
            let text = Path::new(&source);
            match out {
                Some(out) if text.exists() => {
                    let tokenizer = tokenizer(name)?;
                    let made = prepare(text, &tokenizer, block_size, &out, ChunkScheme::default())?;
                    println!("{}: {made}", out.display());
                }
                Some(_) => anyhow::bail!("{source}: no such text file"),
                None if text.exists() => anyhow::bail!("{source}: --out must name the token file to write"),
                None => println!("{}", resolve(&source, block_size)?.display()),
            }
        }
        DataCommand::Info { data, tokenizer: name, block_size } => {
            let path = resolve(&data, block_size)?;
            println!("{}", info(&path, Some(&tokenizer(name)?))?);
        }
    }
    Ok(())
}

pub(super) fn report(args: ReportArgs) -> anyhow::Result<()> {
    if !args.evals.is_empty() {
        let rows = args.evals.iter().map(|file| read_eval(file)).collect::<lnfree::Result<Vec<_>>>()?;
        println!("{}", results_table(&rows).to_text());
    }
    write_html(&args.runs, &args.evals, &args.out)?;
    println!("report: {}", args.out.display());
    Ok(())
}

pub(super) fn doctor() -> anyhow::Result<()> {
    let checks = lnfree::doctor::report();
    println!("{}", lnfree::doctor::table(&checks));
    anyhow::ensure!(lnfree::doctor::healthy(&checks), "something that lnfree needs is missing, see above");
    Ok(())
}
