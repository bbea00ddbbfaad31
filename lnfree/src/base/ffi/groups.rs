//! A process group of libtorch, and the store that its processes meet at.

use std::ffi::{CString, c_char, c_void};
use std::net::TcpListener;
use std::os::fd::IntoRawFd;
use std::ptr::NonNull;
use std::time::Duration;

use tch::Tensor;

use super::answers::{check, last_error};
use super::symbols::*;
use crate::{Error, Result};

/// The longest text that one process hears of another.
const LONGEST: usize = 4096;

/// What connects a process with the others.
#[derive(Debug)]
pub(crate) struct Group(NonNull<c_void>);

/// A sum over all processes that is being made.
#[derive(Debug)]
pub(crate) struct Sum {
    work: *mut c_void,
    /// It is written into meanwhile.
    _tensor: Tensor,
}

impl Group {
    /// The store at `host`:`port` for `size` processes; with a `listener` this one serves it. `prefix` keeps
    /// what is told there apart from earlier tries.
    ///
    /// # Errors
    /// When nobody answers within `timeout`.
    pub(crate) fn meet(
        (host, port): (&str, u16),
        listener: Option<TcpListener>,
        size: usize,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Group> {
        let (host, prefix) = (text(host)?, text(prefix)?);
        let listener = listener.map_or(-1, IntoRawFd::into_raw_fd);
        // SAFETY: both texts outlive the call; the socket is the store's from here on.
        let group = unsafe {
            lnfree_meet(host.as_ptr(), i32::from(port), listener, size as i32, prefix.as_ptr(), ms(timeout))
        };
        NonNull::new(group).map(Group).ok_or_else(last_error)
    }

    /// Connects process `rank` of `size` with the others; what one does not take part in fails after
    /// `timeout`.
    ///
    /// # Errors
    /// When one does not come.
    pub(crate) fn form(&mut self, rank: usize, size: usize, timeout: Duration) -> Result<()> {
        // SAFETY: a group that is there.
        check(unsafe { lnfree_form_group(self.0.as_ptr(), rank as i32, size as i32, ms(timeout)) })
    }

    /// Tells all `value` under `key`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) fn tell(&self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (text(key)?, text(value)?);
        // SAFETY: both texts outlive the call.
        check(unsafe { lnfree_group_tell(self.0.as_ptr(), key.as_ptr(), value.as_ptr()) })
    }

    /// What one has told under `key`, once it is there.
    ///
    /// # Errors
    /// When nobody has within `timeout`.
    pub(crate) fn hear(&self, key: &str, timeout: Duration) -> Result<String> {
        let key = text(key)?;
        let mut bytes = vec![0u8; LONGEST];
        // SAFETY: the key outlives the call, and no more is written than there is room for.
        let length = unsafe {
            let into = bytes.as_mut_ptr().cast::<c_char>();
            lnfree_group_hear(self.0.as_ptr(), key.as_ptr(), ms(timeout), into, LONGEST as i64)
        };
        let length = usize::try_from(length).map_err(|_| last_error())?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Begins to add up `x`, contiguous and on the CPU, over all processes, in place.
    ///
    /// # Errors
    /// What libtorch says.
    pub(crate) fn begin_sum(&self, x: &Tensor) -> Result<Sum> {
        // SAFETY: the tensor lives as long as the sum that holds it.
        let work = unsafe { lnfree_begin_sum(self.0.as_ptr(), x.as_ptr()) };
        if work.is_null() {
            return Err(last_error());
        }
        Ok(Sum { work, _tensor: x.shallow_clone() })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by `meet`, and left once.
        unsafe { lnfree_leave_group(self.0.as_ptr()) }
    }
}

impl Sum {
    /// Waits until the sum is there.
    ///
    /// # Errors
    /// When a process is lost.
    pub(crate) fn end(mut self) -> Result<()> {
        let work = std::mem::replace(&mut self.work, std::ptr::null_mut());
        // SAFETY: begun by `begin_sum`, and ended once.
        check(unsafe { lnfree_end_sum(work) })
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        if !self.work.is_null() {
            // SAFETY: as in `end`. Whoever drops it has an error of its own to tell.
            let _ = unsafe { lnfree_end_sum(self.work) };
        }
    }
}

fn text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid("a zero byte in what a rank says"))
}

fn ms(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
}
