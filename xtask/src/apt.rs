//! Debian's package manager.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::{answer, cmd, find_program, sh};
use crate::root::is_root;

/// Installs without questions and extras, and never removes a package.
const INSTALL: [&str; 4] = ["install", "-y", "--no-install-recommends", "--no-remove"];

/// The package manager.
pub struct Apt {
    /// Whether the package lists were refreshed.
    updated: bool,
}

impl Apt {
    /// The machine's apt, if the distribution has Debian's package names.
    pub fn find() -> Option<Self> {
        // The package `base-files` of Debian and its derivatives has this file.
        let is_debian_like = Path::new("/etc/debian_version").exists();
        let is_usable = is_debian_like && find_program("apt-get").is_some();
        is_usable.then_some(Self { updated: false })
    }

    /// The version of a package that `apt-get install` would install.
    pub fn candidate(package: &str) -> Option<String> {
        candidate_in(&answer(
            cmd!(sh(), "apt-cache policy {package}").env("LC_ALL", "C"),
        ))
    }

    /// Refreshes the package lists, once.
    pub fn update(&mut self) -> Result<()> {
        if !self.updated {
            println!("install  fresh package lists: apt-get update");
            let update = cmd!(sh(), "apt-get update -q").quiet().run();
            update.context(
                "apt-get could not fetch its package lists: check the network and /etc/apt",
            )?;
            self.updated = true;
        }
        Ok(())
    }

    /// Installs packages, after refreshing the lists.
    pub fn install(&mut self, packages: &[String]) -> Result<()> {
        Self::require_root(packages)?;
        self.update()?;
        println!("install  {}", packages.join(" "));
        let install = cmd!(sh(), "apt-get {INSTALL...} -q {packages...}")
            .env("DEBIAN_FRONTEND", "noninteractive");
        install
            .quiet()
            .run()
            .with_context(|| format!("apt-get could not install {}", packages.join(", ")))
    }

    /// Fails unless the user is root. The error has the command that root has to run.
    pub fn require_root(packages: &[String]) -> Result<()> {
        ensure!(
            is_root() || packages.is_empty(),
            "not root, so nothing was installed. Run\n    sudo apt-get update && sudo apt-get {} {}\n\
             and then `cargo xtask setup` again",
            INSTALL.join(" "),
            packages.join(" ")
        );
        Ok(())
    }
}

/// Downloads a package, optionally given as `name=version`, into an empty directory.
pub fn download(options: &[String], package: &str, directory: &Path) -> Result<PathBuf> {
    make_empty(directory)?;
    let _here = sh().push_dir(directory);
    // By default apt downloads as the user `_apt`, which cannot write here.
    cmd!(
        sh(),
        "apt-get {options...} download -q -q {package} -o APT::Sandbox::User=root"
    )
    .quiet()
    .run()?;
    let files = sh().read_dir(directory)?;
    let [file] = &files[..] else {
        bail!("apt-get downloaded {} files for {package}", files.len());
    };
    Ok(file.clone())
}

/// Makes an empty directory, in place of what is there.
pub fn make_empty(directory: &Path) -> Result<()> {
    sh().remove_path(directory)?;
    sh().create_dir(directory)?;
    Ok(())
}

fn candidate_in(policy: &str) -> Option<String> {
    let candidate = policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate: "));
    candidate
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
