//! The project's own commands, run as `cargo xtask <command>`.

mod apt;
mod bench;
mod build;
mod conformance;
mod demo;
mod fuzz;
mod image;
mod kernels;
mod linker;
mod lint;
mod process;
mod prometheus;
mod requirements;
mod results;
mod root;
mod setup;
mod soak;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::build::Profile;
use crate::workspace::Workspace;

/// Builds, tests and shows the egress router.
///
/// The router has a kernel half, compiled for the BPF target by a compiler of
/// its own, and a userspace half, which embeds the kernel half. On a new machine:
///
///     cargo xtask demo     installs what is missing, builds, and shows the router at work
///     cargo xtask test     installs what is missing, builds, and runs every test
///
/// Once the kernel half is built, plain `cargo build` and `cargo test` and an
/// editor work as well. See docs/building.md.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find what the project needs and install what is missing
    ///
    /// The project needs a compiler for the BPF target (a nightly of rustup with rust-src, or Debian's rustc-web), a
    /// bpf-linker built for that compiler's LLVM (kept in target/tools), and the programs that the lab calls. What is
    /// already there stays as it is. Installing packages needs root; without root, the command to run is printed.
    Setup {
        /// Only report, install nothing; fails if something is missing
        #[arg(long)]
        check: bool,
    },
    /// Build the kernel half: target/egress-router.bpf.o, with BTF
    BuildEbpf,
    /// Build both halves: target/<profile>/egress-router
    Build {
        /// With optimizations, in target/release
        #[arg(long)]
        release: bool,
    },
    /// Build a static binary, and a container image that contains only this binary
    ///
    /// The image is an OCI layout, which needs neither a builder nor a base image. The first of podman, buildah and
    /// docker that works imports it. If none of them works, the layout remains and the exit code is 3.
    #[command(after_help = image::HELP)]
    Image(image::Options),
    /// Show the router at work with real traffic, in its own network namespaces
    Demo,
    /// Build everything and run every test
    ///
    /// Tests that need the kernel need root. Without root they are skipped and say so. The last line is `N passed,
    /// N failed, N skipped`.
    #[command(after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -- udp --nocapture")]
    Test {
        /// For every test binary: a part of a test's name, options of libtest
        #[arg(last = true, value_name = "FILTER")]
        arguments: Vec<String>,
    },
    /// Fuzz the parser of specs, the packet code, and the kernel half itself
    ///
    /// Builds the targets of fuzz/ for libFuzzer, and runs each within bounds. Failing inputs are kept in
    /// target/fuzz/artifacts, the corpus in target/fuzz/corpus.
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz spec --runs 10000000 --seconds 0"
    )]
    Fuzz {
        /// The targets to run; all of them by default
        targets: Vec<fuzz::Target>,
        #[command(flatten)]
        bounds: fuzz::Bounds,
    },
    /// Soak a router in mixed traffic while its surroundings change, and check for leaks
    ///
    /// TCP, UDP, fragments, pings and refused connections, while neighbours, MTUs and addresses change and the router
    /// restarts. At the end no flow, file or memory may be left behind.
    Soak(soak::Options),
    /// Compare the router with the kernel's own NAT, packet by packet
    ///
    /// Runs two equal labs: one with the router, the other with the nftables rules that egress routers usually consist
    /// of. Both get the same scripts of packets, generated from a seed: TCP connections in every order, UDP, SCTP,
    /// echo, ICMP errors, fragments, unusual headers, damaged and unsolicited packets. The packets that leave the two
    /// are compared field by field. Then the tests with real clients and servers run through both.
    ///
    /// A difference either belongs to a class that docs/conformance.md explains, or it fails the run and is shown with
    /// the shortest script that reproduces it.
    #[command(after_help = "Examples:\n  \
            cargo xtask test-conformance\n  \
            cargo xtask test-conformance --only packets --packets 1000000 --seed 7\n  \
            cargo xtask test-conformance --seed 7 --script 1234   what happens in a script of a report\n  \
            cargo xtask test-conformance --output json | jq .packets.explained")]
    TestConformance(conformance::Options),
    /// Run the tests on other kernels, in virtual machines
    ///
    /// Downloads Debian's kernels from 5.10 on to target/kernels and boots them under QEMU, as many at once as there
    /// are processors. The results are a table, and target/kernels/results.json. See docs/kernels.md.
    #[command(after_help = "Examples:\n  cargo xtask test-kernels\n  \
                      cargo xtask test-kernels --kernel 5.10 --suite packets -- sctp")]
    TestKernels(kernels::Options),
    /// The first process of a virtual machine of test-kernels
    #[command(name = kernels::guest::SUBCOMMAND, hide = true)]
    Guest,
    /// Measure the router beside nftables, plain forwarding and a bare redirect
    ///
    /// Builds everything in release mode. The contenders run side by side, each in its own network namespaces, and are
    /// measured in turn in short bursts. Needs root, and a machine that is otherwise idle. See
    /// docs/benchmarks/README.md for the method and the results.
    #[command(after_help = bench::HELP)]
    Bench(bench::Options),
    /// Check formatting, clippy and the kernel half's warnings
    Lint {
        /// Check licences, sources and advisories of the dependencies too, with cargo-deny (fetches advisories)
        #[arg(long)]
        deny: bool,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    if matches!(task, Task::Guest) {
        // Before anything else, because a guest has no cargo to find the workspace with.
        kernels::guest::run()?;
        return Ok(ExitCode::SUCCESS);
    }
    let workspace = Workspace::find()?;
    match task {
        Task::Setup { check: true } => setup::check(&workspace)?,
        Task::Setup { check: false } => setup::run(&workspace)?,
        Task::BuildEbpf => build::kernel_half(&workspace)?,
        Task::Build { release: true } => build::all(&workspace, Profile::Release)?,
        Task::Build { release: false } => build::all(&workspace, Profile::Debug)?,
        Task::Image(options) => return image::run(&workspace, &options),
        Task::Demo => demo::run(&workspace)?,
        Task::Test { arguments } => return test::run(&workspace, &arguments),
        Task::Fuzz { targets, bounds } => fuzz::run(&workspace, &targets, bounds)?,
        Task::Soak(options) => soak::run(&workspace, options)?,
        Task::TestConformance(options) => return conformance::run(&workspace, &options),
        Task::TestKernels(options) => return kernels::run(&workspace, &options),
        Task::Guest => {}
        Task::Bench(options) => return bench::run(&workspace, &options),
        Task::Lint { deny } => lint::run(&workspace, deny)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
