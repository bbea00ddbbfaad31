//! Every reader of lnfree, fed with damaged and hostile input.
//!
//! A target is one reader behind one function. Of any input it holds: no panic, at most 10 seconds of the
//! processor, no more memory than [`Target::limits`] says (libtorch's included), and an error is one line of
//! bounded length.
//!
//! `cargo test -p lnfree-fuzz` replays the seeds and some thousand mutations of them, always the same ones.
//! `scripts/fuzz.sh TARGET|all [N]` is the search: libFuzzer, guided by the coverage of lnfree.
//!
//! Why libFuzzer, through libfuzzer-sys: of what runs on stable Rust, it is guided by coverage and stays in
//! one process. The compiler's `sancov` pass needs no nightly; a wrapper around rustc asks for it for this
//! workspace alone, so that dependencies are those that are built already. cargo-fuzz sets flags for all
//! crates, which builds everything again; so does cargo-bolero, without which bolero only draws bytes at
//! random; afl.rs needs its own copy of AFL++ built for the compiler at hand.

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

/// The longest message, in characters, that still is one line to a person: a path, what was found, what to
/// do.
const LONGEST: usize = 1500;

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
        let length = said.chars().count();
        match said.chars().any(char::is_control) || length > LONGEST || said.trim().is_empty() {
            true => Err(format!("says in {length} characters what is no line: {said:?}")),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lnfree::Error;

    use super::*;

    fn check(read: fn(&Scratch, &[u8]) -> lnfree::Result<()>) -> Result<bool, String> {
        let limits = Limits { base: 1 << 24, per_byte: 0, cpu: Duration::from_secs(3600) };
        Target { name: "test", read, words: &[], limits }.check(&Scratch::new().unwrap(), b"x")
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        let _alone = limits::alone();
        assert_eq!(check(|_, _| Ok(())), Ok(true));
        assert_eq!(check(|_, _| Err(Error::invalid("no"))), Ok(false));
        assert!(check(|_, _| panic!("ouch")).is_err_and(|why| why.contains("ouch")));
        let two = check(|_, _| Err(Error::Invalid("two\nlines".into())));
        assert!(two.is_err_and(|why| why.contains("no line")));
        assert!(check(|_, _| Err(Error::Invalid(String::new()))).is_err());
        let greedy = check(|_, _| {
            drop(std::hint::black_box(vec![0u8; 1 << 25]));
            Ok(())
        });
        assert!(greedy.is_err_and(|why| why.contains("at once")));
    }

    #[test]
    fn targets_have_names_of_their_own() {
        let mut names: Vec<_> = TARGETS.iter().copied().flatten().map(|target| target.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(target("torch").is_some() && target("nothing").is_none());
    }
}
