//! Several files in one input, and files that are made around one: random bytes seldom get a length or an
//! offset right.

use serde_json::Value;

/// What stands between the files of an input.
pub const SEPARATOR: &str = "\n%%%%\n";

/// The first `N` files of an input; those that it does not have are empty.
pub fn parts<const N: usize>(input: &[u8]) -> [&[u8]; N] {
    let mut out = [&input[..0]; N];
    let mut rest = input;
    for (i, part) in out.iter_mut().enumerate() {
        let found = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR.as_bytes());
        match found.filter(|_| i + 1 < N) {
            Some(at) => (*part, rest) = (&rest[..at], &rest[at + SEPARATOR.len()..]),
            None => (*part, rest) = (rest, &rest[..0]),
        }
    }
    out
}

/// The most data that is made for a header.
const MOST: u64 = 1 << 14;

/// A safetensors file with this header and as much data as it describes: bytes that make a valid boolean and
/// a finite number.
pub fn safetensors(header: &[u8]) -> Vec<u8> {
    let parsed: Value = serde_json::from_slice(header).unwrap_or_default();
    let ends = parsed.as_object().into_iter().flatten();
    let ends = ends.filter_map(|(_, info)| info.get("data_offsets")?.get(1)?.as_u64());
    let length = ends.max().unwrap_or(0).min(MOST) as usize;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + length, 1);
    file
}

/// The file that `torch.save` would make, with this pickle and some storages of 64 bytes.
pub fn torch_zip(pickle: &[u8]) -> Vec<u8> {
    let storage = [1u8; 64];
    let mut entries = vec![("archive/data.pkl".to_string(), pickle)];
    entries.extend((0..3).map(|i| (format!("archive/data/{i}"), &storage[..])));
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    let count = entries.len() as u16;
    for (name, data) in entries {
        let at = file.len() as u32;
        // Version, flags, method, time, date; checksum (none), sizes, length of the name, no extra field.
        let mut fields = vec![0; 10];
        fields.extend(0u32.to_le_bytes());
        fields.extend((data.len() as u32).to_le_bytes());
        fields.extend((data.len() as u32).to_le_bytes());
        fields.extend((name.len() as u16).to_le_bytes());
        fields.extend([0; 2]);
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.as_bytes());
        file.extend(data);
        directory.extend(b"PK\x01\x02");
        directory.extend([0; 2]);
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, length) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend(length.to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_an_input() {
        assert_eq!(parts::<2>(b"a\n%%%%\nb\n%%%%\nc"), [&b"a"[..], b"b\n%%%%\nc"]);
        assert_eq!(parts::<3>(b"a\n%%%%\n"), [&b"a"[..], b"", b""]);
        assert_eq!(parts::<1>(b"a\n%%%%\n"), [&b"a\n%%%%\n"[..]]);
    }
}
