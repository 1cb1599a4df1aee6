//! `setup`: finds what the project needs, installs what is missing, and says
//! what it does.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::apt::Apt;
use crate::linker;
use crate::os::{Distribution, is_root};
use crate::process::CommandExt as _;
use crate::requirements::{Found, REQUIREMENTS, Requirement};
use crate::toolchain::{self, OLDEST_RUST, Route, Search, Toolchain, is_at_least, llvm_prefix};
use crate::workspace::Workspace;

/// Debian's rustc that is kept current, its sources and its clippy.
const RUSTC_PACKAGES: [&str; 3] = ["rustc-web", "rust-web-src", "rust-web-clippy"];

/// What builds the kernel half.
pub struct BpfToolchain {
    /// The compiler and its cargo.
    pub compiler: Toolchain,
    /// The linker that was built for this compiler.
    pub linker: PathBuf,
}

/// What is on this machine.
struct Inventory {
    programs: Vec<(&'static Requirement, Option<Found>)>,
    compilers: Search,
    /// The compiler to build with, with its LLVM's prefix if that is installed.
    compiler: Option<(Toolchain, Option<PathBuf>)>,
    linker_is_ready: bool,
}

/// Reports what is there and what is missing, and changes nothing.
///
/// # Errors
/// Something is missing.
pub fn check(workspace: &Workspace) -> Result<()> {
    let inventory = Inventory::take(workspace);
    inventory.report(workspace);
    ensure!(
        inventory.is_complete(),
        "something is missing: run `cargo xtask setup`, which installs it"
    );
    println!("Everything is here.");
    Ok(())
}

/// Reports what is there and installs what is missing.
///
/// # Errors
/// Something cannot be installed here; the error says what to do by hand.
pub fn run(workspace: &Workspace) -> Result<()> {
    let inventory = Inventory::take(workspace);
    inventory.report(workspace);
    if !inventory.is_complete() {
        inventory.install_missing(workspace)?;
        ensure!(
            Inventory::take(workspace).is_complete(),
            "something is missing still: `cargo xtask setup --check` shows what"
        );
    }
    println!("Everything is here.");
    Ok(())
}

/// As [`run`], but silent where nothing is missing: for the commands that run
/// setup themselves.
///
/// # Errors
/// As [`run`].
pub fn ensure_complete(workspace: &Workspace) -> Result<()> {
    if Inventory::take(workspace).is_complete() {
        Ok(())
    } else {
        run(workspace)
    }
}

/// Installs those of these programs that are missing: for a command that needs more than others do.
///
/// # Errors
/// As [`run`].
pub fn ensure_programs(requirements: &'static [Requirement]) -> Result<()> {
    let is_missing = |requirement: &&Requirement| requirement.find().is_none();
    let missing: Vec<_> = requirements.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for requirement in &missing {
        self::missing(requirement.program, requirement.why);
    }
    let packages: Vec<_> = missing.iter().map(|it| it.apt.to_owned()).collect();
    let distribution = Distribution::of_this_machine();
    match Apt::find().filter(|_| distribution.is_debian_like()) {
        Some(_) if !is_root() => Err(not_root(&packages)),
        Some(mut apt) => install_programs(&mut apt, &packages),
        None => bail!(
            "setup does not know how to install on {}: please install these programs",
            distribution.name
        ),
    }
}

/// What builds the kernel half, if `setup` has been run.
///
/// # Errors
/// A part of it is missing; the error names it.
pub fn bpf_toolchain(workspace: &Workspace) -> Result<BpfToolchain> {
    let missing = match choose(&toolchain::search()) {
        Some((compiler, Some(prefix)))
            if linker::is_ready(workspace, compiler.version.llvm_major, &prefix) =>
        {
            return Ok(BpfToolchain {
                compiler,
                linker: linker::program(workspace),
            });
        }
        Some((_, Some(_))) => format!("bpf-linker {}", linker::VERSION),
        Some((compiler, None)) => {
            format!("LLVM {}'s development files", compiler.version.llvm_major)
        }
        None => "a rustc with the sources of `core`".to_owned(),
    };
    bail!("cannot build the kernel half without {missing}: run `cargo xtask setup`")
}

/// The best compiler: one whose LLVM is installed before one without.
fn choose(search: &Search) -> Option<(Toolchain, Option<PathBuf>)> {
    let with_prefix =
        |toolchain: &Toolchain| (toolchain.clone(), llvm_prefix(toolchain.version.llvm_major));
    let mut candidates: Vec<_> = search.usable.iter().map(with_prefix).collect();
    let best = candidates
        .iter()
        .position(|(_, prefix)| prefix.is_some())
        .unwrap_or(0);
    (best < candidates.len()).then(|| candidates.swap_remove(best))
}

impl Inventory {
    fn take(workspace: &Workspace) -> Self {
        let compilers = toolchain::search();
        let compiler = choose(&compilers);
        let linker_is_ready = compiler.as_ref().is_some_and(|(compiler, prefix)| {
            prefix.as_ref().is_some_and(|prefix| {
                linker::is_ready(workspace, compiler.version.llvm_major, prefix)
            })
        });
        let programs = REQUIREMENTS.iter().map(|r| (r, r.find())).collect();
        Self {
            programs,
            compilers,
            compiler,
            linker_is_ready,
        }
    }

