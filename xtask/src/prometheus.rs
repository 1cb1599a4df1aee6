//! Prometheus, which some tests run. It is unpacked but not installed, because the package would start a service.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::apt::{self, Apt, make_empty};
use crate::process::{cmd, find_program, sh};
use crate::root::is_root;
use crate::workspace::Workspace;

const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The directory of its programs below target/tools; `None` if they are in `PATH`.
pub fn directory(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if PROGRAMS
        .iter()
        .all(|program| find_program(program).is_some())
    {
        return Ok(None);
    }
    let target = workspace.tools().join(PACKAGE);
    if !target.exists() {
        let mut apt = Apt::find().context("this machine has no apt-get to download it with")?;
        if Apt::candidate(PACKAGE).is_none() && is_root() {
            apt.update()?;
        }
        println!("download {PACKAGE}, for the tests of the metrics (20 MB)");
        let archive = apt::download(&[], PACKAGE, &workspace.tools().join("prometheus.download"))?;
        let unpacked = workspace.tools().join("prometheus.new");
        make_empty(&unpacked)?;
        cmd!(sh(), "dpkg-deb -x {archive} {unpacked}")
            .quiet()
            .run()?;
        fs::remove_file(archive)?;
        fs::rename(&unpacked, &target)?;
    }
    let programs = target.join("usr/bin");
    for program in PROGRAMS {
        ensure!(
            programs.join(program).exists(),
            "the package has no {program}"
        );
    }
    Ok(Some(programs))
}
