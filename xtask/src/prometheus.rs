//! Prometheus, which some tests ask. It is unpacked and never installed: the package would start a service.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::apt::Apt;
use crate::os::is_root;
use crate::process::{CommandExt as _, find_program};
use crate::workspace::Workspace;

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The directory of its programs in the project's own tools, unless the machine has them already.
///
/// # Errors
/// It is to be had neither here nor from the distribution's archive: tests of it will be skipped.
pub fn directory(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if PROGRAMS
        .iter()
        .all(|program| find_program(program).is_some())
    {
        return Ok(None);
    }
    let root = workspace.tools().join(PACKAGE);
    let programs = root.join("usr/bin");
    if !PROGRAMS
        .iter()
        .all(|program| programs.join(program).exists())
    {
        download(workspace)?;
    }
    Ok(Some(programs))
}

fn download(workspace: &Workspace) -> Result<()> {
    let mut apt = Apt::find().context("this machine has no apt-get to download it by")?;
    if Apt::candidate(PACKAGE).is_none() && is_root() {
        apt.update()?;
    }
    println!("download {PACKAGE}, for the tests of the metrics (20 MB)");
    let (unpacked, target) = (
        workspace.tools().join("prometheus.new"),
        workspace.tools().join(PACKAGE),
    );
    for directory in [&unpacked, &target] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    fs::create_dir_all(&unpacked)?;
    Command::new("apt-get")
        .args(["download", "-q", "-q", PACKAGE])
        // As root, without a user of its own that could not write here.
        .args(["-o", "APT::Sandbox::User=root"])
        .current_dir(&unpacked)
        .run()?;
    let archives: Vec<_> = fs::read_dir(&unpacked)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let [archive] = &archives[..] else {
        anyhow::bail!("apt-get downloaded {} files", archives.len());
    };
    Command::new("dpkg-deb")
        .arg("-x")
        .args([archive, &unpacked])
        .run()?;
    fs::remove_file(archive)?;
    for program in PROGRAMS {
        let path = unpacked.join("usr/bin").join(program);
        ensure!(path.exists(), "the package has no {program}");
    }
    fs::rename(&unpacked, &target)?;
    Ok(())
}
