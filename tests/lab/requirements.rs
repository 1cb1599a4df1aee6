//! What the lab requires of the machine, and how a test is skipped without it.

use std::io::Write as _;
use std::sync::OnceLock;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::topology::Lab;

/// Why no lab can be built on this machine; `None` if one can.
pub fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            if !geteuid().is_root() {
                return Some("needs root, to make network namespaces".to_owned());
            }
            // Only building a lab shows whether the kernel has all modules.
            Lab::new()
                .err()
                .map(|error| format!("cannot make the lab's network: {error:#}"))
        })
        .as_deref()
}

/// Reports a skipped test in the format that `cargo xtask test` counts.
pub fn skipped(test: &str, reason: &str) {
    // Not `eprintln!`: the test harness captures it and shows it only for a failed test. An error is ignored: nobody
    // reads a closed standard error.
    let line = format!("skipped: {test}: {}\n", reason.replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Raises the limit of open files as far as the system permits.
pub fn raise_open_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// The name of the function that contains the macro call.
#[macro_export]
macro_rules! function_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here).trim_end_matches("::here");
        path.rsplit("::").next().unwrap_or(path)
    }};
}

/// Skips the calling test if no lab can be built.
#[macro_export]
macro_rules! skip_unless_lab_works {
    () => {
        if let Some(reason) = $crate::requirements::missing() {
            $crate::requirements::skipped($crate::function_name!(), reason);
            return Ok(());
        }
    };
}
