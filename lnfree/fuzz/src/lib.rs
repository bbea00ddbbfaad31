//! Every reader of lnfree, fed with damaged and hostile input.
//!
//! A target is one reader behind one function. Of any input it holds: no panic, at most 10 seconds of the processor, no more
//! memory than [`Target::limits`] says (libtorch's included), and an error is one line of bounded length.
//!
//! `cargo test -p lnfree-fuzz` replays the seeds and some thousand mutations of them, always the same ones.
//! `scripts/fuzz.sh TARGET|all [N]` is the search: libFuzzer, guided by the coverage of lnfree.
//!
//! Why libFuzzer, through libfuzzer-sys: of what runs on stable Rust, it alone is guided by coverage and works in the process. The
//! compiler's `sancov` pass needs no nightly; it is asked for by a wrapper around rustc for this workspace alone, so that
//! dependencies are those that are built already (cargo-fuzz wants a nightly, or everything built again). bolero mutates nothing
//! without cargo-bolero, which rebuilds everything for libFuzzer too; afl.rs starts a process for each input or patches targets
//! with a loop, and its tool has to be built with the compiler at hand.

pub mod limits;
mod mutate;
mod parts;
mod scratch;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Mutex, Once};

pub use limits::{Limits, Meter};
pub use mutate::Mutator;
pub use scratch::Scratch;
pub use targets::{TARGETS, target};

/// One reader.
pub struct Target {
    /// What `scripts/fuzz.sh` and the folder of seeds call it.
    pub name: &'static str,
    /// Reads an input, of which it may make files.
    pub read: fn(&Scratch, &[u8]) -> lnfree::Result<()>,
    /// What stands in such files: the dictionary of the mutations.
    pub words: &'static [&'static str],
    /// What an input may cost.
    pub limits: Limits,
}

/// The longest message that still is one line to a person: a path, what was found, what to do.
const LONGEST: usize = 4096;

impl Target {
    /// The folder of its seeds.
    pub fn seeds(&self) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds").join(self.name)
    }

    /// Reads `input`; whether it was accepted.
    ///
    /// # Errors
    /// What must not happen, in words.
    pub fn check(&self, scratch: &Scratch, input: &[u8]) -> Result<bool, String> {
        quiet();
        let meter = Meter::start();
        let answer = catch_unwind(AssertUnwindSafe(|| (self.read)(scratch, input)));
        let exceeded = meter.exceeded(self.limits, input.len());
        let Ok(answer) = answer else { return Err(format!("panics: {}", last_panic())) };
        if let Some(exceeded) = exceeded {
            let said = answer.err().map_or("accepted".into(), |error| error.to_string());
            return Err(format!("{exceeded} ({said})"));
        }
        let Err(error) = answer else { return Ok(true) };
        let said = error.to_string();
        match said.chars().any(char::is_control) || said.len() > LONGEST || said.trim().is_empty() {
            true => Err(format!("says in {} bytes what is no line: {said:?}", said.len())),
            false => Ok(false),
        }
    }
}

/// What the last panic said, and where.
static LAST: Mutex<String> = Mutex::new(String::new());

/// Keeps panics for [`last_panic`]: those that a reader catches itself are no fault, and there are thousands.
fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            if let Ok(mut last) = LAST.lock() {
                *last = panic.to_string();
            }
        }));
    });
}

fn last_panic() -> String {
    LAST.lock().map(|last| last.clone()).unwrap_or_default()
}
