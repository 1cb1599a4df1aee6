//! What the lab needs of the machine, and how a test that lacks it is skipped.

use std::io::Write as _;
use std::sync::OnceLock;

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::geteuid;

use crate::topology::Lab;

/// Why no lab can be built on this machine; `None` where it can.
pub fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            if !geteuid().is_root() {
                return Some("needs root, to make network namespaces".to_owned());
            }
            // Asking the kernel is the only test that knows about its modules.
            Lab::new()
                .err()
                .map(|error| format!("cannot make the lab's network: {error:#}"))
        })
        .as_deref()
}

/// Says that a test did not run, in the form that the test runner counts.
pub fn skipped(test: &str, reason: &str) {
    // Not `eprintln!`: the test harness would capture that, and show it only on
    // a failure. If standard error is gone, there is nobody to tell.
    let line = format!("skipped: {test}: {}\n", reason.replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Allows this process as many open files as the system lets it have.
pub fn raise_open_file_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// The name of the function that the macro stands in.
#[macro_export]
macro_rules! function_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here).trim_end_matches("::here");
        path.rsplit("::").next().unwrap_or(path)
    }};
}

/// Skips the test that it stands in, saying why, where no lab can be built.
#[macro_export]
macro_rules! skip_unless_lab_works {
    () => {
        if let Some(reason) = $crate::requirements::missing() {
            $crate::requirements::skipped($crate::function_name!(), reason);
            return Ok(());
        }
    };
}
