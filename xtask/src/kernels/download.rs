//! Kernels from Debian's archives, unpacked but never installed.

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use sha2::{Digest as _, Sha256};

use super::manifest::Kernel;
use crate::apt::{self, Apt, make_empty};
use crate::process::{answer, cmd, sh};
use crate::root::is_root;

/// Debian's signing keys, at their path in Debian and its derivatives.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Marks an error from outside: there is no network, or an archive lacks a package.
#[derive(Clone, Copy, Debug)]
pub struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not available from Debian's archive")
    }
}

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// What `uname -r` will say.
    pub release: String,
    /// The kernel's image.
    pub image: PathBuf,
    /// The directory that contains `lib/modules/<release>`.
    pub root: PathBuf,
}

/// A directory of kernels, with its own apt configuration.
pub struct Store<'s> {
    /// Created if it does not exist.
    pub directory: &'s Path,
    pub kernels: &'s [&'static Kernel],
}

impl Store<'_> {
    /// Downloads and unpacks each kernel that is not here yet: 20 to 50 MB each.
    ///
    /// An error is [`Unavailable`] if the archive cannot be reached, or no longer has a kernel of the series.
    pub fn fetch(&self) -> Vec<Result<Unpacked>> {
        // At most once for all kernels, even if it fails.
        let update = LazyCell::new(|| self.update().map_err(|error| format!("{error:#}")));
        let fetch = |kernel: &Kernel| {
            if let Some(unpacked) = self.cached(kernel) {
                return Ok(unpacked);
            }
            let targets = update
                .as_ref()
                .map_err(|error| anyhow!(error.clone()).context(Unavailable))?;
            mirror_in(targets, &kernel.label).context(Unavailable)?;
            self.download(kernel)
        };
        let series = |kernel: &Kernel| format!("cannot get a kernel {}", kernel.series);
        let fetch = |kernel: &&'static Kernel| fetch(kernel).with_context(|| series(kernel));
        self.kernels.iter().map(fetch).collect()
    }

    /// The pinned kernel, or one that was downloaded in its place.
    fn cached(&self, kernel: &Kernel) -> Option<Unpacked> {
        find_in(&self.unpacked(&kernel.release), &kernel.release).or_else(|| {
            let paths = sh().read_dir(self.directory.join("unpacked")).ok()?;
            let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
            let names = paths.iter().filter_map(name);
            let release = newest(kernel, names)?;
            find_in(&self.unpacked(&release), &release)
        })
    }

    fn unpacked(&self, release: &str) -> PathBuf {
        self.directory.join("unpacked").join(release)
    }

    fn download(&self, kernel: &Kernel) -> Result<Unpacked> {
        if self.has(kernel) {
            return self.unpack(kernel, &kernel.release, true);
        }
        let release = self.newest_available(kernel)?;
        eprintln!(
            "warning: Debian no longer has {}; using {release}, whose hash is not pinned: \
             please update the manifest (xtask/src/kernels/manifest.yaml)",
            kernel.release
        );
        self.unpack(kernel, &release, false)
    }

    /// Returns `true` if the archive still has the pinned build.
    fn has(&self, kernel: &Kernel) -> bool {
        let is_known = |stem: &String| {
            let package = format!("{stem}{}={}", kernel.release, kernel.version);
            let options = self.options();
            !answer(cmd!(sh(), "apt-cache {options...} show {package}")).is_empty()
        };
        kernel.packages.keys().all(is_known)
    }

    fn newest_available(&self, kernel: &Kernel) -> Result<String> {
        let Kernel {
            packages,
            suite,
            series,
            ..
        } = kernel;
        let stem = packages.keys().next().context("a kernel of no packages")?;
        let options = self.options();
        let names = cmd!(sh(), "apt-cache {options...} pkgnames {stem}").read()?;
        let release = |name: &str| Some(name.strip_prefix(stem)?.to_owned());
        newest(kernel, names.lines().filter_map(release))
            .with_context(|| format!("{suite} has no {stem}{series}.*-cloud-amd64"))
            .context(Unavailable)
    }

    /// Downloads and unpacks the packages of a release. `is_pinned` says that it is that of the manifest.
    fn unpack(&self, kernel: &Kernel, release: &str, is_pinned: bool) -> Result<Unpacked> {
        let downloads = self.directory.join("downloads").join(release);
        let root = self.unpacked(release);
        make_empty(&root)?;
        for (stem, expected) in &kernel.packages {
            let mut name = format!("{stem}{release}");
            eprintln!("download {name}");
            if is_pinned {
                write!(name, "={}", kernel.version)?;
            }
            let file = apt::download(&self.options(), &name, &downloads).context(Unavailable)?;
            let found = format!("{:x}", Sha256::digest(fs::read(&file)?));
            ensure!(
                !is_pinned || found == *expected,
                "{} has the SHA-256 {found}, the manifest says {expected}",
                file.display()
            );
            cmd!(sh(), "dpkg-deb -x {file} {root}").quiet().run()?;
        }
        fs::remove_dir_all(&downloads)?;
        // Newer packages have their modules in `usr/lib`.
        let (old, new) = (root.join("lib/modules"), root.join("usr/lib/modules"));
        if !old.exists() {
            fs::create_dir_all(root.join("lib"))?;
            fs::rename(&new, &old).with_context(|| format!("{release} has no modules"))?;
        }
        cmd!(sh(), "depmod -b {root} {release}").quiet().run()?;
        find_in(&root, release)
            .with_context(|| format!("the packages of {release} have no kernel image"))
    }

    /// Fetches the package lists of the kernels' archives. Returns the archives of this machine's apt.
    fn update(&self) -> Result<String> {
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing (package debian-archive-keyring): it verifies Debian's kernels"
        );
        for directory in ["apt/lists/partial", "apt/cache/archives/partial"] {
            sh().create_dir(self.directory.join(directory))?;
        }
        let targets = self.archives()?;
        let source = |Kernel { label, suite, .. }: &&Kernel| {
            let uri = mirror_in(&targets, label).ok()?;
            Some(format!("deb [signed-by={KEYRING}] {uri} {suite} main\n"))
        };
        // A set, because a suite may have several kernels.
        let sources: BTreeSet<_> = self.kernels.iter().filter_map(source).collect();
        let file = self.directory.join("apt/sources.list");
        sh().write_file(file, sources.into_iter().collect::<String>())?;
        eprintln!("download package lists");
        let options = self.options();
        // Makes an unreachable archive an error instead of a warning.
        let strict = "APT::Update::Error-Mode=any";
        let update = cmd!(sh(), "apt-get {options...} update -q -q -o {strict}");
        let update = update.arg("-oAPT::Sandbox::User=root").quiet().run();
        update.context("cannot fetch Debian's package lists")?;
        Ok(targets)
    }

    /// The archives of this machine's apt: a label and a URI in each line.
    fn archives(&self) -> Result<String> {
        let format = "$(LABEL) $(REPO_URI)";
        let list = || answer(cmd!(sh(), "apt-get indextargets --format {format}"));
        let targets = list();
        // apt knows no labels before it has fetched its lists.
        let is_known = |kernel: &&Kernel| mirror_in(&targets, &kernel.label).is_ok();
        match Apt::find() {
            Some(mut apt) if is_root() && !self.kernels.iter().all(is_known) => {
                apt.update()?;
                Ok(list())
            }
            _ => Ok(targets),
        }
    }

    /// Options for our own lists and sources, for any of apt's programs.
    fn options(&self) -> Vec<String> {
        let own = self.directory.join("apt");
        let own = own.display();
        [
            format!("Dir::Etc::SourceList={own}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={own}/lists"),
            format!("Dir::Cache={own}/cache"),
            "APT::Architecture=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ]
        .map(|option| format!("-o{option}"))
        .to_vec()
    }
}

