//! The kernel half as seen by tools other than ours.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, io};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapInfo;
use aya::programs::{SchedClassifier, TcAttachType};
use egress_tests::addresses::RULES;
use egress_tests::namespace::search_path;
use egress_tests::requirements::skipped;
use egress_tests::{Lab, skip_unless_lab_works};
use egress_userspace::net::kernel;
use serde_json::Value;

use crate::lab::{PROGRAMS, Running, skip_without_tcx};
use crate::shell;

const OBJECT_VARIABLE: &str = "EGRESS_ROUTER_BPF_OBJECT";

/// Skips the calling test if `bpftool` is not installed.
macro_rules! skip_without_bpftool {
    () => {
        let bpftool = Command::new("bpftool")
            .env("PATH", search_path())
            .arg("version")
            .output();
        if bpftool
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
        {
            skipped(egress_tests::function_name!(), "bpftool is not installed");
            return Ok(());
        }
    };
}

/// The object: the one that the variable names, else the one in cargo's target directory.
fn object() -> Result<PathBuf> {
    if let Some(path) = env::var_os(OBJECT_VARIABLE) {
        return Ok(path.into());
    }
    let executable = env::current_exe()?;
    let places = executable.ancestors().skip(1);
    places
        .map(|directory| directory.join("egress-router.bpf.o"))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no eBPF object: run `cargo xtask build-ebpf`, or name one in {OBJECT_VARIABLE}"
            )
        })
}

#[test]
fn bpftool_loads_the_object_with_its_btf() -> Result<()> {
    skip_unless_lab_works!();
    skip_without_bpftool!();
    if !kernel::features()?.kernel_expiry {
        skipped(
            egress_tests::function_name!(),
            "bpftool loads every program, and one needs bpf_timer and bpf_loop (Linux 5.17)",
        );
        return Ok(());
    }
    // In a new mount namespace: its bpffs and all pins disappear with its last process.
    const SCRIPT: &str = r#"
        mount -t bpf bpf "$2" &&
        bpftool prog loadall "$1" "$2/programs" &&
        ls "$2/programs" &&
        bpftool prog show pinned "$2/programs/eth0_ingress"
    "#;
    let place = tempfile::tempdir()?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", SCRIPT, "sh"])
        .args([&object()?, place.path()])
        .env("LC_ALL", "C")
        .env("PATH", search_path());
    let loaded = shell::finish(&mut command)?;
    let said = format!("{}{}", loaded.stdout, loaded.stderr);
    ensure!(loaded.code == Some(0), "bpftool prog loadall: {said}");
    ensure!(!said.contains("Error loading .BTF"), "{said}");
    // A program without BTF prints no line with `btf_id`.
    for expected in ["eth0_ingress", "net1_ingress", "btf_id"] {
        ensure!(loaded.stdout.contains(expected), "no {expected} in {said}");
    }
    let left = fs::read_dir(&place)?.count();
    ensure!(left == 0, "the mount is visible outside its namespace");
    Ok(())
}

#[test]
fn bpftool_prints_the_names_of_our_fields() -> Result<()> {
    skip_unless_lab_works!();
    skip_without_bpftool!();
    skip_without_tcx!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &["--attach", "tcx"])?;

    let map = map_id(&lab, "RULES_V4")?.to_string();
    let text = lab
        .router()
        .output("bpftool", ["map", "dump", "id", &map])?;
    let entries: Value = serde_json::from_str(&text)
        .with_context(|| format!("bpftool has not used the map's BTF: {text}"))?;
    let entries = shell::array(&entries)?;
    assert_eq!(entries.len(), RULES.len(), "{text}");
    for rule in RULES {
        let std::net::IpAddr::V4(server) = rule.destination.address else {
            continue;
        };
        let is_rule = |entry: &Value| {
            entry.pointer("/key/port/octets") == Some(&rule.port.to_be_bytes()[..].into())
                && entry.pointer("/value/destination/octets") == Some(&server.octets()[..].into())
                && entry.pointer("/value/target_port/octets")
                    == Some(&rule.target_port.to_be_bytes()[..].into())
        };
        ensure!(entries.iter().any(is_rule), "no {rule:?} in {text}");
    }
    Ok(())
}

/// The map of this name that the program on `eth0` uses. Other routers on this machine have maps of the same name.
fn map_id(lab: &Lab, name: &str) -> Result<u32> {
    let (interface, program) = PROGRAMS[0];
    lab.router().run(|| {
        let (_, attached) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)?;
        let program = attached
            .iter()
            .find(|attached| attached.name_as_str() == Some(program));
        let program = program.context("the program is not attached")?;
        let ids = program
            .map_ids()?
            .context("this kernel does not report a program's maps")?;
        ids.into_iter()
            .filter_map(|id| MapInfo::from_id(id).ok())
            .find(|map| map.name_as_str() == Some(name))
            .map(|map| map.id())
            .with_context(|| format!("the program has no map {name}"))
    })
}
