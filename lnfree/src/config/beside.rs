//! Paths in a config file: relative to its folder, wherever the program is called.

use std::path::Path;

/// Keys whose values may be paths.
const KEYS: [(&str, &str); 5] =
    [("model", "name"), ("data", "train"), ("data", "eval"), ("norm", "init"), ("distill", "teacher")];

/// Replaces what names a file or folder beside the config file by a path to it. What is not there may be a
/// name, or a path from the current folder.
pub(super) fn find_beside(table: &mut toml::Table, folder: &Path) {
    for (section, key) in KEYS {
        let Some(toml::Value::String(value)) =
            table.get_mut(section).and_then(|section| section.get_mut(key))
        else {
            continue;
        };
        let path = folder.join(&*value);
        if !value.is_empty()
            && path.exists()
            && let Some(path) = path.to_str()
        {
            *value = path.to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn paths_are_found_beside_the_file_and_names_stay_names() {
        let folder = tempfile::tempdir().unwrap();
        let here = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(here("tokens.arrow"), "").unwrap();
        let shipped = Config::load("nano", &[]).unwrap();
        let text = shipped.to_toml().replace("\"nano-train\"", "\"tokens.arrow\"");
        std::fs::write(here("mine.toml"), text).unwrap();
        let read = |overrides: &[String]| Config::load(&here("mine.toml"), overrides).unwrap();
        let found = read(&[]);
        assert_eq!((found.data.train, found.model.name), (here("tokens.arrow"), shipped.model.name));
        // What is said on the command line is from there.
        assert_eq!(read(&["data.train=tokens.arrow".into()]).data.train, "tokens.arrow");
        assert_eq!(found.norm.init, shipped.norm.init);
    }
}
