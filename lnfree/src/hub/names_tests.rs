//! Which names are taken for what.

use super::*;

#[test]
fn short_names_stand_for_repositories_and_others_for_themselves() {
    for (typed, id, revision) in [
        ("gpt2", "openai-community/gpt2", "main"),
        ("gpt2-xl@e5", "openai-community/gpt2-xl", "e5"),
        ("gpt2-small_LNFree300", "schaeff/gpt2-small_LNFree300", "main"),
        ("schaeff/gpt2-xl_LNFree800", "schaeff/gpt2-xl_LNFree800", "main"),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1"),
        ("distilgpt2", "distilgpt2", "main"),
    ] {
        let parsed = RepoId::parse(typed).unwrap();
        assert_eq!((parsed.id.as_str(), parsed.revision.as_str()), (id, revision), "{typed}");
    }
    let (full, released) = (full_name("gpt2-xl"), full_name("schaeff/gpt2-small_LNFree300"));
    assert_eq!(full.as_deref(), Some("openai-community/gpt2-xl"));
    assert_eq!(released.as_deref(), Some("schaeff/gpt2-small_LNFree300"));
    assert_eq!((full_name("nano"), full_name("runs/small")), (None, None));
    let gpt2 = RepoId::parse("gpt2").unwrap();
    assert_eq!(gpt2.cached_as(), ["openai-community/gpt2", "gpt2", "gpt2-small"]);
}

#[test]
fn what_can_only_be_a_path_is_told_so() {
    for path in [
        "",
        ".",
        "..",
        "./modle",
        "../x",
        "/no/such",
        "~/x",
        "a/b/c",
        "a/",
        "/a",
        "a//b",
        "a b",
        "org/x.safetensors",
        "C:\\x",
        "org/..",
        "org/na--me",
        "x\n",
        "é",
        "model.bin",
        "-x/y",
        "@main",
    ] {
        let error = RepoId::parse(path).unwrap_err().to_string();
        assert!(error.contains("no such file or folder") && error.lines().count() == 1, "{path}: {error}");
    }
    for revision in ["", "..", "a/../b", "/etc", "a//b", "x y", "a\nb", ".hidden"] {
        let error = RepoId::parse(&format!("org/name@{revision}")).unwrap_err().to_string();
        assert!(error.contains("revision"), "{revision}: {error}");
    }
}

#[test]
fn data_sets_have_full_names() {
    let id = RepoId::dataset("NeelNanda/pile-10k@v1").unwrap();
    assert_eq!(
        (id.id.as_str(), id.revision.as_str(), id.kind),
        ("NeelNanda/pile-10k", "v1", RepoKind::Dataset)
    );
    assert_eq!(id.hint(), "");
    for bad in ["", "pile-10k", "./x.parquet", "a/b/c", "a/..", "a/b@", "a/b@..", "a/x\n@main"] {
        let error = RepoId::dataset(bad).unwrap_err().to_string();
        assert!(error.starts_with("data set ") && error.lines().count() == 1, "{bad}: {error}");
    }
}

#[test]
fn what_is_written_to_has_an_owner() {
    let id = RepoId::to_write("me/gpt2-nano", Some("v2")).unwrap();
    assert_eq!((id.id.as_str(), id.revision.as_str()), ("me/gpt2-nano", "v2"));
    assert_eq!(RepoId::to_write("me/x", None).unwrap().revision, "main");
    for bad in ["", "gpt2", "me/", "me/x@v2", "./me/x", "me/x y", "me/x.git"] {
        let error = RepoId::to_write(bad, None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot push to {bad}")) && error.contains("ORG/NAME"), "{error}");
    }
    assert!(RepoId::to_write("me/x", Some("..")).unwrap_err().to_string().contains("revision"));
}

#[test]
fn a_slip_of_the_finger_is_noticed() {
    let hint = |name: &str| RepoId::parse(name).unwrap().hint();
    assert_eq!(hint("gtp2-medium"), " (did you mean openai-community/gpt2-medium?)");
    assert_eq!(hint("schaeff/gpt2-small_LNfree300x"), " (did you mean schaeff/gpt2-small_LNFree300?)");
    assert_eq!(hint("openai/gpt2-xl"), " (did you mean openai-community/gpt2-xl?)");
    assert_eq!(hint("someone/quite-different"), "");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("model")).unwrap();
    let typed = folder.path().join("modle").display().to_string();
    let error = RepoId::parse(&typed).unwrap_err().to_string();
    assert!(error.contains(&format!("did you mean {}?", folder.path().join("model").display())), "{error}");
}
