//! The kernels that the tests run on.

/// Where Debian has a package: the name of an archive and of a suite in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suite {
    /// The archive.
    pub archive: Archive,
    /// The suite, such as `bookworm-security`.
    pub name: &'static str,
}

/// One of Debian's archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Archive {
    /// The releases and their backports.
    Main,
    /// Security updates.
    Security,
}

/// A package of a kernel: `<stem><release>`, such as `linux-image-6.1.0-56-cloud-amd64`.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// What comes before the release in its name.
    pub stem: &'static str,
    /// Of the file, in hexadecimal.
    pub sha256: &'static str,
}

/// A kernel, pinned to one build.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What people call it: the first two numbers of its version.
    pub series: &'static str,
    /// What `uname -r` says.
    pub release: &'static str,
    /// The version of its packages.
    pub version: &'static str,
    /// Where they are.
    pub suite: Suite,
    /// They are unpacked over each other.
    pub packages: &'static [Package],
    /// Whether it is tested without having been asked for.
    pub is_default: bool,
}

impl Kernel {
    /// The name of one of its packages for a release.
    pub fn package_name(package: &Package, release: &str) -> String {
        format!("{}{release}", package.stem)
    }

    /// Whether another release is of the same series, from the same place.
    pub fn is_of_series(&self, release: &str) -> bool {
        let flavour = |release: &str| release.contains("-cloud-") && !release.contains("unsigned");
        release
            .strip_prefix(self.series)
            .is_some_and(|rest| rest.starts_with('.') && flavour(rest))
            && origin(release) == origin(self.release)
    }
}

/// `+deb13` of `6.18.15+deb13-cloud-amd64`.
fn origin(release: &str) -> Option<&str> {
    let (_, rest) = release.split_once('+')?;
    rest.split('-').next()
}

const BULLSEYE_SECURITY: Suite = Suite {
    archive: Archive::Security,
    name: "bullseye-security",
};
const BOOKWORM_SECURITY: Suite = Suite {
    archive: Archive::Security,
    name: "bookworm-security",
};
const TRIXIE_BACKPORTS: Suite = Suite {
    archive: Archive::Main,
    name: "trixie-backports",
};

/// Debian's cloud flavour: small, and with every module that the lab needs. Oldest first.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        series: "5.10",
        release: "5.10.0-46-cloud-amd64",
        version: "5.10.262-1",
        suite: BULLSEYE_SECURITY,
        packages: &[Package {
            stem: "linux-image-",
            sha256: "18d94781d1b3052e21967ac2262239e5f14fbf511d6c3e110629d7aa35340760",
        }],
        is_default: true,
    },
    Kernel {
        series: "6.1",
        release: "6.1.0-56-cloud-amd64",
        version: "6.1.192-2",
        suite: BOOKWORM_SECURITY,
        packages: &[Package {
            stem: "linux-image-",
            sha256: "e7d02b943971edcb8790e256c02cfab3bca6c3d37c1bf25392a57c71300615ee",
        }],
        is_default: true,
    },
    Kernel {
        series: "6.12",
        release: "6.12.117+deb12-cloud-amd64",
        version: "6.12.117-1~deb12u1",
        suite: BOOKWORM_SECURITY,
        packages: &[Package {
            stem: "linux-image-",
            sha256: "5195b288dec79e2981d6b84457f38b7ce7310a2d702930ec7d07209c7f78ce37",
        }],
        is_default: true,
    },
    Kernel {
        series: "6.18",
        release: "6.18.15+deb13-cloud-amd64",
        version: "6.18.15-1~bpo13+1",
        suite: TRIXIE_BACKPORTS,
        packages: &[Package {
            stem: "linux-image-",
            sha256: "5a507681ea8c978d02265a7fec2f02c9588fb48b54b7f71edc1059e86007f3ec",
        }],
        is_default: false,
    },
    Kernel {
        series: "7.2",
        release: "7.2.12+deb13-cloud-amd64",
        version: "7.2.12-1~bpo13+1",
        suite: TRIXIE_BACKPORTS,
        packages: &[
            Package {
                stem: "linux-binary-",
                sha256: "aa6720823145e351d3c817c95fe58d89995a2bcba4978ad2418c36a1c272f795",
            },
            Package {
                stem: "linux-modules-",
                sha256: "2f15b42b88ae56836b5fb3ac74c6cb795047891a5a25e5e69dedf8805b54017d",
            },
        ],
        is_default: true,
    },
    Kernel {
        series: "7.3",
        release: "7.3.4+deb13-cloud-amd64",
        version: "7.3.4-1~bpo13+1",
        suite: TRIXIE_BACKPORTS,
        packages: &[
            Package {
                stem: "linux-binary-unsigned-",
                sha256: "4dd49c9172767a16a8ebb3c61fb993e4c2e8deef082b64b38878b74b9638f704",
            },
            Package {
                stem: "linux-modules-",
                sha256: "359f04c363b7d3c5f9ce999ccb7351e00cc8eec0a30d6bc1cda37734987fc43d",
            },
        ],
        is_default: false,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(series: &str) -> &'static Kernel {
        KERNELS
            .iter()
            .find(|kernel| kernel.series == series)
            .expect("the manifest has it")
    }

    #[test]
    fn every_kernel_is_pinned_by_a_whole_hash() {
        for kernel in KERNELS {
            assert!(kernel.is_of_series(kernel.release), "{kernel:?}");
            for package in kernel.packages {
                let digits = package.sha256.chars().filter(char::is_ascii_hexdigit);
                assert_eq!(digits.count(), 64, "{package:?}");
            }
        }
    }

    #[test]
    fn a_series_does_not_take_another_ones_releases() {
        assert!(kernel("6.1").is_of_series("6.1.0-60-cloud-amd64"));
        assert!(!kernel("6.1").is_of_series("6.12.117+deb12-cloud-amd64"));
        assert!(!kernel("6.1").is_of_series("6.1.0-60-amd64"));
        assert!(!kernel("6.12").is_of_series("6.12.120+deb13-cloud-amd64"));
        assert!(!kernel("6.12").is_of_series("6.12.117+deb12-cloud-amd64-unsigned"));
    }
}
