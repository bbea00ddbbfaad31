//! Interpretability as one command: each analysis of [`crate::interp`] on one model gives [`Findings`], of
//! which pages, tables and comparisons of models are made.

mod ablation;
mod attribution;
mod circuits;
mod compare;
mod direct_effects;
mod drawn;
mod figure;
mod findings;
mod heads;
mod lens;
mod long_form;
mod markdown;
mod neurons;
mod norms;
mod outputs;
mod page;
mod patching;
mod published;
mod recorded;
mod request;
mod run;
mod sae;
mod samples;
mod sections;
mod sinks;
mod subject;
mod suite;
mod tables;
mod words;

pub use crate::study::found::{Axis, Curve, Found, Map, MarkedText, Number, Ranking};
pub use compare::{Row, Verdict, compare, summary};
pub use drawn::{curve_figure, map_figure, number_figure, number_table};
pub use findings::Findings;
pub use long_form::write_arrow;
pub use markdown::markdown;
pub use page::write_page;
pub use recorded::{InterpRecord, Provenance, RecordedAnalysis};
pub use request::{Pairs, Prompt, Request, Sample};
pub use run::analyse;
pub use subject::Subject;
pub use suite::{
    InterpJob, InterpOptions, InterpPlan, InterpResults, InterpSuite, Told, finished, request_key,
    result_path, run_job, run_plan,
};
