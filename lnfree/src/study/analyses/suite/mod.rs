//! All analyses of a study's models as one command, beside the figures that were published or recorded.
//!
//! An [`InterpSuite`] says what is asked of which models, [`InterpPlan`] what of it is still to do.
//! [`run_plan`] does it, one process a model, each of which works through [`run_job`] and leaves a file for
//! every analysis; [`InterpResults`] are made of what is there. What is finished stays finished: a study can
//! be stopped at any moment and goes on where it was.

mod collect;
mod definition;
mod job;
mod names;
mod nano;
mod paper;
mod plan;
mod run;

pub use collect::InterpResults;
pub use definition::InterpSuite;
pub use job::{Told, run_job};
pub use names::{request_key, result_path};
pub use plan::{InterpJob, InterpPlan, finished};
pub use run::{InterpOptions, run_plan};
