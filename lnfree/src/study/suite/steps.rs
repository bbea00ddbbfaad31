//! How long a model was fine-tuned: a figure of another step says nothing about it.

use std::path::Path;

use super::Suite;
use crate::export;
use crate::train::checkpoint;

/// Steps of fine-tuning that a folder says it has: a checkpoint, a run directory for its latest one, or an
/// export.
pub(super) fn steps_of(folder: &Path) -> Option<u32> {
    let checkpoint = match folder.join("checkpoints").is_dir() {
        true => checkpoint::latest(folder).ok()?,
        false => folder.to_path_buf(),
    };
    match checkpoint::state(&checkpoint).ok()? {
        Some(state) => u32::try_from(state.step).ok(),
        None => export::steps_in_header(&checkpoint.join("model.safetensors")),
    }
}

/// One sentence for each of the user's own models that stands under the label of a published one: whether
/// both are of the same step.
pub fn step_notes(suite: &Suite) -> Vec<String> {
    let of = |model: &super::SuiteModel| {
        let published = suite.published.iter().find(|p| p.label == model.label)?.steps;
        let (label, word) = (&model.label, suite.figures());
        Some(match model.steps {
            Some(steps) if steps == published => {
                format!("{label} is held against the {word} figures: both are of step {steps}.")
            }
            Some(steps) => format!(
                "{label} is not held against the {word} figures: it is of step {steps}, they are of \
                 step {published}."
            ),
            None => format!(
                "{label} is not held against the {word} figures, which are of step {published}: its \
                 files do not say of which step it is."
            ),
        })
    };
    suite.models.iter().filter(|model| model.own).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_models_are_compared_only_at_the_published_step() {
        let folder = tempfile::tempdir().unwrap();
        let written = |steps: Option<&str>| {
            let metadata = steps.map(|s| (export::STEPS.to_string(), s.to_string())).into_iter().collect();
            let path = folder.path().join("model.safetensors");
            crate::model::weights::write_safetensors(&path, &Default::default(), &metadata).unwrap();
            let mut suite = Suite::find("paper").unwrap();
            suite.select(&["gpt2-large".into()], &[]).unwrap();
            suite.add(&format!("Large LN-free={}", folder.path().display())).unwrap();
            (suite.models[1].steps, step_notes(&suite))
        };
        let (steps, notes) = written(Some("600"));
        assert_eq!((steps, notes.len()), (Some(600), 1));
        assert!(notes[0].contains("both are of step 600"), "{notes:?}");
        let (steps, notes) = written(Some("1200"));
        assert_eq!(steps, Some(1200));
        assert!(
            notes[0].contains("not held") && notes[0].contains("step 1200, they are of step 600"),
            "{notes:?}"
        );
        for unknown in [None, Some("many")] {
            let (steps, notes) = written(unknown);
            assert_eq!(steps, None);
            assert!(notes[0].contains("do not say"), "{notes:?}");
        }
        // The suite's own models are the published ones.
        assert!(step_notes(&Suite::find("paper").unwrap()).is_empty());
    }
}
