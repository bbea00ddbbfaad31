//! The directory of a zip archive as `torch.save` writes it: stored entries, zip64 or not.
//!
//! General zip readers take memory by the numbers they find in the file, and look for archives in places
//! where `torch.save` puts none. This one checks each number against the file first and refuses what does not
//! fit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::Why;
use super::bytes::Bytes;

/// A directory has about 100 bytes for each tensor.
const MAX_DIRECTORY: u64 = 16 << 20;
const DAMAGED: &str = "its zip directory is damaged";

/// One entry of the archive.
pub(super) struct Entry {
    pub(super) name: String,
    /// Length of the data in bytes.
    pub(super) size: u64,
    /// Of the data; 0 where PyTorch was told not to compute it.
    crc32: u32,
    /// Where the entry's own header is.
    header: u64,
    /// Neither compressed nor encrypted.
    plain: bool,
}

/// An open archive.
pub(super) struct Archive<'a> {
    file: &'a mut File,
    /// Of the whole file, in bytes.
    pub(super) length: u64,
    /// In the order of the directory.
    pub(super) entries: Vec<Entry>,
}

impl<'a> Archive<'a> {
    /// Reads the directory at the end of `file`.
    pub(super) fn open(file: &'a mut File) -> Why<Self> {
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let (start, size, count) = find_directory(file, length)?;
        if size > MAX_DIRECTORY || start.checked_add(size).is_none_or(|end| end > length) {
            return Err(DAMAGED.into());
        }
        let bytes = read_at(file, start, size as usize)?;
        let mut rest = Bytes(&bytes);
        let mut entries = Vec::new();
        while !rest.0.is_empty() {
            entries.push(parse_entry(&mut rest).ok_or(DAMAGED)?);
        }
        if entries.len() as u64 != count {
            return Err(DAMAGED.into());
        }
        Ok(Self { file, length, entries })
    }

    /// Position of the entry called `name`.
    pub(super) fn find(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == name)
    }

    /// Reads the whole data of an entry into `into`, which has its length, and compares the checksum.
    pub(super) fn read(&mut self, index: usize, into: &mut [u8]) -> Why<()> {
        let entry = self.entries.get(index).ok_or(DAMAGED)?;
        if !entry.plain {
            return Err(format!(
                "its entry `{}` is compressed or encrypted, which torch.save never does",
                entry.name
            ));
        }
        let header = read_at(self.file, entry.header, 30)?;
        let mut fields = Bytes(&header);
        let lengths = (fields.u32() == Some(0x0403_4b50)).then(|| {
            fields.take(22)?;
            Some(u64::from(fields.u16()?) + u64::from(fields.u16()?))
        });
        let start = lengths.flatten().map(|n| entry.header + 30 + n).ok_or(DAMAGED)?;
        let end = start.checked_add(entry.size);
        if into.len() as u64 != entry.size || end.is_none_or(|end| end > self.length) {
            return Err(DAMAGED.into());
        }
        self.file.seek(SeekFrom::Start(start)).map_err(|e| e.to_string())?;
        self.file.read_exact(into).map_err(|e| e.to_string())?;
        if entry.crc32 != 0 && crc32fast::hash(into) != entry.crc32 {
            return Err(format!("its entry `{}` is damaged (checksum); fetch the file again", entry.name));
        }
        Ok(())
    }
}

/// Start, size and number of entries of the directory, from the record at the end of the file.
fn find_directory(file: &mut File, length: u64) -> Why<(u64, u64, u64)> {
    // The record has 22 bytes and a comment of at most 65535; before it, for zip64, a locator of 20.
    let tail_start = length.saturating_sub(22 + 0xffff + 20);
    let tail = read_at(file, tail_start, (length - tail_start) as usize)?;
    let ends_here = |at: usize| {
        let mut record = Bytes(tail.get(at..)?);
        record.u32().filter(|&signature| signature == 0x0605_4b50)?;
        record.take(16)?;
        (usize::from(record.u16()?) == record.0.len()).then_some(at)
    };
    let at = (0..tail.len().saturating_sub(21)).rev().find_map(ends_here);
    let at = at.ok_or("is truncated: the directory at its end is missing; fetch or write the file again")?;
    if let Some(locator) = at.checked_sub(20).and_then(|at| tail.get(at..at + 20)) {
        let mut fields = Bytes(locator);
        if fields.u32() == Some(0x0706_4b50) {
            let record = fields.take(4).and_then(|_| fields.u64()).ok_or(DAMAGED)?;
            return find_directory_64(file, record, length);
        }
    }
    let mut fields = Bytes(&tail[at..]);
    let parsed = fields.take(10).and_then(|_| {
        let (count, size, start) = (fields.u16()?, fields.u32()?, fields.u32()?);
        Some((start.into(), size.into(), count.into()))
    });
    parsed.ok_or_else(|| DAMAGED.into())
}

/// The same from the zip64 record at `at`.
fn find_directory_64(file: &mut File, at: u64, length: u64) -> Why<(u64, u64, u64)> {
    if at.checked_add(56).is_none_or(|end| end > length) {
        return Err(DAMAGED.into());
    }
    let record = read_at(file, at, 56)?;
    let mut fields = Bytes(&record);
    let parsed = fields.u32().filter(|&signature| signature == 0x0606_4b50).and_then(|_| {
        fields.take(28)?;
        let (count, size, start) = (fields.u64()?, fields.u64()?, fields.u64()?);
        Some((start, size, count))
    });
    parsed.ok_or_else(|| DAMAGED.into())
}

/// One entry of the directory; [`None`] where the bytes are none.
fn parse_entry(rest: &mut Bytes) -> Option<Entry> {
    rest.u32().filter(|&signature| signature == 0x0201_4b50)?;
    rest.take(4)?;
    let (flags, method) = (rest.u16()?, rest.u16()?);
    rest.take(4)?;
    let crc32 = rest.u32()?;
    let (mut stored, mut size) = (u64::from(rest.u32()?), u64::from(rest.u32()?));
    let (name, extra, comment) = (rest.u16()?, rest.u16()?, rest.u16()?);
    rest.take(8)?;
    let mut header = u64::from(rest.u32()?);
    let name = String::from_utf8_lossy(rest.take(name.into())?).into_owned();
    let mut extra = Bytes(rest.take(extra.into())?);
    rest.take(comment.into())?;
    while !extra.0.is_empty() {
        let (id, length) = (extra.u16()?, extra.u16()?);
        let mut field = Bytes(extra.take(length.into())?);
        if id == 1 {
            // zip64: in this order, and only those that did not fit into 32 bits.
            for value in [&mut size, &mut stored, &mut header] {
                if *value == 0xffff_ffff {
                    *value = field.u64()?;
                }
            }
        }
    }
    let plain = method == 0 && flags & 1 == 0 && stored == size;
    Some(Entry { name, size, crc32, header, plain })
}

/// `length` bytes from `offset` on.
fn read_at(file: &mut File, offset: u64, length: usize) -> Why<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset)).map_err(|e| e.to_string())?;
    file.read_exact(&mut bytes).map_err(|_| "is truncated; fetch or write the file again")?;
    Ok(bytes)
}
