//! Processes that work on one thing together, in the process groups of libtorch: where they meet, and what
//! they add up, share and agree on.

mod buckets;
mod place;

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use self::buckets::{Bucket, buckets};
use crate::base::console::say;
use crate::base::ffi;
use crate::{Error, Result};

pub use place::Place;

/// How long the first rank waits for the last, seconds; [`JOIN_VARIABLE`] changes it.
const JOIN_SECONDS: u64 = 120;
/// The variable that says how many seconds ranks wait for each other at the start.
pub const JOIN_VARIABLE: &str = "LNFREE_JOIN_SECONDS";
/// How long an operation waits for a rank that does not come: as PyTorch does.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Between two tries to reach rank 0.
const RETRY: Duration = Duration::from_millis(200);
/// Sums that are made at a time: one goes over the network while the next is put together.
const AT_A_TIME: usize = 2;

/// This process among those that train, or evaluate, one model together. All of them have to call the same
/// functions in the same order.
#[derive(Debug)]
pub struct Ranks {
    rank: usize,
    size: usize,
    local_rank: usize,
    group: Option<ffi::Group>,
    /// How often [`Ranks::agree`] was called.
    agreed: Cell<usize>,
}

/// One process of a run: which of the ranks, and what it computes on. A device by itself is a process that
/// is alone.
#[derive(Debug)]
pub struct Worker {
    /// This process among the others.
    pub ranks: Ranks,
    /// Where its tensors are.
    pub device: Device,
}

impl From<Device> for Worker {
    fn from(device: Device) -> Worker {
        Worker { ranks: Ranks::alone(), device }
    }
}

impl Ranks {
    /// One process, which needs nobody: nothing below does anything.
    pub fn alone() -> Ranks {
        Ranks { rank: 0, size: 1, local_rank: 0, group: None, agreed: Cell::new(0) }
    }

    /// Meets all others of `place`; `about` says what this one computes on. Rank 0 tells what has met.
    ///
    /// # Errors
    /// A port that is in use, a rank 0 that cannot be reached, or a rank that does not come, within
    /// [`JOIN_VARIABLE`] seconds (120 unless it is set).
    pub fn join(place: &Place, about: &str) -> Result<Ranks> {
        let patience = patience()?;
        let begun = Instant::now();
        let left = || patience.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        let Place { rank, size, local_rank, .. } = *place;
        let listener = match rank == 0 && !place.served {
            true => Some(listen(place)?),
            false => {
                reach(place, patience)?;
                None
            }
        };
        let at = (place.address.as_str(), place.port);
        let prefix = format!("lnfree/{}", place.attempt);
        let mut group = ffi::Group::meet(at, listener, size, &prefix, left())?;
        // Whoever does not come is known by its number before anything can wait for it.
        group.tell(&format!("here/{rank}"), about)?;
        let mut there = Vec::new();
        for other in 0..size {
            there.push(group.hear(&format!("here/{other}"), left()).map_err(|_| {
                Error::invalid(format!(
                    "rank {other} of {size} has not come to {}:{} within {} s: look at its output, or wait \
                     longer with {JOIN_VARIABLE}",
                    place.address,
                    place.port,
                    patience.as_secs()
                ))
            })?);
        }
        group.form(rank, size, PATIENCE).map_err(lost)?;
        let ranks = Ranks { rank, size, local_rank, group: Some(group), agreed: Cell::new(0) };
        if ranks.is_first() {
            let each: Vec<String> =
                there.iter().enumerate().map(|(n, about)| format!("{n} {about}")).collect();
            say(&format!("{size} ranks, connected by Gloo: {}", each.join(", ")));
        }
        Ok(ranks)
    }

    /// The 0-based number of this process.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The 0-based number of this process on its machine.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Whether this process is the one that writes and tells.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Whether there are no others.
    pub fn is_alone(&self) -> bool {
        self.group.is_none()
    }

    /// This rank's share of `n` things in order: from which to which. Shares differ by one at most.
    pub fn share_of(&self, n: usize) -> std::ops::Range<usize> {
        self.rank * n / self.size..(self.rank + 1) * n / self.size
    }

    /// Adds up tensors over all ranks, in place, on whatever device they are and in float32; every rank has
    /// the same sums to the last digit. Small ones go together, and one message is under way while the next
    /// is put together.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let _guard = tch::no_grad_guard();
        let mut under_way: VecDeque<(ffi::Sum, Bucket)> = VecDeque::new();
        let end = |(sum, bucket): (ffi::Sum, Bucket)| -> Result<()> {
            sum.end().map_err(lost)?;
            bucket.hand_back()
        };
        for bucket in buckets(tensors) {
            let bucket = bucket?;
            under_way.push_back((group.begin_sum(bucket.flat()).map_err(lost)?, bucket));
            if under_way.len() >= AT_A_TIME
                && let Some(oldest) = under_way.pop_front()
            {
                end(oldest)?;
            }
        }
        under_way.into_iter().try_for_each(end)
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// When a rank is lost.
    pub fn any(&self, yes: bool) -> Result<bool> {
        if self.is_alone() {
            return Ok(yes);
        }
        let count = Tensor::from_slice(&[f32::from(u8::from(yes))]);
        self.sum(&[count.shallow_clone()])?;
        Ok(f64::try_from(count.get(0))? > 0.0)
    }

