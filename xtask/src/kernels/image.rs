//! The initial file systems of the guests: layers of cpio archives.
//!
//! Files have the same paths in a guest as on this machine, because programs have some of these paths built in. There
//! are no symbolic links: each path has a copy of the link's target.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::download::Unpacked;
use crate::process::{answer, cmd, find_program, sh};

/// The directories of modules that a guest may need, below `lib/modules/<release>/kernel`.
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

    /// Adds a file or a whole directory, by its path in the guest.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        let here = self.root.join(below_root(path));
        let metadata = here
            .metadata()
            .with_context(|| format!("cannot pack {}", here.display()))?;
        let parents = below_root(path)
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty());
        self.entries.extend(parents.map(Path::to_owned));
        if metadata.is_dir() {
            for entry in fs::read_dir(here)? {
                self.add(&path.join(entry?.file_name()))?;
            }
        }
        Ok(())
    }

    /// Adds a program, by name or path, with its shared libraries.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let path = find_program(&program.to_string_lossy())
            .with_context(|| format!("there is no program {}", program.display()))?;
        self.add(&path)?;
        // ldd fails for a script or a static program, which have no libraries.
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

/// Writes the archive of a kernel's modules, if it does not exist yet.
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

/// Writes the archive `<directory>.cpio` with one file that differs from this machine's.
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

/// Concatenates layers to an initial file system.
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
    fn libraries_are_found_in_the_output_of_ldd() {
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
    fn a_file_is_added_with_its_directories_and_a_link_as_its_target() -> Result<()> {
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
