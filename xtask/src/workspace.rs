//! Paths of this checkout, and commands that run in it.

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
    /// Its current directory is the checkout's root.
    sh: Shell,
}

impl Workspace {
    /// Asks cargo, because a target directory can be configured in many ways.
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

    /// The object of the kernel half, which userspace embeds.
    pub fn object(&self) -> PathBuf {
        self.target.join("egress-router.bpf.o")
    }

    /// The root of the programs that `setup` installs.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A path relative to the workspace's root, for messages.
    pub fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// The cargo that runs this program, in the workspace's root, with arguments separated by spaces.
    pub fn cargo(&self, words: &str) -> Cmd<'_> {
        self.command(cargo_program()).args(words.split_whitespace())
    }

    /// `cargo <subcommand>` for all packages that need no special target or flags.
    pub fn cargo_for_host(&self, subcommand: &str) -> Cmd<'_> {
        self.cargo(subcommand).args([
            "--workspace",
            "--exclude=egress-ebpf",
            "--exclude=egress-bench-ebpf",
            "--exclude=egress-fuzz",
        ])
    }

    /// A program in the workspace's root, without the variables that `cargo run` set for the package `xtask`.
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
