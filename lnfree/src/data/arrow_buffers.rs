//! A check before arrow's own reader: it takes as much memory as messages and compressed buffers announce,
//! before it has read anything.

use arrow::buffer::Buffer;
use arrow::ipc::{Block, CompressionType, RecordBatch, root_as_message};

use super::first_line;

/// Stands before the length of a message since Arrow 0.15.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// LZ4 makes at most so many bytes of one.
const LZ4_RATIO: u64 = 255;
/// What a buffer that zstd compressed may announce: so many bytes for each byte of the file, or the floor
/// where that is more. Zstd itself has no limit.
const ZSTD_RATIO: u64 = 1024;
const ZSTD_FLOOR: u64 = 64 << 20;

/// Checks the buffers of the message at `block` of an Arrow file.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check_block(bytes: &[u8], block: &Block) -> Result<(), String> {
    let place = |start: u64, length: u64| part(bytes, start, length).ok_or("a batch lies outside the file");
    let start = u64::try_from(block.offset()).map_err(|_| "a batch lies before the file")?;
    let length = u64::try_from(block.metaDataLength()).map_err(|_| "a message has no length")?;
    let metadata = place(start, length)?;
    let body = place(
        start.saturating_add(length),
        u64::try_from(block.bodyLength()).map_err(|_| "a batch has no length")?,
    )?;
    // With or without the mark, the length comes before the message.
    let skipped = if metadata.starts_with(&CONTINUATION) { 8 } else { 4 };
    let message = metadata.get(skipped..).ok_or("a message is too short")?;
    check_message(message, |_| Some(body), bytes.len() as u64).map(drop)
}

/// Checks the buffers of all messages of an Arrow stream; what begins with neither mark nor message is left
/// to the reader.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check_stream(bytes: &[u8]) -> Result<(), String> {
    const CUT_OFF: &str = "its end is missing";
    let mut at = 0u64;
    while let Some(mut length) = part(bytes, at, 4) {
        let unmarked_start = at == 0 && length != CONTINUATION;
        at += 4;
        // Older streams have no mark before the length.
        if length == CONTINUATION {
            length = part(bytes, at, 4).ok_or(CUT_OFF)?;
            at += 4;
        }
        let length = u32::from_le_bytes(length.try_into().map_err(|_| CUT_OFF)?).into();
        if length == 0 {
            return Ok(());
        }
        let checked = part(bytes, at, length).ok_or_else(|| CUT_OFF.to_string()).and_then(|message| {
            check_message(message, |body| part(bytes, at + length, body), bytes.len() as u64)
        });
        match checked {
            // The reader has better words for it.
            Err(_) if unmarked_start => return Ok(()),
            body => at += length + body?,
        }
    }
    Ok(())
}

/// Checks the buffers of a message, in the body that `body` finds by its length. Returns that length.
fn check_message<'a>(
    message: &[u8],
    body: impl FnOnce(u64) -> Option<&'a [u8]>,
    file: u64,
) -> Result<u64, String> {
    // A copy, which is aligned as flatbuffers ask: in a file that is damaged the message may begin anywhere.
    let message = Buffer::from(message);
    let message = root_as_message(&message).map_err(|e| format!("a message is none: {}", first_line(e)))?;
    let length = u64::try_from(message.bodyLength()).map_err(|_| "a batch has no length")?;
    let body = body(length).ok_or("its end is missing")?;
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    if let Some(batch) = message.header_as_record_batch().or(dictionary) {
        check_batch(&batch, body, file)?;
    }
    Ok(length)
}

