//! From run directories and evaluation files to a results table and one self-contained HTML page.
//!
//! ```no_run
//! # fn main() -> lnfree::Result<()> {
//! use lnfree::report;
//!
//! let rows = vec![report::read_eval("original.json")?, report::read_eval("ln_free.json")?];
//! print!("{}", report::results_table(&rows).to_text());
//! report::write_html(&["runs/nano".into()], &["original.json".into()], "report.html".as_ref())?;
//! # Ok(())
//! # }
//! ```

mod compare;
mod details;
mod html;
mod models;
mod page;
mod pairs;
mod read;
mod sections;
mod study;
mod table;
mod text;

pub(crate) use details::table as plain_table;
pub(crate) use html::write_page;
pub(crate) use page::figure;
pub(crate) use study::{markdown_cell, markdown_table};
pub(crate) use text::Cell;

pub use compare::{Comparison, Published, Statistic, TOLERANCE, Verdict, compare};
pub use html::write_html;
pub use models::{Failure, StudyModel};
pub use pairs::differences;
pub use read::{read_eval, read_run};
pub use study::Study;
pub use table::{Column, Table, TableRow, results_table};

pub use crate::study::plot::{Difference, EvalRow, RunMetrics};
