//! Outputs of every kind that cannot be written, and what becomes of results then.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::base::atomic::write_text;

fn said(result: Result<()>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_file_that_cannot_be_written_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "old").unwrap();
    fs::create_dir(at("dir")).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    symlink(at("round"), at("round")).unwrap();
    let long = "x".repeat(300);
    let cases = [
        ("missing/a.json", "there is no folder"),
        ("file/a.json", "folder"),
        ("dir", "is a folder; name a file"),
        ("dir/", "names a folder"),
        ("new/", "names a folder"),
        ("dangling", "nowhere, which is not there"),
        ("round", "symbolic link"),
        (&long, "name too long"),
    ];
    for (name, word) in cases {
        let text = said(check_file("--json", &at(name)));
        assert!(text.starts_with("--json ") && text.to_lowercase().contains(word), "{name}: {text}");
        assert_eq!(text.lines().count(), 1);
    }
    for name in ["", "..", "/"] {
        assert!(check_file("--json", Path::new(name)).is_err(), "{name:?}");
    }
    assert!(said(check_file("--json", Path::new("/dev/full"))).contains("No space left"));
    symlink(at("file"), at("link")).unwrap();
    for name in ["file", "link", "dir/new"] {
        check_file("--json", &at(name)).unwrap();
    }
    check_file("--json", Path::new("/dev/null")).unwrap();
    check_file("--json", Path::new("relative.json")).unwrap();
    assert_eq!(fs::read_to_string(at("file")).unwrap(), "old");
    assert_eq!(fs::read_dir(at("dir")).unwrap().count(), 0, "the probe is taken away");
}

#[test]
fn what_permissions_forbid_is_refused() {
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        println!("SKIPPED: root may write everywhere");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    assert!(said(check_file("--json", &file)).contains("Permission denied"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    assert!(said(check_file("--json", &folder.path().join("b"))).contains("cannot be written into"));
    assert!(said(check_folder("--out", &folder.path().join("b/c"))).contains("cannot be written into"));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_folder_is_looked_at_where_it_will_be_and_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("file"), "old").unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    check_folder("--out", &at("a/b/c")).unwrap();
    check_folder("--out", folder.path()).unwrap();
    check_folder("--out", Path::new("somewhere/else")).unwrap();
    assert!(!at("a").exists());
    assert!(said(check_folder("--out", &at("file"))).contains("is a file"));
    assert!(said(check_folder("--out", &at("file/a/b"))).contains("folder"));
    assert!(said(check_folder("--out", &at("dangling"))).contains("not there"));
    assert!(said(check_folder("--out", Path::new("/proc/lnfree/a"))).contains("/proc"));
    // A whole folder needs the one above it.
    assert!(said(check_whole_folder("--out", &at("a/b"))).contains("there is no folder"));
    assert!(said(check_whole_folder("--out", &at("file"))).contains("is a file"));
    check_whole_folder("--out", &at("b")).unwrap();
    check_whole_folder("--out", folder.path()).unwrap();
    assert!(!at("b").exists());
}

#[test]
fn two_outputs_are_two_files_and_no_input() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("data"), "ids").unwrap();
    symlink(at("data"), at("link")).unwrap();
    let named = |option: &str, path: PathBuf| (option.to_string(), path);
    let (a, same) = (named("--json", at("a")), named("--losses", at("dir/../a")));
    assert!(said(check_apart(&[a.clone(), same], &[])).contains("--json"));
    check_apart(&[a.clone(), named("--losses", at("b"))], &[named("--data", at("data"))]).unwrap();
    for name in ["data", "link"] {
        let losses = named("--losses", at(name));
        assert!(said(check_apart(&[a.clone(), losses], &[named("--data", at("data"))])).contains("--data"));
    }
    let null = |option| named(option, "/dev/null".into());
    check_apart(&[null("--json"), null("--losses")], &[]).unwrap();
}

#[test]
fn what_cannot_be_written_where_it_was_to_go_is_kept_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let gone = folder.path().join("gone/a.json");
    let write = |path: &Path| write_text(path, "result");
    let Kept::Elsewhere(error) = keep_file(&gone, write) else { panic!("it was written") };
    let text = error.to_string();
    assert!(text.contains("gone/a.json") && text.contains("there is no folder"), "{text}");
    let place = text.split(" is in ").nth(1).unwrap().strip_suffix(" instead").unwrap();
    assert!(place.ends_with("/a.json"), "{place}");
    assert_eq!(fs::read_to_string(place).unwrap(), "result");
    fs::remove_dir_all(Path::new(place).parent().unwrap()).unwrap();
    assert!(matches!(keep_file(&folder.path().join("a"), write), Kept::Here));
    let never = |path: &Path| Err(Error::file(path, "never"));
    assert!(matches!(keep_file(&gone, never), Kept::Nowhere(_)));
    let Kept::Elsewhere(error) = keep_folder(&gone, |dir| write_text(&dir.join("x"), "y")) else { panic!() };
    let text = error.to_string();
    let place = text.split(" is in ").nth(1).unwrap().strip_suffix(" instead").unwrap();
    assert_eq!(fs::read_to_string(Path::new(place).join("x")).unwrap(), "y");
    fs::remove_dir_all(place).unwrap();
}
