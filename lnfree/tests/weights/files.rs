//! Builds the files of the tests byte by byte, so that they can say what no honest program writes.

/// A safetensors file with this header and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// One entry of a zip archive, with sizes and checksum that may be lies.
pub struct Entry {
    pub name: String,
    pub data: Vec<u8>,
    pub method: u16,
    pub flags: u16,
    pub crc32: u32,
    pub size: u32,
    /// Where the directory says that the entry is; its real place if there is none.
    pub header: Option<u32>,
}

impl Entry {
    /// An honest stored entry.
    pub fn new(name: &str, data: &[u8]) -> Self {
        let (name, data) = (name.to_string(), data.to_vec());
        Self {
            crc32: crc32fast::hash(&data),
            size: data.len() as u32,
            name,
            data,
            method: 0,
            flags: 0,
            header: None,
        }
    }

    /// The fields that the entry's own header and the directory have in common.
    fn common(&self) -> Vec<u8> {
        let mut bytes = 20u16.to_le_bytes().to_vec();
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.crc32.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend((self.name.len() as u16).to_le_bytes());
        bytes
    }
}

/// A zip archive (APPNOTE.TXT 4.3).
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let header = entry.header.unwrap_or(bytes.len() as u32);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(entry.common());
        directory.extend([0; 12]);
        directory.extend(header.to_le_bytes());
        directory.extend(entry.name.as_bytes());
        if entry.header.is_none() {
            bytes.extend(b"PK\x03\x04");
            bytes.extend(entry.common());
            bytes.extend([0; 2]);
            bytes.extend(entry.name.as_bytes());
            bytes.extend(&entry.data);
        }
    }
    let start = bytes.len() as u32;
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend((entries.len() as u16).to_le_bytes());
    bytes.extend((directory.len() as u32).to_le_bytes());
    bytes.extend(start.to_le_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// What `torch.save` makes: the pickle and the storages "0", "1", ….
pub fn torch_zip(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut entries = vec![Entry::new("m/data.pkl", pickle), Entry::new("m/byteorder", b"little")];
    entries.extend(storages.iter().enumerate().map(|(i, data)| Entry::new(&format!("m/data/{i}"), data)));
    zip(&entries)
}

/// What `torch.save` made before PyTorch 1.6, with no storages.
pub fn torch_legacy(pickle: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.".to_vec();
    bytes.extend([b"\x80\x02}".as_slice(), &text("little_endian"), b"\x88s."].concat());
    bytes.extend(pickle);
    bytes.extend(b"\x80\x02].");
    bytes
}

/// BINUNICODE.
pub fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

/// LONG1.
pub fn integer(n: i64) -> Vec<u8> {
    [b"\x8a\x08".as_slice(), &n.to_le_bytes()].concat()
}

/// A tuple of numbers.
pub fn integers(numbers: &[i64]) -> Vec<u8> {
    let items: Vec<u8> = numbers.iter().flat_map(|&n| integer(n)).collect();
    [b"(".as_slice(), &items, b"t"].concat()
}

/// A reference to the storage `key` of `numel` elements of the type `kind` ("Float", …).
pub fn storage(kind: &str, key: &str, numel: i64) -> Vec<u8> {
    let class = format!("ctorch\n{kind}Storage\n");
    let (begin, end) = ([b"(".as_slice(), &text("storage"), class.as_bytes()].concat(), b"tQ".as_slice());
    [&begin, &text(key), &text("cpu"), &integer(numel), end].concat()
}

/// A tensor as a view of a storage.
pub fn tensor(storage: &[u8], offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let begin = b"ctorch._utils\n_rebuild_tensor_v2\n(".as_slice();
    let end = b"\x89ccollections\nOrderedDict\n)RtR".as_slice();
    [begin, storage, &integer(offset), &integers(shape), &integers(stride), end].concat()
}

/// A whole pickle: a dict with one key and this value.
pub fn dict(key: &str, value: &[u8]) -> Vec<u8> {
    [b"\x80\x02}".as_slice(), &text(key), value, b"s."].concat()
}

/// A whole pickle of protocol 2 with this between its first and last operation.
pub fn plain(body: &[u8]) -> Vec<u8> {
    [b"\x80\x02", body, b"."].concat()
}
