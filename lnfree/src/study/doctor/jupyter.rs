//! Whether notebooks can be opened: a kernel that runs Rust, and Jupyter.

use super::{Check, Env, home};
use crate::base::places::repository;
use std::path::{Path, PathBuf};

const NAME: &str = "notebooks";
const INSTALL: &str = "for notebooks: ./scripts/notebook.sh, which installs and compiles what is missing";

/// The kernel of `scripts/notebook.sh`, or one that Jupyter finds by itself; its program, and Jupyter.
pub(super) fn kernel(env: Env) -> Check {
    kernel_in(env, repository().as_deref())
}

fn kernel_in(env: Env, repository: Option<&Path>) -> Check {
    let own = repository.map(|root| root.join(".evcxr/jupyter"));
    let folders = own.iter().cloned().chain(data_folders(env));
    let Some((spec, program)) = folders.into_iter().find_map(|d| evcxr_in(&d.join("kernels"))) else {
        return Check::warn(NAME, "no evcxr kernel is installed", INSTALL);
    };
    if !runs(env, &program) {
        let detail = format!("{} names {}, which is not there", spec.display(), program.display());
        return Check::warn(NAME, detail, INSTALL);
    }
    let detail = format!("evcxr kernel in {}", spec.display());
    // The kernel of the repository goes with the Jupyter that was installed with it.
    let own = own.is_some_and(|own| spec.starts_with(own));
    let jupyter = if own { cache(env).join("jupyter/bin/jupyter-lab") } else { "jupyter".into() };
    match (runs(env, &jupyter), own) {
        (true, _) => Check::ok(NAME, detail),
        (false, true) => Check::warn(NAME, format!("{detail}; no {}", jupyter.display()), INSTALL),
        (false, false) => {
            Check::warn(NAME, format!("{detail}; no jupyter"), "python3 -m pip install jupyterlab")
        }
    }
}

/// Where `scripts/notebook.sh` installs.
fn cache(env: Env) -> PathBuf {
    let cache = env("XDG_CACHE_HOME").filter(|v| !v.is_empty());
    cache.map_or_else(|| home(env).join(".cache"), PathBuf::from).join("lnfree")
}

/// Where Jupyter looks for its data, in its order (what `jupyter --paths` prints).
fn data_folders(env: Env) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = env("JUPYTER_PATH").iter().flat_map(std::env::split_paths).collect();
    let home = home(env);
    folders.push(if let Some(own) = env("JUPYTER_DATA_DIR") {
        own.into()
    } else if cfg!(target_os = "macos") {
        home.join("Library/Jupyter")
    } else {
        env("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from).join("jupyter")
    });
    folders.extend(
        ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .iter()
            .filter_map(|v| env(v))
            .map(|p| Path::new(&p).join("share/jupyter")),
    );
    folders.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
    folders
}

/// The first kernel below `kernels` that evcxr serves: its folder, and evcxr's program, which a script may
/// start.
fn evcxr_in(kernels: &Path) -> Option<(PathBuf, PathBuf)> {
    std::fs::read_dir(kernels).ok()?.flatten().find_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("kernel.json")).ok()?;
        let spec: serde_json::Value = serde_json::from_str(&text).ok()?;
        let mut words =
            spec.get("argv")?.as_array()?.iter().filter_map(|word| word.as_str()).map(PathBuf::from);
        let evcxr = |p: &PathBuf| {
            p.file_stem().and_then(|stem| stem.to_str()).is_some_and(|s| s.starts_with("evcxr"))
        };
        words.find(evcxr).map(|program| (entry.path(), program))
    })
}

/// Whether `program` is a file, or, without a folder, one that PATH leads to.
fn runs(env: Env, program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    env("PATH").iter().flat_map(std::env::split_paths).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::doctor::Status;

    #[test]
    fn the_kernel_is_found_where_jupyter_looks() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let env = |name: &str| match name {
            "JUPYTER_PATH" => Some(format!("{}:{}", at("empty").display(), at("data").display())),
            "PATH" => Some(at("bin").display().to_string()),
            "HOME" => Some(at("home").display().to_string()),
            _ => None,
        };
        let kernel = || kernel_in(&env, Some(root.path()));
        let status = || kernel().status;
        let spec = |folder: &str, text: &str| {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join("kernel.json"), text).unwrap();
        };
        spec("data/kernels/broken", "{\"argv\": [");
        spec("data/kernels/python3", r#"{"argv": ["python3", "-m", "ipykernel"], "language": "python"}"#);
        assert_eq!(kernel().detail, "no evcxr kernel is installed");

        spec("data/kernels/rust", r#"{"argv": ["evcxr_jupyter", "--control_file", "{connection_file}"]}"#);
        assert!(kernel().detail.ends_with("names evcxr_jupyter, which is not there"));
        std::fs::create_dir(at("bin")).unwrap();
        std::fs::write(at("bin/evcxr_jupyter"), "").unwrap();
        assert!(kernel().detail.ends_with("; no jupyter"));
        assert_eq!(status(), Status::Warn);
        std::fs::write(at("bin/jupyter"), "").unwrap();
        assert_eq!(status(), Status::Ok);
    }

    #[test]
    fn the_kernel_of_notebook_sh_comes_first_and_brings_its_own_jupyter() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let env = |name: &str| (name == "HOME").then(|| at("home").display().to_string());
        let evcxr = at("home/.cache/lnfree/evcxr-0.22.0/bin/evcxr_jupyter");
        let spec = serde_json::json!({ "argv": [at("scripts/kernel.sh"), evcxr, "{connection_file}"] });
        std::fs::create_dir_all(at(".evcxr/jupyter/kernels/lnfree")).unwrap();
        std::fs::write(at(".evcxr/jupyter/kernels/lnfree/kernel.json"), spec.to_string()).unwrap();
        let kernel = || kernel_in(&env, Some(root.path()));
        assert!(kernel().detail.contains("evcxr_jupyter, which is not there"));
        let touch = |file: &Path| {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        };
        touch(&evcxr);
        assert!(kernel().detail.ends_with("/jupyter/bin/jupyter-lab"));
        assert_eq!(kernel().status, Status::Warn);
        touch(&at("home/.cache/lnfree/jupyter/bin/jupyter-lab"));
        assert_eq!(kernel().status, Status::Ok);
        assert!(kernel().detail.ends_with(".evcxr/jupyter/kernels/lnfree"));
    }

    #[test]
    fn the_users_own_folder_comes_before_the_systems() {
        let env = |name: &str| (name == "HOME").then(|| "/home/u".to_string());
        let folders = data_folders(&env);
        assert!(folders[0].starts_with("/home/u"), "{folders:?}");
        assert_eq!(folders.last().unwrap(), Path::new("/usr/share/jupyter"));
    }
}
