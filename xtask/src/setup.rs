//! `setup`: finds what the project needs, and installs what is missing.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::apt::Apt;
use crate::linker;
use crate::process::{cmd, find_program, sh};
use crate::requirements::{Found, REQUIREMENTS, Requirement};
use crate::root::is_root;
use crate::toolchain::{OLDEST_RUST, Route, Search, Toolchain, is_at_least, llvm_prefix};
use crate::workspace::Workspace;

/// Debian's packages of a current rustc, its sources and its clippy.
const RUSTC_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-clippy"];

/// The compiler and the linker of the kernel half.
pub struct BpfToolchain {
    pub compiler: Toolchain,
    /// The linker that was built for this compiler.
    pub linker: PathBuf,
}

/// What is on this machine.
struct Inventory {
    programs: Vec<(&'static Requirement, Option<Found>)>,
    compilers: Search,
    linker_is_ready: bool,
}

/// Reports what is there and what is missing. Fails if something is missing.
pub fn check(workspace: &Workspace) -> Result<()> {
    let inventory = Inventory::take(workspace);
    inventory.report(workspace);
    ensure!(
        inventory.is_complete(),
        "something is missing: run `cargo xtask setup` to install it"
    );
    println!("Everything is here.");
    Ok(())
}

/// Reports what is there and installs what is missing. If that is impossible, the error says what to install by hand.
pub fn run(workspace: &Workspace) -> Result<()> {
    let inventory = Inventory::take(workspace);
    inventory.report(workspace);
    if !inventory.is_complete() {
        inventory.install_missing(workspace)?;
        ensure!(
            Inventory::take(workspace).is_complete(),
            "something is still missing: `cargo xtask setup --check` shows what"
        );
    }
    println!("Everything is here.");
    Ok(())
}

/// Like [`run`], but silent if nothing is missing: for commands that run setup themselves.
pub fn ensure_complete(workspace: &Workspace) -> Result<()> {
    let is_complete = Inventory::take(workspace).is_complete();
    if is_complete { Ok(()) } else { run(workspace) }
}

/// Installs missing programs that only some commands need.
pub fn ensure_programs(requirements: &'static [Requirement]) -> Result<()> {
    let is_missing = |it: &&Requirement| it.find().is_none();
    let missing: Vec<_> = requirements.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for Requirement { program, why, .. } in &missing {
        println!("missing  {program}: {why}");
    }
    let packages: Vec<_> = missing.iter().map(|it| it.apt.clone()).collect();
    let mut apt = Apt::find().context("setup can install only with apt: install them yourself")?;
    install_programs(&mut apt, &packages)
}

/// Finds what builds the kernel half. The error names what is missing.
pub fn bpf_toolchain(workspace: &Workspace) -> Result<BpfToolchain> {
    let missing = match Search::run().usable.into_iter().next() {
        Some(compiler) if linker_is_ready(workspace, &compiler) => {
            let linker = linker::program(workspace);
            return Ok(BpfToolchain { compiler, linker });
        }
        Some(Toolchain { llvm: Some(_), .. }) => format!("bpf-linker {}", linker::VERSION),
        Some(compiler) => format!("LLVM {}'s development files", compiler.llvm_major),
        None => "a rustc with the sources of `core`".to_owned(),
    };
    bail!("cannot build the kernel half without {missing}: run `cargo xtask setup`")
}

fn linker_is_ready(workspace: &Workspace, compiler: &Toolchain) -> bool {
    let major = compiler.llvm_major;
    compiler
        .llvm
        .as_ref()
        .is_some_and(|prefix| linker::is_ready(workspace, major, prefix))
}

impl Inventory {
    fn take(workspace: &Workspace) -> Self {
        let compilers = Search::run();
        let linker_is_ready = compilers
            .usable
            .first()
            .is_some_and(|it| linker_is_ready(workspace, it));
        let programs = REQUIREMENTS.lab.iter().map(|it| (it, it.find())).collect();
        Self {
            programs,
            compilers,
            linker_is_ready,
        }
    }

    /// The compiler to build with.
    fn compiler(&self) -> Option<&Toolchain> {
        self.compilers.usable.first()
    }

    fn is_complete(&self) -> bool {
        let has_clippy = self.compiler().is_some_and(|it| it.clippy().is_some());
        has_clippy && self.linker_is_ready && self.missing_programs().next().is_none()
    }

    fn missing_programs(&self) -> impl Iterator<Item = &Requirement> {
        let missing = self.programs.iter().filter(|(_, found)| found.is_none());
        missing.map(|(requirement, _)| *requirement)
    }

