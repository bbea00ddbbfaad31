//! What an evaluation leaves on disk besides its record: losses as Arrow files.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{Float64Type, UInt32Type};

use super::evaluation::Evaluation;
use super::sequences::SequenceLoss;
use crate::data::write_batch;
use crate::{Error, Result};

/// The name, without extension, of the files about one model on one data set: characters that a file name had
/// better not have become `_`.
pub fn result_name(label: &str, dataset: &str) -> String {
    let slug = |text: &str| -> String {
        let kept = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        text.chars().map(|c| if kept(c) { c } else { '_' }).collect()
    };
    // Of a path the end tells, and no name may begin like a hidden file.
    let dataset = slug(dataset.trim_matches('/'));
    format!("{}--{dataset}", slug(label)).trim_start_matches('.').to_string()
}

/// Writes the loss of every predicted token as an Arrow IPC file with the columns `loss` (float32, nats),
/// `sequence` (uint32, the sequence's number in the token file) and `position` (uint32, the position
/// predicted from, so that the token is that of `position` + 1).
///
/// # Errors
/// When the file cannot be written.
pub fn write_losses(path: &Path, evaluation: &Evaluation) -> Result<()> {
    let places = || {
        evaluation
            .sequences
            .iter()
            .flat_map(|s| (0..s.n_tokens as u32).map(|position| (s.sequence as u32, position)))
    };
    write(
        path,
        vec![
            ("loss", Arc::new(Float32Array::from(evaluation.losses.clone()))),
            ("sequence", Arc::new(places().map(|(sequence, _)| sequence).collect::<UInt32Array>())),
            ("position", Arc::new(places().map(|(_, position)| position).collect::<UInt32Array>())),
        ],
    )
}

/// Writes the mean loss of each sequence as an Arrow IPC file with the columns `sequence` (uint32), `loss`
/// (float64) and `n_tokens` (uint32).
///
/// # Errors
/// When the file cannot be written.
pub fn write_sequences(path: &Path, sequences: &[SequenceLoss]) -> Result<()> {
    let numbers = |field: fn(&SequenceLoss) -> usize| -> ArrayRef {
        Arc::new(sequences.iter().map(|s| field(s) as u32).collect::<UInt32Array>())
    };
    let losses = sequences.iter().map(|s| s.loss).collect::<Float64Array>();
    write(
        path,
        vec![
            ("sequence", numbers(|s| s.sequence)),
            ("loss", Arc::new(losses)),
            ("n_tokens", numbers(|s| s.n_tokens)),
        ],
    )
}

/// Reads a file that [`write_sequences`] wrote.
///
/// # Errors
/// When it cannot be read or has other columns.
pub fn read_sequences(path: &Path) -> Result<Vec<SequenceLoss>> {
    let reader = crate::data::open_arrow(path)?;
    crate::data::guarded(path, || {
        let mut out = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|e| Error::file(path, e))?;
            let columns = columns(&batch).ok_or_else(|| {
                Error::file(path, "not the losses of sequences (columns sequence, loss, n_tokens)")
            })?;
            let (sequence, loss, n_tokens) = columns;
            out.extend((0..batch.num_rows()).map(|i| SequenceLoss {
                sequence: sequence.value(i) as usize,
                loss: loss.value(i),
                n_tokens: n_tokens.value(i) as usize,
            }));
        }
        Ok(out)
    })
}

fn columns(batch: &RecordBatch) -> Option<(&UInt32Array, &Float64Array, &UInt32Array)> {
    let column = |name: &str| batch.column_by_name(name).filter(|c| c.null_count() == 0);
    Some((
        column("sequence")?.as_primitive_opt::<UInt32Type>()?,
        column("loss")?.as_primitive_opt::<Float64Type>()?,
        column("n_tokens")?.as_primitive_opt::<UInt32Type>()?,
    ))
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) -> Result<()> {
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| Error::file(path, e))?;
    write_batch(path, &batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_back_as_they_were_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sequences.arrow");
        let some = [
            SequenceLoss { sequence: 3, loss: 2.5, n_tokens: 127 },
            SequenceLoss { sequence: 9, loss: f64::NAN, n_tokens: 1 },
        ];
        write_sequences(&path, &some).unwrap();
        let back = read_sequences(&path).unwrap();
        assert_eq!((back[0], back.len()), (some[0], 2));
        assert!(back[1].loss.is_nan());
        let evaluation = Evaluation { losses: vec![1.0], sequences: vec![some[1]], ..Evaluation::default() };
        write_losses(&path, &evaluation).unwrap();
        assert!(read_sequences(&path).unwrap_err().to_string().contains("columns sequence, loss, n_tokens"));
        std::fs::write(&path, "no arrow").unwrap();
        assert!(read_sequences(&path).is_err());
    }

    #[test]
    fn every_loss_has_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.losses.arrow");
        let sequence = |sequence, n_tokens| SequenceLoss { sequence, loss: 0.0, n_tokens };
        let evaluation = Evaluation {
            losses: vec![0.5, 1.5, 2.5],
            sequences: vec![sequence(4, 2), sequence(7, 1)],
            ..Evaluation::default()
        };
        write_losses(&path, &evaluation).unwrap();
        let batch = crate::data::open_arrow(&path).unwrap().next().unwrap().unwrap();
        let numbers = |name: &str| {
            let column = batch.column_by_name(name).unwrap();
            column.as_primitive::<UInt32Type>().values().to_vec()
        };
        assert_eq!((numbers("sequence"), numbers("position")), (vec![4, 4, 7], vec![0, 1, 0]));
        let losses = batch.column_by_name("loss").unwrap().as_primitive::<arrow::datatypes::Float32Type>();
        assert_eq!(losses.values().to_vec(), evaluation.losses);
    }

    #[test]
    fn names_of_results_are_names_of_files() {
        assert_eq!(result_name("Small LN-free", "pile-10k"), "Small_LN-free--pile-10k");
        assert_eq!(result_name("../x", "/data/a b.arrow"), "_x--data_a_b.arrow");
    }
}
