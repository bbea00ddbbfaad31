//! Reading what runs and evaluations wrote, with errors that name file, line and key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::study::plot::{EvalDetails, EvalRow, LnName, Removal, RemovalKind, RunInfo, RunMetrics, Step};
use crate::{Error, Result};

type Object = Map<String, Value>;

/// Reads a run directory: `run.json`, `config.toml` and `metrics.jsonl`.
///
/// A last line that a crash left half-written is dropped. Where a step is logged twice the later line counts.
///
/// # Errors
/// [`Error::File`] naming the file, and the line where there is one, if a file is missing, is not what it
/// should be, or holds no step; [`Error::Io`] if it cannot be read.
pub fn read_run(dir: impl AsRef<Path>) -> Result<RunMetrics> {
    let dir = dir.as_ref();
    let info = read_info(&dir.join("run.json"))?;
    let config = read_config(&dir.join("config.toml"))?;
    let name = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    let name = name.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
    let mut run = RunMetrics { name, info, config, ..RunMetrics::default() };
    read_metrics(&dir.join("metrics.jsonl"), &mut run)?;
    Ok(run)
}

/// Reads one file that `lnfree eval --json` wrote.
///
/// # Errors
/// [`Error::File`] naming file and key if something is missing or of the wrong type; [`Error::Io`] if the
/// file cannot be read.
pub fn read_eval(file: impl AsRef<Path>) -> Result<EvalRow> {
    let file = file.as_ref();
    let fail = |message: String| Error::file(file, message);
    let object = parse_object(&read_text(file, "an evaluation file")?).map_err(fail)?;
    if !object.contains_key("mean") {
        return Err(Error::file(file, "has no `mean`: is it a file of `lnfree eval --json`?"));
    }
    Ok(EvalRow {
        label: optional_text(&object, "label").map_err(fail)?,
        model: text(&object, "model").map_err(fail)?,
        format: text(&object, "format").map_err(fail)?,
        dataset: text(&object, "dataset").map_err(fail)?,
        n_sequences: optional_index(&object, "n_sequences").map_err(fail)?,
        n_tokens: optional_index(&object, "n_tokens").map_err(fail)?,
        mean: number(&object, "mean").map_err(fail)?,
        median: number(&object, "median").map_err(fail)?,
        ranges: ranges(&object).map_err(fail)?,
        details: details(object).map_err(fail)?,
        sequences: Some(file.with_extension("sequences.arrow")).filter(|path| path.is_file()),
    })
}

fn read_info(path: &Path) -> Result<RunInfo> {
    let text = read_text(path, "part of every run directory")?;
    serde_json::from_str(&text)
        .map_err(|error| Error::file(path, format!("is not a run's description: {error}")))
}

fn read_config(path: &Path) -> Result<String> {
    let text = read_text(path, "part of every run directory")?;
    match text.parse::<toml::Table>() {
        Ok(_) => Ok(text),
        Err(error) => {
            let line =
                error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            Err(Error::file(path, format!("line {line}: is not TOML: {}", one_line(error.message()))))
        }
    }
}

fn read_metrics(path: &Path, run: &mut RunMetrics) -> Result<()> {
    let bytes = read_bytes(path, "part of every run directory")?;
    let mut lines = Lines::default();
    let mut rest = bytes.as_slice();
    let mut n = 0;
    while !rest.is_empty() {
        n += 1;
        let end = rest.iter().position(|b| *b == b'\n');
        let (line, next) = rest.split_at(end.map_or(rest.len(), |e| e + 1));
        rest = next;
        match lines.add(line) {
            // Without a newline this line is what was being written when the run was killed.
            Err(_) if end.is_none() => break,
            result => result.map_err(|message| Error::file(path, format!("line {n}: {message}")))?,
        }
    }
    if lines.steps.is_empty() {
        return Err(Error::file(path, "has no steps: the run ended before its first optimizer step"));
    }
    lines.finish(run);
    Ok(())
}

/// What has been read of `metrics.jsonl`, keyed so that a repeated step replaces the earlier one.
#[derive(Default)]
struct Lines {
    steps: BTreeMap<usize, Step>,
    stds: BTreeMap<LnName, BTreeMap<usize, f64>>,
    removals: BTreeMap<(RemovalKind, Option<usize>), usize>,
    evals: BTreeMap<usize, f64>,
}

