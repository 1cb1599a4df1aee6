//! The programs that the lab and the tests call, in one table.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::process::{cmd, find_program, sh};

/// A program that has to be on the machine.
#[derive(Deserialize)]
pub struct Requirement {
    /// Looked for in `PATH` and the system directories.
    pub program: String,
    /// Asks the program for its version.
    version: String,
    /// Debian's package that has it.
    pub apt: String,
    /// What the project does with it.
    pub why: String,
}

/// What was found for a [`Requirement`].
pub struct Found {
    pub path: PathBuf,
    /// The version that the program states, if it states one.
    pub version: Option<String>,
}

/// What the commands of this program call.
#[derive(Deserialize)]
pub struct Requirements {
    /// The lab, the tests and the demo.
    pub lab: Vec<Requirement>,
    /// `test-kernels`, beside those.
    pub kernels: Vec<Requirement>,
    /// `fuzz`, beside those.
    pub fuzz: Vec<Requirement>,
}

pub static REQUIREMENTS: LazyLock<Requirements> = LazyLock::new(|| {
    yaml_serde::from_str(include_str!("requirements.yaml")).expect("the file is tested")
});

impl Requirement {
    /// Looks for the program and asks it for its version.
    pub fn find(&self) -> Option<Found> {
        let (path, version) = (find_program(&self.program)?, &self.version);
        // Some exit with an error.
        let output = cmd!(sh(), "{path} {version}")
            .ignore_status()
            .output()
            .ok()?;
        Some(Found {
            path,
            version: version_in(&String::from_utf8_lossy(&output.stdout)),
        })
    }
}

/// The first thing in a text that looks like a version: numbers with dots between them.
pub fn version_in(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_print() {
        for (text, version) in [
            ("ip utility, iproute2-6.1.0, libbpf 1.1.0", Some("6.1.0")),
            ("nftables v1.0.6 (Lester Gooch #5)", Some("1.0.6")),
            ("bpftool v7.1.0\nusing libbpf v1.1", Some("7.1.0")),
            ("bpf-linker 0.13.0\n", Some("0.13.0")),
            ("usage: program [OPTIONS] ...", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version, "{text}");
        }
    }
}