    fn is_complete(&self) -> bool {
        let has_clippy = self
            .compiler
            .as_ref()
            .is_some_and(|(it, _)| it.clippy().is_some());
        has_clippy && self.linker_is_ready && self.programs.iter().all(|(_, found)| found.is_some())
    }

    fn report(&self, workspace: &Workspace) {
        for (requirement, found) in &self.programs {
            match found {
                Some(Found { path, version }) => {
                    ok(
                        requirement.program,
                        version.as_deref().unwrap_or("?"),
                        &path.display(),
                    );
                }
                None => missing(requirement.program, requirement.why),
            }
        }
        let Some((compiler, prefix)) = &self.compiler else {
            missing(
                "rustc for BPF",
                "compiles the kernel half; needs the sources of `core`",
            );
            for reason in &self.compilers.refused {
                println!("         not {reason}");
            }
            return;
        };
        let major = compiler.version.llvm_major;
        ok(
            "rustc for BPF",
            &compiler.version.release,
            &format_args!("{}, {}", compiler.route, compiler.rustc.display()),
        );
        match compiler.clippy() {
            Some(clippy) => ok(
                "clippy for BPF",
                &compiler.version.release,
                &clippy.display(),
            ),
            None => missing("clippy for BPF", "lints the kernel half with that rustc"),
        }
        match prefix {
            Some(prefix) => ok("LLVM", &major.to_string(), &prefix.display()),
            None => missing(
                "LLVM",
                &format!("{major} with its libraries, for bpf-linker"),
            ),
        }
        if self.linker_is_ready {
            let program = linker::program(workspace);
            ok(
                "bpf-linker",
                linker::VERSION,
                &workspace.shown(&program).display(),
            );
        } else {
            missing(
                "bpf-linker",
                &format!("{} for LLVM {major}", linker::VERSION),
            );
        }
    }

    fn install_missing(&self, workspace: &Workspace) -> Result<()> {
        let distribution = Distribution::of_this_machine();
        let mut apt = Apt::find().filter(|_| distribution.is_debian_like());
        if apt.is_some() && !is_root() {
            let packages = self.missing_packages();
            ensure!(packages.is_empty(), not_root(&packages));
        }
        let programs = self.packages_of_missing_programs();
        if !programs.is_empty() {
            match &mut apt {
                Some(apt) => install_programs(apt, &programs)?,
                None => bail!("{}", self.instructions(&distribution)),
            }
        }
        let compiler = self.install_compiler(apt.as_mut(), &distribution)?;
        if compiler.clippy().is_none() {
            install_clippy(apt.as_mut(), &compiler)?;
        }
        let major = compiler.version.llvm_major;
        if llvm_prefix(major).is_none() {
            self.install_llvm(apt.as_mut(), &distribution, major)?;
        }
        let prefix = llvm_prefix(major).with_context(|| {
            format!(
                "LLVM {major} was installed, but neither LLVM_PREFIX nor /usr/lib/llvm-{major} nor \
                 llvm-config leads to its libLLVM-{major}.so"
            )
        })?;
        if !linker::is_ready(workspace, major, &prefix) {
            linker::install(workspace, major, &prefix)?;
        }
        Ok(())
    }

