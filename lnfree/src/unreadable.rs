//! A file that is read in place and cannot be read any more.
//!
//! Token files are mapped into memory. Where the disk fails, or somebody cuts the file while it is in use,
//! the system has no other word for it than SIGBUS, which ends the process; a handler says which file it was.

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where the system lists what is mapped.
const MAPS: &[u8] = b"/proc/self/maps\0";
/// What of a line of it is looked at: numbers, and the longest path there can be.
const LINE: usize = 4096 + 128;

/// Where a line is read to: the stacks that signals are handled on have no room for it.
static mut ROOM: [u8; LINE] = [0; LINE];

/// Lets the process end with one line and code 1 instead of a signal.
pub fn install() {
    // SAFETY: the struct is valid when zero, and the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut());
    }
}

/// Only system calls, and little stack: the process may be anywhere.
extern "C" fn on_bus_error(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    static SAID: AtomicBool = AtomicBool::new(false);
    while SAID.swap(true, Ordering::SeqCst) {
        // Another thread is saying it.
        // SAFETY: only waits.
        unsafe { libc::pause() };
    }
    // SAFETY: the system passes a siginfo that lives as long as the handler runs; for SIGBUS it has an
    // address.
    let address = unsafe { (*info).si_addr() } as usize;
    say(b"lnfree: ");
    // SAFETY: only one thread comes here, once.
    let room = &raw mut ROOM;
    if !name_mapping(address, unsafe { &mut *room }) {
        say(b"a file in memory");
    }
    say(b": cannot be read any more: its disk has failed, or it has become shorter; what was saved is whole\n");
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(1) }
}

fn say(text: &[u8]) {
    // SAFETY: the bytes live through the call; nothing can be done where stderr is closed.
    unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
}

/// Says the path of what is mapped at `address`; false where that is not known.
fn name_mapping(address: usize, line: &mut [u8; LINE]) -> bool {
    // SAFETY: the name ends in a zero byte.
    let maps = unsafe { libc::open(MAPS.as_ptr().cast(), libc::O_RDONLY | libc::O_CLOEXEC) };
    let (mut length, mut piece) = (0, [0u8; 256]);
    loop {
        // SAFETY: the buffer is as long as said.
        let n = unsafe { libc::read(maps, piece.as_mut_ptr().cast(), piece.len()) };
        let Some(read) = usize::try_from(n).ok().filter(|n| *n > 0) else { return false };
        for &byte in piece.iter().take(read) {
            if byte != b'\n' {
                if let Some(place) = line.get_mut(length) {
                    *place = byte;
                    length += 1;
                }
                continue;
            }
            if let Some(path) = path_at(line.get(..length).unwrap_or_default(), address) {
                say(path);
                return true;
            }
            length = 0;
        }
    }
}

/// The path in a line `START-END rights offset device inode PATH`, if `address` lies in it.
fn path_at(line: &[u8], address: usize) -> Option<&[u8]> {
    let text = std::str::from_utf8(line.get(..line.iter().position(|b| *b == b' ')?)?).ok()?;
    let (start, end) = text.split_once('-')?;
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    if !(hex(start)?..hex(end)?).contains(&address) {
        return None;
    }
    line.get(line.iter().position(|b| *b == b'/')?..)
}

#[cfg(test)]
mod tests {
    use super::path_at;

    #[test]
    fn the_path_is_that_of_the_mapping() {
        let line = b"7f00-7fff r--p 00000000 08:01 42                         /data/my tokens.arrow";
        assert_eq!(path_at(line, 0x7f80), Some(&b"/data/my tokens.arrow"[..]));
        assert_eq!(path_at(line, 0x7fff), None);
        assert_eq!(path_at(b"7f00-7fff rw-p 00000000 00:00 0", 0x7f80), None);
        for damaged in [&b""[..], b"-", b"7f00 x /a", b"x-y r /a"] {
            assert_eq!(path_at(damaged, 0x7f80), None);
        }
    }
}
