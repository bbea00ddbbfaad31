//! TensorBoard event files, written without TensorBoard.
//!
//! An event file is a sequence of TFRecords. Each record frames one protocol buffer message of type `Event`:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | length of the message, little endian |
//! | 4 | masked CRC-32C of those 8 bytes |
//! | length | the message |
//! | 4 | masked CRC-32C of the message |
//!
//! The masking and the field numbers are those of TensorFlow's `lib/hash/crc32c.h`, `event.proto` and
//! `summary.proto`. Only five fields are ever used, so the messages are encoded by hand.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Error, Result};

/// The content of the first event of every file; readers refuse other versions.
const FILE_VERSION: &str = "brain.Event:2";
/// Bytes of a record around its message: length, its checksum, the message's checksum.
const FRAMING: usize = 8 + 4 + 4;

/// Appends scalars to one TensorBoard event file.
///
/// Nothing is promised to be on disk before [`EventWriter::flush`] returns.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventWriter {
    /// Starts a new event file in the folder `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the file cannot be made or written.
    pub fn create(dir: impl AsRef<Path>) -> Result<EventWriter> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let (path, file) = new_file(dir)?;
        let mut writer = EventWriter { path, out: BufWriter::new(file) };
        writer.write_event(&file_version_event())?;
        writer.flush()?;
        Ok(writer)
    }

    /// Continues the newest event file of `dir` so that the next scalar may belong to step `next_step`.
    ///
    /// What a crash left half-written at the end is cut off, and so are the events of `next_step` and later:
    /// a run that goes back to a checkpoint does these steps again. Starts a new file if `dir` has none.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the file cannot be read or written.
    pub fn resume(dir: impl AsRef<Path>, next_step: usize) -> Result<EventWriter> {
        let dir = dir.as_ref();
        let Some(path) = newest_event_file(dir)? else { return EventWriter::create(dir) };
        let keep = bytes_before_step(&fs::read(&path).map_err(Error::io(&path))?, next_step as i64);
        if keep == 0 {
            return EventWriter::create(dir);
        }
        let mut file = OpenOptions::new().write(true).open(&path).map_err(Error::io(&path))?;
        file.set_len(keep as u64).map_err(Error::io(&path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(&path))?;
        Ok(EventWriter { path, out: BufWriter::new(file) })
    }

    /// The event file that is being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one scalar under `tag`, for instance `train/loss`, for the 0-based optimizer step `step`.
    ///
    /// TensorBoard stores `value` in single precision.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn add_scalar(&mut self, tag: &str, step: usize, value: f64) -> Result<()> {
        self.add_scalars(step, [(tag, value)])
    }

    /// Writes several scalars of one step as one event.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn add_scalars<'a>(
        &mut self,
        step: usize,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) -> Result<()> {
        let mut summary = Vec::new();
        for (tag, value) in values {
            put_bytes(&mut summary, 1, &summary_value(tag, value));
        }
        self.write_event(&scalar_event(step, &summary))
    }

    /// Hands everything written so far to the operating system.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::io(&self.path))
    }

    fn write_event(&mut self, event: &[u8]) -> Result<()> {
        self.out.write_all(&frame(event)).map_err(Error::io(&self.path))
    }
}

/// Makes a file whose name no other writer has; TensorBoard asks only for `tfevents` in the name, and reads
/// the files of a folder in the order of their names.
fn new_file(dir: &Path) -> Result<(PathBuf, File)> {
    let seconds = since_epoch().as_secs();
    let mut n = 0;
    loop {
        let path = dir.join(format!("events.out.tfevents.{seconds:010}.lnfree.{n:04}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && n < 9999 => n += 1,
            Err(error) => return Err(Error::io(&path)(error)),
        }
    }
}

/// The last event file of `dir` by name; `None` if there is none or no such folder.
fn newest_event_file(dir: &Path) -> Result<Option<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(dir)(error)),
    };
    let mut newest = None;
    for entry in entries {
        let path = entry.map_err(Error::io(dir))?.path();
        let is_event = path.file_name().is_some_and(|n| n.to_string_lossy().contains("tfevents"));
        if is_event && newest.as_ref().is_none_or(|n| *n < path) {
            newest = Some(path);
        }
    }
    Ok(newest)
}

/// How many bytes at the start of `file` are whole, intact records of steps before `step`.
fn bytes_before_step(file: &[u8], step: i64) -> usize {
    let mut at = 0;
    while let Some(event) = intact_message(&file[at..]) {
        if event_step(event).is_some_and(|s| s >= step) {
            break;
        }
        at += event.len() + FRAMING;
    }
    at
}

/// The message of the record at the start of `bytes`, if the record is complete and both checksums hold.
fn intact_message(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.get(..8)?;
    if bytes.get(8..12)? != masked_crc(length).to_le_bytes() {
        return None;
    }
    let n = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
    let end = n.checked_add(12)?;
    let message = bytes.get(12..end)?;
    (bytes.get(end..end.checked_add(4)?)? == masked_crc(message).to_le_bytes()).then_some(message)
}

/// Field 2 (`step`) of an `Event` written by this module: wall time comes first, then the step if there is
/// one.
fn event_step(event: &[u8]) -> Option<i64> {
    let rest = event.get(9..)?;
    let (key, varint) = rest.split_first()?;
    if *key != field_key(2, WIRE_VARINT) {
        return None;
    }
    let mut step = 0u64;
    for (i, byte) in varint.iter().take(10).enumerate() {
        step |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(step as i64);
        }
    }
    None
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(message.len() + FRAMING);
    record.extend(length);
    record.extend(masked_crc(&length).to_le_bytes());
    record.extend(message);
    record.extend(masked_crc(message).to_le_bytes());
    record
}

/// CRC-32C, rotated and shifted, so that a checksum over data that holds checksums stays meaningful.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

const WIRE_VARINT: u8 = 0;
const WIRE_64_BIT: u8 = 1;
const WIRE_BYTES: u8 = 2;
const WIRE_32_BIT: u8 = 5;

/// The key byte of a protocol buffer field; `field` is below 16.
const fn field_key(field: u8, wire: u8) -> u8 {
    field << 3 | wire
}

fn file_version_event() -> Vec<u8> {
    let mut event = wall_time();
    put_bytes(&mut event, 3, FILE_VERSION.as_bytes());
    event
}

fn scalar_event(step: usize, summary: &[u8]) -> Vec<u8> {
    let mut event = wall_time();
    event.push(field_key(2, WIRE_VARINT));
    put_varint(&mut event, step as u64);
    put_bytes(&mut event, 5, summary);
    event
}

fn summary_value(tag: &str, value: f64) -> Vec<u8> {
    let mut message = Vec::new();
    put_bytes(&mut message, 1, tag.as_bytes());
    message.push(field_key(2, WIRE_32_BIT));
    message.extend((value as f32).to_le_bytes());
    message
}

fn wall_time() -> Vec<u8> {
    let mut event = vec![field_key(1, WIRE_64_BIT)];
    event.extend(since_epoch().as_secs_f64().to_le_bytes());
    event
}

/// Zero for a clock before 1970: a wrong time in a plot is better than a lost run.
fn since_epoch() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field_key(field, WIRE_BYTES));
    put_varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
