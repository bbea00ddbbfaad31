//! `lnfree new`: a crate of one's own.

use crate::Place;

#[test]
fn a_new_crate_knows_its_libtorch_and_its_lnfree() {
    let place = Place::new();
    let said = place.ok(&["new", "my-study"]);
    assert!(said.contains("cargo run"), "{said}");
    let read = |name: &str| std::fs::read_to_string(place.path("my-study").join(name)).unwrap();
    let table = |name: &str| read(name).parse::<toml::Table>().unwrap();
    let cargo = table("Cargo.toml");
    assert_eq!(cargo["package"]["name"].as_str(), Some("my-study"));
    let source = cargo["dependencies"]["lnfree"]["path"].as_str().unwrap().to_string();
    assert_eq!(source, env!("CARGO_MANIFEST_DIR"));
    let config = table(".cargo/config.toml");
    let libtorch = config["env"]["LIBTORCH"].as_str().unwrap().to_string();
    assert!(std::path::Path::new(&libtorch).join("include/torch").is_dir(), "{libtorch}");
    let flags = config["build"]["rustflags"][0].as_str().unwrap().to_string();
    assert!(flags.ends_with(&format!("{libtorch}/lib")), "{flags}");
    assert!(read("src/main.rs").contains("use lnfree::prelude::*;"));
    let ours = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("Cargo.lock");
    assert_eq!(read("Cargo.lock"), std::fs::read_to_string(ours).unwrap());
}

#[test]
fn what_cannot_be_a_new_crate_is_said() {
    let place = Place::new();
    place.fails(&["new", "tiny.toml"], &["tiny.toml", "begins with a letter"]);
    place.fails(&["new", "1st"], &["1st", "begins with a letter"]);
    place.fails(&["new", "mine", "--lnfree", "nowhere"], &["nowhere", "is not lnfree's source"]);
    std::fs::create_dir(place.path("there")).unwrap();
    place.fails(&["new", "there"], &["there", "choose another folder"]);
    assert!(!place.path("mine").exists());
}
