//! Kernels from Debian's archives, unpacked and never installed.

use std::cell::LazyCell;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};

use super::manifest::{Archive, Kernel, Package, Suite};
use crate::process::CommandExt as _;

/// Debian's signatures, on Debian and on what is made from it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Marks an error that is no fault of anything here: there is no network, or an archive lacks what it should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not to be had from Debian's archive")
    }
}

/// A kernel that lies unpacked on this machine.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What `uname -r` will say.
    pub release: String,
    /// The kernel's image.
    pub image: PathBuf,
    /// Has `lib/modules/<release>` below it.
    pub root: PathBuf,
}

/// Where kernels are kept, and a package manager of their own.
pub struct Store {
    directory: PathBuf,
    suites: Vec<Suite>,
}

impl Store {
    /// A store in this directory, which need not exist, for kernels of these suites.
    pub fn new(directory: &Path, kernels: &[Kernel]) -> Self {
        let mut suites = Vec::new();
        for kernel in kernels {
            if !suites.contains(&kernel.suite) {
                suites.push(kernel.suite);
            }
        }
        Self {
            directory: directory.to_owned(),
            suites,
        }
    }

    /// Downloads and unpacks each kernel, if it is not here yet. Each costs 20 to 50 MB once.
    ///
    /// # Errors
    /// For each kernel: the archive cannot be reached, or has no kernel of the series any more (both are
    /// [`Unavailable`]); or a file is not the one that the manifest names.
    pub fn fetch(&self, kernels: &[Kernel]) -> Vec<Result<Unpacked>> {
        // Once for all kernels, also if it fails.
        let update = LazyCell::new(|| self.update().map_err(|error| format!("{error:#}")));
        let fetch = |kernel: &Kernel| {
            if let Some(unpacked) = self.cached(kernel) {
                return Ok(unpacked);
            }
            if let Err(message) = &*update {
                return Err(anyhow!(message.clone()).context(Unavailable));
            }
            self.download(kernel)
        };
        let fetched = kernels.iter().map(|kernel| {
            fetch(kernel).with_context(|| format!("cannot get a kernel {}", kernel.series))
        });
        fetched.collect()
    }

    /// The pinned kernel, or the one that took its place last time.
    fn cached(&self, kernel: &Kernel) -> Option<Unpacked> {
        let pinned = find_in(&self.unpacked(kernel.release), kernel.release);
        pinned.or_else(|| {
            let entries = fs::read_dir(self.directory.join("unpacked")).ok()?;
            let names = entries.flatten().map(|entry| entry.file_name());
            newest(kernel, names.filter_map(|name| name.into_string().ok()))
                .and_then(|release| find_in(&self.unpacked(&release), &release))
        })
    }

    fn unpacked(&self, release: &str) -> PathBuf {
        self.directory.join("unpacked").join(release)
    }

    fn download(&self, kernel: &Kernel) -> Result<Unpacked> {
        if self.has(kernel) {
            return self.unpack(kernel, kernel.release, |package| {
                (Some(kernel.version), Some(package.sha256))
            });
        }
        let release = self.newest_available(kernel)?;
        eprintln!(
            "warning: Debian has no {} any more; taking {release}, which no hash is known of: \
             please update the manifest (xtask/src/kernels/manifest.rs)",
            kernel.release
        );
        self.unpack(kernel, &release, |_| (None, None))
    }

    /// Whether the archive still has the pinned build.
    fn has(&self, kernel: &Kernel) -> bool {
        kernel.packages.iter().all(|package| {
            let name = Kernel::package_name(package, kernel.release);
            self.apt("apt-cache")
                .args(["show", &format!("{name}={}", kernel.version)])
                .read()
                .is_ok_and(|text| !text.trim().is_empty())
        })
    }

    fn newest_available(&self, kernel: &Kernel) -> Result<String> {
        let stem = kernel.packages[0].stem;
        let names = self.apt("apt-cache").args(["pkgnames", stem]).read()?;
        let releases = names
            .lines()
            .filter_map(|name| Some(name.strip_prefix(stem)?.to_owned()));
        newest(kernel, releases)
            .with_context(|| {
                format!(
                    "{} has no {stem}{}.*-cloud-amd64",
                    kernel.suite.name, kernel.series
                )
            })
            .context(Unavailable)
    }

    fn unpack<'k>(
        &self,
        kernel: &'k Kernel,
        release: &str,
        pin: impl Fn(&'k Package) -> (Option<&'k str>, Option<&'k str>),
    ) -> Result<Unpacked> {
        let downloads = self.directory.join("downloads").join(release);
        let root = self.unpacked(release);
        for directory in [&downloads, &root] {
            remake(directory)?;
        }
        for package in kernel.packages {
            let name = Kernel::package_name(package, release);
            let (version, sha256) = pin(package);
            eprintln!("download {name}");
            let wanted =
                version.map_or_else(|| name.clone(), |version| format!("{name}={version}"));
            self.apt("apt-get")
                .args(["download", "-q", "-q", &wanted])
                // As root, without a user of its own that could not write here.
                .args(["-o", "APT::Sandbox::User=root"])
                .current_dir(&downloads)
                .run()
                .context(Unavailable)?;
            let file = only_file_of(&downloads, &name)?;
            if let Some(expected) = sha256 {
                check_hash(&file, expected)?;
            }
            Command::new("dpkg-deb")
                .arg("-x")
                .args([&file, &root])
                .run()?;
        }
        fs::remove_dir_all(&downloads)?;
        unify_module_directory(&root)?;
        Command::new("depmod")
            .arg("-b")
            .arg(&root)
            .arg(release)
            .run()?;
        find_in(&root, release)
            .with_context(|| format!("the packages of {release} have no kernel image"))
    }

