//! Files cut short and files with wrong bits. Whatever is wrong: an answer, no panic, and no memory by a
//! lying number.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use lnfree::model::weights::{Weights, read_weights, write_safetensors};
use lnfree::tch::{Kind, Tensor};

use crate::files::safetensors;
use crate::{line, read_bytes, vector};

/// How much more address space than at the start the reading of damaged files may take: 256 MiB, of which
/// glibc reserves 64 for each thread.
const LIMIT: u64 = 256 << 20;

/// Runs the named `#[ignore]`d test of this file in a process of its own whose memory is limited.
fn in_limited_process(test: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// From here on every allocation beyond [`LIMIT`] fails, whether Rust asks for it or libtorch.
fn limit_memory() {
    // macOS neither tells this process' size here nor holds it to a limit.
    if !cfg!(target_os = "linux") {
        return;
    }
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let bytes = pages * 4096 + LIMIT;
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
    // The limit is real: what it forbids is refused.
    assert!(Vec::<u8>::new().try_reserve_exact(2 * LIMIT as usize).is_err());
}

/// Reads `path` with these bytes in it; the answer must be weights or one line.
fn try_read(path: &Path, bytes: &[u8]) -> bool {
    // In place: some file systems wait for the disk when a file is emptied and written again.
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all(bytes).and_then(|()| file.set_len(bytes.len() as u64)).unwrap();
    let result = read_weights(path);
    let ok = result.is_ok();
    if !ok {
        line(result);
    }
    ok
}

/// Cuts a good file at every 64th byte, and changes each of its first `most` bytes in two ways, one at a
/// time.
fn damage(good: &[u8], name: &str, most: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    assert!(try_read(&path, good));
    for length in (0..good.len()).step_by(64) {
        assert!(
            !try_read(&path, &good[..length]),
            "{name}: {length} of {} bytes were taken for all",
            good.len()
        );
    }
    let (mut bytes, mut refused) = (good.to_vec(), 0);
    for at in 0..good.len().min(most) {
        for change in [1 << (at % 8), 0xff] {
            bytes[at] ^= change;
            refused += usize::from(!try_read(&path, &bytes));
            bytes[at] = good[at];
        }
    }
    assert!(refused > 100, "{name}: the damage is not seen");
}

#[test]
fn damaged_files_end_in_one_line_and_little_memory() {
    in_limited_process("damaged::limited_damage");
}

#[test]
#[ignore = "runs in a process of its own, see above"]
fn limited_damage() {
    let mixed = read_weights(&vector("weights/mixed.pt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.safetensors");
    write_safetensors(&path, &mixed, &Default::default()).unwrap();
    limit_memory();
    damage(&fs::read(&path).unwrap(), "a.safetensors", 4000);
    // Where there are checksums they hide the pickle from wrong bits; the other two have none.
    for (name, most) in [("mixed.pt", 6000), ("mixed_no_checksums.pt", 3000), ("mixed_legacy.pt", 3000)] {
        damage(&fs::read(vector("weights").join(name)).unwrap(), name, most);
    }
}

#[test]
fn a_damaged_checkpoint_is_never_taken_for_a_good_one() {
    let good = fs::read(vector("checkpoint/step30/pytorch_model.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pytorch_model.bin");
    for length in (0..good.len()).step_by(64 * 97) {
        assert!(!try_read(&path, &good[..length]));
    }
    // The checksums of the archive find a wrong bit in any weight.
    for at in (12_000..600_000).step_by(40_013) {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        let message = line(read_bytes("pytorch_model.bin", &bytes).1);
        assert!(message.contains("checksum"), "byte {at}: {message}");
    }
}

#[test]
fn a_safetensors_header_cannot_lie() {
    let tensor = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let (max, half) = (u64::MAX, 1u64 << 63);
    let cases = [
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 0, 4)), 8, "invalid shape"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 0, 8)), 7, "truncated"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 0, 8)), 9, "damaged"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 4, 12)), 12, "invalid offset"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[2]", 8, 0)), 8, "invalid offset"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", "[-2]", 0, 8)), 8, "damaged header"),
        (format!(r#"{{"a":{}}}"#, tensor("F32", &format!("[{max},4]"), 0, 8)), 8, "overflow"),
        (format!(r#"{{"a":{}}}"#, tensor("U8", &format!("[{}]", max / 8), 0, max / 8)), 8, "truncated"),
        (format!(r#"{{"a":{}}}"#, tensor("U8", &format!("[0,{max}]"), 0, 0)), 0, "absurd shape"),
        (format!(r#"{{"a":{}}}"#, tensor("U8", &format!("[0,{half},{half}]"), 0, 0)), 0, "absurd shape"),
        (
            format!(r#"{{"a":{}}}"#, tensor("U8", &format!("[0,{0},{0}]", 1u64 << 40), 0, 0)),
            0,
            "absurd shape",
        ),
        (
            format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[4]", 0, 4), tensor("U8", "[4]", 2, 6)),
            6,
            "invalid offset for tensor `b`",
        ),
        (format!(r#"{{"a":{}}}"#, tensor("F8_E4M3", "[2]", 0, 2)), 2, "F8_E4M3 is not supported"),
        (format!(r#"{{"a":{}}}"#, tensor("F99", "[2]", 0, 2)), 2, "damaged header"),
        (format!(r#"{{"a\n\u001b[2J":{}}}"#, tensor("U64", "[1]", 0, 8)), 8, "is not supported"),
        (format!(r#"{{"a":{}}}"#, tensor("BOOL", "[1]", 0, 1)), 1, ""),
        ("[".repeat(100_000), 0, "damaged header"),
        (r#"{"a":"#.repeat(100_000), 0, "damaged header"),
    ];
    for (header, data, expected) in cases {
        let (_folder, result) = read_bytes("a.safetensors", &safetensors(&header, &vec![1; data]));
        if expected.is_empty() {
            assert_eq!(result.unwrap()["a"].kind(), Kind::Bool);
            continue;
        }
        let message = line(result);
        assert!(message.contains(expected) && !message.contains('\u{1b}'), "{expected}: {message}");
    }
    // Eight tensors whose sizes add up to 2^64: the sum overflows in a careless reader.
    let part = 1u64 << 60;
    let parts = (0..16).map(|i| {
        let end = if i == 15 { u64::MAX } else { (i + 1) * part };
        format!(r#""t{i:02}":{}"#, tensor("U8", &format!("[{}]", end - i * part), i * part, end))
    });
    let header = format!("{{{}}}", parts.collect::<Vec<_>>().join(","));
    assert!(line(read_bytes("a.safetensors", &safetensors(&header, &[0; 8])).1).contains("truncated"));
    for announced in [0u64, 9, 1 << 20, 1 << 40, u64::MAX] {
        let bytes = [announced.to_le_bytes().as_slice(), b"{}      "].concat();
        line(read_bytes("a.safetensors", &bytes).1);
    }
}

#[test]
fn one_bad_boolean_is_found() {
    let header = r#"{"a":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let (_folder, good) = read_bytes("a.safetensors", &safetensors(header, &[0, 1, 1]));
    let good: Weights = good.unwrap();
    assert_eq!(good["a"], Tensor::from_slice(&[false, true, true]));
    assert!(
        line(read_bytes("a.safetensors", &safetensors(header, &[0, 1, 2])).1).contains("neither 0 nor 1")
    );
}
