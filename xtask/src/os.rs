//! Which machine this is.

use std::fs;

/// The distribution, as `os-release(5)` describes it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// The name for people, such as `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
    /// `ID` followed by the members of `ID_LIKE`.
    families: Vec<String>,
}

impl Distribution {
    /// Reads `/etc/os-release`, or `/usr/lib/os-release` where that is missing.
    pub fn of_this_machine() -> Self {
        let text = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| fs::read_to_string(path).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim() == key)
                .map(|(_, value)| unquote(value.trim()))
        };
        let families = [value("ID"), value("ID_LIKE")]
            .into_iter()
            .flatten()
            .flat_map(|value| {
                value
                    .split_whitespace()
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .collect();
        let name = value("PRETTY_NAME").or_else(|| value("ID"));
        Self {
            name: name.unwrap_or_else(|| "an unknown system".to_owned()),
            families,
        }
    }

    /// Whether Debian's package names hold here.
    pub fn is_debian_like(&self) -> bool {
        self.families
            .iter()
            .any(|family| family == "debian" || family == "ubuntu")
    }
}

fn unquote(value: &str) -> String {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
        {
            return inner.to_owned();
        }
    }
    value.to_owned()
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debian_is_known_by_its_id() {
        let debian = Distribution::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
        );
        assert!(debian.is_debian_like());
        assert_eq!(debian.name, "Debian GNU/Linux 12 (bookworm)");
    }

    #[test]
    fn a_derivative_is_known_by_what_it_is_like() {
        let mint = Distribution::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n");
        assert!(mint.is_debian_like());
        assert_eq!(mint.name, "linuxmint");
    }

    #[test]
    fn other_systems_are_not_taken_for_debian() {
        let fedora = Distribution::parse("NAME='Fedora Linux'\nID=fedora\nPRETTY_NAME='Fedora 43'");
        assert!(!fedora.is_debian_like());
        assert_eq!(fedora.name, "Fedora 43");
        assert_eq!(Distribution::parse("").name, "an unknown system");
    }
}
