//! One error type: every message is a single line that names the file, key or value and what to do.

use std::path::{Path, PathBuf};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, worded for the person who has to act on it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something about a file.
    #[error("{}: {source}", one_line(path.display()))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file was read and its content is not what it has to be.
    #[error("{}: {message}", one_line(path.display()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// A config has an unknown key or an impossible value.
    #[error("{origin}: {key}: {message}")]
    Config {
        /// The file or preset the config came from.
        origin: String,
        /// `table.key`.
        key: String,
        /// What is wrong with it.
        message: String,
    },
    /// An argument, or a combination of arguments, that cannot work.
    #[error("{0}")]
    Invalid(String),
    /// Memory does not suffice, and there is nothing left to make smaller.
    #[error(
        "out of memory; a smaller train.micro_batch_size, or train.gradient_checkpointing = true, needs less"
    )]
    OutOfMemory,
    /// The loss is no longer a finite number.
    #[error("step {step}: the loss is {loss}; {}", match last_good {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "there is no earlier checkpoint to go back to".into(),
    })]
    Diverged {
        /// 0-based optimizer step.
        step: usize,
        /// What the loss was.
        loss: f64,
        /// Where to go back to: the newest checkpoint after which a step has gone well.
        last_good: Option<PathBuf>,
    },
    /// A signal asked the run to stop, and it stopped after saving.
    #[error("interrupted after step {step}; {}", go_on(run))]
    Interrupted {
        /// The last finished optimizer step.
        step: usize,
        /// The run directory.
        run: PathBuf,
    },
    /// A notebook's stop button ended work that leaves nothing behind.
    #[error("interrupted; run the cell again to do it from the start")]
    Cancelled,
    /// A signal asked a study to stop; what was finished is kept.
    #[error("stopped; what is finished is in {}: the same command goes on from there", kept.display())]
    Stopped {
        /// The study's folder.
        kept: PathBuf,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

impl Error {
    /// An [`Error::Io`] about `path`, shaped for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, message: impl std::fmt::Display) -> Error {
        Error::File { path: path.as_ref().to_path_buf(), message: one_line(message) }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl std::fmt::Display) -> Error {
        Error::Invalid(one_line(message))
    }
}

/// The longest message, in characters: what a file says of itself may be put into one.
const LONGEST: usize = 1000;

/// `message` as one line that a terminal takes as text, whatever names and values of a file it repeats.
pub(crate) fn one_line(message: impl std::fmt::Display) -> String {
    let message = message.to_string();
    let mut line = String::with_capacity(message.len().min(4 * LONGEST));
    for (i, c) in message.trim().chars().enumerate() {
        match c {
            _ if i == LONGEST => return line + " …",
            '\n' | '\r' | '\t' => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

/// Whether `text` says that memory has ended. libtorch says on a CPU "not enough memory: you tried to allocate" or "can't allocate memory", on a
/// GPU "CUDA out of memory"; buffers of our own kernels say "std::bad_alloc".
pub fn is_lack_of_memory(text: &str) -> bool {
    let words = ["out of memory", "can't allocate memory", "not enough memory", "bad_alloc"];
    words.iter().any(|words| text.contains(words))
}

/// How a run that has saved itself goes on.
fn go_on(run: &Path) -> String {
    match crate::console::in_notebook() {
        true => format!("it is saved in {}: run the cell again to go on", run.display()),
        false => format!("continue with --resume {}", run.display()),
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends some thirty lines of C++ backtrace; the first line is the message.
        let text = error.to_string();
        let text = text.split("Exception raised from").next().unwrap_or_default();
        let line = text.lines().find(|l| !l.trim().is_empty()).unwrap_or("unknown error");
        Error::Torch(line.trim().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_repeats() {
        let error = Error::file("a.json", "key `x\ny\u{1b}[31m` is\r\nunknown\n");
        assert_eq!(error.to_string(), "a.json: key `x y\\u{1b}[31m` is  unknown");
        assert_eq!(Error::file("a\nb/c", "is no file").to_string(), "a b/c: is no file");
        assert_eq!(Error::invalid("é".repeat(5000)).to_string().chars().count(), LONGEST + 2);
    }
}