impl Lines {
    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        let line = std::str::from_utf8(line).map_err(|_| "is not UTF-8 text".to_string())?;
        if line.trim().is_empty() {
            return Ok(());
        }
        let object = parse_object(line)?;
        match object.get("event") {
            None => self.add_step(&object),
            Some(Value::String(event)) if event == "remove" => self.add_removal(&object),
            Some(Value::String(event)) if event == "eval" => {
                self.evals.insert(index(&object, "step")?, number(&object, "loss")?);
                Ok(())
            }
            Some(Value::String(_)) => Ok(()),
            Some(_) => Err("`event` is not text".into()),
        }
    }

    fn add_step(&mut self, object: &Object) -> Result<(), String> {
        if !object.contains_key("loss") {
            return Err("has neither `event` nor `loss`".into());
        }
        let step = index(object, "step")?;
        let get = |key| number(object, key);
        let values = Step {
            step,
            loss: get("loss")?,
            ce_loss: get("ce_loss")?,
            aux_loss: get("aux_loss")?,
            kl_loss: get("kl_loss")?,
            lr: get("lr")?,
            grad_norm: get("grad_norm")?,
            tokens_per_s: get("tokens_per_s")?,
        };
        match object.get("stds") {
            None | Some(Value::Null) => {}
            Some(Value::Object(stds)) => {
                for ln in stds.keys() {
                    let value = number(stds, ln).map_err(|message| format!("`stds`: {message}"))?;
                    self.stds.entry(LnName(ln.clone())).or_default().insert(step, value);
                }
            }
            Some(_) => return Err("`stds` is not an object".into()),
        }
        self.steps.insert(step, values);
        Ok(())
    }

    fn add_removal(&mut self, object: &Object) -> Result<(), String> {
        let name = text(object, "kind")?;
        let kind = RemovalKind::from_name(&name).ok_or_else(|| {
            let known = RemovalKind::ALL.map(RemovalKind::name).join(", ");
            format!("`kind` is {name:?}, which is none of {known}")
        })?;
        let layer = optional_index(object, "layer")?.map(|layer| layer as usize);
        self.removals.insert((kind, layer), index(object, "step")?);
        Ok(())
    }

    fn finish(self, run: &mut RunMetrics) {
        run.steps = self.steps.into_values().collect();
        run.stds = self.stds.into_iter().map(|(ln, points)| (ln, points.into_iter().collect())).collect();
        run.removals =
            self.removals.into_iter().map(|((kind, layer), step)| Removal { step, kind, layer }).collect();
        run.removals.sort_by_key(|removal| removal.step);
        run.evals = self.evals.into_iter().collect();
    }
}

fn read_bytes(path: &Path, what: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::file(path, format!("is not there; it is {what}")),
        _ => Error::Io { path: PathBuf::from(path), source: error },
    })?;
    match bytes.iter().all(u8::is_ascii_whitespace) {
        true => Err(Error::file(path, "is empty")),
        false => Ok(bytes),
    }
}

fn read_text(path: &Path, what: &str) -> Result<String> {
    String::from_utf8(read_bytes(path, what)?).map_err(|_| Error::file(path, "is not UTF-8 text"))
}

fn parse_object(text: &str) -> Result<Object, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("is not a JSON object".into()),
        Err(error) => Err(format!("is not JSON: {error}")),
    }
}

/// A number; NaN where it is absent or null, which is how JSON says NaN and infinity.
fn number(object: &Object, key: &str) -> Result<f64, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(f64::NAN),
        Some(value) => value.as_f64().ok_or_else(|| format!("`{key}` is not a number")),
    }
}

fn optional_index(object: &Object, key: &str) -> Result<Option<u64>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            value.as_u64().map(Some).ok_or_else(|| format!("`{key}` is not a whole number from 0"))
        }
    }
}

fn index(object: &Object, key: &str) -> Result<usize, String> {
    optional_index(object, key)?.map(|value| value as usize).ok_or_else(|| format!("has no `{key}`"))
}

fn optional_text(object: &Object, key: &str) -> Result<Option<String>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!("`{key}` is not text")),
    }
}

fn text(object: &Object, key: &str) -> Result<String, String> {
    optional_text(object, key)?.ok_or_else(|| format!("has no `{key}`"))
}

/// The keys that are not in every file.
fn details(object: Object) -> Result<EvalDetails, String> {
    serde_path_to_error::deserialize(Value::Object(object))
        .map_err(|error| format!("`{}`: {}", error.path(), one_line(&error.inner().to_string())))
}

fn ranges(object: &Object) -> Result<Vec<(String, [f64; 2])>, String> {
    let ranges = match object.get("ranges") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(ranges)) => ranges,
        Some(_) => return Err("`ranges` is not an object".into()),
    };
    let bound = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
    let mut out = Vec::new();
    for (percent, range) in ranges {
        let bounds = range.as_array().and_then(|r| r.iter().map(bound).collect::<Option<Vec<f64>>>());
        match bounds.as_deref() {
            Some([low, high]) => out.push((percent.clone(), [*low, *high])),
            _ => return Err(format!("`ranges`: `{percent}` is not a pair of numbers")),
        }
    }
    let percent = |name: &str| name.parse().unwrap_or(f64::INFINITY);
    out.sort_by(|a, b| percent(&a.0).total_cmp(&percent(&b.0)));
    Ok(out)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
