//! What the tested kernels lack, and which tests they may skip for it.

/// Something that newer kernels have.
#[derive(Debug)]
pub struct Feature {
    /// The series of the manifest that lack it.
    pub lacking: &'static [&'static str],
    /// What tests say when they are skipped for it: a part of the reason.
    pub reason: &'static str,
}

const EVERY: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7.2", "7.3"];

/// Everything that a tested kernel lacks and a test asks for.
pub const FEATURES: &[Feature] = &[
    Feature {
        // And bpf_loop.
        lacking: &["5.10"],
        reason: "bpf_timer",
    },
    Feature {
        lacking: &["5.10", "6.1"],
        reason: "the kernel has no tcx",
    },
    Feature {
        lacking: &["5.10", "6.1"],
        reason: "the kernel has no netkit",
    },
    Feature {
        lacking: &["5.10"],
        reason: "before Linux 5.11 it takes a fourth capability",
    },
    // Programs of the host that guests do not get.
    Feature {
        lacking: EVERY,
        reason: "no prometheus in PATH",
    },
    Feature {
        lacking: EVERY,
        reason: "no promtool in PATH",
    },
    Feature {
        lacking: EVERY,
        reason: "no setcap",
    },
];

/// The feature for whose absence a kernel may skip a test, saying this.
pub fn excuse(series: &str, reason: &str) -> Option<&'static Feature> {
    FEATURES
        .iter()
        .find(|feature| reason.contains(feature.reason) && feature.lacking.contains(&series))
}

#[cfg(test)]
mod tests {
    use super::super::manifest::KERNELS;
    use super::*;

    #[test]
    fn only_kernels_of_the_manifest_lack_something() {
        for feature in FEATURES {
            for series in feature.lacking {
                assert!(
                    KERNELS.iter().any(|kernel| kernel.series == *series),
                    "{}: {series}",
                    feature.reason
                );
            }
        }
    }

    #[test]
    fn a_skip_is_excused_only_where_the_feature_is_lacking() {
        let reason = "the kernel has no tcx (Linux 6.6)";
        assert!(excuse("5.10", reason).is_some());
        assert!(excuse("6.12", reason).is_none());
        assert!(excuse("5.10", "cannot make the lab's network").is_none());
    }
}
