//! How many tokens the removal of LN took: what was published, and what was run here.

use std::path::Path;

use crate::config::Config;
use crate::model::{Gpt2Config, Shape};
use crate::study::plot::SizePoint;
use crate::study::report::read_run;
use crate::study::suite::Suite;
use crate::train::checkpoint;
use crate::{Error, Result};

use super::{SIZES, published_steps, shape_of};

/// Folders below each other that may lie between the one asked about and a run.
const DEEPEST: usize = 4;

/// The paper's four LN-free models. Their steps are those of its table; a step has the tokens of the size's
/// config.
///
/// # Errors
/// Never, unless the embedded configs or the paper's suite are broken.
pub fn published_points() -> Result<Vec<SizePoint>> {
    let paper = Suite::find("paper")?;
    let point = |(_, config, family): (&str, &str, &str)| {
        let steps = published_steps(&paper, family)
            .ok_or_else(|| Error::invalid(format!("the paper's suite has no steps of {family}")))?;
        let tokens = steps as f64 * Config::load(config, &[])?.tokens_per_step() as f64;
        let parameters = shape_of(&paper, family)?.parameters() as f64;
        Ok(SizePoint { name: family.into(), parameters, steps, tokens, published: true })
    };
    SIZES.into_iter().map(point).collect()
}

/// The runs in and below `folder` that removed LN and are finished, each kind once: a folder that is not
/// there has none.
///
/// # Errors
/// When a run cannot be read.
pub fn run_points(folder: impl AsRef<Path>) -> Result<Vec<SizePoint>> {
    let mut points: Vec<SizePoint> = Vec::new();
    collect(folder.as_ref(), DEEPEST, &mut points)?;
    points.sort_by(|a, b| a.tokens.total_cmp(&b.tokens));
    points.dedup();
    Ok(points)
}

fn collect(folder: &Path, deeper: usize, points: &mut Vec<SizePoint>) -> Result<()> {
    if folder.join("run.json").is_file() {
        points.extend(point(folder)?);
    } else if deeper > 0 {
        let mut folders: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().collect();
        folders.sort_by_key(std::fs::DirEntry::file_name);
        for entry in folders.iter().filter(|entry| entry.path().is_dir()) {
            collect(&entry.path(), deeper - 1, points)?;
        }
    }
    Ok(())
}

/// `None` for a control and for a run that has not come to its end.
fn point(dir: &Path) -> Result<Option<SizePoint>> {
    if !checkpoint::has_any(dir) {
        return Ok(None);
    }
    let run = read_run(dir)?;
    let config = Config::parse(&run.config, &dir.join("config.toml").to_string_lossy(), &[])?;
    let steps = config.train.max_steps;
    if run.info.mode != "without_ln" || run.steps.last().is_none_or(|last| last.step + 1 < steps) {
        return Ok(None);
    }
    let model = Gpt2Config::read(&checkpoint::latest(dir)?.join("config.json"))?;
    let parameters = Shape { untied: false, ..Shape::of(&model) }.parameters() as f64;
    let tokens = steps as f64 * config.tokens_per_step() as f64;
    Ok(Some(SizePoint { name: config.model.name, parameters, steps, tokens, published: false }))
}
