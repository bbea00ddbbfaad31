//! Compressed streams: gzip and zstd as their command-line tools read them.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;

use super::first_line;
use crate::{Error, Result};

/// The largest zstd window that is read, as a power of two: 256 MiB, which is held in memory.
const WINDOW_LOG: u32 = 28;

/// The network's message names the file already.
pub(super) fn unreadable(origin: &Path, error: io::Error) -> Error {
    match error.to_string() {
        said if said.contains(&*origin.to_string_lossy()) => Error::invalid(first_line(said)),
        said => Error::file(origin, first_line(said)),
    }
}

/// A stream without its compression, which the end of its name tells.
///
/// Several gzip members or zstd frames are one stream; zeros that pad a gzip file at its end are skipped.
///
/// # Errors
/// If there is no memory for it. Later, as an error of reading, if the content is damaged or its zstd window
/// is above 256 MiB.
pub(super) fn unpacked(
    origin: &Path,
    name: &str,
    stream: Box<dyn Read + Send>,
) -> Result<Box<dyn Read + Send>> {
    Ok(match name.rsplit('.').next() {
        Some("zst") => {
            let mut decoder = zstd::Decoder::new(stream).map_err(|e| unreadable(origin, e))?;
            decoder.window_log_max(WINDOW_LOG).map_err(|e| unreadable(origin, e))?;
            Box::new(Zstd(decoder))
        }
        Some("gz") => Box::new(Gzip { member: Some(GzDecoder::new(BufReader::new(stream))) }),
        _ => stream,
    })
}

/// zstd with an error that says what to do.
struct Zstd<R: Read>(zstd::Decoder<'static, BufReader<R>>);

impl<R: Read> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.to_string() {
            said if said.contains("too much memory") => io::Error::new(
                io::ErrorKind::InvalidData,
                "its zstd window is above 256 MiB; recompress it with a smaller one: zstd -dc --long=31 FILE \
                | zstd -o NEW",
            ),
            _ => error,
        })
    }
}

/// The members of a gzip file, one after the other.
struct Gzip<R> {
    /// None at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            if skip_zeros(&mut rest)? {
                self.member = Some(GzDecoder::new(rest));
            }
        }
        Ok(0)
    }
}

/// Whether something follows the zeros.
fn skip_zeros(stream: &mut impl BufRead) -> io::Result<bool> {
    loop {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            return Ok(false);
        }
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        let more = zeros < bytes.len();
        stream.consume(zeros);
        if more {
            return Ok(true);
        }
    }
}