    /// What each rank has done, if all have: one that failed has its own error, and the others say which it
    /// was instead of waiting for it.
    ///
    /// # Errors
    /// This rank's, or that of another.
    pub fn together<T>(&self, done: Result<T>) -> Result<T> {
        if self.is_alone() {
            return done;
        }
        let mut failed = vec![0f32; self.size];
        failed[self.rank] = f32::from(u8::from(done.is_err()));
        let failed = Tensor::from_slice(&failed);
        let told = self.sum(&[failed.shallow_clone()]);
        let done = done?;
        told?;
        match Vec::<f32>::try_from(failed)?.iter().position(|&failed| failed > 0.0) {
            None => Ok(done),
            Some(other) => Err(Error::invalid(format!(
                "rank {other} could not go on, as its own line says, and the others stop with it"
            ))),
        }
    }

    /// `work` on rank 0, then, once that is done, on the others: what the first leaves in a cache, the others
    /// find there.
    ///
    /// # Errors
    /// As `work`, on any rank.
    pub fn first_alone<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_first() {
            let done = self.together(work())?;
            return self.together(Ok(done));
        }
        self.together(Ok(()))?;
        self.together(work())
    }

    /// Makes sure that all ranks have the same of `what`, said in a few characters.
    ///
    /// # Errors
    /// When they do not, on every rank.
    pub fn agree(&self, what: &str, mine: &str) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        let key = format!("agree/{}", self.agreed.replace(self.agreed.get() + 1));
        if self.is_first() {
            group.tell(&key, mine).map_err(lost)?;
        }
        let same = group.hear(&key, PATIENCE).map_err(lost)? == mine;
        self.together(match same {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "rank {} has another {what} than rank 0: all need the same files and the same command",
                self.rank
            ))),
        })
    }
}

fn patience() -> Result<Duration> {
    let Some(text) = std::env::var(JOIN_VARIABLE).ok().filter(|text| !text.is_empty()) else {
        return Ok(Duration::from_secs(JOIN_SECONDS));
    };
    match text.trim().parse() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(Error::invalid(format!("{JOIN_VARIABLE}={text}: must be a number of seconds from 1"))),
    }
}

/// The socket that rank 0 is reached at.
fn listen(place: &Place) -> Result<TcpListener> {
    let port = place.port;
    let both = TcpListener::bind(("::", port));
    // Where there is no IPv6.
    let listener = match both {
        Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => TcpListener::bind(("0.0.0.0", port)),
        bound => bound,
    };
    listener.map_err(|error| {
        Error::invalid(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("port {port} is in use here: set MASTER_PORT to another one, the same for all ranks")
            }
            _ => format!("rank 0 cannot listen at port {port}: {error}"),
        })
    })
}

/// Waits until somebody listens where the ranks meet: libtorch tells every try of its own on stderr.
fn reach(place: &Place, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let error = match (place.address.as_str(), place.port).to_socket_addrs() {
            Ok(addresses) => {
                let mut why = None;
                for address in addresses {
                    match TcpStream::connect_timeout(&address, patience.min(Duration::from_secs(5))) {
                        Ok(_) => return Ok(()),
                        Err(error) => why = Some(error),
                    }
                }
                why.map_or("the name has no address".into(), |why| why.to_string())
            }
            Err(error) => error.to_string(),
        };
        if begun.elapsed() >= patience {
            return Err(Error::invalid(format!(
                "rank {} finds nobody at MASTER_ADDR={}, MASTER_PORT={} within {} s ({error}): is rank 0 there?",
                place.rank,
                place.address,
                place.port,
                patience.as_secs()
            )));
        }
        std::thread::sleep(RETRY);
    }
}

/// What libtorch says when a rank is gone, in words.
fn lost(error: Error) -> Error {
    let text = error.to_string();
    let text = text.strip_prefix("libtorch: ").unwrap_or(&text);
    Error::invalid(format!("another rank is gone, or has not answered for half an hour ({text})"))
}

/// Numbers on the CPU, in float32 and one piece.
fn on_host(x: &Tensor) -> Tensor {
    x.to_device(Device::Cpu).to_kind(Kind::Float).contiguous()
}
