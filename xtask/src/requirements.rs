//! The programs that the commands of this program call.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde::Deserialize;

use crate::process::{cmd, find_program, sh};

/// A program that must be on the machine.
#[derive(Deserialize)]
pub struct Requirement {
    /// Its name, in `PATH` or the system directories.
    pub program: String,
    /// The argument that asks for its version.
    version: String,
    /// Its package in Debian.
    pub apt: String,
    /// What it is needed for.
    pub why: String,
}

/// A [`Requirement`] that was found.
pub struct Found {
    pub path: PathBuf,
    /// Its version, if it prints one.
    pub version: Option<String>,
}

/// The requirements of `requirements.yaml`.
#[derive(Deserialize)]
pub struct Requirements {
    /// For the lab, the tests and the demo.
    pub lab: Vec<Requirement>,
    /// For `test-kernels`, in addition.
    pub kernels: Vec<Requirement>,
    /// For `fuzz`, in addition.
    pub fuzz: Vec<Requirement>,
}

pub static REQUIREMENTS: LazyLock<Requirements> = LazyLock::new(|| {
    yaml_serde::from_str(include_str!("requirements.yaml")).expect("the file is tested")
});

impl Requirement {
    /// Looks for the program and asks it for its version.
    pub fn find(&self) -> Option<Found> {
        let (path, version) = (find_program(&self.program)?, &self.version);
        // Some programs exit with an error after they printed their version.
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

/// The first version in a text: numbers with dots between them.
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
    fn versions_are_found_in_the_output_of_programs() {
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
