//! Commands that several processes carry out together: which rank this one is, and `--nproc`, which starts
//! them on this machine.

use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use lnfree::ranks::{Place, Ranks, Worker};
use lnfree::tch::Device;
use lnfree::{console, device, interrupt};

use super::DeviceArgs;

#[derive(Args)]
pub(super) struct RankArgs {
    /// Start so many processes on this machine that work on it together, on CUDA one for each GPU. Instead of
    /// this, torchrun or srun may start them: the variables that these set are read.
    #[arg(long, value_name = "N")]
    nproc: Option<NonZeroUsize>,
}

/// Seconds that the others have to stop by themselves, and to save, once one has ended with an error.
const GRACE: Duration = Duration::from_secs(300);
/// Between two looks at the processes.
const LOOK: Duration = Duration::from_millis(100);

/// Processes that `--nproc` has started ended with an exit code other than 0, which this one then has too.
/// They have said why.
#[derive(Debug)]
pub struct Ended(pub u8);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "the ranks ended with exit code {}, as they say above", self.0)
    }
}

impl std::error::Error for Ended {}

impl RankArgs {
    /// Carries the command out in as many processes as `--nproc` says, if it does; else `None`, and this
    /// process is one of those that work.
    pub(super) fn start(&self, device: &DeviceArgs) -> anyhow::Result<Option<()>> {
        match self.nproc.map(NonZeroUsize::get) {
            None | Some(1) => Ok(None),
            Some(n) => {
                anyhow::ensure!(
                    Place::of_environment()?.is_none(),
                    "--nproc {n}: torchrun, srun or somebody else has started this as one of several ranks \
                     already; leave --nproc out"
                );
                run(n, device).map(Some)
            }
        }
    }
}

/// This process among those that work together, and what it computes on: of the GPUs of its machine that of
/// its own number.
pub(super) fn join(args: &DeviceArgs) -> anyhow::Result<Worker> {
    let Some(place) = Place::of_environment()? else { return Ok(args.device()?.into()) };
    if place.rank > 0 {
        console::be_silent();
    }
    let device = device_of(&place, args)?;
    let about = match device {
        Device::Cpu => match device::threads() {
            1 => "cpu (1 thread)".into(),
            n => format!("cpu ({n} threads)"),
        },
        device => device::device_name(device),
    };
    Ok(Worker { ranks: Ranks::join(&place, &about)?, device })
}

fn device_of(place: &Place, args: &DeviceArgs) -> anyhow::Result<Device> {
    device::set_threads(args.threads)?;
    let named = device::parse_device(&args.device)?;
    if named.is_cuda() && args.device.starts_with("cuda:") {
        anyhow::bail!(
            "--device {}: is one GPU for all ranks; with --device cuda each has its own",
            args.device
        );
    }
    match (named, device::cuda_devices()) {
        (Device::Cuda(_), Ok(count)) if place.local_rank < count => Ok(Device::Cuda(place.local_rank)),
        // Slurm shows each task its own alone.
        (Device::Cuda(_), Ok(1)) if std::env::var_os("SLURM_STEP_NUM_TASKS").is_some() => Ok(named),
        (Device::Cuda(_), Ok(count)) => anyhow::bail!(
            "LOCAL_RANK={}: there are {count} GPUs here; start as many processes on a machine as it has GPUs",
            place.local_rank
        ),
        _ => Ok(named),
    }
}

/// Starts `n` of this very command, waits for all, and passes signals on.
fn run(n: usize, device: &DeviceArgs) -> anyhow::Result<()> {
    interrupt::install()?;
    // A port that is free now; it is rank 0's in a moment.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let port = port.context("no port for the ranks to meet at")?.port();
    let mut processes = Vec::new();
    for rank in 0..n {
        match command(rank, n, port, device)?.spawn() {
            Ok(process) => processes.push(process),
            Err(error) => {
                processes.iter_mut().for_each(|process| drop(process.kill()));
                anyhow::bail!("rank {rank} cannot be started: {error}");
            }
        }
    }
    match wait(processes)? {
        0 => Ok(()),
        code => Err(Ended(code).into()),
    }
}

fn command(rank: usize, n: usize, port: u16, device: &DeviceArgs) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("where this program is")?);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--nproc") => drop(arguments.next()),
            Some(text) if text.starts_with("--nproc=") => {}
            _ => drop(command.arg(argument)),
        }
    }
    let (rank, n_ranks) = (rank.to_string(), n.to_string());
    command.env("RANK", &rank).env("LOCAL_RANK", &rank).env("WORLD_SIZE", n_ranks);
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    // Processes that take all cores each are in each other's way.
    if device.threads.is_none() && std::env::var_os("OMP_NUM_THREADS").is_none() {
        command.env("OMP_NUM_THREADS", (device::cores() / n).max(1).to_string());
    }
    // A terminal's Ctrl-C reaches this process alone, which passes it on once: the second would end them.
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: one system call, which is allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // Killed, this process would leave them behind.
            match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    Ok(command)
}

/// Waits until all have ended, and returns the exit code of the first that had another than 0.
fn wait(mut processes: Vec<Child>) -> anyhow::Result<u8> {
    let (mut first_code, mut failed, mut passed_on) = (0, None::<Instant>, false);
    while !processes.is_empty() {
        if interrupt::requested() && !passed_on {
            passed_on = true;
            let signal = i32::from(interrupt::exit_code()) - 128;
            processes.iter().for_each(|process| tell(process, signal));
        }
        let mut left = Vec::new();
        for mut process in processes {
            match process.try_wait().context("waiting for a rank")? {
                None => left.push(process),
                Some(status) if status.success() => {}
                Some(status) => {
                    first_code = if first_code == 0 { code(status) } else { first_code };
                    failed = failed.or(Some(Instant::now()));
                }
            }
        }
        if failed.is_some_and(|since| since.elapsed() > GRACE) {
            left.iter_mut().for_each(|process| drop(process.kill()));
        }
        processes = left;
        std::thread::sleep(LOOK);
    }
    Ok(first_code)
}

fn tell(process: &Child, signal: i32) {
    if let Ok(id) = i32::try_from(process.id()) {
        // SAFETY: a process that this one has started and not yet waited for.
        unsafe { libc::kill(id, signal) };
    }
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
