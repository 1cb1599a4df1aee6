//! Debian's package manager.

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{CommandExt as _, find_program};

/// How packages are installed: without questions, without extras, and never
/// by removing something that the machine's owner put there.
const INSTALL: [&str; 4] = ["install", "-y", "--no-install-recommends", "--no-remove"];

/// The package manager, and whether its lists are fresh.
pub struct Apt {
    updated: bool,
}

impl Apt {
    /// The machine's apt, if it has one.
    pub fn find() -> Option<Self> {
        find_program("apt-get").map(|_| Self { updated: false })
    }

    /// The version of a package that an installation would bring.
    pub fn candidate(package: &str) -> Option<String> {
        let policy = Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C")
            .read()
            .ok()?;
        candidate_in(&policy)
    }

    /// Refreshes the package lists, once.
    ///
    /// # Errors
    /// `apt-get update` fails.
    pub fn update(&mut self) -> Result<()> {
        if !self.updated {
            println!("install  fresh package lists: apt-get update");
            Command::new("apt-get")
                .args(["update", "-q"])
                .run()
                .context(
                    "apt-get could not fetch its package lists: check the network and /etc/apt",
                )?;
            self.updated = true;
        }
        Ok(())
    }

    /// Installs packages, after refreshing the lists.
    ///
    /// # Errors
    /// A package is unknown, cannot be fetched, or conflicts with another one.
    pub fn install(&mut self, packages: &[String]) -> Result<()> {
        self.update()?;
        println!("install  {}", packages.join(" "));
        Command::new("apt-get")
            .args(INSTALL)
            .arg("-q")
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
            .with_context(|| format!("apt-get could not install {}", packages.join(", ")))
    }

    /// What a person types to install packages.
    pub fn command_line(packages: &[String]) -> String {
        format!(
            "sudo apt-get update && sudo apt-get {} {}",
            INSTALL.join(" "),
            packages.join(" ")
        )
    }
}

fn candidate_in(policy: &str) -> Option<String> {
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "))
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_the_policy() {
        let policy =
            "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(
            candidate_in("bpftool:\n  Installed: (none)\n  Candidate: (none)\n"),
            None
        );
        assert_eq!(candidate_in(""), None);
    }
}
