//! Images of figures, drawn by Kaleido: a headless browser with nothing around it, which needs no network.
//!
//! One process serves all figures of a program: it takes a second to start and some tens of milliseconds an
//! image.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use base64::prelude::{BASE64_STANDARD, Engine};
use plotly::Plot;
use serde_json::{Value, json};

use crate::{Error, Result};

/// What an image is made as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageFormat {
    /// Vectors.
    Svg,
    /// Pixels, two for each one of the figure.
    Png,
}

/// The process that draws, once one was needed.
static RENDERER: Mutex<Option<Renderer>> = Mutex::new(None);

/// Draws a figure, given as plotly's JSON, on white.
///
/// # Errors
/// When Kaleido is missing, ends, or refuses the figure.
pub(super) fn render(mut figure: Value, format: ImageFormat, width: usize, height: usize) -> Result<Vec<u8>> {
    // Transparent on the page; an image may be looked at on any background.
    figure["layout"]["paper_bgcolor"] = "#ffffff".into();
    let (name, scale) = match format {
        ImageFormat::Svg => ("svg", 1),
        ImageFormat::Png => ("png", 2),
    };
    let request = json!({ "format": name, "width": width, "height": height, "scale": scale, "data": figure });
    let mut renderer = RENDERER.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut running = match renderer.take() {
        Some(running) => running,
        None => Renderer::start()?,
    };
    let image = running.draw(&request)?;
    // Only one that answered is asked again.
    *renderer = Some(running);
    match format {
        ImageFormat::Svg => Ok(image.into_bytes()),
        ImageFormat::Png => BASE64_STANDARD.decode(image).map_err(|e| refused(&e.to_string())),
    }
}

struct Renderer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// plotly.js, which Kaleido reads from a file.
    _script: tempfile::NamedTempFile,
}

impl Renderer {
    fn start() -> Result<Renderer> {
        let program = find_kaleido().ok_or_else(|| {
            Error::invalid(
                "images are drawn by Kaleido, which is not here: run scripts/notebook.sh once, or pip install \
                 kaleido==0.2.1 and set LNFREE_KALEIDO to its executable",
            )
        })?;
        let script = plotly_js()?;
        let mut child = Command::new(&program)
            .arg("plotly")
            .arg(format!("--plotlyjs={}", script.path().display()))
            .args(["--disable-gpu", "--no-sandbox", "--allow-file-access-from-files", "--disable-breakpad"])
            .args(["--disable-dev-shm-usage", "--single-process"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Error::io(&program))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(refused("it has no pipes"));
        };
        let mut renderer = Renderer { child, stdin, stdout: BufReader::new(stdout), _script: script };
        renderer.answer()?;
        Ok(renderer)
    }

    fn draw(&mut self, request: &Value) -> Result<String> {
        writeln!(self.stdin, "{request}").map_err(|e| refused(&e.to_string()))?;
        match self.answer()?["result"].take() {
            Value::String(image) => Ok(image),
            _ => Err(refused("no image came back")),
        }
    }

    /// The next line that Kaleido says, if it is no complaint.
    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        let n = self.stdout.read_line(&mut line).map_err(|e| refused(&e.to_string()))?;
        if n == 0 {
            return Err(refused("it ended"));
        }
        let answer: Value = serde_json::from_str(&line).map_err(|_| refused(line.trim()))?;
        match answer["code"].as_i64() {
            Some(0) => Ok(answer),
            _ => Err(refused(answer["message"].as_str().unwrap_or("no reason given"))),
        }
    }
}

impl Drop for Renderer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(why: &str) -> Error {
    Error::invalid(format!("Kaleido drew no image: {}", why.lines().next().unwrap_or_default()))
}

/// The executable: named by LNFREE_KALEIDO, installed by scripts/notebook.sh, or on the PATH.
fn find_kaleido() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LNFREE_KALEIDO").filter(|v| !v.is_empty()) {
        return Some(named.into());
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let installed = cache.and_then(|cache| in_environment(&cache.join("lnfree/jupyter")));
    installed.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join("kaleido")).find(|file| file.is_file())
    })
}

/// In a Python environment, whatever its Python.
fn in_environment(environment: &Path) -> Option<PathBuf> {
    let pythons = std::fs::read_dir(environment.join("lib")).ok()?;
    let mut programs =
        pythons.flatten().map(|python| python.path().join("site-packages/kaleido/executable/kaleido"));
    programs.find(|program| program.is_file())
}

/// plotly.js as this crate carries it, without the HTML around it.
fn plotly_js() -> Result<tempfile::NamedTempFile> {
    let html = Plot::offline_js_sources();
    // Scripts follow one another; plotly.js is by far the longest.
    let script = html
        .split("<script")
        .filter_map(|part| part.split_once('>')?.1.rsplit_once("</script>").map(|(code, _)| code))
        .max_by_key(|code| code.len())
        .unwrap_or_default();
    let mut file =
        tempfile::Builder::new().suffix(".js").tempfile().map_err(Error::io(std::env::temp_dir()))?;
    file.write_all(script.as_bytes()).map_err(Error::io(file.path()))?;
    Ok(file)
}
