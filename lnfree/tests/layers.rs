//! The layers of the crate, and that its modules make no circle: arrows run one way, at every level.
//!
//! What a module needs is read off its source: paths that begin with `crate`, `super` or `self`, and, where
//! one names what a parent exports again, the child that has it. Tests and documentation count for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The layers, the lowest first, as `src/lib.rs` states them: each may need those before it.
const LAYERS: [&str; 11] =
    ["base", "config", "ops", "hub", "data", "model", "eval", "interp", "train", "export", "study"];

type Module = Vec<String>;

/// Every module with its source, without the program's, and without what only documents and tests see.
fn modules(src: &Path) -> BTreeMap<Module, String> {
    fn walk(folder: &Path, path: &Module, found: &mut BTreeMap<Module, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap().path();
            let name = entry.file_stem().unwrap().to_string_lossy().into_owned();
            let with = |name: String| path.iter().cloned().chain([name]).collect::<Module>();
            if entry.is_dir() {
                walk(&entry, &with(name), found);
            } else if entry.extension().is_some_and(|end| end == "rs") && !name.ends_with("tests") {
                let module = if name == "mod" { path.clone() } else { with(name) };
                found.insert(module, plain(&std::fs::read_to_string(&entry).unwrap()));
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(src, &Vec::new(), &mut found);
    found.retain(|path, _| path.first().is_some_and(|top| LAYERS.contains(&top.as_str())));
    found
}

/// Source without comments, and without its test modules, which stand at the end.
fn plain(source: &str) -> String {
    let lines = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    let mut kept = String::new();
    let mut test_only = false;
    for line in lines {
        if test_only && line.starts_with("mod ") && line.trim_end().ends_with('{') {
            break;
        }
        test_only = line.starts_with("#[cfg(test)]") || (test_only && line.starts_with("#["));
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// The paths in a tree of imports: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths_of(tree: &str) -> Vec<Vec<String>> {
    fn split(tree: &str, prefix: &[String], out: &mut Vec<Vec<String>>) {
        let (mut depth, mut start) = (0, 0);
        let mut parts = Vec::new();
        for (at, c) in tree.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    parts.push(&tree[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(&tree[start..]);
        for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
            let (names, inner) = match part.split_once('{') {
                Some((names, inner)) => (names, inner.rsplit_once('}').map(|(inner, _)| inner)),
                None => (part.split(" as ").next().unwrap_or(part), None),
            };
            let names = names.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "*");
            let path: Vec<String> = prefix.iter().cloned().chain(names.map(str::to_string)).collect();
            match inner {
                Some(inner) => split(inner, &path, out),
                None => out.push(path),
            }
        }
    }
    let mut out = Vec::new();
    split(tree, &[], &mut out);
    out
}

/// Every path in a source that begins with `crate`, `super` or `self`, imports taken apart; with `exported`,
/// only those of `pub use`.
fn paths_in(source: &str, exported: bool) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut rest = String::new();
    for statement in source.split_inclusive(';') {
        let at = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].trim_end().rsplit('\n').next().unwrap_or_default().trim();
            before.is_empty() || before.starts_with("pub")
        });
        let Some(at) = at else {
            rest.push_str(statement);
            continue;
        };
        let line = statement[..at].rsplit('\n').next().unwrap_or_default();
        rest.push_str(&statement[..at]);
        if !exported || line.contains("pub") {
            found.extend(paths_of(statement[at + 4..].trim_end_matches(';')));
        }
    }
    if !exported {
        for start in ["crate::", "super::", "self::"] {
            for (at, _) in rest.match_indices(start) {
                if rest[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                {
                    continue;
                }
                let end = rest[at..].find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
                let path = &rest[at..end.map_or(rest.len(), |end| at + end)];
                found.push(path.split("::").filter(|name| !name.is_empty()).map(str::to_string).collect());
            }
        }
    }
    found
}

