//! Pickles that want to do something else than to describe tensors. Nothing of it may happen.

use std::path::Path;

use lnfree::tch::Tensor;

use crate::files::{Entry, dict, integer, plain, storage, tensor, text, torch_legacy, torch_zip, zip};
use crate::{line, read_bytes};

/// One float32 tensor `w` of shape [2] with this view of a storage of two elements.
fn one_tensor(offset: i64, shape: &[i64], stride: &[i64]) -> Vec<u8> {
    let pickle = dict("w", &tensor(&storage("Float", "0", 2), offset, shape, stride));
    torch_zip(&pickle, &[&[0, 0, 128, 63, 0, 0, 0, 64]])
}

#[test]
fn the_builder_of_these_tests_makes_files_that_are_read() {
    let (_folder, weights) = read_bytes("a.bin", &one_tensor(0, &[2], &[1]));
    assert_eq!(weights.unwrap()["w"], Tensor::from_slice(&[1f32, 2.0]));
    let (_folder, weights) = read_bytes("a.bin", &one_tensor(1, &[], &[]));
    assert_eq!(f64::try_from(&weights.unwrap()["w"]).unwrap(), 2.0);
}

/// Pickles that make `marker` when Python's own `pickle` loads them (tried), with what the refusal has to
/// name.
fn attacks(marker: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let command = text(&format!("touch {}", marker.display()));
    let eval = text(&format!("__import__('os').system('touch {}')", marker.display()));
    let short = |s: &str| [&[0x8c, s.len() as u8], s.as_bytes()].concat();
    let call = [b"cos\nsystem\n".as_slice(), &command, b"\x85R"].concat();
    let around = |before: &[u8], after: &[u8]| plain(&[before, &call, after].concat());
    let rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n(".as_slice();
    let ordered = b"ccollections\nOrderedDict\n(".as_slice();
    vec![
        ("`os.system`", plain(&call)),
        ("`posix.system`", plain(&[b"cposix\nsystem\n".as_slice(), &command, b"\x85R"].concat())),
        ("`builtins.eval`", plain(&[b"cbuiltins\neval\n".as_slice(), &eval, b"\x85R"].concat())),
        ("`__builtin__.eval`", plain(&[b"c__builtin__\neval\n".as_slice(), &eval, b"\x85R"].concat())),
        (
            "`os.system`",
            plain(&[&short("os"), &short("system"), b"\x93".as_slice(), &command, b"\x85R"].concat()),
        ),
        (
            "`subprocess.getoutput`",
            plain(&[b"csubprocess\ngetoutput\n".as_slice(), &command, b"\x85R"].concat()),
        ),
        ("INST", plain(&[b"(".as_slice(), &command, b"ios\nsystem\n"].concat())),
        (
            "`subprocess.Popen`",
            plain(
                &[
                    b"(csubprocess\nPopen\n(".as_slice(),
                    &text("touch"),
                    &text(marker.to_str().unwrap()),
                    b"lo",
                ]
                .concat(),
            ),
        ),
        // As a value, a key, an element; memoised and recalled; where a tensor's parts belong.
        ("`os.system`", dict("w", &call)),
        ("`os.system`", around(b"}", b"Ns")),
        ("`os.system`", around(b"]", b"a")),
        ("`os.system`", around(b"", b"q\x010h\x01")),
        ("`os.system`", around(rebuild, b"t")),
        ("`os.system`", around(&[b"(".as_slice(), &text("storage")].concat(), b"t")),
        ("`os.system`", around(ordered, b"t")),
        ("`os.system`", around(&[ordered, b"tR}".as_slice(), &text("x")].concat(), b"sb")),
    ]
}

#[test]
fn nothing_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("executed");
    for (i, (named, pickle)) in attacks(&marker).into_iter().enumerate() {
        for bytes in [torch_zip(&pickle, &[]), torch_legacy(&pickle)] {
            let message = line(read_bytes("a.bin", &bytes).1);
            assert!(message.contains(named) && message.contains("nothing was executed"), "{i}: {message}");
        }
        assert!(!marker.exists(), "attack {i} was executed");
    }
}

