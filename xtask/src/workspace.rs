//! Where things are in this checkout.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process::CommandExt as _;

/// The checkout, and the directory that cargo builds into.
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

#[derive(Deserialize)]
struct Metadata {
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

impl Workspace {
    /// Asks cargo, which knows every way to move the target directory.
    ///
    /// # Errors
    /// `cargo metadata` fails, which it does where a `Cargo.toml` is broken.
    pub fn find() -> Result<Self> {
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let json = Command::new(cargo_program())
            .args([
                "metadata",
                "--no-deps",
                "--format-version=1",
                "--manifest-path",
            ])
            .arg(package.join("Cargo.toml"))
            .read()?;
        let metadata: Metadata =
            serde_json::from_str(&json).context("`cargo metadata` answered with something else")?;
        Ok(Self {
            root: metadata.workspace_root,
            target: metadata.target_directory,
        })
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The kernel half as userspace embeds it.
    pub fn object(&self) -> PathBuf {
        self.target.join("egress-router.bpf.o")
    }

    /// Programs that `setup` builds, as `cargo install --root` lays them out.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A path as a person in the workspace's root would type it.
    pub fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The cargo that runs this program, in the workspace's root.
    pub fn cargo(&self) -> Command {
        self.command(cargo_program())
    }

    /// A program in the workspace's root, without what `cargo run` told this
    /// process about the package `xtask`.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                command.env_remove(name.as_ref());
            }
        }
        command
    }
}

/// The cargo that runs this program, or the one in `PATH`.
pub fn cargo_program() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
