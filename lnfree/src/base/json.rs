//! JSON as Python and editors write it: with a byte order mark, and with `NaN`, `Infinity` and `-Infinity`.
//!
//! `json.dump` writes these three words although no standard has them. A file that has one in a key which
//! nobody reads is as good as any other; in a key that is read, each becomes an object, `{"$float": "NaN"}`,
//! which is neither a number, a text, a list nor null: it can be taken for nothing else, and whoever wants a
//! number refuses it.

use std::borrow::Cow;

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Result, Value};

const UTF8_BOM: &[u8] = b"\xEF\xBB\xBF";
/// What a number that is not finite is held as: an object with this key alone.
const FLOAT: &str = "$float";
/// `-Infinity` comes before the word that it ends with.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// Stands before a word in a string while text is written; no character of any text.
const MARK: char = '\u{FDD0}';

/// Parses `bytes`, one JSON value in UTF-8.
///
/// # Errors
/// What serde_json reports, and a file in UTF-16.
pub(crate) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(serde_json::Error::custom("the text is UTF-16; save it as UTF-8"));
    }
    let bytes = without_bom(bytes);
    // Nearly every text is strict JSON: only what is not is looked through.
    serde_json::from_slice(bytes).or_else(|error| match floats_as_objects(bytes) {
        Cow::Owned(strict) => serde_json::from_slice(&strict),
        Cow::Borrowed(_) => Err(error),
    })
}

/// [`from_slice`] of a text.
///
/// # Errors
/// As [`from_slice`].
pub(crate) fn from_str<T: DeserializeOwned>(text: &str) -> Result<T> {
    from_slice(text.as_bytes())
}

/// `bytes` without the byte order mark that some editors put before UTF-8.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(UTF8_BOM).unwrap_or(bytes)
}

/// The word that `value` was written as, where it is a number that is not finite.
pub(crate) fn not_finite(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(FLOAT)?.as_str().filter(|word| WORDS.contains(word))
}

/// `value` in lines, numbers that are not finite as they were read.
///
/// # Errors
/// What serde_json reports.
pub(crate) fn to_string_pretty(value: &Value) -> Result<String> {
    let mut text = serde_json::to_string_pretty(&marked(value))?;
    for word in WORDS {
        text = text.replace(&format!("\"{MARK}{word}\""), word);
    }
    Ok(text)
}

/// `value` with a marked string in place of each number that is not finite.
fn marked(value: &Value) -> Value {
    if let Some(word) = not_finite(value) {
        return Value::from(format!("{MARK}{word}"));
    }
    match value {
        Value::Array(items) => items.iter().map(marked).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), marked(value))).collect(),
        other => other.clone(),
    }
}

/// `bytes` with an object in place of each of [`WORDS`] outside strings; borrowed where there is none.
fn floats_as_objects(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (mut out, mut copied, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'-' | b'I' | b'N' => match WORDS.iter().find(|word| bytes[at..].starts_with(word.as_bytes())) {
                Some(word) => {
                    out.extend_from_slice(&bytes[copied..at]);
                    out.extend_from_slice(format!("{{\"{FLOAT}\":\"{word}\"}}").as_bytes());
                    at += word.len();
                    copied = at;
                }
                None => at += 1,
            },
            _ => at += 1,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    out.extend_from_slice(&bytes[copied..]);
    Cow::Owned(out)
}

/// Where the string that begins at `start` has ended.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        from_str(text).unwrap()
    }

    #[test]
    fn strict_json_stays_what_it_is() {
        for text in ["{\"a\": [1, -2.5, null, \"NaN\", \"-Infinity\\\"NaN\"]}", "-1e3", "\"Infinity\""] {
            assert_eq!(read(text), serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        assert_eq!(read("\u{FEFF}{\"a\": 1}"), json!({"a": 1}));
        assert_eq!(without_bom("\u{FEFF}x".as_bytes()), b"x");
        // Only one, and only in front.
        assert!(from_str::<Value>("\u{FEFF}\u{FEFF}1").is_err());
        assert!(from_str::<Value>("1\u{FEFF}").is_err());
    }

    #[test]
    fn utf16_is_named() {
        for bytes in [b"\xFF\xFE{\0}\0".as_slice(), b"\xFE\xFF\0{\0}"] {
            assert!(from_slice::<Value>(bytes).unwrap_err().to_string().contains("UTF-16"));
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_neither_numbers_nor_texts_nor_null() {
        let value = read("{\"a\": NaN, \"b\": [Infinity, -Infinity, \"NaN\"], \"c\\\"\": 2}");
        assert_eq!(not_finite(&value["a"]), Some("NaN"));
        assert_eq!(not_finite(&value["b"][0]), Some("Infinity"));
        assert_eq!(not_finite(&value["b"][1]), Some("-Infinity"));
        assert_eq!((not_finite(&value["b"][2]), &value["c\""]), (None, &json!(2)));
        assert!(from_str::<f64>("NaN").is_err() && from_str::<String>("NaN").is_err());
        assert!(from_str::<Option<i64>>("NaN").is_err());
    }

    #[test]
    fn unread_keys_may_hold_them() {
        #[derive(serde::Deserialize, Debug)]
        struct Wanted {
            text: String,
        }
        assert_eq!(from_str::<Wanted>("{\"score\": NaN, \"text\": \"a NaN\"}").unwrap().text, "a NaN");
        assert!(from_str::<Wanted>("{\"text\": NaN}").is_err());
    }

    #[test]
    fn words_like_them_are_refused() {
        for text in ["nan", "Inf", "--Infinity", "NaNs", "+Infinity", "{NaN: 1}", "[1NaN]", "\"NaN", "\"\\"] {
            assert!(from_str::<Value>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn they_are_written_as_they_were_read() {
        let text = "{\n  \"a\": NaN,\n  \"b\": [\n    -Infinity,\n    \"NaN\"\n  ]\n}";
        assert_eq!(to_string_pretty(&read(text)).unwrap(), text);
    }
}