    fn update(&self) -> Result<()> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing (package debian-archive-keyring): it signs Debian's kernels"
        );
        for directory in ["apt/lists/partial", "apt/cache/archives/partial"] {
            fs::create_dir_all(self.directory.join(directory))?;
        }
        let mut text = String::new();
        for suite in &self.suites {
            let uri = mirror(suite.archive);
            writeln!(text, "deb [signed-by={KEYRING}] {uri} {} main", suite.name)?;
        }
        fs::write(self.directory.join("apt/sources.list"), text)?;
        eprintln!("download package lists");
        self.apt("apt-get")
            .args(["update", "-q", "-q"])
            .args(["-o", "APT::Sandbox::User=root"])
            // An archive that cannot be reached is an error, not a warning.
            .args(["-o", "APT::Update::Error-Mode=any"])
            .run()
            .context("cannot fetch Debian's package lists")
    }

    /// One of apt's programs, with lists and sources of its own.
    fn apt(&self, program: &str) -> Command {
        let own = |option: &str, path: &str| {
            format!(
                "{option}={}",
                self.directory.join("apt").join(path).display()
            )
        };
        let mut command = Command::new(program);
        for option in [
            own("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            own("Dir::State::Lists", "lists"),
            own("Dir::Cache", "cache"),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

/// The mirror that this machine uses for an archive; Debian's own where it uses none.
fn mirror(archive: Archive) -> String {
    let (label, default) = match archive {
        Archive::Main => ("Debian", "http://deb.debian.org/debian/"),
        Archive::Security => ("Debian-Security", "http://deb.debian.org/debian-security/"),
    };
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"])
        .read()
        .unwrap_or_default();
    mirror_in(&targets, label).unwrap_or(default).to_owned()
}

fn mirror_in<'t>(targets: &'t str, label: &str) -> Option<&'t str> {
    targets
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(of, uri)| (of == label).then_some(uri))
}

fn newest(kernel: &Kernel, releases: impl Iterator<Item = String>) -> Option<String> {
    releases
        .filter(|release| kernel.is_of_series(release))
        .max_by_key(|release| numbers_in(release))
}

fn numbers_in(release: &str) -> Vec<u32> {
    release
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

fn remake(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn only_file_of(directory: &Path, package: &str) -> Result<PathBuf> {
    let prefix = format!("{package}_");
    fs::read_dir(directory)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("apt-get downloaded no {package}"))
}

fn check_hash(file: &Path, expected: &str) -> Result<()> {
    let output = Command::new("sha256sum").arg(file).read()?;
    let found = output.split_whitespace().next().unwrap_or_default();
    ensure!(
        found == expected,
        "{} has the SHA-256 {found}, the manifest says {expected}",
        file.display()
    );
    Ok(())
}

/// Newer packages have their modules below `usr`.
fn unify_module_directory(root: &Path) -> Result<()> {
    let (old, new) = (root.join("lib/modules"), root.join("usr/lib/modules"));
    if !old.exists() {
        fs::create_dir_all(root.join("lib"))?;
        fs::rename(&new, &old).with_context(|| format!("{} has no modules", root.display()))?;
    }
    Ok(())
}

/// The kernel in a directory that its packages were unpacked to, if that was done to its end.
fn find_in(root: &Path, release: &str) -> Option<Unpacked> {
    let modules = root.join("lib/modules").join(release);
    // What depmod writes last of all.
    modules.join("modules.devname").exists().then_some(())?;
    let images = [
        root.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
        modules.join("vmlinuz.unsigned"),
    ];
    Some(Unpacked {
        release: release.to_owned(),
        image: images.into_iter().find(|image| image.exists())?,
        root: root.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::manifest::KERNELS;
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number() {
        let releases = [
            "5.10.0-9-cloud-amd64",
            "5.10.0-46-cloud-amd64",
            "5.10.0-47-cloud-amd64-unsigned",
            "6.1.0-56-cloud-amd64",
        ];
        let found = newest(&KERNELS[0], releases.map(str::to_owned).into_iter());
        assert_eq!(found.as_deref(), Some("5.10.0-46-cloud-amd64"));
    }

    #[test]
    fn the_mirror_is_that_of_the_same_archive() {
        let targets = "nodesource http://one/\nDebian-Security http://two/\nDebian http://three/\n";
        assert_eq!(mirror_in(targets, "Debian"), Some("http://three/"));
        assert_eq!(mirror_in(targets, "Debian-Security"), Some("http://two/"));
        assert_eq!(mirror_in("", "Debian"), None);
    }
}