#[test]
fn only_whole_names_are_known() {
    let names = [
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch", "load"),
        ("torch", "FloatStorage.from_file"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.__init__"),
        ("collections ", "OrderedDict"),
        ("", ""),
        ("os\0", "system"),
        ("\u{1b}[2Jos", "system"),
    ];
    for (module, name) in names {
        let pickle = plain(format!("c{module}\n{name}\n").as_bytes());
        let message = line(read_bytes("a.bin", &torch_zip(&pickle, &[])).1);
        assert!(message.contains("nothing was executed") && !message.contains('\u{1b}'), "{message}");
    }
}

#[test]
fn unknown_operations_are_refused() {
    let known = b".(NJKMGX)t]ae}suqrhjcQRb";
    let known =
        known.iter().copied().chain([0x80, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x93, 0x94, 0x95]);
    let known: Vec<u8> = known.collect();
    for operation in (0..=255).filter(|op| !known.contains(op)) {
        let pickle = plain(&[b"}}}".as_slice(), &[operation], &[b'0'; 64]].concat());
        let message = line(read_bytes("a.bin", &torch_zip(&pickle, &[])).1);
        assert!(message.contains(&format!("0x{operation:02x}")) && message.contains("refused"), "{message}");
    }
}

#[test]
fn known_operations_do_only_what_a_state_dict_needs() {
    let storage = storage("Float", "0", 2);
    let good = tensor(&storage, 0, &[2], &[1]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "sets attributes",
            plain(&[b"ctorch._utils\n_rebuild_tensor_v2\n}".as_slice(), &text("x"), b"Nsb"].concat()),
        ),
        ("sets attributes", dict("w", &[&good[..], b"}b"].concat())),
        ("calls something", plain(b"})R")),
        ("in a way that torch.save does not", plain(b"ctorch._utils\n_rebuild_tensor_v2\n)R")),
        ("in a way that torch.save does not", plain(b"ctorch\nFloatStorage\n)R")),
        ("in a way that torch.save does not", plain(b"ccollections\nOrderedDict\nN\x85R")),
        ("a tuple belongs", plain(b"ccollections\nOrderedDict\nNR")),
        ("not a plain tensor storage", plain(&[b"(".as_slice(), &text("module"), b"NNNNtQ"].concat())),
        ("does not hold a state dict", plain(b"]")),
        ("not a tensor", dict("w", b"N")),
        ("not a tensor", dict("w", b"}")),
        ("not names", plain(&[b"}K\x01".as_slice(), &good, b"s"].concat())),
        ("`w` twice", plain(&[b"}(".as_slice(), &text("w"), &good, &text("w"), &good, b"u"].concat())),
        ("holds no tensors", plain(b"}")),
    ];
    for (expected, pickle) in cases {
        let message = line(read_bytes("a.bin", &torch_zip(&pickle, &[&[0; 8]])).1);
        assert!(message.contains(expected), "{expected}: {message}");
    }
}

#[test]
fn broken_programs_end_in_one_line() {
    let cases: [&[u8]; 26] = [
        b"",
        b"0",
        b"t",
        b"\x85",
        b"\x87N",
        b"e",
        b"]e",
        b"s",
        b"}s",
        b"}Ns",
        b"u",
        b"}(Nu",
        b"(NNs",
        b"a",
        b"Na",
        b"h\x07",
        b"j\xff\xff\xff\xff",
        b"q\x00",
        b"R",
        b"NR",
        b"b",
        b"Q",
        b"NQ",
        b"\x93",
        b"NN\x93",
        b"(((",
    ];
    for body in cases {
        line(read_bytes("a.bin", &torch_zip(&plain(body), &[])).1);
    }
    // Lengths that go beyond the pickle, and a number that no shape has.
    let long = [b"\x8a\xff".as_slice(), &[1; 255]].concat();
    for body in [
        b"X\xff\xff\xff\xff".as_slice(),
        b"\x8c\xff",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff",
        b"cos",
        b"X\x01\0\0\0\xff",
        &long,
    ] {
        line(read_bytes("a.bin", &torch_zip(&plain(body), &[])).1);
    }
    for protocol in [0, 1, 6, 255] {
        assert!(
            line(read_bytes("a.bin", &torch_zip(&[0x80, protocol, b'}', b'.'], &[])).1).contains("protocol")
        );
    }
}

