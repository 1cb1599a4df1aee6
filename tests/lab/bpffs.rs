//! A BPF file system private to one test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A BPF file system that only the thread that mounted it and its children see. It disappears with them, even when they
/// are killed.
#[derive(Debug)]
pub struct BpfFs {
    directory: TempDir,
}

impl BpfFs {
    /// Mounts one and moves the thread into a new mount namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace")?;
        let none: Option<&str> = None;
        // Keeps mounts in this namespace invisible elsewhere.
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(none, "/", none, private, none).context("keeping mounts private")?;
        let kind = Some("bpf");
        mount(kind, directory.path(), kind, MsFlags::empty(), none)
            .context("mounting a BPF file system")?;
        Ok(Self { directory })
    }

    /// The mount point.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path of `name` below the mount point.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // A busy directory cannot be removed.
        if let Err(error) = umount2(self.path(), MntFlags::MNT_DETACH) {
            eprintln!("{}: {error}", self.path().display());
        }
    }
}
