//! The initial file systems of the guests: layers of cpio archives.
//!
//! A file has the same path in a guest as on this machine, so that what was built for this machine finds everything
//! there. There are no symbolic links: each path has what the link led to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::download::Unpacked;
use crate::process::{answer, cmd, find_program, sh};

/// The modules that a guest may need, below `kernel` of its module directory.
const MODULES: [&str; 5] = ["arch", "crypto", "drivers/net", "lib", "net"];

/// Files below a directory that a guest sees as its root.
pub struct Layer {
    root: PathBuf,
    /// Relative to the root. A directory sorts before what is in it.
    entries: BTreeSet<PathBuf>,
}

impl Layer {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            entries: BTreeSet::new(),
        }
    }

    /// Adds a file, or all that is below a directory, by the path in the guest.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let here = self.root.join(below_root(path));
        let metadata = here
            .metadata()
            .with_context(|| format!("cannot pack {}", here.display()))?;
        let way = below_root(path)
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty());
        self.entries.extend(way.map(Path::to_owned));
        if metadata.is_dir() {
            for entry in fs::read_dir(here)? {
                self.add(&path.join(entry?.file_name()))?;
            }
        }
        Ok(())
    }

    /// Adds a program, by name or path, with the libraries that it is linked to.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let path = find_program(&program.to_string_lossy())
            .with_context(|| format!("there is no program {}", program.display()))?;
        self.add(&path)?;
        // A script or a static program has no libraries, and ldd says that by failing.
        libraries_in(&answer(cmd!(sh(), "ldd {path}"))).try_for_each(|library| self.add(library))
    }

    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let _here = sh().push_dir(&self.root);
        let names: Vec<_> = self
            .entries
            .iter()
            .map(|entry| entry.as_os_str().as_bytes())
            .collect();
        cmd!(
            sh(),
            "cpio --create --format=newc --null --quiet --dereference --owner=+0:+0 --force-local --file={archive}"
        )
        .stdin(names.join(&0))
        .quiet()
        .run()?;
        Ok(())
    }
}

/// Writes the archive of a kernel's modules, once.
pub fn modules(kernel: &Unpacked) -> Result<PathBuf> {
    let archive = kernel.root.join("modules.cpio");
    if archive.exists() {
        return Ok(archive);
    }
    let directory = Path::new("lib/modules").join(&kernel.release);
    let mut layer = Layer::new(&kernel.root);
    for part in MODULES.map(|part| directory.join("kernel").join(part)) {
        if kernel.root.join(&part).exists() {
            layer.add(&part)?;
        }
    }
    for entry in fs::read_dir(kernel.root.join(&directory))? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b"modules.") {
            layer.add(&directory.join(name))?;
        }
    }
    let unfinished = archive.with_extension("tmp");
    layer.write(&unfinished)?;
    fs::rename(unfinished, &archive)?;
    Ok(archive)
}

/// Writes the archive `<directory>.cpio` with one file that is not on this machine, or not like this.
pub fn single_file(directory: &Path, path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let file = directory.join(below_root(path));
    sh().write_file(&file, bytes)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let mut layer = Layer::new(directory);
    layer.add(path)?;
    let archive = directory.with_extension("cpio");
    layer.write(&archive)?;
    fs::remove_dir_all(directory)?;
    Ok(archive)
}

/// Joins layers into what a kernel takes as its initial file system.
pub fn join<'l>(layers: impl Iterator<Item = &'l PathBuf>, image: &Path) -> Result<()> {
    let mut output =
        File::create(image).with_context(|| format!("cannot write {}", image.display()))?;
    for layer in layers {
        let mut input =
            File::open(layer).with_context(|| format!("cannot read {}", layer.display()))?;
        io::copy(&mut input, &mut output)?;
    }
    Ok(())
}

fn below_root(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The paths in what ldd(1) prints.
fn libraries_in(text: &str) -> impl Iterator<Item = &Path> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|it| it.starts_with('/')));
    words.map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f2)\n";
        let libraries: Vec<_> = libraries_in(text).collect();
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries, expected.map(Path::new));
    }

    #[test]
    fn a_file_brings_its_directories_and_a_link_what_it_leads_to() -> Result<()> {
        let root = tempfile::tempdir()?;
        fs::create_dir_all(root.path().join("usr/lib"))?;
        fs::write(root.path().join("usr/lib/libone.so.1"), "")?;
        std::os::unix::fs::symlink("usr/lib", root.path().join("lib"))?;
        let mut layer = Layer::new(root.path());
        layer.add(Path::new("/lib"))?;
        let entries = ["lib", "lib/libone.so.1"].map(PathBuf::from);
        assert_eq!(layer.entries.into_iter().collect::<Vec<_>>(), entries);
        Ok(())
    }
}
