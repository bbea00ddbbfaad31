//! What is still to do of one model, in this process.

use std::path::Path;

use tch::{Device, Kind};

use super::names::result_path;
use super::plan::InterpJob;
use crate::base::atomic::write_text;
use crate::base::caught::{caught, text_of};
use crate::eval::locate_model;
use crate::model::{LoadOptions, LoadedModel};
use crate::study::analyses::{Request, Subject, analyse};
use crate::{Error, Result};

/// What is told of an analysis while a model is worked through.
#[derive(Debug)]
pub enum Told {
    /// It goes on: the part done, 0 to 1. The first of an analysis is 0.
    Part(f64),
    /// It is finished and its file written, after so many seconds of computing.
    Done(f64),
    /// It gave no result; the next one goes on.
    Failed(Error),
}

/// Makes every pending analysis of a job and writes each into the folder `out` as it is finished.
///
/// # Errors
/// If the model or its tokenizer cannot be had or loaded. What goes wrong within an analysis is told and no
/// error.
pub fn run_job(
    job: &InterpJob,
    out: &Path,
    device: Device,
    mut tell: impl FnMut(&Request, Told),
) -> Result<()> {
    let InterpJob { model, tokenizer, pending, .. } = job;
    let mut subject = Subject::load(&model.label, &model.model, None, Some(tokenizer), device)?;
    for request in pending {
        tell(request, Told::Part(0.0));
        // An error of libtorch that is a panic costs no more than its analysis either.
        let outcome = caught(|_| true, || one(&mut subject, request, job, out, device, &mut tell));
        // Two models are there no longer than they are compared.
        subject.original = None;
        let told = match outcome {
            Ok(Ok(seconds)) => Told::Done(seconds),
            Ok(Err(error)) => Told::Failed(error),
            Err(panic) => {
                let text = text_of(panic.as_ref());
                Told::Failed(Error::invalid(text.split("\\n").next().unwrap_or_default()))
            }
        };
        tell(request, told);
    }
    Ok(())
}

/// One analysis, whose file is then there; its seconds.
fn one(
    subject: &mut Subject,
    request: &Request,
    job: &InterpJob,
    out: &Path,
    device: Device,
    tell: &mut impl FnMut(&Request, Told),
) -> Result<f64> {
    if let (Request::Outputs(_), Some(name)) = (request, &job.original) {
        let options = LoadOptions { device, kind: Kind::Float, ..LoadOptions::default() };
        subject.original = Some((name.clone(), LoadedModel::load_with(&locate_model(name)?, options)?));
    }
    let found = analyse(subject, request, |part| tell(request, Told::Part(part)))?;
    let path = result_path(out, &job.model.label, request);
    let text = serde_json::to_string(&found).map_err(|error| Error::file(&path, error))?;
    write_text(&path, &text)?;
    Ok(found.seconds)
}