    fn report(&self, workspace: &Workspace) {
        for (Requirement { program, why, .. }, found) in &self.programs {
            let Some(Found { path, version }) = found else {
                println!("missing  {program}: {why}");
                continue;
            };
            let (path, version) = (path.display(), version.as_deref().unwrap_or("?"));
            println!("ok       {program} {version}  ({path})");
        }
        let Some(compiler) = self.compiler() else {
            println!(
                "missing  rustc for BPF: compiles the kernel half; needs the sources of `core`"
            );
            for reason in &self.compilers.refused {
                println!("         not {reason}");
            }
            return;
        };
        let (release, major, route) = (&compiler.release, compiler.llvm_major, &compiler.route);
        println!(
            "ok       rustc for BPF {release}  ({route}, {})",
            compiler.rustc.display()
        );
        match compiler.clippy().as_deref().map(Path::display) {
            Some(clippy) => println!("ok       clippy for BPF {release}  ({clippy})"),
            None => println!("missing  clippy for BPF: lints the kernel half with that rustc"),
        }
        match compiler.llvm.as_deref().map(Path::display) {
            Some(prefix) => println!("ok       LLVM {major}  ({prefix})"),
            None => println!("missing  LLVM: {major} with its libraries, for bpf-linker"),
        }
        let (version, program) = (linker::VERSION, linker::program(workspace));
        if self.linker_is_ready {
            println!(
                "ok       bpf-linker {version}  ({})",
                workspace.shown(&program)
            );
        } else {
            println!("missing  bpf-linker: {version} for LLVM {major}");
        }
    }

    fn install_missing(&self, workspace: &Workspace) -> Result<()> {
        let mut apt = Apt::find();
        let programs = self.packages_of_missing_programs();
        if apt.is_some() {
            Apt::require_root(&self.missing_packages())?;
        }
        let by_hand = || anyhow!(self.instructions());
        if !programs.is_empty() {
            install_programs(apt.as_mut().ok_or_else(by_hand)?, &programs)?;
        }
        let compiler = self.install_compiler(apt.as_mut())?;
        if compiler.clippy().is_none() {
            install_clippy(apt.as_mut(), &compiler)?;
        }
        let major = compiler.llvm_major;
        if llvm_prefix(major).is_none() {
            install_llvm(apt.as_mut().ok_or_else(by_hand)?, major)?;
        }
        let prefix = llvm_prefix(major).with_context(|| {
            format!(
                "LLVM {major} was installed, but neither LLVM_PREFIX nor /usr/lib/llvm-{major} nor \
                 llvm-config leads to libLLVM-{major}.so"
            )
        })?;
        if !linker::is_ready(workspace, major, &prefix) {
            linker::install(workspace, major, &prefix)?;
        }
        Ok(())
    }

    /// All packages that root would install now, to be named at once to a user who is not root.
    fn missing_packages(&self) -> Vec<String> {
        let mut packages = self.packages_of_missing_programs();
        match self.compiler() {
            None if has_usable_rustc_web() => packages.extend(RUSTC_PACKAGES.map(str::to_owned)),
            Some(it) if it.llvm.is_none() => packages.extend(llvm_packages(it.llvm_major)),
            None | Some(_) => {}
        }
        packages
    }

    fn packages_of_missing_programs(&self) -> Vec<String> {
        let mut packages: Vec<_> = self.missing_programs().map(|it| it.apt.clone()).collect();
        packages.dedup();
        packages
    }

    /// Returns the usable compiler that is here; else installs Debian's, or else a nightly of rustup.
    fn install_compiler(&self, apt: Option<&mut Apt>) -> Result<Toolchain> {
        if let Some(compiler) = self.compiler() {
            let package = &llvm_packages(compiler.llvm_major)[0];
            // A compiler whose LLVM cannot be installed is of no use.
            if compiler.llvm.is_some() || apt.is_none() || Apt::candidate(package).is_some() {
                return Ok(compiler.clone());
            }
        }
        if let Some(apt) = apt.filter(|_| is_root()) {
            apt.update()?;
            if has_usable_rustc_web() {
                apt.install(&RUSTC_PACKAGES.map(str::to_owned))?;
                return self.installed("apt-get installed rustc-web", |it| {
                    *it == Route::Distribution
                });
            }
        }
        if let Some(compiler) = self.compiler() {
            return Ok(compiler.clone());
        }
        ensure!(find_program("rustup").is_some(), self.instructions());
        println!("install  rustup's nightly with rust-src and clippy");
        let install = cmd!(sh(), "rustup toolchain install nightly --profile minimal");
        let install = install.args(["--component", "rust-src", "--component", "clippy"]);
        install.quiet().run().with_context(|| self.instructions())?;
        self.installed("rustup installed a nightly", |it| {
            *it != Route::Distribution
        })
    }

    /// The compiler that is usable after an installation, which `step` describes.
    fn installed(&self, step: &str, is_wanted: fn(&Route) -> bool) -> Result<Toolchain> {
        let Search { usable, refused } = Search::run();
        let found = usable
            .into_iter()
            .find(|compiler| is_wanted(&compiler.route));
        found.with_context(|| {
            let (refused, by_hand) = (refused.join("\n  "), self.instructions());
            format!("{step}, but no compiler is usable:\n  {refused}\n{by_hand}")
        })
    }