    /// Everything that root would install now, for a person who is not root.
    fn missing_packages(&self) -> Vec<String> {
        let mut packages = self.packages_of_missing_programs();
        match &self.compiler {
            None if has_usable_rustc_web() => packages.extend(RUSTC_PACKAGES.map(str::to_owned)),
            Some((compiler, None)) => packages.extend(llvm_packages(compiler.version.llvm_major)),
            None | Some((_, Some(_))) => {}
        }
        packages
    }

    fn packages_of_missing_programs(&self) -> Vec<String> {
        let mut packages: Vec<String> = self
            .programs
            .iter()
            .filter(|(_, found)| found.is_none())
            .map(|(requirement, _)| requirement.apt.to_owned())
            .collect();
        packages.dedup();
        packages
    }

    /// The compiler that is here; else Debian's; else a new nightly of rustup.
    fn install_compiler(
        &self,
        apt: Option<&mut Apt>,
        distribution: &Distribution,
    ) -> Result<Toolchain> {
        if let Some((compiler, prefix)) = &self.compiler {
            let package = &llvm_packages(compiler.version.llvm_major)[0];
            // With an LLVM that nobody has, the compiler is as good as none.
            if prefix.is_some() || apt.is_none() || Apt::candidate(package).is_some() {
                return Ok(compiler.clone());
            }
        }
        if let Some(apt) = apt {
            if is_root() {
                apt.update()?;
            }
            if is_root() && has_usable_rustc_web() {
                apt.install(&RUSTC_PACKAGES.map(str::to_owned))?;
                return self.compiler_after(
                    "apt-get installed rustc-web",
                    |route| *route == Route::Distribution,
                    distribution,
                );
            }
        }
        if let Some((compiler, _)) = &self.compiler {
            return Ok(compiler.clone());
        }
        ensure!(toolchain::has_rustup(), self.instructions(distribution));
        println!("install  rustup's nightly with rust-src and clippy");
        Command::new("rustup")
            .args(["toolchain", "install", "nightly", "--profile", "minimal"])
            .args(["--component", "rust-src", "--component", "clippy"])
            .run()
            .with_context(|| self.instructions(distribution))?;
        self.compiler_after(
            "rustup installed a nightly",
            |route| *route != Route::Distribution,
            distribution,
        )
    }

    fn compiler_after(
        &self,
        step: &str,
        is_installed: fn(&Route) -> bool,
        distribution: &Distribution,
    ) -> Result<Toolchain> {
        let Search { usable, refused } = toolchain::search();
        usable
            .into_iter()
            .find(|compiler| is_installed(&compiler.route))
            .with_context(|| {
                format!(
                    "{step}, yet no compiler is usable:\n  {}\n{}",
                    refused.join("\n  "),
                    self.instructions(distribution)
                )
            })
    }

    fn install_llvm(
        &self,
        apt: Option<&mut Apt>,
        distribution: &Distribution,
        major: u32,
    ) -> Result<()> {
        let packages = llvm_packages(major);
        match apt {
            Some(_) if !is_root() => Err(not_root(&packages)),
            Some(apt) => {
                apt.update()?;
                ensure!(
                    Apt::candidate(&packages[0]).is_some(),
                    "apt knows no {}: add the repository of https://apt.llvm.org for LLVM {major}, \
                     or set LLVM_PREFIX to an LLVM {major} with lib/libLLVM-{major}.so, and run \
                     `cargo xtask setup` again",
                    packages[0]
                );
                apt.install(&packages)
            }
            None => bail!("{}", self.instructions(distribution)),
        }
    }

