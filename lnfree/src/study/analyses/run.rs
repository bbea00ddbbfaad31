//! From a request to what was found.

use std::time::Instant;

use super::{
    Findings, Request, Subject, ablation, attribution, circuits, direct_effects, heads, lens, neurons, norms,
    outputs, patching, sae, sinks,
};
use crate::Result;
use crate::study::found::Found;

/// Does what is asked. Says what it is at through `progress`: the part done, 0 to 1.
///
/// # Errors
/// If the model cannot take what is asked, or that makes no sense.
pub fn analyse(subject: &Subject, request: &Request, mut progress: impl FnMut(f64)) -> Result<Findings> {
    let start = Instant::now();
    let found: Found = match request {
        Request::Heads { sequences, period, seed } => heads::find(subject, *sequences, *period, *seed),
        Request::Sinks(sample) => sinks::find(subject, sample),
        Request::Norms(sample) => norms::find(subject, sample),
        Request::Lens(sample) => lens::find(subject, sample),
        Request::DirectEffects(sample) => direct_effects::find(subject, sample),
        Request::Ablation(sample) => ablation::find(subject, sample, &mut progress),
        Request::Neurons { sample, neurons } => neurons::find(subject, sample, *neurons, &mut progress),
        Request::Outputs(sample) => outputs::find(subject, sample),
        Request::Attribution(prompt) => attribution::find(subject, prompt),
        Request::Patching(pairs) => patching::find(subject, pairs, &mut progress),
        Request::Circuits { heads } => circuits::find(subject, *heads),
        Request::Sae { dir, sample } => sae::find(subject, dir, sample),
    }?;
    Ok(Findings {
        request: request.clone(),
        label: subject.label.clone(),
        model: subject.name.clone(),
        original: subject.original.as_ref().map(|(name, _)| name.clone()),
        seconds: start.elapsed().as_secs_f64(),
        found,
    })
}