/// Which modules each module needs.
fn needs(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let longest = |path: &[String]| {
        (1..=path.len()).rev().map(|n| path[..n].to_vec()).find(|p| modules.contains_key(p))
    };
    // What a module exports of its children.
    let mut exports: BTreeMap<&Module, BTreeMap<String, Module>> = BTreeMap::new();
    for (module, source) in modules {
        for path in paths_in(source, true) {
            let names: Vec<&String> = path.iter().filter(|name| *name != "self").collect();
            let child: Module = module.iter().chain(names.first().copied()).cloned().collect();
            if names.len() > 1 && modules.contains_key(&child) {
                exports.entry(module).or_default().insert(names[names.len() - 1].clone(), child);
            }
        }
    }
    let mut needs: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, source) in modules {
        for path in paths_in(source, false) {
            let mut full: Module = match path[0].as_str() {
                "crate" => Vec::new(),
                "super" | "self" => module.clone(),
                _ => continue,
            };
            let ups = path.iter().take_while(|name| *name == "super").count();
            full.truncate(full.len().saturating_sub(ups));
            full.extend(
                path.iter().filter(|name| !["crate", "super", "self"].contains(&name.as_str())).cloned(),
            );
            let mut target = longest(&full);
            while let Some(child) =
                target.as_ref().and_then(|t| exports.get(t)?.get(full.get(t.len())?)).cloned()
            {
                let name = full[target.as_ref().map_or(0, Vec::len)].clone();
                full = child.iter().cloned().chain([name]).collect();
                target = longest(&full);
            }
            if let Some(target) = target.filter(|target| target != module) {
                needs.entry(module.clone()).or_default().insert(target);
            }
        }
    }
    needs
}

/// What is wrong with a tree of sources, a line for each arrow or circle.
fn faults(src: &Path) -> Vec<String> {
    let needs = needs(&modules(src));
    // Between the children of each module.
    let mut graphs: BTreeMap<Module, BTreeMap<String, BTreeMap<String, String>>> = BTreeMap::new();
    for (from, targets) in &needs {
        for to in targets {
            let common = from.iter().zip(to).take_while(|(a, b)| a == b).count();
            if let (Some(a), Some(b)) = (from.get(common), to.get(common)) {
                let arrow = format!("{} needs {}", from.join("::"), to.join("::"));
                let graph = graphs.entry(from[..common].to_vec()).or_default();
                graph.entry(a.clone()).or_default().insert(b.clone(), arrow);
            }
        }
    }
    let mut faults = Vec::new();
    let layer = |name: &str| LAYERS.iter().position(|layer| *layer == name);
    for (from, targets) in graphs.get(&Vec::new()).into_iter().flatten() {
        faults
            .extend(targets.iter().filter(|(to, _)| layer(to) > layer(from)).map(|(_, arrow)| arrow.clone()));
    }
    for (parent, graph) in &graphs {
        let reached = |from: &String| {
            let mut seen = BTreeSet::new();
            let mut next: Vec<&String> = graph.get(from).into_iter().flat_map(BTreeMap::keys).collect();
            while let Some(name) = next.pop() {
                if seen.insert(name.clone()) {
                    next.extend(graph.get(name).into_iter().flat_map(BTreeMap::keys));
                }
            }
            seen
        };
        for (from, targets) in graph {
            let back = targets.iter().filter(|(to, _)| reached(to).contains(from));
            faults.extend(back.map(|(_, arrow)| format!("a circle in {}: {arrow}", parent.join("::"))));
        }
    }
    faults
}

#[test]
fn arrows_between_modules_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found = faults(&src);
    assert!(found.is_empty(), "{}", found.join("\n"));
    // The check sees what there is.
    let needs = needs(&modules(&src));
    let module = |path: &str| -> Module { path.split("::").map(str::to_string).collect() };
    for (from, to) in [
        ("train::trainer", "model"),
        ("eval::engine", "eval::token_stats"),
        ("model::gpt2", "model::layer_norm"),
    ] {
        let seen = needs[&module(from)].iter().any(|target| target.starts_with(&module(to)));
        assert!(seen, "{from} needs {to}, which the check does not see");
    }
}

#[test]
fn a_planted_circle_and_a_planted_arrow_are_found() {
    let planted = |files: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        for (path, source) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, source).unwrap();
        }
        faults(folder.path())
    };
    let up = "mod a;\nuse crate::{model::{Gpt2, x::Y}, Result};\n";
    assert_eq!(planted(&[("base.rs", up), ("model/mod.rs", ""), ("base/a.rs", "")]), ["base needs model"]);
    let inline = "fn f() -> crate::train::Trainer {}\n";
    assert_eq!(planted(&[("eval.rs", inline), ("train.rs", "")]), ["eval needs train"]);
    let circle = [
        ("data/mod.rs", "mod a;\nmod b;\npub use b::Thing;\n"),
        ("data/a.rs", "use super::Thing;\n"),
        ("data/b.rs", "pub struct Thing;\nfn f() { super::a::g() }\n"),
    ];
    assert_eq!(
        planted(&circle),
        ["a circle in data: data::a needs data::b", "a circle in data: data::b needs data::a"]
    );
    // What only tests and comments need, and what lies below.
    let fine =
        "// crate::study\nuse crate::base::x;\n#[cfg(test)]\nmod tests {\n    use crate::study::y;\n}\n";
    assert!(planted(&[("data.rs", fine), ("study.rs", "use crate::data;\n"), ("base.rs", "")]).is_empty());
}
