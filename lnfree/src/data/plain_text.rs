//! Plain text: UTF-8, read in parts that are never cut inside a character.

use std::io::Read;
use std::path::Path;

use super::rows::Document;
use crate::base::json;
use crate::{Error, Result};

/// A stream of documents, long ones in parts; after an error it ends.
pub(super) type Parts = Box<dyn Iterator<Item = Result<Document>> + Send>;

/// Bytes that are read at a time.
const PART: usize = 1 << 20;

/// The text of a file as one document in parts, of which the last is the end.
pub(super) fn parts(path: &Path, mut file: impl Read + Send + 'static) -> Parts {
    let path = path.to_path_buf();
    // Bytes of a character whose end has not been read, and whether the file has begun and has ended.
    let (mut rest, mut begun, mut ended) = (Vec::new(), false, false);
    Box::new(std::iter::from_fn(move || {
        if std::mem::replace(&mut ended, true) {
            return None;
        }
        let mut bytes = std::mem::take(&mut rest);
        let wanted = (PART - bytes.len()) as u64;
        let read = match file.by_ref().take(wanted).read_to_end(&mut bytes) {
            Ok(read) => read as u64,
            Err(source) => return Some(Err(Error::io(&path)(source))),
        };
        if !std::mem::replace(&mut begun, true)
            && let Err(error) = skip_mark(&path, &mut bytes)
        {
            ended = true;
            return Some(Err(error));
        }
        let last = read < wanted;
        if !last {
            rest = bytes.split_off(bytes.len() - cut_off(&bytes));
        }
        let text = string(&path, bytes);
        ended = last || text.is_err();
        Some(text.map(if last { Document::Text } else { Document::Part }))
    }))
}

/// Bytes at the end that begin a character and do not end it.
fn cut_off(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        _ => 0,
    }
}

/// The bytes as text, without a byte order mark.
///
/// # Errors
/// If they are not UTF-8.
pub(super) fn utf8(path: &Path, mut bytes: Vec<u8>) -> Result<String> {
    skip_mark(path, &mut bytes)?;
    string(path, bytes)
}

fn skip_mark(path: &Path, bytes: &mut Vec<u8>) -> Result<()> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(Error::file(path, "the text is UTF-16, not UTF-8; save it as UTF-8"));
    }
    let text = json::without_bom(bytes).len();
    bytes.drain(..bytes.len() - text);
    Ok(())
}

fn string(path: &Path, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::file(path, "the text is not UTF-8"))
}
