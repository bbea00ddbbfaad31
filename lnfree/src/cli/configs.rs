//! `config` and `schedule`.

use clap::{Args, Subcommand};
use lnfree::config::{Config, PRESETS};

use super::Overrides;
use super::out::{out, outln};

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Names of the shipped configs.
    List,
    /// One config, every value resolved.
    Show {
        /// Name of a shipped config, or a TOML file.
        config: String,
        /// As JSON instead of TOML.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        set: Overrides,
    },
}

#[derive(Args)]
pub(super) struct ScheduleArgs {
    /// Name of a shipped config, or a TOML file.
    config: String,
    /// As JSON: [{"step": 20, "kind": "ln2", "layer": 0}, …].
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    set: Overrides,
}

pub(super) fn config(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::List => {
            for preset in PRESETS {
                outln!("{:26} {}", preset.name, preset.summary());
            }
        }
        ConfigCommand::Show { config, json, set } => {
            let config = Config::load(&config, &set.items)?;
            if json {
                outln!("{}", serde_json::to_string_pretty(&config)?);
            } else {
                out!("{}", config.to_toml());
                outln!("\n# Unset:");
                for (key, meaning) in config.unset() {
                    outln!("# {key}: {meaning}");
                }
            }
        }
    }
    Ok(())
}

pub(super) fn schedule(args: ScheduleArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config, &args.set.items)?;
    let schedule = config.schedule();
    if args.json {
        outln!("{}", serde_json::to_string(schedule.removals())?);
        return Ok(());
    }
    let tokens = config.tokens_per_step();
    outln!("{:>6}  {:<6} {:>5}  {:>12}", "step", "kind", "layer", "tokens seen");
    for removal in schedule.removals() {
        let layer = removal.layer.map_or("-".into(), |l| l.to_string());
        outln!("{:>6}  {:<6} {layer:>5}  {:>12}", removal.step, removal.kind.name(), removal.step * tokens);
    }
    outln!("{:>6}  end           {:>12}", config.train.max_steps, config.train.max_steps * tokens);
    if config.adaptive.tolerance.is_some() {
        outln!(
            "adaptive: the first goes at its step, the others in this order, the last at its step at the latest"
        );
    }
    Ok(())
}