/// Every buffer lies in `body`, and none announces more than `file` bytes can hold.
fn check_batch(batch: &RecordBatch, body: &[u8], file: u64) -> Result<(), String> {
    let codec = batch.compression().map(|compression| compression.codec());
    for buffer in batch.buffers().iter().flatten() {
        let place = u64::try_from(buffer.offset()).ok().zip(u64::try_from(buffer.length()).ok());
        let found = place.and_then(|(start, length)| part(body, start, length));
        let found = found.ok_or("a buffer lies outside its batch")?;
        let (Some(codec), Some((announced, compressed))) = (codec, found.split_first_chunk()) else {
            continue;
        };
        let announced = i64::from_le_bytes(*announced);
        let most = match codec {
            CompressionType::LZ4_FRAME => LZ4_RATIO.saturating_mul(compressed.len() as u64),
            _ => ZSTD_RATIO.saturating_mul(file).max(ZSTD_FLOOR),
        };
        // -1: it was not worth compressing.
        if announced != -1 && u64::try_from(announced).map_or(true, |announced| announced > most) {
            return Err(format!("a compressed buffer of {} bytes announces {announced}", compressed.len()));
        }
    }
    Ok(())
}

fn part(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};
    use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
    use arrow::record_batch::RecordBatch as Table;

    use super::*;
    use crate::data::arrow_blocks::check_arrow;

    /// A table as file and as stream, its one column compressed.
    fn tables(codec: CompressionType) -> [Vec<u8>; 2] {
        let column: ArrayRef = Arc::new(Int32Array::from_iter_values((0..4000).map(|i| i % 7)));
        let table = Table::try_from_iter([("input_ids", column)]).unwrap();
        let options = || IpcWriteOptions::default().try_with_compression(Some(codec)).unwrap();
        let (mut file, mut stream) = (Vec::new(), Vec::new());
        let mut writer = FileWriter::try_new_with_options(&mut file, &table.schema(), options()).unwrap();
        writer.write(&table).and_then(|()| writer.finish()).unwrap();
        let mut writer = StreamWriter::try_new_with_options(&mut stream, &table.schema(), options()).unwrap();
        writer.write(&table).and_then(|()| writer.finish()).unwrap();
        drop(writer);
        [file, stream]
    }

    fn checked(bytes: &[u8]) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check_arrow(file.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn compressed_buffers_announce_what_they_hold() {
        for codec in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
            for bytes in tables(codec) {
                checked(&bytes).unwrap();
                let announced = 16000i64.to_le_bytes();
                let at = bytes.windows(8).position(|x| x == announced).unwrap();
                for wrong in [1 << 40, i64::MAX, i64::MIN, -2] {
                    let mut bytes = bytes.clone();
                    bytes[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
                    let why = checked(&bytes).unwrap_err();
                    assert!(
                        why.contains(&format!("announces {wrong}")) && !why.contains('\n'),
                        "{codec:?}: {why}"
                    );
                }
                let mut bytes = bytes.clone();
                bytes[at..at + 8].copy_from_slice(&(-1i64).to_le_bytes());
                checked(&bytes).unwrap();
            }
        }
    }

    #[test]
    fn a_message_that_is_longer_than_the_stream_is_not_believed() {
        let [_, stream] = tables(CompressionType::ZSTD);
        let mut bytes = stream.clone();
        bytes[4..8].copy_from_slice(&0x7fff_fff0u32.to_le_bytes());
        assert!(checked(&bytes).unwrap_err().contains("its end is missing"));
        // The batch's body.
        assert!(checked(&stream[..stream.len() - 100]).unwrap_err().contains("its end is missing"));
        // Without the mark, and at any place.
        for (codec, [_, stream]) in
            [CompressionType::LZ4_FRAME, CompressionType::ZSTD].map(|c| (c, tables(c)))
        {
            let batch = stream.windows(4).rposition(|x| x == CONTINUATION).unwrap();
            let batch = stream[..batch].windows(4).rposition(|x| x == CONTINUATION).unwrap();
            let mut old = [&stream[4..batch], &stream[batch + 4..]].concat();
            checked(&old).unwrap_or_else(|e| panic!("{codec:?}: {e}"));
            let at = old.windows(8).position(|x| x == 16000i64.to_le_bytes()).unwrap();
            old[at..at + 8].copy_from_slice(&i64::MAX.to_le_bytes());
            assert!(checked(&old).unwrap_err().contains("announces 9223372036854775807"));
        }
        // No stream at all, which the reader says.
        checked(b"some text, no table").unwrap();
        checked(b"").unwrap();
    }
}
