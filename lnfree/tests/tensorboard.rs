//! TensorBoard event files: what [`EventWriter`] writes, read back by a parser that shares no code with it.

use std::fs;
use std::path::{Path, PathBuf};

use lnfree::train::tensorboard::EventWriter;

/// Two records (the file version; step 300 with `train/loss` = 3.25, both at time 1700000000.5) as written by
/// `RecordWriter` of the Python package tensorboard 2.21.0.
const FROM_PYTHON: &str = "1800000000000000a37f4b220900002040fc54d9411a0d627261696e2e4576656e743a322b3531102100000000000000017b\
     ecf60900002040fc54d94110ac022a130a110a0a747261696e2f6c6f73731500005040af6684c9";

#[derive(Debug, Default, PartialEq)]
struct Event {
    wall_time: f64,
    step: i64,
    version: Option<String>,
    scalars: Vec<(String, f32)>,
}

/// CRC-32C one bit at a time, with the masking of TFRecord.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()), masked_crc(&bytes[..8]));
        let message = &bytes[12..12 + n];
        let crc = u32::from_le_bytes(bytes[12 + n..16 + n].try_into().unwrap());
        assert_eq!(crc, masked_crc(message));
        out.push(message);
        bytes = &bytes[16 + n..];
    }
    out
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// Fields of a protocol buffer message: number and payload, varints and fixed numbers as little-endian bytes.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let n = match key & 7 {
            0 => {
                let value = varint(&mut bytes);
                out.push((key >> 3, value.to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            wire => panic!("wire type {wire}"),
        };
        out.push((key >> 3, bytes[..n].to_vec()));
        bytes = &bytes[n..];
    }
    out
}

fn parse(bytes: &[u8]) -> Vec<Event> {
    records(bytes).into_iter().map(parse_event).collect()
}

fn parse_event(message: &[u8]) -> Event {
    let mut event = Event::default();
    for (number, payload) in fields(message) {
        match number {
            1 => event.wall_time = f64::from_le_bytes(payload.try_into().unwrap()),
            2 => event.step = i64::from_le_bytes(payload.try_into().unwrap()),
            3 => event.version = Some(String::from_utf8(payload).unwrap()),
            5 => event.scalars = fields(&payload).iter().map(summary_value).collect(),
            other => panic!("field {other} of Event"),
        }
    }
    event
}

fn summary_value((number, value): &(u64, Vec<u8>)) -> (String, f32) {
    assert_eq!(*number, 1, "Summary.value");
    let fields = fields(value);
    assert_eq!(fields.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 2], "tag and simple_value");
    let tag = String::from_utf8(fields[0].1.clone()).unwrap();
    (tag, f32::from_le_bytes(fields[1].1[..].try_into().unwrap()))
}

fn steps(path: &Path) -> Vec<i64> {
    parse(&fs::read(path).unwrap()).iter().skip(1).map(|e| e.step).collect()
}

/// Writes one loss for each of `steps`, beginning with a new file or continuing an old one.
fn write(mut writer: EventWriter, steps: std::ops::Range<usize>) -> PathBuf {
    for step in steps {
        writer.add_scalar("train/loss", step, step as f64).unwrap();
    }
    writer.flush().unwrap();
    writer.path().to_path_buf()
}

#[test]
fn the_parser_reads_what_tensorboard_itself_wrote() {
    let hex = |i| u8::from_str_radix(&FROM_PYTHON[i..i + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..FROM_PYTHON.len()).step_by(2).map(hex).collect();
    let version = Some("brain.Event:2".to_string());
    let first = Event { wall_time: 1_700_000_000.5, version, ..Event::default() };
    let scalars = vec![("train/loss".to_string(), 3.25)];
    let second = Event { wall_time: 1_700_000_000.5, step: 300, scalars, ..Event::default() };
    assert_eq!(parse(&bytes), [first, second]);
}

#[test]
fn scalars_come_back_with_tag_step_value_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(dir.path().join("deep/er")).unwrap();
    writer.add_scalar("train/loss", 0, 3.1).unwrap();
    writer.add_scalars(300, [("lr", 6e-4), ("σ/h.0.ln_1", f64::NAN)]).unwrap();
    writer.flush().unwrap();

    assert!(writer.path().file_name().unwrap().to_str().unwrap().contains("tfevents"));
    let bytes = fs::read(writer.path()).unwrap();
    // Every event file of TensorFlow begins with these 12 bytes: a 24-byte message and its length's checksum.
    assert_eq!(bytes[..12], [0x18, 0, 0, 0, 0, 0, 0, 0, 0xa3, 0x7f, 0x4b, 0x22]);
    let events = parse(&bytes);
    assert_eq!(events.len(), 3);
    assert_eq!(events[0].version.as_deref(), Some("brain.Event:2"));
    assert_eq!((events[1].step, &events[1].scalars[..]), (0, &[("train/loss".to_string(), 3.1f32)][..]));
    assert_eq!((events[2].step, &events[2].scalars[0]), (300, &("lr".to_string(), 6e-4f32)));
    assert_eq!(events[2].scalars[1].0, "σ/h.0.ln_1");
    assert!(events[2].scalars[1].1.is_nan());
    // Later than 2023, sooner than 2100: seconds since 1970 and nothing else.
    assert!(events.iter().all(|e| (1.7e9..4.1e9).contains(&e.wall_time)));
}

#[test]
fn two_writers_in_one_folder_do_not_share_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let one = EventWriter::create(dir.path()).unwrap();
    let two = EventWriter::create(dir.path()).unwrap();
    assert_ne!(one.path(), two.path());
}

#[test]
fn resuming_goes_on_in_the_same_file_without_repeating_steps() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(EventWriter::create(dir.path()).unwrap(), 0..200);
    let again = write(EventWriter::resume(dir.path(), 150).unwrap(), 150..180);
    assert_eq!(again, path);
    assert_eq!(steps(&path), (0..180).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_record_torn_at_any_byte_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(EventWriter::create(dir.path()).unwrap(), 0..3);
    let whole = fs::read(&path).unwrap();
    let last = records(&whole).last().unwrap().len() + 16;
    for torn in 1..last {
        fs::write(&path, &whole[..whole.len() - torn]).unwrap();
        write(EventWriter::resume(dir.path(), 3).unwrap(), 3..4);
        assert_eq!(steps(&path), [0, 1, 3], "{torn} bytes missing");
    }
}

#[test]
fn a_flipped_bit_ends_what_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(EventWriter::create(dir.path()).unwrap(), 0..3);
    let mut bytes = fs::read(&path).unwrap();
    let lengths: Vec<usize> = records(&bytes).iter().map(|r| r.len() + 16).collect();
    // Somewhere inside the message of step 1.
    bytes[lengths[0] + lengths[1] + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    write(EventWriter::resume(dir.path(), 3).unwrap(), 3..4);
    assert_eq!(steps(&path), [0, 3]);
}

#[test]
fn resuming_without_a_usable_file_starts_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(EventWriter::resume(dir.path().join("none"), 7).unwrap(), 7..8);
    assert_eq!(steps(&path), [7]);
    fs::write(dir.path().join("events.out.tfevents.1.garbage"), b"not an event file").unwrap();
    let path = write(EventWriter::resume(dir.path(), 7).unwrap(), 7..8);
    assert_eq!(steps(&path), [7]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let message = EventWriter::create(file.join("tb")).unwrap_err().to_string();
    assert!(message.contains(file.join("tb").to_str().unwrap()), "{message}");
    assert_eq!(message.lines().count(), 1);
}
