//! The compiler of the kernel half: a rustc that takes unstable options and
//! has the sources of `core`, and the LLVM that it was made with.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{CommandExt as _, find_program};
use crate::workspace::cargo_program;

/// The LLVM majors that the pinned bpf-linker can be built against.
pub const LLVM_MAJORS: std::ops::RangeInclusive<u32> = 21..=23;

/// The oldest rustc that the workspace states.
pub const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// What `rustc -vV` says, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// Such as `1.97.0-nightly`.
    pub release: String,
    /// The major version of its LLVM.
    pub llvm_major: u32,
}

/// Where a compiler came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A nightly toolchain of rustup, by its name.
    Rustup(String),
    /// The distribution's own rustc with its sources.
    Distribution,
}

/// A compiler that can build the kernel half.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where it came from.
    pub route: Route,
    /// The compiler.
    pub rustc: PathBuf,
    /// Its version.
    pub version: RustcVersion,
}

/// The compilers found, best first, and why others were not taken.
#[derive(Default)]
pub struct Search {
    /// Compilers that can build the kernel half.
    pub usable: Vec<Toolchain>,
    /// A line for each compiler that cannot, with the reason.
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

impl RustcVersion {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("`rustc -vV` has no line `{name}: …`:\n{text}"))
        };
        let llvm = field("LLVM version")?;
        let llvm_major = llvm.split('.').next().unwrap_or_default();
        Ok(Self {
            release: field("release")?.to_owned(),
            llvm_major: llvm_major
                .parse()
                .with_context(|| format!("LLVM's version {llvm:?} does not begin with a number"))?,
        })
    }
}

impl Toolchain {
    /// The cargo that drives this compiler: a nightly's own, because its `core`
    /// may need a newer cargo than ours; otherwise ours.
    pub fn cargo(&self) -> PathBuf {
        match self.route {
            Route::Rustup(_) => self.rustc.with_file_name("cargo"),
            Route::Distribution => cargo_program(),
        }
    }

    /// The clippy of this compiler, if it is installed.
    pub fn clippy(&self) -> Option<PathBuf> {
        Some(self.rustc.with_file_name("clippy-driver")).filter(|driver| driver.exists())
    }

    fn check(route: Route, sysroot: &Path) -> Result<Self, String> {
        let rustc = sysroot.join("bin/rustc");
        let refuse = |reason: String| format!("{route} ({}): {reason}", rustc.display());
        let text = Command::new(&rustc)
            .arg("-vV")
            .read()
            .map_err(|error| refuse(format!("does not run: {error:#}")))?;
        let version = RustcVersion::parse(&text).map_err(|error| refuse(error.to_string()))?;
        if !is_at_least(&version.release, OLDEST_RUST) {
            return Err(refuse(format!(
                "is {}, needed is {OLDEST_RUST}",
                version.release
            )));
        }
        if !LLVM_MAJORS.contains(&version.llvm_major) {
            return Err(refuse(format!(
                "is made with LLVM {}, bpf-linker works with {} to {}",
                version.llvm_major,
                LLVM_MAJORS.start(),
                LLVM_MAJORS.end()
            )));
        }
        if !sysroot
            .join("lib/rustlib/src/rust/library/core/Cargo.toml")
            .exists()
        {
            return Err(refuse("has no sources of `core` (rust-src)".to_owned()));
        }
        Ok(Self {
            route,
            rustc,
            version,
        })
    }
}

/// Looks at rustup's nightly toolchains, then at the distribution's compiler.
pub fn search() -> Search {
    let nightlies = rustup_nightlies()
        .into_iter()
        .map(|(name, sysroot)| Toolchain::check(Route::Rustup(name), &sysroot));
    let distribution = Path::new("/usr/bin/rustc")
        .exists()
        .then(|| Toolchain::check(Route::Distribution, Path::new("/usr")));
    let mut search = Search::default();
    for result in nightlies.chain(distribution) {
        match result {
            Ok(toolchain) => search.usable.push(toolchain),
            Err(reason) => search.refused.push(reason),
        }
    }
    search
}

/// Whether rustup is here to install a toolchain.
pub fn has_rustup() -> bool {
    find_program("rustup").is_some()
}

fn rustup_nightlies() -> Vec<(String, PathBuf)> {
    let Some(rustup) = find_program("rustup") else {
        return Vec::new();
    };
    let list = Command::new(rustup)
        .args(["toolchain", "list", "-v"])
        .read();
    nightlies_in(&list.unwrap_or_default())
}

/// The nightlies of `rustup toolchain list -v`, the undated one first and then
/// the newest.
fn nightlies_in(list: &str) -> Vec<(String, PathBuf)> {
    let mut nightlies: Vec<_> = list
        .lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| {
            let name = line.split_whitespace().next()?;
            let path = &line[line.find('/')?..];
            Some((name.to_owned(), PathBuf::from(path.trim_end())))
        })
        .collect();
    let is_dated = |name: &str| name.starts_with("nightly-2");
    nightlies.sort_by(|(a, _), (b, _)| is_dated(a).cmp(&is_dated(b)).then_with(|| b.cmp(a)));
    nightlies
}

/// Where an LLVM of this major version is installed with its development
/// files: `LLVM_PREFIX` if it is set, else Debian's place, else where
/// `llvm-config` says.
pub fn llvm_prefix(major: u32) -> Option<PathBuf> {
    let from_environment = env::var_os("LLVM_PREFIX").map(PathBuf::from);
    let from_debian = PathBuf::from(format!("/usr/lib/llvm-{major}"));
    let from_config = || {
        let config = find_program(&format!("llvm-config-{major}"))
            .or_else(|| find_program("llvm-config"))?;
        let prefix = Command::new(config).arg("--prefix").read().ok()?;
        Some(PathBuf::from(prefix.trim()))
    };
    from_environment
        .into_iter()
        .chain([from_debian])
        .find(|prefix| is_llvm(prefix, major))
        .or_else(|| from_config().filter(|prefix| is_llvm(prefix, major)))
}

fn is_llvm(prefix: &Path, major: u32) -> bool {
    ["lib", "lib64"].iter().any(|lib| {
        prefix
            .join(lib)
            .join(format!("libLLVM-{major}.so"))
            .exists()
    })
}

/// Compares the first two numbers of two versions.
pub fn is_at_least(version: &str, oldest: &str) -> bool {
    let numbers = |version: &str| {
        let mut numbers = version
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
            _ => None,
        }
    };
    matches!((numbers(version), numbers(oldest)), (Some(version), Some(oldest)) if version >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC_WEB: &str = "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)
binary: rustc
commit-hash: ac68faa20c58cbccd01ee7208bf3b6e93a7d7f96
commit-date: 2026-05-25
host: x86_64-unknown-linux-gnu
release: 1.96.0
LLVM version: 22.1.8
";

    #[test]
    fn the_llvm_of_a_rustc_is_known() {
        let version = RustcVersion::parse(RUSTC_WEB).unwrap();
        assert_eq!(
            version,
            RustcVersion {
                release: "1.96.0".into(),
                llvm_major: 22
            }
        );
    }

    #[test]
    fn a_rustc_without_llvm_is_refused_by_name() {
        let error = RustcVersion::parse("release: 1.96.0\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("LLVM version"), "{error}");
    }

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