    /// What to install by hand on a machine without apt.
    fn instructions(&self) -> String {
        let item = |it: &Requirement| {
            let Requirement {
                program, why, apt, ..
            } = it;
            format!("the program `{program}` (Debian's package {apt}): {why}")
        };
        let mut items: Vec<_> = self.missing_programs().map(item).collect();
        match self.compiler() {
            None => {
                let packages = RUSTC_PACKAGES.join(" ");
                items.push(format!(
                    "a rustc of {OLDEST_RUST} or newer with the sources of `core`, either one of\n      \
                     rustup toolchain install nightly --profile minimal --component rust-src \
                     --component clippy\n      \
                     /usr/bin/rustc with the sources in /usr/lib/rustlib/src (Debian: {packages})"
                ));
                items.push(
                    "the LLVM of that rustc (`rustc -vV` names its version) with its shared library \
                     for linking; LLVM_PREFIX names the directory above its lib"
                        .to_owned(),
                );
            }
            Some(it) if it.llvm.is_none() => {
                let (major, packages) = (it.llvm_major, llvm_packages(it.llvm_major).join(" "));
                items.push(format!(
                    "LLVM {major} with lib/libLLVM-{major}.so (Debian's packages {packages}; or set \
                     LLVM_PREFIX to the directory above its lib)"
                ));
            }
            Some(_) => {}
        }
        format!(
            "setup cannot install this here. Please install it, then run `cargo xtask setup` again:\n  - {}",
            items.join("\n  - ")
        )
    }
}

fn install_programs(apt: &mut Apt, packages: &[String]) -> Result<()> {
    Apt::require_root(packages)?;
    apt.update()?;
    let is_known = |package: &String| Apt::candidate(package).is_some();
    let (known, unknown): (Vec<_>, Vec<_>) = packages.iter().cloned().partition(is_known);
    if !known.is_empty() {
        apt.install(&known)?;
    }
    ensure!(
        unknown.is_empty(),
        "apt knows no package {}: install the program of that name in another way (Ubuntu has \
         bpftool in linux-tools-$(uname -r)) and run `cargo xtask setup` again",
        unknown.join(", ")
    );
    Ok(())
}

fn install_llvm(apt: &mut Apt, major: u64) -> Result<()> {
    let packages = llvm_packages(major);
    Apt::require_root(&packages)?;
    apt.update()?;
    ensure!(
        Apt::candidate(&packages[0]).is_some(),
        "apt knows no {}: add the repository of https://apt.llvm.org for LLVM {major}, or set LLVM_PREFIX to an \
         LLVM {major} with lib/libLLVM-{major}.so, and run `cargo xtask setup` again",
        packages[0]
    );
    apt.install(&packages)
}

/// Returns `true` if apt has a rustc-web that is new enough.
fn has_usable_rustc_web() -> bool {
    Apt::candidate(RUSTC_PACKAGES[0]).is_some_and(|version| is_at_least(&version, OLDEST_RUST))
}

/// Installs the clippy of a compiler that lacks it.
fn install_clippy(apt: Option<&mut Apt>, compiler: &Toolchain) -> Result<()> {
    let rustc = &compiler.rustc;
    match (&compiler.route, apt) {
        (Route::Rustup(name), _) => {
            println!("install  clippy for rustup's {name}");
            Ok(cmd!(sh(), "rustup component add clippy --toolchain {name}")
                .quiet()
                .run()?)
        }
        (Route::Distribution, Some(apt)) => {
            let owner = cmd!(sh(), "dpkg-query --search {rustc}").read()?;
            let of_web = owner.starts_with("rustc-web");
            let package = if of_web {
                RUSTC_PACKAGES[2]
            } else {
                "rust-clippy"
            };
            apt.install(&[package.to_owned()])
        }
        (Route::Distribution, None) => Err(anyhow!(
            "{} has no clippy-driver beside it: install the distribution's clippy",
            rustc.display()
        )),
    }
}

fn llvm_packages(major: u64) -> [String; 2] {
    // libclang's package depends on the C++ library that LLVM links.
    [format!("llvm-{major}-dev"), format!("libclang-{major}-dev")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_name_every_program_and_the_compiler() {
        let programs = REQUIREMENTS.lab.iter().map(|it| (it, None)).collect();
        let inventory = Inventory {
            programs,
            compilers: Search::default(),
            linker_is_ready: false,
        };
        let text = inventory.instructions();
        for requirement in &REQUIREMENTS.lab {
            assert!(
                text.contains(&format!("`{}`", requirement.program)),
                "{text}"
            );
        }
        assert!(text.contains("--component rust-src"), "{text}");
        // A package of two programs is named once.
        let packages = ["iproute2", "nftables", "bpftool", "curl", "ethtool"];
        assert_eq!(inventory.packages_of_missing_programs(), packages);
    }
}
