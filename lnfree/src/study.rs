//! What presents: figures, reports, whole studies, and what a user is told of a machine.

pub mod analyses;
pub mod bench;
pub mod doctor;
pub mod found;
pub mod inspect;
pub mod plan;
pub mod plot;
pub mod report;
pub mod selftest;
pub mod suite;
pub mod walk;
