//! Token files and texts.

use std::path::Path;

use lnfree::Result;
use lnfree::data::{TokenFile, text};
use lnfree::eval::read_sequences;

use super::USUAL;
use crate::{Limits, Scratch, Target};

pub(super) const TARGETS: &[Target] = &[
    Target { name: "arrow_tokens", read: arrow_tokens, words: TABLE, limits: ARROW },
    Target { name: "parquet_tokens", read: parquet_tokens, words: TABLE, limits: ARROW },
    Target { name: "arrow_text", read: arrow_text, words: TABLE, limits: ARROW },
    Target { name: "parquet_text", read: parquet_text, words: TABLE, limits: USUAL },
    Target { name: "arrow_losses", read: arrow_losses, words: TABLE, limits: USUAL },
    Target { name: "jsonl", read: jsonl, words: LINES, limits: USUAL },
    Target { name: "jsonl_gz", read: jsonl_gz, words: LINES, limits: GZIP },
    Target { name: "jsonl_zst", read: jsonl_zst, words: LINES, limits: ZSTD },
    Target { name: "txt", read: txt, words: LINES, limits: USUAL },
];

/// arrow sets 64 MiB aside for a message of a stream, whatever the message says; they are not touched before
/// its bytes are there.
const ARROW: Limits = Limits { base: 68 << 20, ..USUAL };
/// A byte of deflate is at most 1032 bytes of text, of which a growing line is held up to three times.
const GZIP: Limits = Limits { per_byte: 4 * 1032, ..USUAL };
/// A frame of zstd may ask for a window of 2 GiB (`--long=31`), of which only what is written is ever
/// touched; a block of 4 bytes is at most 128 KiB of text.
const ZSTD: Limits = Limits { base: (2 << 30) + (64 << 20), per_byte: 4 * (32 << 10), ..USUAL };

const TABLE: &[&str] = &[
    "ARROW1\0\0",
    "PAR1",
    "input_ids",
    "text",
    "item",
    "element",
    "list",
    "meta",
    "pile_set_name",
    "lnfree.crc32c",
    "\u{7f}\u{7f}\u{7f}\u{7f}",
    "attention_mask",
    "loss",
    "sequence",
    "n_tokens",
    "ARROW:schema",
];

/// All that an evaluation and a training run ask of a token file.
fn tokens(path: &Path) -> Result<()> {
    let file = TokenFile::open(path)?;
    file.check_vocab(50257)?;
    file.fingerprint()?;
    let rows = [0, file.n_sequences() - 1];
    for row in rows {
        assert_eq!(file.row(row)?.len(), file.sequence_len(row)?, "row {row}");
    }
    if let Some(length) = file.block_size() {
        assert_eq!(file.n_tokens(), (file.n_sequences() * length) as u64);
        assert_eq!(file.batch(&rows)?.size(), [2, length as i64]);
    }
    Ok(())
}

fn arrow_tokens(scratch: &Scratch, input: &[u8]) -> Result<()> {
    tokens(&scratch.write("tokens.arrow", input))
}

fn parquet_tokens(scratch: &Scratch, input: &[u8]) -> Result<()> {
    tokens(&scratch.write("tokens.parquet", input))
}

fn documents(path: &Path) -> Result<()> {
    text::documents(path)?.try_for_each(|document| document.map(drop))
}

fn arrow_text(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.arrow", input))
}

fn parquet_text(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.parquet", input))
}

/// The losses of an evaluation's sequences.
fn arrow_losses(scratch: &Scratch, input: &[u8]) -> Result<()> {
    read_sequences(&scratch.write("losses.arrow", input)).map(drop)
}

const LINES: &[&str] = &[
    "{\"text\": \"",
    "\"}\n",
    "{\"input_ids\": [1, 2]}\n",
    "\"meta\": {\"pile_set_name\": \"Pile-CC\"}",
    "\u{feff}",
    "NaN",
    "\\ud800",
    "\\u0000",
    "\r\n",
    "\u{1f}\u{8b}\u{8}",
    "(\u{b5}/\u{fd}",
    "[",
    "{\"a\":",
];

fn jsonl(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.jsonl", input))
}

fn jsonl_gz(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.jsonl.gz", input))
}

fn jsonl_zst(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.jsonl.zst", input))
}

fn txt(scratch: &Scratch, input: &[u8]) -> Result<()> {
    documents(&scratch.write("text.txt", input))
}
