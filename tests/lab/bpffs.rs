//! A BPF file system of a test's own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A BPF file system that only the thread that made it sees, and what it starts. It goes with them, also when they are killed.
#[derive(Debug)]
pub struct BpfFs {
    directory: TempDir,
}

impl BpfFs {
    /// Makes one, and moves the thread into a mount namespace of its own.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
        let none: Option<&str> = None;
        // Nothing that is mounted here is to be seen elsewhere.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).context("keeping mounts private")?;
        let kind = Some("bpf");
        mount(kind, directory.path(), kind, MsFlags::empty(), none)
            .context("mounting a BPF file system")?;
        Ok(Self { directory })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path of `name` in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // So that the directory can be removed.
        if let Err(error) = umount2(self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{}: {error}", self.path().display());
        }
    }
}
