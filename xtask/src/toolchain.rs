//! The compiler of the kernel half: a rustc that accepts unstable options and has the sources of `core`, and the LLVM
//! that it was built with.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustc_version::{LlvmVersion, VersionMeta};

use crate::process::{answer, cmd, find_program, sh};
use crate::workspace::cargo_program;

/// The LLVM majors that the pinned bpf-linker can be built against.
const LLVM_MAJORS: (u64, u64) = (21, 23);

/// The oldest rustc that the workspace supports.
pub const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// The origin of a compiler.
#[derive(Clone, PartialEq, Eq)]
pub enum Route {
    /// A nightly toolchain of rustup, by its name.
    Rustup(String),
    /// The distribution's own rustc with its sources.
    Distribution,
}

/// A compiler that can build the kernel half.
#[derive(Clone)]
pub struct Toolchain {
    pub route: Route,
    pub rustc: PathBuf,
    /// Such as `1.97.0-nightly`.
    pub release: String,
    /// The major version of its LLVM.
    pub llvm_major: u64,
    /// The prefix of that LLVM with its development files, if it is installed.
    pub llvm: Option<PathBuf>,
}

/// The compilers of this machine.
#[derive(Default)]
pub struct Search {
    /// Best first.
    pub usable: Vec<Toolchain>,
    /// A line for each compiler that cannot be used, with the reason.
    pub refused: Vec<String>,
}

impl fmt::Display for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup(name) => write!(formatter, "rustup's {name}"),
            Self::Distribution => formatter.write_str("the distribution's rustc"),
        }
    }
}

impl Toolchain {
    /// The cargo that drives this compiler: a nightly's own, because its `core` may need a newer cargo than ours;
    /// otherwise ours.
    pub fn cargo(&self) -> OsString {
        match self.route {
            Route::Rustup(_) => self.rustc.with_file_name("cargo").into(),
            Route::Distribution => cargo_program(),
        }
    }

    /// The clippy of this compiler, if it is installed.
    pub fn clippy(&self) -> Option<PathBuf> {
        Some(self.rustc.with_file_name("clippy-driver")).filter(|driver| driver.exists())
    }

    fn check(route: Route, sysroot: &Path) -> Result<Self, String> {
        let rustc = sysroot.join("bin/rustc");
        let refuse = |reason: String| Err(format!("{route} ({}): {reason}", rustc.display()));
        let version = match VersionMeta::for_command(Command::new(&rustc)) {
            Ok(version) => version,
            Err(error) => return refuse(format!("does not run: {error}")),
        };
        let release = version.semver.to_string();
        if !is_at_least(&release, OLDEST_RUST) {
            return refuse(format!(
                "is {release}, but {OLDEST_RUST} is the oldest that works"
            ));
        }
        let Some(LlvmVersion {
            major: llvm_major, ..
        }) = version.llvm_version
        else {
            return refuse("was built without LLVM".to_owned());
        };
        let (first, last) = LLVM_MAJORS;
        if !(first..=last).contains(&llvm_major) {
            let works = format!("bpf-linker works with {first} to {last}");
            return refuse(format!("was built with LLVM {llvm_major}, {works}"));
        }
        let core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
        if !core.exists() {
            return refuse("has no sources of `core` (rust-src)".to_owned());
        }
        let llvm = llvm_prefix(llvm_major);
        Ok(Self {
            route,
            rustc,
            release,
            llvm_major,
            llvm,
        })
    }
}

impl Search {
    /// Checks rustup's nightly toolchains, then the distribution's compiler. Those whose LLVM is installed come first.
    pub fn run() -> Self {
        let nightlies = rustup_nightlies()
            .into_iter()
            .map(|(name, sysroot)| (Route::Rustup(name), sysroot));
        let distribution = Path::new("/usr/bin/rustc")
            .exists()
            .then(|| (Route::Distribution, PathBuf::from("/usr")));
        let mut search = Self::default();
        for (route, sysroot) in nightlies.chain(distribution) {
            match Toolchain::check(route, &sysroot) {
                Ok(toolchain) => search.usable.push(toolchain),
                Err(reason) => search.refused.push(reason),
            }
        }
        search.usable.sort_by_key(|it| it.llvm.is_none());
        search
    }
}

fn rustup_nightlies() -> Vec<(String, PathBuf)> {
    nightlies_in(&answer(cmd!(sh(), "rustup toolchain list -v")))
}

/// The nightlies of `rustup toolchain list -v`, the undated one first and then the newest.
fn nightlies_in(list: &str) -> Vec<(String, PathBuf)> {
    let nightly = |line: &str| {
        let name = line.split_whitespace().next()?.to_owned();
        let path = line[line.find('/')?..].trim_end();
        Some((name, PathBuf::from(path)))
    };
    let mut nightlies: Vec<_> = list.lines().filter_map(nightly).collect();
    nightlies.retain(|(name, _)| name.starts_with("nightly"));
    let is_dated = |name: &str| name.starts_with("nightly-2");
    nightlies.sort_by(|(a, _), (b, _)| is_dated(a).cmp(&is_dated(b)).then_with(|| b.cmp(a)));
    nightlies
}

/// The prefix of an LLVM of this major version with its development files: `LLVM_PREFIX`, else Debian's directory, else
/// what `llvm-config` prints.
pub fn llvm_prefix(major: u64) -> Option<PathBuf> {
    let is_llvm = |prefix: &PathBuf| {
        let library = |lib: &str| prefix.join(format!("{lib}/libLLVM-{major}.so"));
        library("lib").exists() || library("lib64").exists()
    };
    let from_config = || {
        let config = find_program(&format!("llvm-config-{major}"))
            .or_else(|| find_program("llvm-config"))?;
        Some(PathBuf::from(answer(cmd!(sh(), "{config} --prefix"))))
    };
    let from_environment = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let from_debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let mut usual = from_environment.into_iter().chain([from_debian]);
    usual
        .find(is_llvm)
        .or_else(|| from_config().filter(is_llvm))
}

/// Compares the first two numbers of two versions.
pub fn is_at_least(version: &str, oldest: &str) -> bool {
    let numbers = |version: &str| {
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| number.parse::<u32>().ok());
        numbers.next().flatten().zip(numbers.next().flatten())
    };
    let versions = numbers(version).zip(numbers(oldest));
    versions.is_some_and(|(version, oldest)| version >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(is_at_least("1.96.0+dfsg1-1~deb12u2", "1.95"));
        assert!(is_at_least("1.100.0-nightly", "1.95"));
        assert!(is_at_least("1.95.0", "1.95"));
        assert!(!is_at_least("1.85.0+dfsg3-1", "1.95"));
        assert!(!is_at_least("unknown", "1.95"));
    }

    #[test]
    fn nightlies_are_taken_from_rustups_list() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /r/stable
nightly-2026-01-01-x86_64-unknown-linux-gnu /r/nightly-2026-01-01
nightly-2026-05-20-x86_64-unknown-linux-gnu\t/r/nightly-2026-05-20
nightly-x86_64-unknown-linux-gnu (override) /r/a nightly
";
        let paths: Vec<_> = nightlies_in(list)
            .into_iter()
            .map(|(_, path)| path)
            .collect();
        let expected = [
            "/r/a nightly",
            "/r/nightly-2026-05-20",
            "/r/nightly-2026-01-01",
        ];
        assert_eq!(paths, expected.map(PathBuf::from));
    }
}
