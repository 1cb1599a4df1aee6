//! The kernels that the tests run on, and which tests they may skip.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// A kernel, pinned to one build: an entry of `manifest.yaml`, which describes the fields.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The first two numbers of its version.
    pub series: String,
    /// What `uname -r` says.
    pub release: String,
    /// The version of its packages.
    pub version: String,
    pub label: String,
    pub suite: String,
    /// The SHA-256 of each package, by the part of its name before the release.
    pub packages: BTreeMap<String, String>,
    #[serde(rename = "default")]
    pub is_default: bool,
    #[serde(default)]
    lacks: Vec<String>,
}

pub static KERNELS: LazyLock<Vec<Kernel>> = LazyLock::new(|| {
    yaml_serde::from_str(include_str!("manifest.yaml")).expect("the manifest is tested")
});

/// Reasons of tests for a skip in any guest: guests lack these programs.
const NOT_IN_GUESTS: [&str; 3] = ["no prometheus in PATH", "no promtool in PATH", "no setcap"];

impl Kernel {
    /// Returns `true` if another release is of the same series and origin.
    pub fn is_of_series(&self, release: &str) -> bool {
        let flavour = |release: &str| release.contains("-cloud-") && !release.contains("unsigned");
        let rest = release.strip_prefix(&self.series);
        rest.is_some_and(|rest| rest.starts_with('.') && flavour(rest))
            && origin(release) == origin(&self.release)
    }
}

/// The Debian release that a kernel was built for: `deb13` of `6.18.15+deb13-cloud-amd64`.
fn origin(release: &str) -> Option<&str> {
    release.split_once('+')?.1.split('-').next()
}

/// Returns `true` if the manifest says that a kernel lacks what a skipped test names in its reason.
pub fn expects_skip(series: &str, reason: &str) -> bool {
    let kernel = KERNELS.iter().find(|kernel| kernel.series == series);
    let lacks = kernel
        .into_iter()
        .flat_map(|kernel| &kernel.lacks)
        .map(String::as_str);
    lacks
        .chain(NOT_IN_GUESTS)
        .any(|lacking| reason.contains(lacking))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_pinned_by_a_complete_hash() {
        for kernel in &*KERNELS {
            assert!(kernel.is_of_series(&kernel.release), "{kernel:?}");
            for hash in kernel.packages.values() {
                let digits = hash.chars().filter(char::is_ascii_hexdigit);
                assert_eq!(digits.count(), 64, "{kernel:?}");
            }
        }
    }

    #[test]
    fn a_series_does_not_take_another_ones_releases() {
        let is_of = |series: &str, release: &str| {
            let kernel = KERNELS.iter().find(|kernel| kernel.series == series);
            kernel.expect("the manifest has it").is_of_series(release)
        };
        assert!(is_of("6.1", "6.1.0-60-cloud-amd64"));
        assert!(!is_of("6.1", "6.12.117+deb12-cloud-amd64"));
        assert!(!is_of("6.1", "6.1.0-60-amd64"));
        assert!(!is_of("6.12", "6.12.120+deb13-cloud-amd64"));
        assert!(!is_of("6.12", "6.12.117+deb12-cloud-amd64-unsigned"));
    }

    #[test]
    fn a_skip_is_expected_only_if_the_kernel_lacks_the_feature() {
        let reason = "the kernel has no tcx (Linux 6.6)";
        assert!(expects_skip("5.10", reason));
        assert!(!expects_skip("6.12", reason));
        assert!(!expects_skip("5.10", "cannot make the lab's network"));
        assert!(expects_skip("6.12", "no setcap in PATH"));
    }
}