/// The URI that this machine uses for an archive.
fn mirror_in<'t>(targets: &'t str, label: &str) -> Result<&'t str> {
    let mut pairs = targets.lines().filter_map(|line| line.split_once(' '));
    pairs.find_map(|(of, uri)| (of == label).then_some(uri)).with_context(|| {
        format!(
            "apt has no source labelled {label} (`apt-get indextargets --format '$(LABEL) $(REPO_URI)'`): \
             add that archive of Debian's to /etc/apt/sources.list.d, and run `apt-get update`"
        )
    })
}

fn newest(kernel: &Kernel, releases: impl Iterator<Item = String>) -> Option<String> {
    let numbers = |release: &String| -> Vec<u32> {
        release
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    releases
        .filter(|release| kernel.is_of_series(release))
        .max_by_key(numbers)
}

/// The kernel in a directory, if its packages were unpacked completely.
fn find_in(root: &Path, release: &str) -> Option<Unpacked> {
    let modules = root.join("lib/modules").join(release);
    // depmod writes this file last.
    modules.join("modules.devname").exists().then_some(())?;
    let images = [
        root.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
        modules.join("vmlinuz.unsigned"),
    ];
    let image = images.into_iter().find(|image| image.exists())?;
    Some(Unpacked {
        release: release.to_owned(),
        image,
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
        assert_eq!(mirror_in(targets, "Debian").unwrap(), "http://three/");
        assert_eq!(
            mirror_in(targets, "Debian-Security").unwrap(),
            "http://two/"
        );
        let error = mirror_in("", "Debian").unwrap_err().to_string();
        assert!(error.contains("no source labelled Debian "), "{error}");
    }
}
