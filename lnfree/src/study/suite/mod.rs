//! Whole studies as one command: models by data sets, beside the figures that were published.
//!
//! A [`Suite`] says what belongs to a study. [`Plan`] says what of it is still to do and what that needs;
//! [`run`] does it, one process a model, so that a crash costs no more than that model; [`collect`] makes the
//! results of what is there. An evaluation that is finished stays finished: a study can be stopped at any
//! moment and goes on where it was.

mod catalogue;
mod child;
mod collect;
mod definition;
mod nano;
mod options;
mod paper;
mod plan;
mod progress;
mod run;
mod steps;

pub(crate) use child::{device_name, end_with_parent, killed, stop};
pub use collect::{collect, write_results};
pub use definition::{Suite, SuiteDataset, SuiteModel};
pub use options::{SETTINGS, Settings, StudyOptions, remove_study};
pub use plan::{Job, Plan};
pub(crate) use plan::{finished, newest};
pub use run::run;
pub use steps::step_notes;
