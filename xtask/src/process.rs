//! Running other programs, with errors that name the whole command.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context as _, Result, bail};

/// Directories that hold administrator's programs and that a user's `PATH`
/// often leaves out.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// What this project does with a [`Command`].
pub trait CommandExt {
    /// Runs the command with its output going where ours goes.
    ///
    /// # Errors
    /// The command cannot be started, or does not succeed.
    fn run(&mut self) -> Result<()>;

    /// Runs the command and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// The command cannot be started, or does not succeed: then the error
    /// carries what it wrote to its standard error.
    fn read(&mut self) -> Result<String>;

    /// The command as a person would type it.
    fn line(&self) -> String;
}

impl CommandExt for Command {
    fn run(&mut self) -> Result<()> {
        let status = self.status().with_context(|| cannot_start(self))?;
        expect_success(self, status, "")
    }

    fn read(&mut self) -> Result<String> {
        let output = self.output().with_context(|| cannot_start(self))?;
        expect_success(
            self,
            output.status,
            &String::from_utf8_lossy(&output.stderr),
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn line(&self) -> String {
        std::iter::once(self.get_program())
            .chain(self.get_args())
            .map(quote)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", command.line())
}

fn expect_success(command: &Command, status: ExitStatus, stderr: &str) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let line = command.line();
    match stderr.trim() {
        "" => bail!("`{line}` failed: {status}"),
        stderr => bail!("`{line}` failed: {status}\n{stderr}"),
    }
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Finds a program in `PATH`, then in the system directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

/// `PATH` with one more directory, behind the others.
pub fn path_with(directory: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([directory.to_owned()]);
    env::join_paths(directories).unwrap_or(path.clone())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_as_it_would_be_typed() {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "two words", "it's", ""]);
        assert_eq!(
            command.line(),
            r"apt-get install -y 'two words' 'it'\''s' ''"
        );
    }

    #[test]
    fn a_failure_carries_the_command_and_its_standard_error() {
        let error = Command::new("sh")
            .args(["-c", "echo broken >&2; exit 3"])
            .read()
            .unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("broken"),
            "{error}"
        );
    }

    #[test]
    fn a_program_that_does_not_exist_is_named() {
        let error = Command::new("/nonexistent/program").run().unwrap_err();
        assert_eq!(error.to_string(), "cannot start `/nonexistent/program`");
        assert_eq!(find_program("nonexistent-program"), None);
    }
}
