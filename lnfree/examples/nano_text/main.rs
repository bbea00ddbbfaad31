//! Writes the texts that `data/` carries, from the packages that `scripts/nano_texts.sh` fetches.
//!
//! ```text
//! cargo run --release --example nano_text -- PACKAGES OUT_FOLDER
//! ```
//!
//! The same packages give the same bytes on every run.

mod austen;
mod cut;
mod sources;

use std::borrow::Borrow;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use cut::cut;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use sources::Work;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One work in this many is held out whole for validation, and one for the test: the fourth of each group and
/// the fifteenth.
const GROUP: usize = 22;
const VALIDATION: usize = 3;
const TEST: usize = 14;

/// What nano is trained on after the addresses: the training text, and so many times the addresses more.
const MIXTURES: [(&str, usize); 3] =
    [("copying.parquet", 1), ("settling.parquet", 4), ("annealing.parquet", 16)];

/// zstd's levels: for what the repository carries, and for what is only trained on.
const SMALL: i32 = 19;
const QUICK: i32 = 3;

/// A piece of a work, and the work it came from.
struct Document {
    text: String,
    source: String,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [packages, out] = args.as_slice() else {
        return Err("usage: nano_text PACKAGES OUT_FOLDER".into());
    };
    let (packages, out) = (Path::new(packages), Path::new(out));
    fs::create_dir_all(out)?;

    let (mut train, mut val, mut test) = (Vec::new(), Vec::new(), Vec::new());
    // nano was first trained on these, all but those of the validation: of addresses the test has none.
    let (mut addresses, mut addresses_val) = (Vec::new(), Vec::new());
    for collection in sources::all(packages)? {
        let of_addresses = collection.name == "addresses";
        for (index, work) in collection.works.into_iter().enumerate() {
            if of_addresses {
                let half = if index % GROUP == VALIDATION { &mut addresses_val } else { &mut addresses };
                half.extend(documents(&work));
            }
            match index % GROUP {
                VALIDATION => val.extend(documents(&work)),
                TEST if of_addresses => {}
                TEST => test.extend(documents(&work)),
                _ => train.extend(documents(&work)),
            }
        }
    }
    write(&out.join("train.parquet"), &train, SMALL)?;
    write(&out.join("val.parquet"), &val, SMALL)?;
    write(&out.join("test.parquet"), &test, SMALL)?;
    write(&out.join("sotu-train.parquet"), &addresses, SMALL)?;
    write(&out.join("sotu-val.parquet"), &addresses_val, SMALL)?;
    for (name, times) in MIXTURES {
        let more = std::iter::repeat_n(&addresses, times).flatten();
        write(&out.join(name), &train.iter().chain(more).collect::<Vec<_>>(), QUICK)?;
    }
    let book: Vec<Document> = sources::moby_dick(packages)?.iter().flat_map(documents).collect();
    write(&out.join("moby-dick.parquet"), &book, SMALL)
}

fn documents(work: &Work) -> Vec<Document> {
    cut(work).into_iter().map(|text| Document { text, source: work.name.clone() }).collect()
}

fn write<D: Borrow<Document>>(path: &Path, documents: &[D], level: i32) -> Result<()> {
    let documents = || documents.iter().map(Borrow::borrow);
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(documents().map(|d| &d.text)));
    let source: ArrayRef = Arc::new(StringArray::from_iter_values(documents().map(|d| &d.source)));
    let batch = RecordBatch::try_from_iter([("text", text), ("source", source)])?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_dictionary_enabled("text".into(), false)
        // zstd starts afresh in every page: large pages compress better.
        .set_data_page_size_limit(32 << 20)
        .set_write_batch_size(1 << 16)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    let lengths = || documents().map(|d| d.text.len());
    println!(
        "{}: {} documents of {} to {} bytes, {} bytes of text, file of {} bytes",
        path.display(),
        documents().count(),
        lengths().min().unwrap_or(0),
        lengths().max().unwrap_or(0),
        lengths().sum::<usize>(),
        fs::metadata(path)?.len()
    );
    Ok(())
}