#[test]
fn bombs_fizzle_out() {
    // 2^200 elements by doubling a tuple, the same with lists, and a list and a dict that hold themselves.
    let tuples: Vec<u8> = (0..200).flat_map(|i| [b'h', i, b'h', i, 0x86, b'q', i + 1]).collect();
    let tuples = [b")q\x00".as_slice(), &tuples].concat();
    let lists: Vec<u8> = (0..200).flat_map(|i| [b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']).collect();
    let lists = [b"]q\x00".as_slice(), &lists].concat();
    let selves = b"]q\x00h\x00a}q\x01h\x00h\x01s".to_vec();
    // Half a million levels of nesting, which would overflow the stack of anything that recurses.
    let deep_tuples = [b")".as_slice(), &vec![0x85; 500_000]].concat();
    let deep_lists = [vec![b']'; 300_000], vec![b'a'; 299_999]].concat();
    for bomb in [&tuples, &lists, &selves, &deep_tuples, &deep_lists] {
        let all = [b"(".as_slice(), bomb, b"t"].concat();
        let message = line(read_bytes("a.bin", &torch_zip(&dict("w", &all), &[])).1);
        assert!(message.contains("not a tensor"), "{message}");
    }
    // Memo entries with huge numbers, more operations than weights need, and a pickle that is too long.
    let memo: Vec<u8> =
        (0..1000u32).flat_map(|i| [b"r".as_slice(), &(u32::MAX - i).to_le_bytes()].concat()).collect();
    let message =
        line(read_bytes("a.bin", &torch_zip(&dict("w", &[b"N".as_slice(), &memo].concat()), &[])).1);
    assert!(message.contains("not a tensor"), "{message}");
    let message = line(read_bytes("a.bin", &torch_zip(&plain(&vec![b'N'; 1_100_000]), &[])).1);
    assert!(message.contains("more than 1048576 operations"), "{message}");
    let message = line(read_bytes("a.bin", &torch_zip(&plain(&text(&"x".repeat(9 << 20))), &[])).1);
    assert!(message.contains("at most"), "{message}");
}

#[test]
fn views_stay_inside_their_storage() {
    let max = i64::MAX;
    let cases: [(i64, &[i64], &[i64]); 17] = [
        (1, &[2], &[1]),
        (-1, &[2], &[1]),
        (2, &[1], &[1]),
        (max, &[1], &[1]),
        (max, &[], &[]),
        (0, &[3], &[1]),
        (0, &[2], &[2]),
        (0, &[2], &[max]),
        (1, &[2, 1], &[max, max]),
        (0, &[-2], &[-1]),
        (1, &[2], &[-1]),
        (0, &[2, 2], &[1]),
        (0, &[1 << 40], &[0]),
        (0, &[max, max], &[0, 0]),
        (0, &[1 << 32, 1 << 32], &[0, 0]),
        (0, &[1; 9], &[1; 9]),
        (0, &[0, max, max], &[1, 1, 1]),
    ];
    for (offset, shape, stride) in cases {
        let message = line(read_bytes("a.bin", &one_tensor(offset, shape, stride)).1);
        assert!(message.contains("`w`: "), "{message}");
    }
}

#[test]
fn storages_are_what_the_pickle_says() {
    let read = |storage: &[u8], data: &[&[u8]]| {
        line(read_bytes("a.bin", &torch_zip(&dict("w", &tensor(storage, 0, &[1], &[1])), data)).1)
    };
    assert!(read(&storage("Float", "0", 2), &[&[0; 7]]).contains("has 7 bytes instead of 8"));
    assert!(read(&storage("Float", "0", 2), &[&[0; 9]]).contains("has 9 bytes instead of 8"));
    assert!(read(&storage("Float", "1", 2), &[&[0; 8]]).contains("storage 1 is missing"));
    assert!(read(&storage("Float", "../byteorder", 2), &[]).contains("missing"));
    assert!(read(&storage("Float", "0", -2), &[&[0; 8]]).contains("not a plain tensor storage"));
    assert!(read(&storage("Double", "0", 1 << 60), &[&[0; 8]]).contains("more data than the file"));
    assert!(read(&storage("Double", "0", 1 << 62), &[&[0; 8]]).contains("absurd size"));
    assert!(read(&storage("Complex", "0", 2), &[&[0; 8]]).contains("`torch.ComplexStorage`"));
    assert!(read(&storage("Bool", "0", 2), &[&[0, 2]]).contains("neither 0 nor 1"));
    let two = [
        tensor(&storage("Float", "0", 2), 0, &[1], &[1]),
        text("v"),
        tensor(&storage("Int", "0", 2), 0, &[1], &[1]),
    ];
    let pickle = plain(&[b"}(".as_slice(), &text("w"), &two.concat(), b"u"].concat());
    assert!(line(read_bytes("a.bin", &torch_zip(&pickle, &[&[0; 8]])).1).contains("in two ways"));
}

#[test]
fn archives_do_not_lie() {
    let pickle = dict("w", &tensor(&storage("Float", "0", 2), 0, &[2], &[1]));
    let read = |entries: &[Entry]| line(read_bytes("a.bin", &zip(entries)).1);
    let entry = |name: &str, data: &[u8], change: &dyn Fn(&mut Entry)| {
        let mut entry = Entry::new(name, data);
        change(&mut entry);
        entry
    };
    let data = |change: &dyn Fn(&mut Entry)| {
        read(&[Entry::new("m/data.pkl", &pickle), entry("m/data/0", &[0; 8], change)])
    };
    assert!(data(&|e| e.crc32 ^= 1).contains("checksum"));
    assert!(data(&|e| e.method = 8).contains("compressed"));
    assert!(data(&|e| e.flags = 1).contains("encrypted"));
    assert!(data(&|e| e.size = u32::MAX - 1).contains("bytes instead of 8"));
    assert!(data(&|e| e.header = Some(u32::MAX - 1)).contains("truncated"));
    assert!(data(&|e| e.header = Some(3)).contains("damaged"));
    assert!(read(&[Entry::new("m/other", b"")]).contains("without data.pkl"));
    assert!(
        read(&[Entry::new("m/data.pkl", &pickle), Entry::new("m/byteorder", b"big")]).contains("big-endian")
    );
    // Entries that overlap cannot ask for more memory than the file has bytes.
    let many: Vec<u8> = (0..100)
        .flat_map(|i| {
            [text(&format!("w{i}")), tensor(&storage("Byte", &i.to_string(), 30_000), 0, &[1], &[1])].concat()
        })
        .collect();
    let mut entries = vec![Entry::new("data.pkl", &plain(&[b"}(".as_slice(), &many, b"u"].concat()))];
    let place = zip(&entries).windows(4).rposition(|w| w == b"PK\x01\x02").unwrap() as u32;
    entries.push(Entry::new("data/0", &[0; 30_000]));
    entries.extend((1..100).map(|i| entry(&format!("data/{i}"), &[0; 30_000], &|e| e.header = Some(place))));
    assert!(read(&entries).contains("more data than the file has"));
}

#[test]
fn a_zip64_directory_cannot_ask_for_memory() {
    let huge = 1u64 << 50;
    for (count, size, start) in [(huge, huge, 0), (huge, 46, 4), (1, u64::MAX, u64::MAX), (0, 0, u64::MAX)] {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend([b"PK\x06\x06".as_slice(), &44u64.to_le_bytes(), &[0; 12]].concat());
        bytes.extend([count, count, size, start].map(u64::to_le_bytes).concat());
        bytes.extend([b"PK\x06\x07\0\0\0\0".as_slice(), &4u64.to_le_bytes(), &[1, 0, 0, 0]].concat());
        bytes.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &[0xff; 12], &[0; 2]].concat());
        let message = line(read_bytes("a.bin", &bytes).1);
        assert!(message.contains("damaged") || message.contains("truncated"), "{message}");
    }
}

#[test]
fn numbers_are_read_as_python_reads_them() {
    // BININT1 and BININT2 are unsigned, BININT and LONG1 are not; -1 as an offset must be refused as such.
    let base = storage("Float", "0", 300);
    for (offset, ok) in [
        (b"K\xff".as_slice(), true),
        (b"M\xff\x00", true),
        (b"J\xff\xff\xff\xff", false),
        (b"\x8a\x01\xff", false),
        (b"\x8a\x02\xff\x00", true),
        (b"\x8a\x00", true),
    ] {
        let good = tensor(&base, 0, &[1], &[1]);
        let at = good.windows(10).position(|w| w == integer(0)).unwrap();
        let pickle = dict("w", &[&good[..at], offset, &good[at + 10..]].concat());
        let (_folder, result) = read_bytes("a.bin", &torch_zip(&pickle, &[&[0; 1200]]));
        assert_eq!(result.is_ok(), ok, "{offset:?}");
    }
}
