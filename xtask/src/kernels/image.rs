//! The initial file systems of the guests: layers of cpio archives.
//!
//! A file has the same path in a guest as on this machine, so that what was built for this
//! machine finds everything there.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::download::Unpacked;
use crate::process::{CommandExt as _, find_program};

/// The modules that a guest may need, below `kernel` of its module directory.
const MODULES: [&str; 5] = ["arch", "crypto", "drivers/net", "lib", "net"];

/// Files of a guest, with all directories and symbolic links on the way to them.
#[derive(Debug, Default)]
pub struct Layer {
    /// Without the root's slash. A directory sorts before what is in it.
    entries: BTreeSet<PathBuf>,
}

impl Layer {
    /// Adds a file of this machine, or all that is below a directory.
    ///
    /// # Errors
    /// There is no such file.
    pub fn add(&mut self, path: &Path) -> Result<()> {
        self.add_path(Path::new("/"), path)
            .with_context(|| format!("cannot pack {}", path.display()))
    }

    /// Adds a program, by name or path, with the libraries that it is linked to.
    ///
    /// # Errors
    /// There is no such program.
    pub fn add_program(&mut self, program: &Path) -> Result<()> {
        let path = if program.is_absolute() {
            program.to_owned()
        } else {
            find_program(&program.to_string_lossy())
                .with_context(|| format!("there is no program {}", program.display()))?
        };
        self.add(&path)?;
        // A script or a static program has no libraries, and ldd says that by failing.
        let libraries = Command::new("ldd").arg(&path).read().unwrap_or_default();
        for library in libraries_in(&libraries) {
            self.add(library)?;
        }
        Ok(())
    }

    /// Adds a path below `root`, which the guest sees as `/`.
    fn add_path(&mut self, root: &Path, path: &Path) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        let mut pending = vec![path.to_owned()];
        while let Some(path) = pending.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            if let Some(elsewhere) = self.add_way(root, &path)? {
                pending.push(elsewhere);
                continue;
            }
            let here = root.join(below_root(&path));
            if here.is_dir() {
                for entry in fs::read_dir(here)? {
                    pending.push(path.join(entry?.file_name()));
                }
            }
        }
        Ok(())
    }

    /// Adds what is on the way to a path, up to the first symbolic link; then says where it leads.
    fn add_way(&mut self, root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
        let mut way = PathBuf::new();
        let mut components = path.components();
        while let Some(component) = components.next() {
            match component {
                Component::Normal(name) => way.push(name),
                Component::ParentDir => {
                    way.pop();
                    continue;
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            }
            let here = root.join(&way);
            let is_link = here.symlink_metadata()?.is_symlink();
            self.entries.insert(way.clone());
            if is_link {
                let beside = Path::new("/").join(way.parent().unwrap_or(Path::new("")));
                return Ok(Some(beside.join(fs::read_link(here)?).join(components)));
            }
        }
        Ok(None)
    }

    /// Writes the archive of the files below `root`.
    fn write(&self, root: &Path, archive: &Path) -> Result<()> {
        let output =
            File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
        let mut command = Command::new("cpio");
        command
            .args(["--create", "--format=newc", "--null", "--quiet"])
            .args(["--owner=+0:+0"])
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(output);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start `{}`", command.line()))?;
        let mut list = Vec::new();
        for entry in &self.entries {
            list.extend_from_slice(entry.as_os_str().as_bytes());
            list.push(0);
        }
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&list)?;
        }
        let status = child.wait()?;
        ensure!(status.success(), "`{}` failed: {status}", command.line());
        Ok(())
    }

    /// Writes the archive of this machine's files.
    ///
    /// # Errors
    /// A file cannot be read, or the archive not be written.
    pub fn write_of_this_machine(&self, archive: &Path) -> Result<()> {
        self.write(Path::new("/"), archive)
    }
}

/// Writes the archive of a kernel's modules, once.
///
/// # Errors
/// A module cannot be read, or the archive not be written.
pub fn modules(kernel: &Unpacked) -> Result<PathBuf> {
    let archive = kernel.root.join("modules.cpio");
    if archive.exists() {
        return Ok(archive);
    }
    let directory = Path::new("/lib/modules").join(&kernel.release);
    let mut layer = Layer::default();
    for part in MODULES {
        let part = directory.join("kernel").join(part);
        if kernel.root.join(below_root(&part)).exists() {
            layer.add_path(&kernel.root, &part)?;
        }
    }
    for entry in fs::read_dir(kernel.root.join(below_root(&directory)))? {
        let name = entry?.file_name();
        if name.as_bytes().starts_with(b"modules.") {
            layer.add_path(&kernel.root, &directory.join(name))?;
        }
    }
    // Not over the other layer's, which may be a symbolic link.
    layer.entries.remove(Path::new("lib"));
    let unfinished = archive.with_extension("tmp");
    layer.write(&kernel.root, &unfinished)?;
    fs::rename(unfinished, &archive)?;
    Ok(archive)
}

/// Writes the archive of one file that is not on this machine.
///
/// # Errors
/// The archive cannot be written.
pub fn single_file(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    fs::write(directory.join(name), text)?;
    let mut layer = Layer::default();
    layer.entries.insert(name.into());
    let archive = directory.join(name).with_extension("cpio");
    layer.write(directory, &archive)?;
    Ok(archive)
}

/// Writes the archive of another file in the place of one of this machine.
///
/// # Errors
/// The archive cannot be written.
pub fn replacement(directory: &Path, file: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let copy = directory.join(below_root(file));
    if let Some(parent) = copy.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&copy, bytes)?;
    let mode = file.metadata()?.permissions();
    fs::set_permissions(&copy, mode)?;
    let mut layer = Layer::default();
    layer.entries.insert(below_root(file).to_owned());
    let archive = directory.join("replacement.cpio");
    layer.write(directory, &archive)?;
    fs::remove_file(copy)?;
    Ok(archive)
}

/// Joins layers into what a kernel takes as its initial file system.
///
/// # Errors
/// A layer cannot be read, or the result not be written.
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
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(|path| Path::new(OsStr::new(path)))
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
        assert_eq!(
            libraries,
            [
                Path::new("/lib/x86_64-linux-gnu/libc.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[test]
    fn a_link_brings_what_it_leads_to() -> Result<()> {
        let root = std::env::temp_dir().join(format!("egress-layer-{}", std::process::id()));
        fs::create_dir_all(root.join("usr/lib"))?;
        fs::write(root.join("usr/lib/libone.so.1.2"), "")?;
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
        std::os::unix::fs::symlink("libone.so.1.2", root.join("usr/lib/libone.so"))?;
        let mut layer = Layer::default();
        let added = layer.add_path(&root, Path::new("/lib/libone.so"));
        fs::remove_dir_all(&root)?;
        added?;
        let entries: Vec<_> = layer
            .entries
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(
            entries,
            [
                "lib",
                "usr",
                "usr/lib",
                "usr/lib/libone.so",
                "usr/lib/libone.so.1.2"
            ]
        );
        Ok(())
    }
}
