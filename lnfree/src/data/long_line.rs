//! The text of a very long JSON line, taken out of it where it lies: parsing it would take two copies more.

use super::rows::TEXT;

/// Takes the value of the key `text` out of an object, if it is a string: `line` keeps an empty string in its
/// place, so that the rest can be parsed as ever, and what is returned is the text as it was escaped, without
/// quotes, in the memory of the line.
pub(super) fn lift_text(line: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (start, end) = place_of_text(line)?;
    let mut rest = line[..start].to_vec();
    rest.extend_from_slice(&line[end..]);
    let mut text = std::mem::replace(line, rest);
    text.truncate(end);
    text.drain(..start);
    Some(text)
}

/// Where the string after the key `text` of the outermost object lies, its quotes left out.
fn place_of_text(line: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut depth, mut found) = (0, 0usize, None);
    while at < line.len() {
        match line[at] {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.checked_sub(1)?,
            b'"' => {
                let end = end_of_string(line, at + 1)?;
                let key = depth == 1 && line[at + 1..end] == *TEXT.as_bytes();
                at = end;
                let value = key.then(|| value_after(line, end + 1)).flatten();
                if let Some(start) = value {
                    // A key twice: the parser has to decide which of them counts.
                    if found.is_some() {
                        return None;
                    }
                    at = end_of_string(line, start)?;
                    found = Some((start, at));
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Where a string begins after a colon.
fn value_after(line: &[u8], at: usize) -> Option<usize> {
    let skip = |at: usize| (at..line.len()).find(|i| !line[*i].is_ascii_whitespace());
    let colon = skip(at).filter(|i| line[*i] == b':')?;
    skip(colon + 1).filter(|i| line[*i] == b'"').map(|quote| quote + 1)
}

/// Where the quote is that ends a string.
fn end_of_string(line: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match line.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The text that was escaped so, and whether halves of surrogate pairs became U+FFFD. Nothing grows: every
/// escape is longer than what it stands for.
///
/// # Errors
/// What is wrong with it.
pub(super) fn unescaped(mut bytes: Vec<u8>) -> Result<(String, bool), &'static str> {
    let (mut at, mut to, mut repaired) = (0, 0, false);
    while at < bytes.len() {
        let byte = bytes[at];
        if byte < 0x20 {
            return Err("control character in a string");
        }
        if byte != b'\\' {
            bytes[to] = byte;
            (at, to) = (at + 1, to + 1);
            continue;
        }
        let (character, length) = escape(&bytes[at..]).ok_or("invalid escape")?;
        repaired |= character.is_none();
        let mut buffer = [0; 4];
        let encoded = character.unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut buffer).as_bytes();
        bytes[to..to + encoded.len()].copy_from_slice(encoded);
        (at, to) = (at + length, to + encoded.len());
    }
    bytes.truncate(to);
    String::from_utf8(bytes).map(|text| (text, repaired)).map_err(|_| "invalid UTF-8")
}

/// The character that an escape stands for, none for half a pair, and its length.
fn escape(bytes: &[u8]) -> Option<(Option<char>, usize)> {
    let unit = |at: usize| -> Option<u32> {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let hex = digits.iter().all(u8::is_ascii_hexdigit);
        u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| hex)?, 16).ok()
    };
    let simple = |character: char| Some((Some(character), 2));
    match bytes.get(1)? {
        b'"' => simple('"'),
        b'\\' => simple('\\'),
        b'/' => simple('/'),
        b'b' => simple('\u{8}'),
        b'f' => simple('\u{c}'),
        b'n' => simple('\n'),
        b'r' => simple('\r'),
        b't' => simple('\t'),
        _ => match (unit(0)?, unit(6)) {
            (high @ 0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                Some((char::from_u32(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12))
            }
            (single, _) => Some((char::from_u32(single), 6)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_lifted_out_and_the_rest_stays() {
        for (line, rest, text) in [
            (r#"{"text": "a\"b"}"#, r#"{"text": ""}"#, Some(r#"a\"b"#)),
            (
                r#"{"x": {"text": "no"}, "text" : "yes", "y": ["text", NaN]}"#,
                r#"{"x": {"text": "no"}, "text" : "", "y": ["text", NaN]}"#,
                Some("yes"),
            ),
            (r#"{"x": "text", "text":""}"#, r#"{"x": "text", "text":""}"#, Some("")),
            (r#"{"text": 3}"#, r#"{"text": 3}"#, None),
            (r#"{"text": "a", "text": "b"}"#, r#"{"text": "a", "text": "b"}"#, None),
            (r#"{"text": "a"#, r#"{"text": "a"#, None),
            (r#"}{"text": "a"}"#, r#"}{"text": "a"}"#, None),
            (r#"["text"]"#, r#"["text"]"#, None),
        ] {
            let mut bytes = line.as_bytes().to_vec();
            assert_eq!(lift_text(&mut bytes).as_deref(), text.map(str::as_bytes), "{line}");
            assert_eq!(String::from_utf8(bytes).unwrap(), rest);
        }
    }

    #[test]
    fn escapes_are_those_of_serde_json() {
        for escaped in [
            r"a\n\r\t\b\f\/\\\u0000\u00e9\u65e5\ud83d\ude42é日🙂",
            r"\u0022",
            "",
            r"\q",
            r"\u12",
            r"\u+123",
            "\\",
            "\u{1}",
            r"\ud83d\ude4",
        ] {
            let expected: Option<String> = serde_json::from_str(&format!("\"{escaped}\"")).ok();
            let found = unescaped(escaped.as_bytes().to_vec()).ok();
            assert_eq!(found.filter(|(_, repaired)| !repaired).map(|(text, _)| text), expected, "{escaped}");
        }
        let half = unescaped(br"a\ud83d\ud83d\ude42\ude42".to_vec()).unwrap();
        assert_eq!(half, ("a\u{fffd}\u{1f642}\u{fffd}".to_string(), true));
        assert!(unescaped(vec![0xff]).is_err());
    }
}
