//! Jane Austen's novels out of an R package's data file.
//!
//! `Rdata.rdb` is a row of objects, each four bytes of length (big-endian) and a zlib stream; an object is
//! R's XDR serialization, here of a character vector: the lines of a novel.

use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use crate::Result;

const STRING_VECTOR: u32 = 16;

/// The lines of each novel, in the order of their titles.
pub fn novels(package: &Path) -> Result<Vec<Vec<String>>> {
    let path = package.join("usr/lib/R/site-library/janeaustenr/data/Rdata.rdb");
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let (mut novels, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((_, stream)) = rest.split_first_chunk::<4>() {
        let mut decoder = ZlibDecoder::new(stream);
        let mut object = Vec::new();
        decoder.read_to_end(&mut object)?;
        rest = &stream[decoder.total_in() as usize..];
        // Beside the novels, the file holds small objects of R's own.
        if let Some(lines) = character_vector(&object) {
            novels.push(lines);
        }
    }
    novels.sort_by(|a, b| a.first().cmp(&b.first()));
    Ok(novels)
}

/// The strings of a serialized character vector, if it is one.
fn character_vector(object: &[u8]) -> Option<Vec<String>> {
    let mut rest = object.strip_prefix(b"X\n")?;
    let (version, _writer, _reader) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
    if version == 3 {
        let encoding = word(&mut rest)? as usize;
        rest = rest.get(encoding..)?;
    }
    if word(&mut rest)? & 0xff != STRING_VECTOR {
        return None;
    }
    let count = word(&mut rest)?;
    (0..count)
        .map(|_| {
            let (_flags, length) = (word(&mut rest)?, word(&mut rest)? as usize);
            let (string, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(String::from_utf8_lossy(string).into_owned())
        })
        .collect()
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*word))
}
