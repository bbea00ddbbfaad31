//! One error type: every message is a single line that names the file, key or value and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, worded for the person who has to act on it.
#[derive(thiserror::Error)]
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
    #[error("step {}: the loss is {loss}; {}", step + 1, match last_good {
        Some(path) => format!("the last good checkpoint is {}", path.display()),
        None => "there is no earlier checkpoint to go back to".into(),
    })]
    Diverged {
        /// 0-based optimizer step; messages count from 1.
        step: usize,
        /// What the loss was.
        loss: f64,
        /// Where to go back to: the newest checkpoint after which a step has gone well.
        last_good: Option<PathBuf>,
    },
    /// A signal asked the run to stop, and it stopped after saving.
    #[error("interrupted after step {}; {}", step + 1, go_on(run))]
    Interrupted {
        /// The last finished optimizer step, 0-based; messages count from 1.
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
    /// What was computed has no finite result.
    #[error("{0}")]
    NotFinite(String),
    /// A hook returned something that cannot take the place of an activation.
    #[error(
        "the hook returned {found} for {activation}, which is {expected}: \
         return a tensor of that shape, type and device"
    )]
    Hook {
        /// Which one.
        activation: String,
        /// Shape, type and device of the activation.
        expected: String,
        /// Those of what the hook returned.
        found: String,
    },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(String),
}

/// The same line: a `main` that returns an error, and `unwrap` in a notebook, show it by its `Debug`.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Io`] about `path`, shaped for `map_err`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::File`] about `path`.
    pub fn file(path: impl AsRef<Path>, message: impl fmt::Display) -> Error {
        Error::File { path: path.as_ref().to_path_buf(), message: one_line(message) }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl fmt::Display) -> Error {
        Error::Invalid(one_line(message))
    }
}

/// The longest message, in characters: what a file says of itself may be put into one.
const LONGEST: usize = 1000;

/// `message` as one line that a terminal takes as text, whatever names and values of a file it repeats.
pub(crate) fn one_line(message: impl fmt::Display) -> String {
    shortened(message, LONGEST)
}

/// [`one_line`] of at most `longest` characters, for a name or a value that is a part of one.
pub(crate) fn shortened(message: impl fmt::Display, longest: usize) -> String {
    let message = message.to_string();
    let mut line = String::with_capacity(message.len().min(4 * longest));
    let mut left = longest;
    for c in message.trim().chars() {
        let shown: String = match c {
            '\n' | '\r' | '\t' => " ".into(),
            c if c.is_control() => c.escape_default().collect(),
            c => c.into(),
        };
        // An escape is longer than what it stands for.
        let Some(rest) = left.checked_sub(shown.chars().count()) else { return line + " …" };
        left = rest;
        line.push_str(&shown);
    }
    line
}

/// What says that memory has ended, in the words of libtorch 2.11 and of the libraries behind it (in small
/// letters). Where an exception has a type for it, [`Error::OutOfMemory`] goes by that; this is for what
/// arrives as a text.
const LACK_OF_MEMORY: [&str; 12] = [
    // libtorch's allocator of GPU memory, CUDA itself ("CUDA error: out of memory", also of the driver) and
    // oneDNN's status.
    "out of memory",
    "out_of_memory",
    "cudaerrormemoryallocation",
    "cuda_error_out_of_memory",
    // "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling …", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED" and
    // the like.
    "_status_alloc_failed",
    // cuDNN 9: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED, and _HOST_.
    "_allocation_failed",
    "memory allocation failed",
    // libtorch's allocator of a CPU's memory: "DefaultCPUAllocator: …".
    "can't allocate memory",
    "not enough memory",
    // oneDNN has no other words where a tensor of its own finds no room.
    "could not create a memory",
    "could not allocate memory",
    // Buffers of our own kernels.
    "bad_alloc",
];

/// What only sounds like it: failures of a computation that fewer numbers at a time would not mend.
const NO_LACK_OF_MEMORY: [&str; 4] =
    ["illegal memory access", "device-side assert", "nccl", "could not create a memory descriptor"];

/// Whether `text` says that memory has ended, a GPU's or a CPU's.
pub fn is_lack_of_memory(text: &str) -> bool {
    let text = text.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|words| text.contains(words));
    says(&LACK_OF_MEMORY) && !says(&NO_LACK_OF_MEMORY)
}

/// How a run that has saved itself goes on.
fn go_on(run: &Path) -> String {
    match crate::base::console::in_notebook() {
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
    fn what_main_shows_is_the_message() {
        let shown = |error: Error| format!("{error:?}");
        assert_eq!(shown(Error::invalid("usage: heads MODEL")), "usage: heads MODEL");
        assert_eq!(shown(Error::file("a.toml", "is empty")), "a.toml: is empty");
    }

    /// From the binaries of libtorch 2.11.0+cu130, cuBLAS 13, cuDNN 9 and glibc, with what they fill in.
    #[test]
    fn every_librarys_words_for_lack_of_memory_are_known() {
        for text in [
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.20 GiB is free.",
            "CUDA out of memory. Tried to allocate more than 1EB memory.",
            "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
            "CUDA driver error: out of memory",
            "CUDA error: cudaErrorMemoryAllocation",
            "CUDA_ERROR_OUT_OF_MEMORY",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasGemmEx( handle, opa, opb, m, n, k, &falpha, a, CUDA_R_16BF, lda)`",
            "CUDA error: CUSOLVER_STATUS_ALLOC_FAILED when calling `cusolverDnCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
            "cuDNN Frontend error: GPU memory allocation failed for persistent buffer",
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 4398046511104 \
             bytes. Error code 12 (Cannot allocate memory)",
            "DefaultCPUAllocator: not enough memory: you tried to allocate 1024 bytes.",
            "could not create a memory object",
            "could not create a memory",
            "Could not allocate memory for Tensor SizesAndStrides!",
            "dnnl_out_of_memory",
            "std::bad_alloc",
            "c10 Out of Memory. Trying to allocate 12 bytes",
            "libtorch: CUDA out of memory. Tried to allocate 20.00 MiB",
            &Error::OutOfMemory.to_string(),
        ] {
            assert!(is_lack_of_memory(text), "{text}");
        }
    }

    #[test]
    fn other_failures_are_not_taken_for_lack_of_memory() {
        for text in [
            "CUDA error: an illegal memory access was encountered",
            "CUDA error: device-side assert triggered",
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, opa, opb, m, n, k, &alpha, a, lda, b, ldb)`",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
            "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED",
            "CUDA error: unspecified launch failure",
            "CUDA error: misaligned address",
            "NCCL error: unhandled cuda error (out of memory)",
            "could not create a memory descriptor from blob",
            "could not create a primitive",
            "mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)",
            "tokens.arrow: cannot be memory mapped",
        ] {
            assert!(!is_lack_of_memory(text), "{text}");
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_it_repeats() {
        let error = Error::file("a.json", "key `x\ny\u{1b}[31m` is\r\nunknown\n");
        assert_eq!(error.to_string(), "a.json: key `x y\\u{1b}[31m` is  unknown");
        assert_eq!(Error::file("a\nb/c", "is no file").to_string(), "a b/c: is no file");
        assert_eq!(Error::invalid("é".repeat(5000)).to_string().chars().count(), LONGEST + 2);
    }
}
