//! `selftest`.

use std::path::PathBuf;

use clap::Args;
use lnfree::Error;
use lnfree::atomic::write_text;
use lnfree::selftest::{Comparison, SelfTestOptions, selftest};

use super::DeviceArgs;
use super::out::outln;

#[derive(Args)]
pub(super) struct SelfTestArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Write all comparisons as one JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the first training steps.
    #[arg(long)]
    quick: bool,
    /// Falsify one number of every comparison with this in its name, to see that it is found.
    #[arg(long, value_name = "NAME", hide = true)]
    fault: Option<String>,
}

pub(super) fn run(args: SelfTestArgs) -> anyhow::Result<()> {
    let device = args.device.device()?;
    if let Some(path) = &args.json {
        // Before the work, which takes a while.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::file(path, format!("{} is no folder", folder.display())).into());
        }
    }
    outln!("{}", Comparison::HEAD);
    let options = SelfTestOptions { quick: args.quick, fault: args.fault };
    let test = selftest(device, &options, |comparison| outln!("{}", comparison.line()))?;
    outln!("{}", test.verdict());
    if let Some(path) = &args.json {
        write_text(path, &serde_json::to_string_pretty(&test)?)?;
    }
    anyhow::ensure!(test.passed(), "{} comparisons of the self-test failed, see above", test.failed());
    Ok(())
}
