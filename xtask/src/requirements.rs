//! The programs that the lab and the tests call, in one table.

use std::path::PathBuf;
use std::process::Command;

use crate::process::find_program;

/// A program that has to be on the machine.
pub struct Requirement {
    /// The program's name, looked for in `PATH` and the system directories.
    pub program: &'static str,
    /// How the program is asked for its version.
    version: &'static [&'static str],
    /// What the project does with it.
    pub why: &'static str,
    /// Debian's package that has it.
    pub apt: &'static str,
}

/// What was found for a [`Requirement`].
pub struct Found {
    /// Where the program is.
    pub path: PathBuf,
    /// The version that it states, if it states one.
    pub version: Option<String>,
}

/// Everything the lab, the tests and the demo call.
pub const REQUIREMENTS: &[Requirement] = &[
    Requirement {
        program: "ip",
        version: &["-V"],
        why: "makes the lab's interfaces, addresses and routes",
        apt: "iproute2",
    },
    Requirement {
        program: "tc",
        version: &["-V"],
        why: "shows what is attached to an interface",
        apt: "iproute2",
    },
    Requirement {
        program: "nft",
        version: &["--version"],
        why: "sets up the kernel's own NAT, which the tests compare with",
        apt: "nftables",
    },
    Requirement {
        program: "bpftool",
        version: &["version"],
        why: "loads the object and dumps the maps independently of our loader",
        apt: "bpftool",
    },
    Requirement {
        program: "curl",
        version: &["--version"],
        why: "is the HTTP client of the demo and the tests",
        apt: "curl",
    },
    Requirement {
        program: "ethtool",
        version: &["--version"],
        why: "switches the offloads of the lab's interfaces",
        apt: "ethtool",
    },
];

/// What `test-kernels` calls beside those.
pub const KERNEL_REQUIREMENTS: &[Requirement] = &[
    Requirement {
        program: "qemu-system-x86_64",
        version: &["--version"],
        why: "runs other kernels",
        apt: "qemu-system-x86",
    },
    Requirement {
        program: "cpio",
        version: &["--version"],
        why: "packs the file systems of virtual machines",
        apt: "cpio",
    },
    Requirement {
        program: "depmod",
        version: &["--version"],
        why: "indexes the modules of other kernels; its modprobe loads them",
        apt: "kmod",
    },
    Requirement {
        program: "dpkg-deb",
        version: &["--version"],
        why: "unpacks Debian's kernels",
        apt: "dpkg",
    },
];

/// What `fuzz` calls beside those.
pub const FUZZ_REQUIREMENTS: &[Requirement] = &[Requirement {
    program: "c++",
    version: &["--version"],
    why: "compiles the fuzzing engine",
    apt: "g++",
}];

impl Requirement {
    /// Looks for the program and asks it for its version.
    pub fn find(&self) -> Option<Found> {
        let path = find_program(self.program)?;
        let version = Command::new(&path)
            .args(self.version)
            .output()
            .ok()
            .and_then(|output| version_in(&String::from_utf8_lossy(&output.stdout)));
        Some(Found { path, version })
    }
}

/// The first thing in a text that looks like a version: numbers with dots
/// between them.
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
            ("ethtool version 6.1", Some("6.1")),
            ("bpf-linker 0.13.0\n", Some("0.13.0")),
            ("usage: program [OPTIONS] ...", None),
        ] {
            assert_eq!(version_in(text).as_deref(), version, "{text}");
        }
    }

    #[test]
    fn every_requirement_says_why_and_where_from() {
        for requirement in REQUIREMENTS {
            assert!(!requirement.why.is_empty(), "{}", requirement.program);
            assert!(!requirement.apt.is_empty(), "{}", requirement.program);
        }
    }
}