    /// What to do by hand on a machine that this program does not know.
    fn instructions(&self, distribution: &Distribution) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "setup does not know how to install on {}. Please install, then run \
             `cargo xtask setup` again:",
            distribution.name
        );
        for (requirement, found) in &self.programs {
            if found.is_none() {
                let Requirement {
                    program, why, apt, ..
                } = requirement;
                let _ = write!(
                    text,
                    "\n  - the program `{program}` (Debian's package {apt}): {why}"
                );
            }
        }
        match &self.compiler {
            None => {
                let _ = write!(
                    text,
                    "\n  - a rustc of {OLDEST_RUST} or newer with the sources of `core`, either one of\n      \
                     rustup toolchain install nightly --profile minimal --component rust-src \
                     --component clippy\n      \
                     /usr/bin/rustc with the sources in /usr/lib/rustlib/src (Debian: {})\n  \
                     - the LLVM of that rustc (`rustc -vV` names its version) with its shared library \
                     for linking; LLVM_PREFIX names the directory above its lib",
                    RUSTC_PACKAGES.join(" ")
                );
            }
            Some((compiler, None)) => {
                let major = compiler.version.llvm_major;
                let _ = write!(
                    text,
                    "\n  - LLVM {major} with lib/libLLVM-{major}.so (Debian's packages {}; or set \
                     LLVM_PREFIX to the directory above its lib)",
                    llvm_packages(major).join(" ")
                );
            }
            Some((_, Some(_))) => {}
        }
        text
    }
}

fn install_programs(apt: &mut Apt, packages: &[String]) -> Result<()> {
    apt.update()?;
    let (known, unknown): (Vec<_>, Vec<_>) = packages
        .iter()
        .cloned()
        .partition(|package| Apt::candidate(package).is_some());
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

/// Whether apt has a rustc-web that is new enough.
fn has_usable_rustc_web() -> bool {
    let candidate = Apt::candidate(RUSTC_PACKAGES[0]);
    candidate.is_some_and(|version| is_at_least(&version, OLDEST_RUST))
}

/// Adds the clippy of a compiler that came without it.
fn install_clippy(apt: Option<&mut Apt>, compiler: &Toolchain) -> Result<()> {
    match (&compiler.route, apt) {
        (Route::Rustup(name), _) => {
            println!("install  clippy for rustup's {name}");
            Command::new("rustup")
                .args(["component", "add", "clippy", "--toolchain", name])
                .run()
        }
        (Route::Distribution, Some(apt)) => {
            let owner = Command::new("dpkg-query")
                .arg("--search")
                .arg(&compiler.rustc)
                .read()?;
            let package = if owner.starts_with("rustc-web") {
                RUSTC_PACKAGES[2]
            } else {
                "rust-clippy"
            };
            let packages = [package.to_owned()];
            if is_root() {
                apt.install(&packages)
            } else {
                Err(not_root(&packages))
            }
        }
        (Route::Distribution, None) => bail!(
            "{} has no clippy-driver beside it: install the distribution's clippy",
            compiler.rustc.display()
        ),
    }
}

fn llvm_packages(major: u32) -> [String; 2] {
    // libclang's package is what brings the C++ library that LLVM links.
    [format!("llvm-{major}-dev"), format!("libclang-{major}-dev")]
}

fn not_root(packages: &[String]) -> anyhow::Error {
    anyhow::anyhow!(
        "not root, so nothing was installed. Run\n    {}\nand then `cargo xtask setup` again",
        Apt::command_line(packages)
    )
}

fn ok(name: &str, version: &str, place: &dyn std::fmt::Display) {
    println!("ok       {name} {version}  ({place})");
}

fn missing(name: &str, why: &str) {
    println!("missing  {name}: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory_of_nothing() -> Inventory {
        Inventory {
            programs: REQUIREMENTS
                .iter()
                .map(|requirement| (requirement, None))
                .collect(),
            compilers: Search::default(),
            compiler: None,
            linker_is_ready: false,
        }
    }

    #[test]
    fn an_unknown_machine_is_told_every_program_and_the_compiler() {
        let text = inventory_of_nothing().instructions(&Distribution::default());
        for requirement in REQUIREMENTS {
            assert!(
                text.contains(&format!("`{}`", requirement.program)),
                "{text}"
            );
        }
        assert!(text.contains("--component rust-src"), "{text}");
    }

    #[test]
    fn a_package_of_two_programs_is_named_once() {
        let packages = inventory_of_nothing().packages_of_missing_programs();
        assert_eq!(
            packages,
            ["iproute2", "nftables", "bpftool", "curl", "ethtool"]
        );
    }

    #[test]
    fn without_root_the_command_to_run_is_printed_whole() {
        let text = not_root(&llvm_packages(22)).to_string();
        assert!(
            text.contains("sudo apt-get update && sudo apt-get install -y"),
            "{text}"
        );
        assert!(text.contains("llvm-22-dev libclang-22-dev"), "{text}");
    }
}
