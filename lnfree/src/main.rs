//! The `lnfree` command: `main` turns errors into exit codes, [`cli::run`] is one `match` over the
//! subcommands.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]
// A full or closed stream makes a panic of them: see `cli::out`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod panics;
mod unreadable;
mod working_directory;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    panics::install();
    unreadable::install();
    lnfree::device::keep_freed_memory();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return show(&message),
    };
    // What could not be printed has kept nothing from being computed and written.
    match cli::run(cli).and_then(|()| cli::out::ended()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            panics::say(&describe(&error));
            if let Some(cli::ranks::Ended(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            match error.downcast_ref::<lnfree::Error>() {
                Some(lnfree::Error::Interrupted { .. } | lnfree::Error::Stopped { .. }) => {
                    ExitCode::from(lnfree::interrupt::exit_code())
                }
                Some(lnfree::Error::Diverged { .. }) => ExitCode::from(3),
                Some(lnfree::Error::NotFinite(_)) => ExitCode::from(4),
                _ => ExitCode::from(1),
            }
        }
    }
}

/// Help, the version, or what is wrong with the command line.
fn show(message: &clap::Error) -> ExitCode {
    match message.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            panics::say(&format!("cannot write to standard output: {error}"));
            ExitCode::from(1)
        }
        _ => ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2)),
    }
}

/// An error and what caused it, each said once: many messages have their cause in them already.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // Of several processes each may have something to say.
    match lnfree::ranks::Place::of_environment() {
        Ok(Some(place)) => format!("rank {}: {text}", place.rank),
        _ => text,
    }
}
