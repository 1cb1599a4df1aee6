//! Finds the object file of the kernel half, which the program embeds, and lists the maps that a router pins.
//!
//! The environment variable `EGRESS_ROUTER_BPF_OBJECT` names the object. Without it, the script takes the one that
//! `cargo xtask build-ebpf` puts into cargo's target directory.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use aya_obj::{EbpfSectionKind, Object};

const VARIABLE: &str = "EGRESS_ROUTER_BPF_OBJECT";
const OBJECT: &str = "egress-router.bpf.o";
/// The crates that the kernel half is built from.
const SOURCES: [&str; 2] = ["../egress-ebpf", "../egress-common"];
/// Name prefixes of the maps that hold no state: scratch memory, and aya's log.
const NOT_PINNED: [&str; 2] = ["TEMP_", "AYA_LOGS"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    match find_object() {
        Ok(object) => {
            println!("cargo::rerun-if-changed={}", object.display());
            println!("cargo::rustc-env={VARIABLE}={}", object.display());
            warn_if_stale(&object);
            if let Err(reason) = list_pinned_maps(&object) {
                println!(
                    "cargo::error=cannot list the maps of {}: {reason}",
                    object.display()
                );
            }
        }
        Err(reason) => println!("cargo::error={reason}"),
    }
}

/// Returns the object's path, or an error message for the person who builds.
fn find_object() -> Result<PathBuf, String> {
    if let Some(object) = env::var_os(VARIABLE).map(PathBuf::from) {
        // A build script and the compiler have different working directories.
        return fs::canonicalize(&object).map_err(|error| {
            format!(
                "{VARIABLE} names {}, which cannot be read: {error}",
                object.display()
            )
        });
    }
    let out = env::var_os("OUT_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let targets: Vec<&Path> = out
        .ancestors()
        .filter(|directory| directory.join("CACHEDIR.TAG").exists())
        .collect();
    let candidates = targets.iter().map(|target| target.join(OBJECT));
    if let Some(object) = candidates.clone().find(|object| object.exists()) {
        return Ok(object);
    }
    for candidate in candidates {
        println!("cargo::rerun-if-changed={}", candidate.display());
    }
    let directory = targets
        .last()
        .map_or_else(|| "target".to_owned(), |t| t.display().to_string());
    Err(format!(
        "the kernel half is not built: there is no {OBJECT} in {directory}. \
         Run `cargo xtask build-ebpf` once, then build again."
    ))
}

/// Writes the pinned maps, sorted by name, as an array expression of `PinnedMap` for `include!`.
fn list_pinned_maps(object: &Path) -> Result<(), Box<dyn Error>> {
    let object = Object::parse(&fs::read(object)?)?;
    let mut maps: Vec<_> = object
        .maps
        .iter()
        .filter(|(name, map)| {
            map.section_kind() == EbpfSectionKind::BtfMaps
                && !NOT_PINNED.iter().any(|start| name.starts_with(start))
        })
        .collect();
    maps.sort_by_key(|(name, _)| name.as_str());
    let mut list = "[\n".to_owned();
    for (name, map) in maps {
        writeln!(
            list,
            "PinnedMap {{ name: {name:?}, kind: {}, key_size: {}, value_size: {} }},",
            map.map_type(),
            map.key_size(),
            map.value_size()
        )?;
    }
    list.push(']');
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    Ok(fs::write(Path::new(&out).join("pinned_maps.rs"), list)?)
}

fn warn_if_stale(object: &Path) {
    let Ok(built) = object.metadata().and_then(|metadata| metadata.modified()) else {
        return;
    };
    let newer = SOURCES
        .iter()
        .filter_map(|source| newest(Path::new(source)))
        .max();
    if let Some((time, path)) = newer
        && time > built
    {
        println!(
            "cargo::warning={} is newer than {}, which is embedded as it is: run `cargo xtask build-ebpf`",
            path.strip_prefix("..").unwrap_or(&path).display(),
            object.display()
        );
    }
}

/// The most recently changed source file below a directory.
fn newest(directory: &Path) -> Option<(SystemTime, PathBuf)> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let metadata = entry.metadata().ok()?;
            if metadata.is_dir() {
                return newest(&path);
            }
            let is_source = path.extension().is_some_and(|e| e == "rs" || e == "toml");
            Some((metadata.modified().ok()?, path)).filter(|_| is_source)
        })
        .max()
}
