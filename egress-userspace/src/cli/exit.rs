//! Exit codes.

use std::{io, process::ExitCode};

use egress_api::LoadError;

use super::terminal;
use crate::{
    dataplane::DiscoverError,
    net::{interface::InterfaceError, kernel::KernelError},
    router::StartError,
};

/// The table that `--help` shows.
pub const HELP: &str = "\
Exit codes:
  0  success
  1  something failed
  2  wrong usage
  3  the spec has errors
  4  the interfaces or their addresses are not as the spec needs them
  5  missing privileges
  6  the kernel lacks what is needed
  7  another router is attached to the interface
  8  no router runs here
  9  the connection would not be forwarded (explain)";

const FAILURE: u8 = 1;
const INVALID_SPEC: u8 = 3;
const INTERFACES: u8 = 4;
const PRIVILEGES: u8 = 5;
const KERNEL: u8 = 6;
const ALREADY_RUNNING: u8 = 7;
const NOT_RUNNING: u8 = 8;
/// The exit code of `explain` for a connection that would not be forwarded.
pub const NOT_FORWARDED: u8 = 9;

/// Prints the error with its causes, and returns its exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        // The reader has seen enough, as in `egress-router flows | head`.
        return ExitCode::SUCCESS;
    }
    let text = format!("error: {}", message(error));
    let columns = terminal::columns_of(io::stderr());
    eprintln!("{}", terminal::wrap(&text, columns, 2));
    ExitCode::from(code(error))
}

/// The error and its causes, without a cause that an earlier message already contains.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(error) = cause.downcast_ref::<LoadError>() {
            return load_error(error);
        }
        if let Some(error) = cause.downcast_ref::<KernelError>() {
            return kernel_error(error);
        }
        if cause.is::<InterfaceError>() {
            return INTERFACES;
        }
        match cause.downcast_ref::<StartError>() {
            Some(StartError::AlreadyRunning { .. } | StartError::StillAttached { .. }) => {
                return ALREADY_RUNNING;
            }
            Some(StartError::Interface(_)) => return INTERFACES,
            Some(StartError::Kernel(error)) => return kernel_error(error),
            _ => {}
        }
        match cause.downcast_ref::<DiscoverError>() {
            Some(
                DiscoverError::None | DiscoverError::NotPinned(_) | DiscoverError::Elsewhere { .. },
            ) => return NOT_RUNNING,
            Some(DiscoverError::List(_) | DiscoverError::Closed { .. }) => return PRIVILEGES,
            _ => {}
        }
    }
    FAILURE
}

/// The exit code for a resource that could not be loaded.
pub const fn load_error(error: &LoadError) -> u8 {
    match error {
        LoadError::Unreadable { .. } => FAILURE,
        LoadError::Invalid(_) => INVALID_SPEC,
    }
}

const fn kernel_error(error: &KernelError) -> u8 {
    match error {
        KernelError::Privileges { .. } => PRIVILEGES,
        _ => KERNEL,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_not_repeated() {
        let error = anyhow::anyhow!("disk full")
            .context("could not write: disk full")
            .context("giving up");
        assert_eq!(message(&error), "giving up: could not write: disk full");
    }
}
