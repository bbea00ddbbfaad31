//! Panics that are dealt with where they happen, and leave nothing on the terminal.
//!
//! What is printed of a panic is decided by a hook of the whole process, before anybody can catch it. Ours is
//! put in front of whatever hook there is, once, and holds its tongue on threads that ask it to.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// Says of a panic's payload whether it is expected.
type Expects = fn(&(dyn Any + Send)) -> bool;

thread_local!(static EXPECTED: Cell<Option<Expects>> = const { Cell::new(None) });

/// `catch_unwind` in which the panics that are expected are not printed.
///
/// # Errors
/// The payload of any panic, expected or not.
pub(crate) fn caught<T>(expected: Expects, work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !EXPECTED.get().is_some_and(|expected| expected(panic.payload())) {
                before(panic);
            }
        }));
    });
    let outer = EXPECTED.replace(Some(expected));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    EXPECTED.set(outer);
    outcome
}

/// The message of a panic; empty where it is no text.
pub fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    text.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_panic_is_caught_and_the_expectation_ends_with_the_work() {
        let full: Expects = |payload| text_of(payload) == "full";
        let outcome = caught(full, || {
            let inner: Result<(), _> = caught(|_| true, || panic!("inner {}", 1));
            assert_eq!(text_of(inner.unwrap_err().as_ref()), "inner 1");
            let expected = EXPECTED.get().unwrap();
            assert!(expected(&"full") && !expected(&"inner 1"), "what was expected before is again");
            panic!("full")
        });
        let outcome: Result<(), _> = outcome;
        assert_eq!(text_of(outcome.unwrap_err().as_ref()), "full");
        assert!(EXPECTED.get().is_none());
    }
}
