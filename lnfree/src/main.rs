//! The `lnfree` command: `main` turns errors into exit codes, [`cli::run`] is one `match` over the subcommands.

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used))]

mod cli;
mod panics;
mod unreadable;
mod working_directory;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    panics::install();
    unreadable::install();
    // A reader that closes the pipe early (`lnfree schedule gpt2 | head`) ends the program quietly.
    // SAFETY: called before any thread exists.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    lnfree::device::keep_freed_memory();
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            panics::say(&describe(&error));
            match error.downcast_ref::<lnfree::Error>() {
                Some(lnfree::Error::Interrupted { .. } | lnfree::Error::Stopped { .. }) => {
                    ExitCode::from(lnfree::interrupt::exit_code())
                }
                Some(lnfree::Error::Diverged { .. }) => ExitCode::from(3),
                _ => ExitCode::from(1),
            }
        }
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
    text
}
