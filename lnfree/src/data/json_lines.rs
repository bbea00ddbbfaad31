//! JSON lines as Python writes them: of each object only what is read has to make sense.

use std::fmt;
use std::io::BufRead;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::long_line::{lift_text, unescaped};
use super::rows::{Document, META, PILE_SET, Row, Rows, TEXT, stop_at_error};
use super::sequences::INPUT_IDS;
use super::side_columns;
use crate::base::console::say;
use crate::base::json;
use crate::{Error, Result};

/// Longer lines give their memory back.
const KEPT: usize = 1 << 20;
/// In longer lines the text is not parsed, but taken out.
const LONG: usize = 16 << 20;

/// The rows of JSON lines: an object each, with `text` or `input_ids`. Blank lines are skipped, and so is a
/// byte order mark at the start. Keys that are not read may hold `NaN`, halves of surrogate pairs and numbers
/// of any size; half a pair in the text becomes U+FFFD, which is said once.
pub(super) fn json_rows(origin: &Path, mut lines: impl BufRead + Send + 'static) -> Rows {
    let origin = origin.to_path_buf();
    let (mut number, mut said) = (0, false);
    let mut line = Vec::new();
    stop_at_error(std::iter::from_fn(move || {
        loop {
            line.clear();
            line.shrink_to(KEPT);
            number += 1;
            match lines.read_until(b'\n', &mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(source) => return Some(Err(Error::io(&origin)(source))),
            }
            // A long text leaves the line first, and with it the memory.
            let lifted = if line.len() > LONG { lift_text(&mut line) } else { None };
            let content = if number == 1 { json::without_bom(&line) } else { &line };
            if !content.iter().all(u8::is_ascii_whitespace) {
                return Some(json_row(&origin, number, content, lifted, &mut said));
            }
        }
    }))
}

/// The row of a line, out of which a long text may have been `lifted`, still escaped.
fn json_row(
    origin: &Path,
    number: usize,
    line: &[u8],
    lifted: Option<Vec<u8>>,
    said: &mut bool,
) -> Result<Row> {
    let error = |message: String| Error::file(origin, format!("line {number}: {message}"));
    let mut repaired = false;
    let Wanted(mut object) = json::from_slice(line)
        .or_else(|e| {
            let whole = without_half_pairs(line).ok_or(e)?;
            repaired = true;
            json::from_slice(&whole)
        })
        .map_err(|e| error(format!("not JSON: {e}")))?;
    let pile_set = object.get(META).and_then(|meta| meta[PILE_SET].as_str()).map(String::from);
    let document = match (object.remove(INPUT_IDS), object.remove(TEXT)) {
        (Some(ids), _) => {
            let mut ids: Vec<u32> = Vec::deserialize(&ids)
                .map_err(|_| error(format!("`{INPUT_IDS}` is not a list of token ids")))?;
            ids.truncate(side_columns::counted_in_json(&ids, &object).map_err(error)?);
            Document::Ids(ids)
        }
        (None, Some(Value::String(text))) => match lifted.map(unescaped).transpose() {
            Ok(None) => Document::Text(text),
            Ok(Some((text, half))) => {
                repaired |= half;
                Document::Text(text)
            }
            Err(e) => return Err(error(format!("not JSON: `{TEXT}`: {e}"))),
        },
        (None, Some(_)) => return Err(error(format!("`{TEXT}` is not a string"))),
        (None, None) => return Err(error(format!("no key `{TEXT}`"))),
    };
    if repaired && !std::mem::replace(said, true) {
        say(&format!("{}: line {number}: half a surrogate pair is read as U+FFFD", origin.display()));
    }
    Ok(Row { document, pile_set })
}

/// What is read of an object; the rest is skipped without being understood.
struct Wanted(Map<String, Value>);

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Wanted;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                write!(f, "an object with `{TEXT}` or `{INPUT_IDS}`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Wanted, A::Error> {
                let mut object = Map::new();
                while let Some(key) = map.next_key::<String>()? {
                    let wanted = [TEXT, INPUT_IDS, META].contains(&key.as_str());
                    if wanted || side_columns::kind_of(&key).is_some() {
                        object.insert(key, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Wanted(object))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// The line with U+FFFD in place of each escaped half of a surrogate pair; none where there is no such half.
fn without_half_pairs(line: &[u8]) -> Option<Vec<u8>> {
    let escape = |at: usize| -> Option<u32> {
        let digits = line.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let (mut out, mut at, mut found) = (Vec::with_capacity(line.len()), 0, false);
    while at < line.len() {
        let length = match (line[at], escape(at)) {
            (b'\\', Some(0xD800..=0xDBFF)) if matches!(escape(at + 6), Some(0xDC00..=0xDFFF)) => 12,
            (b'\\', Some(0xD800..=0xDFFF)) => {
                out.extend_from_slice(b"\\uFFFD");
                found = true;
                at += 6;
                continue;
            }
            (b'\\', _) => 2,
            _ => 1,
        };
        out.extend_from_slice(&line[at..(at + length).min(line.len())]);
        at += length;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(line: &str) -> Result<Vec<u32>> {
        match json_row(Path::new("x.jsonl"), 7, line.as_bytes(), None, &mut true)?.document {
            Document::Ids(ids) => Ok(ids),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_of_json_lines_are_cut_as_those_of_tables() {
        for (more, left) in [
            ("", 3),
            (", \"attention_mask\": [1, 1, 0]", 2),
            (", \"attention_mask\": [true, true, true], \"text\": \"a\"", 3),
            (", \"labels\": [5, -100, -100]", 1),
            (", \"labels\": null, \"length\": 3, \"seq_idx\": [4, 4, 4]", 3),
        ] {
            assert_eq!(
                ids(&format!("{{\"input_ids\": [5, 6, 7]{more}}}")).unwrap(),
                [5, 6, 7][..left],
                "{more}"
            );
        }
        for (more, said) in [
            ("\"attention_mask\": [0, 1, 1]", "`attention_mask` is 0 before ids"),
            ("\"attention_mask\": [1, 1]", "`attention_mask` has 2 values for 3 ids"),
            ("\"attention_mask\": 1", "`attention_mask` is not a list of integers"),
            ("\"labels\": [6, 7, -100]", "`labels` is 6 where `input_ids` is 5"),
            ("\"position_ids\": [0, 1, 0]", "`position_ids` is not 0, 1, 2"),
        ] {
            let found = ids(&format!("{{\"input_ids\": [5, 6, 7], {more}}}")).unwrap_err().to_string();
            assert!(found.contains("x.jsonl: line 7: ") && found.contains(said), "{found}");
        }
    }
}
