//! README, the book and CONTRIBUTING.md: their links lead somewhere, their lines are short, and what they
//! repeat of the code is right.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lnfree::config::{Config, MAY_BE_UNSET};

#[path = "../examples/nano_record/tables.rs"]
mod tables;

/// The longest line of prose, in characters.
const LONGEST: usize = 110;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Every page with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let root = root();
    let mut files: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "data/README.md", "notebooks/README.md"]
        .map(|name| root.join(name))
        .to_vec();
    let book = std::fs::read_dir(root.join("docs/src")).unwrap().map(|entry| entry.unwrap().path());
    files.extend(book.filter(|path| path.extension().is_some_and(|end| end == "md")));
    files.into_iter().map(|path| (path.clone(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// Lines outside code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// What GitHub and mdBook call a heading in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// The targets of links in a line: `[text](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
}

#[test]
fn links_lead_to_files_and_headings() {
    let pages = pages();
    let anchors: BTreeMap<&PathBuf, BTreeSet<String>> = (pages.iter())
        .map(|(path, text)| {
            (
                path,
                prose(text).filter(|(_, line)| line.starts_with('#')).map(|(_, line)| anchor(line)).collect(),
            )
        })
        .collect();
    let (mut broken, mut n_links) = (Vec::new(), 0);
    for (path, text) in &pages {
        // A link may go over the end of a line.
        let joined = prose(text).map(|(_, line)| line).collect::<Vec<_>>().join(" ");
        for target in links(&joined).filter(|target| !target.contains("://")) {
            n_links += 1;
            let (file, heading) =
                target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
            let found = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let found = std::fs::canonicalize(&found).unwrap_or(found);
            let known =
                heading.is_none_or(|heading| anchors.get(&found).is_some_and(|all| all.contains(heading)));
            if !found.exists() || !known {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty() && n_links > 30, "{n_links} links; {}", broken.join("\n"));
}

#[test]
fn the_summary_lists_every_page() {
    let summary = std::fs::read_to_string(root().join("docs/src/SUMMARY.md")).unwrap();
    let listed: BTreeSet<&str> = summary.lines().flat_map(links).collect();
    let pages = pages();
    let book =
        pages.keys().filter(|path| path.ends_with(Path::new("docs/src").join(path.file_name().unwrap())));
    let names: BTreeSet<&str> = book.map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(listed, names.into_iter().filter(|name| *name != "SUMMARY.md").collect());
}

#[test]
fn prose_keeps_to_short_lines_and_readme_to_one_screenful() {
    let pages = pages();
    let long: Vec<String> = (pages.iter())
        .flat_map(|(path, text)| prose(text).map(move |(number, line)| (path, number, line)))
        .filter(|(_, _, line)| !line.starts_with('|') && line.chars().count() > LONGEST)
        .map(|(path, number, line)| {
            format!("{}:{}: {} characters", path.display(), number + 1, line.chars().count())
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
    assert!(pages[&root().join("README.md")].len() <= 8 << 10);
}

/// Comments of sources, but for tables and code in them.
#[test]
fn comments_keep_to_short_lines() {
    fn walk(folder: &Path, long: &mut Vec<String>) {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("vectors") {
                walk(&path, long);
            } else if path.extension().is_some_and(|end| ["rs", "cpp", "hpp", "cu"].iter().any(|e| end == *e))
            {
                let text = std::fs::read_to_string(&path).unwrap();
                let mut code = false;
                for (number, line) in text.lines().enumerate() {
                    let said = line
                        .trim_start()
                        .strip_prefix("//")
                        .map(|said| said.trim_start_matches(['/', '!', ' ']));
                    code = said.is_some_and(|said| code != said.starts_with("```"));
                    let counts = said.is_some_and(|said| !code && !said.starts_with('|'));
                    if counts && line.chars().count() > LONGEST {
                        long.push(format!(
                            "{}:{}: {} characters",
                            path.display(),
                            number + 1,
                            line.chars().count()
                        ));
                    }
                }
            }
        }
    }
    let mut long = Vec::new();
    for folder in ["src", "native", "tests", "build", "benches", "examples"] {
        walk(&root().join("lnfree").join(folder), &mut long);
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn readme_shows_what_the_example_compiles() {
    let root = root();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("lnfree/examples/load.rs")).unwrap();
    let code = readme.split_once("```rust\n").unwrap().1.split_once("```").unwrap().0;
    for line in code.lines() {
        let line = line.replace("\"schaeff/gpt2-small_LNFree300\"", "name");
        assert!(example.contains(&line), "{line}");
    }
}

#[test]
fn every_key_of_a_config_is_in_the_book_with_its_default() {
    let page = std::fs::read_to_string(root().join("docs/src/configs.md")).unwrap();
    // Key, default.
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let keys: Vec<&str> = cells[0].split('`').skip(1).step_by(2).collect();
        let defaults: Vec<&str> = cells[2].split(", ").collect();
        for (i, key) in keys.iter().enumerate() {
            let default = defaults.get(i).unwrap_or(&defaults[0]).trim_matches('`').to_string();
            assert!(rows.insert(key.to_string(), default).is_none(), "{key} twice");
        }
    }
    let required = "model = { name = 'x', n_layer = 1 }\ndata = { train = 'x', block_size = 2 }\n[train]\nbatch_size = 1\n\
                    max_steps = 1\nlearning_rate = 1.0\nmin_lr = 0.0\nwarmup_steps = 0\n";
    let config = Config::parse(required, "test", &[]).unwrap();
    let shown: toml::Table = config.to_toml().parse().unwrap();
    let values: BTreeMap<String, &toml::Value> = (shown.iter())
        .flat_map(|(table, keys)| {
            keys.as_table().unwrap().iter().map(move |(key, value)| (format!("{table}.{key}"), value))
        })
        .collect();
    for (key, value) in &values {
        let default = rows.get(key).unwrap_or_else(|| panic!("{key} is not in docs/src/configs.md"));
        let says = match value {
            toml::Value::String(text) => format!("\"{text}\""),
            toml::Value::Float(x) => x.to_string(),
            other => other.to_string(),
        };
        let same = default == "required"
            || *default == says
            || default.parse::<f64>().is_ok_and(|number| says.parse() == Ok(number));
        assert!(same, "{key}: the book says {default}, the program {says}");
    }
    let may_be_unset: BTreeSet<&str> = MAY_BE_UNSET.iter().map(|(key, _)| *key).collect();
    let unset = rows.iter().filter(|(_, default)| *default == "unset").map(|(key, _)| key.as_str());
    assert_eq!(unset.collect::<BTreeSet<_>>(), may_be_unset);
    // The others are unset, and are keys: what is none would be refused by its name.
    for (key, default) in rows.iter().filter(|(key, _)| !values.contains_key(*key)) {
        assert_eq!(default, "unset", "{key}");
        let refused = Config::parse(required, "test", &[format!("{key}=[[]]")]).unwrap_err().to_string();
        assert!(refused.contains(key.as_str()) && !refused.contains("unknown field"), "{refused}");
    }
}

#[test]
fn tables_of_the_nano_study_are_those_of_its_record() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let mut record: tables::Record = serde_json::from_str(&read("data/study.json")).unwrap();
    for page in tables::PAGES {
        let text = read(page);
        assert_eq!(tables::with_table(page, &text, &record).as_ref(), Some(&text), "{page}: run nano_record");
    }
    // Another record makes other tables.
    record.evaluations[0].mean += 1.0;
    record.heads[0].first += 1.0;
    for page in tables::PAGES {
        let text = read(page);
        assert_ne!(tables::with_table(page, &text, &record).as_ref(), Some(&text), "{page}");
        assert_eq!(tables::with_table(page, "no marks", &record), None);
    }
}
