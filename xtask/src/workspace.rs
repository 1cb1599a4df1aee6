//! Where things are in this checkout.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cargo_metadata::MetadataCommand;
use xshell::Shell;

use crate::process::Cmd;

/// The checkout.
pub struct Workspace {
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// In the checkout's root.
    sh: Shell,
}

impl Workspace {
    /// Asks cargo, which knows every way to move the target directory.
    pub fn find() -> Result<Self> {
        let package =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let metadata = MetadataCommand::new()
            .manifest_path(Path::new(&package).join("Cargo.toml"))
            .no_deps()
            .exec()?;
        let sh = Shell::new()?;
        sh.change_dir(&metadata.workspace_root);
        Ok(Self {
            root: metadata.workspace_root.into(),
            target: metadata.target_directory.into(),
            sh,
        })
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
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// The cargo that runs this program, in the workspace's root, with these words.
    pub fn cargo(&self, words: &str) -> Cmd<'_> {
        self.command(cargo_program()).args(words.split_whitespace())
    }

    /// `cargo <subcommand>` for all packages, but those that need a target or flags of their own.
    pub fn cargo_for_host(&self, subcommand: &str) -> Cmd<'_> {
        self.cargo(subcommand).args([
            "--workspace",
            "--exclude=egress-ebpf",
            "--exclude=egress-bench-ebpf",
            "--exclude=egress-fuzz",
        ])
    }

    /// A program in the workspace's root, without what `cargo run` told this process about the package `xtask`.
    pub fn command(&self, program: impl AsRef<Path>) -> Cmd<'_> {
        let names = env::vars_os().map(|(name, _)| name);
        let of_xtask = names.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
        });
        of_xtask.fold(self.sh.cmd(program).quiet(), Cmd::env_remove)
    }
}

/// The cargo that runs this program, or the one in `PATH`.
pub fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
