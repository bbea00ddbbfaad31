//! `config` and `schedule`.

use lnfree::config::{Config, PRESETS};

use super::{ConfigCommand, ScheduleArgs};

pub(super) fn config(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::List => {
            for preset in PRESETS {
                println!("{:26} {}", preset.name, preset.summary());
            }
        }
        ConfigCommand::Show { config, json, set } => {
            let config = Config::load(&config, &set.items)?;
            if json {
                println!("{}", serde_json::to_string_pretty(&config)?);
            } else {
                print!("{}", config.to_toml());
            }
        }
    }
    Ok(())
}

pub(super) fn schedule(args: ScheduleArgs) -> anyhow::Result<()> {
    let config = Config::load(&args.config, &args.set.items)?;
    let schedule = config.schedule();
    if args.json {
        println!("{}", serde_json::to_string(schedule.removals())?);
        return Ok(());
    }
    let tokens = config.tokens_per_step();
    println!("{:>6}  {:<6} {:>5}  {:>12}", "step", "kind", "layer", "tokens seen");
    for removal in schedule.removals() {
        let layer = removal.layer.map_or("-".into(), |l| l.to_string());
        println!("{:>6}  {:<6} {layer:>5}  {:>12}", removal.step, removal.kind.name(), removal.step * tokens);
    }
    println!("{:>6}  end           {:>12}", config.train.max_steps, config.train.max_steps * tokens);
    Ok(())
}
