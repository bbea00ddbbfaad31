//! Whether Jupyter finds a kernel that runs Rust.

use super::{Check, Env, home};
use std::path::{Path, PathBuf};

const INSTALL: &str = "for notebooks: cargo install --locked evcxr_jupyter && evcxr_jupyter --install";

/// The evcxr kernel, its program, and Jupyter itself.
pub(super) fn kernel(env: Env) -> Check {
    const NAME: &str = "notebooks";
    let Some((spec, program)) = data_folders(env).iter().find_map(|d| evcxr_in(&d.join("kernels"))) else {
        return Check::warn(NAME, "no evcxr kernel is installed", INSTALL);
    };
    if !runs(env, &program) {
        let detail = format!("{} names {}, which is not there", spec.display(), program.display());
        return Check::warn(NAME, detail, INSTALL);
    }
    let detail = format!("evcxr kernel in {}", spec.display());
    if !runs(env, Path::new("jupyter")) {
        return Check::warn(NAME, format!("{detail}; no jupyter"), "python3 -m pip install jupyterlab");
    }
    Check::ok(NAME, detail)
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

/// The first kernel below `kernels` that evcxr serves: its folder, and the program that it names.
fn evcxr_in(kernels: &Path) -> Option<(PathBuf, PathBuf)> {
    std::fs::read_dir(kernels).ok()?.flatten().find_map(|entry| {
        let text = std::fs::read_to_string(entry.path().join("kernel.json")).ok()?;
        let spec: serde_json::Value = serde_json::from_str(&text).ok()?;
        let program = PathBuf::from(spec.get("argv")?.get(0)?.as_str()?);
        program.file_stem()?.to_str()?.starts_with("evcxr").then(|| (entry.path(), program))
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
    use crate::doctor::Status;

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
        let status = || kernel(&env).status;
        let spec = |folder: &str, text: &str| {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join("kernel.json"), text).unwrap();
        };
        spec("data/kernels/broken", "{\"argv\": [");
        spec("data/kernels/python3", r#"{"argv": ["python3", "-m", "ipykernel"], "language": "python"}"#);
        assert_eq!(kernel(&env).detail, "no evcxr kernel is installed");

        spec("data/kernels/rust", r#"{"argv": ["evcxr_jupyter", "--control_file", "{connection_file}"]}"#);
        assert!(kernel(&env).detail.ends_with("names evcxr_jupyter, which is not there"));
        std::fs::create_dir(at("bin")).unwrap();
        std::fs::write(at("bin/evcxr_jupyter"), "").unwrap();
        assert!(kernel(&env).detail.ends_with("; no jupyter"));
        assert_eq!(status(), Status::Warn);
        std::fs::write(at("bin/jupyter"), "").unwrap();
        assert_eq!(status(), Status::Ok);
    }

    #[test]
    fn the_users_own_folder_comes_before_the_systems() {
        let env = |name: &str| (name == "HOME").then(|| "/home/u".to_string());
        let folders = data_folders(&env);
        assert!(folders[0].starts_with("/home/u"), "{folders:?}");
        assert_eq!(folders.last().unwrap(), Path::new("/usr/share/jupyter"));
    }
}
