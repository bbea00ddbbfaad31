//! The tiny model of the paper in every state of its LNs that a forward may be in, and texts for it.

use lnfree::export::fold;
use lnfree::model::{Gpt2, LoadedModel};
use lnfree::norm::{LnState, NormSettings, RemovalKind, SpecialAxis};
use lnfree::tch::{Device, Kind, Tensor};

use super::common::vector;

pub fn load(path: &str) -> (Gpt2, LnState) {
    let loaded = LoadedModel::load(&vector(path), None, Kind::Float, Device::Cpu).unwrap();
    (loaded.model, loaded.ln)
}

/// LNs with one constant each, real ones.
pub fn real(settings: NormSettings) -> LnState {
    LnState::real(&[(1.3, 2.0); 7], settings, Device::Cpu)
}

/// All LNs but ln_f fake; position 0 (or feature 0) and end-of-text divided by constants of their own.
pub fn apart(special_axis: SpecialAxis) -> LnState {
    let mut ln = real(NormSettings { special_std: true, special_axis, ..NormSettings::default() });
    for kind in [RemovalKind::Ln2, RemovalKind::Ln1Qk, RemovalKind::Ln1V] {
        ln.remove(kind, None);
    }
    ln
}

/// LN real, half removed, fake, of which one divides position 0 and end-of-text by constants of their own,
/// and folded away.
pub fn states() -> Vec<(&'static str, Gpt2, LnState)> {
    let tiny = load("tiny-a").0;
    let folded = fold(&tiny, &[1.3; 7]).unwrap();
    let mut out = vec![
        ("fake, position 0 apart", tiny, apart(SpecialAxis::Position)),
        ("folded", folded, LnState::plain(3, Device::Cpu)),
    ];
    for path in ["tiny-a", "checkpoint/step30", "checkpoint/step60"] {
        let (model, ln) = load(path);
        out.push((path, model, ln));
    }
    out
}

/// Clean and corrupted ids `[3, 6]`, which begin alike, with end-of-text (255) among them, and answers.
pub fn texts() -> [Tensor; 3] {
    let clean = [3i64, 7, 11, 20, 5, 9, 255, 8, 30, 31, 255, 2, 40, 41, 42, 43, 44, 45];
    let corrupted = [3i64, 7, 12, 20, 5, 9, 255, 8, 30, 33, 255, 2, 40, 41, 42, 255, 44, 46];
    let answers = [1i64, 2, 60, 61, 100, 7];
    let [clean, corrupted] = [clean, corrupted].map(|ids| Tensor::from_slice(&ids).view([3, 6]));
    [clean, corrupted, Tensor::from_slice(&answers).view([3, 2])]
}
