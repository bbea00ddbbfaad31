//! `data`, `report` and `doctor`.

use std::path::PathBuf;

use lnfree::data::{Tokenizer, locate_model};

use super::{DataCommand, ReportArgs};

fn tokenizer(dir: Option<PathBuf>) -> anyhow::Result<Tokenizer> {
    let dir = match dir {
        Some(dir) => dir,
        None => locate_model("nano")?,
    };
    Ok(Tokenizer::from_dir(dir)?)
}

pub(super) fn data(command: DataCommand) -> anyhow::Result<()> {
    todo!()
}

pub(super) fn report(args: ReportArgs) -> anyhow::Result<()> {
    lnfree::report::write_html(&args.runs, &args.evals, &args.out)?;
    println!("{}", args.out.display());
    Ok(())
}

pub(super) fn doctor() -> anyhow::Result<()> {
    let report = lnfree::doctor::report();
    print!("{report}");
    Ok(())
}
