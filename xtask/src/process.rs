//! Running and finding programs.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use xshell::Shell;
pub use xshell::{Cmd, cmd};

/// The directories of administrators' programs, which a user's `PATH` often lacks.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

thread_local! {
    static SHELL: &'static Shell =
        Box::leak(Box::new(Shell::new().expect("the current directory exists")));
}

/// The shell of this thread, in the current directory, for [`cmd!`].
pub fn sh() -> &'static Shell {
    SHELL.with(|shell| *shell)
}

/// A program's standard output; empty if the program is missing or fails.
pub fn answer(command: Cmd<'_>) -> String {
    command.ignore_stderr().read().unwrap_or_default()
}

/// Finds a program in `PATH`, then in the system directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    which::which_in(name, Some(path_with(SYSTEM_DIRECTORIES)), "/").ok()
}

/// `PATH`, followed by more directories.
pub fn path_with<D: Into<PathBuf>>(directories: impl IntoIterator<Item = D>) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain(directories.into_iter().map(Into::into));
    env::join_paths(all).unwrap_or(path.clone())
}

pub fn exit_code(success: bool) -> ExitCode {
    ExitCode::from(u8::from(!success))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_missing_program() {
        let error = cmd!(sh(), "/nonexistent/program").run();
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("`/nonexistent/program`")
        );
        assert_eq!(find_program("nonexistent-program"), None);
        assert!(find_program("sh").is_some());
    }
}
