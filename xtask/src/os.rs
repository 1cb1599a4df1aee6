//! The distribution and the user that this program runs on and as.

use std::fs;

use anyhow::{Result, ensure};

/// The distribution, from `os-release(5)`.
pub struct Distribution {
    /// Its name, such as `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// Whether it has Debian's package names.
    pub is_debian_like: bool,
}

impl Distribution {
    pub fn of_this_machine() -> Self {
        let text = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut pairs = text.lines().filter_map(|line| line.split_once('='));
            pairs
                .find(|(name, _)| *name == key)
                .map(|(_, value)| value.trim_matches(['"', '\'']))
        };
        let families = [value("ID"), value("ID_LIKE")];
        let mut families = families
            .iter()
            .flatten()
            .flat_map(|family| family.split_whitespace());
        Self {
            name: value("PRETTY_NAME")
                .or(value("ID"))
                .unwrap_or("an unknown system")
                .to_owned(),
            is_debian_like: families.any(|family| family == "debian" || family == "ubuntu"),
        }
    }
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Fails unless the user is root. `who` is the subject of the message.
pub fn ensure_root(who: &str, subcommand: &str) -> Result<()> {
    ensure!(
        is_root(),
        "{who} needs root, to make network namespaces and load eBPF programs: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask {subcommand}`"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_and_its_derivatives_are_known() {
        for (text, name, is_debian_like) in [
            (
                "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_ID=\"12\"\nID=debian\n",
                "Debian GNU/Linux 12",
                true,
            ),
            (
                "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n",
                "linuxmint",
                true,
            ),
            (
                "NAME='Fedora Linux'\nID=fedora\nPRETTY_NAME='Fedora 43'",
                "Fedora 43",
                false,
            ),
            ("", "an unknown system", false),
        ] {
            let found = Distribution::parse(text);
            assert_eq!(
                (found.name.as_str(), found.is_debian_like),
                (name, is_debian_like)
            );
        }
    }
}
