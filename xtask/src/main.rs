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
mod os;
mod process;
mod prometheus;
mod requirements;
mod results;
mod setup;
mod soak;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::build::Profile;
use crate::workspace::Workspace;

/// Builds, tests and shows the egress router.
///
/// The router has a kernel half, compiled for the BPF target by a compiler of
/// its own, and a userspace half, which embeds the first. On a new machine:
///
///     cargo xtask demo     installs what is needed, builds, and shows it at work
///     cargo xtask test     the same, and runs every test
///
/// Once the kernel half is built, plain `cargo build` and `cargo test` and an
/// editor work as well. docs/building.md tells more.
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
    /// Needed are a compiler for the BPF target (a nightly of rustup with
    /// rust-src, or Debian's rustc-web), a bpf-linker built for that compiler's
    /// LLVM (kept in target/tools), and the programs that the lab calls. What is
    /// there is left alone. Installing packages needs root; without it the
    /// command to run is printed.
    #[command(verbatim_doc_comment)]
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
    /// Build a static binary, and a container image of nothing else
    ///
    /// The image is written as an OCI layout, for which no builder and no base image is needed; podman, buildah or
    /// docker, whichever works, then takes it in. Without any of them the layout is left, and the exit code is 3.
    #[command(verbatim_doc_comment, after_help = image::HELP)]
    Image(image::Options),
    /// Show the router at work with real traffic, in namespaces of its own
    Demo,
    /// Build everything and run every test
    ///
    /// The tests that need the kernel need root, and say so where they are
    /// skipped. The last line is `N passed, N failed, N skipped`.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test -- udp --nocapture"
    )]
    Test {
        /// For every test binary: a part of a test's name, options of libtest
        #[arg(last = true, value_name = "FILTER")]
        arguments: Vec<String>,
    },
    /// Fuzz the spec reader, the packet code, and the kernel half itself
    ///
    /// Builds the targets of fuzz/ for libFuzzer, and runs each within bounds. What is found is kept in
    /// target/fuzz/artifacts, what was learnt in target/fuzz/corpus.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz spec --runs 10000000 --seconds 0"
    )]
    Fuzz {
        /// Which; all unless named
        targets: Vec<fuzz::Target>,
        #[command(flatten)]
        bounds: fuzz::Bounds,
    },
    /// Soak a router in mixed traffic, with changes around it, and look at what is left
    ///
    /// TCP, UDP, fragments, pings and refusals, while neighbours, MTUs and addresses
    /// change and the router starts anew. At the end no flow, file or memory is left
    /// behind.
    #[command(verbatim_doc_comment)]
    Soak(soak::Options),
    /// Compare the router with the kernel's own NAT, packet by packet
    ///
    /// Twin labs: one has the router, the other nftables with the rules that
    /// egress routers have been made of. Scripts of packets, generated from a
    /// seed, are played in both: TCP connections in every order, UDP, SCTP,
    /// echo, ICMP errors, fragments, odd headers, damage, and packets that
    /// nobody asked for. What leaves the two is compared field by field. Then
    /// the tests with real clients and servers run through both.
    ///
    /// A difference is either of a class that docs/conformance.md explains, or
    /// is shown with the shortest script that has it, and fails the run.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  \
            cargo xtask test-conformance\n  \
            cargo xtask test-conformance --only packets --packets 1000000 --seed 7\n  \
            cargo xtask test-conformance --seed 7 --script 1234   what happens in a script of a report\n  \
            cargo xtask test-conformance --output json | jq .packets.explained"
    )]
    TestConformance(conformance::Options),
    /// Run the tests on other kernels, in virtual machines
    ///
    /// Debian's kernels from 5.10 on are downloaded to target/kernels and booted
    /// under QEMU, one machine for each processor. The results are a table, and
    /// target/kernels/results.json. docs/kernels.md tells more.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:\n  cargo xtask test-kernels\n  cargo xtask test-kernels --kernel 5.10 --suite packets -- sctp"
    )]
    TestKernels(kernels::Options),
    /// The first process of a virtual machine of test-kernels
    #[command(name = kernels::guest::SUBCOMMAND, hide = true)]
    Guest,
    /// Measure the router beside nftables, plain forwarding and a bare redirect
    ///
    /// Builds everything in release mode. All contenders stand side by side, each
    /// in namespaces of its own, and are measured in turn in short bursts;
    /// docs/benchmarks/README.md tells how, and what the figures show. Needs root,
    /// and a machine that has nothing else to do meanwhile.
    #[command(verbatim_doc_comment, after_help = bench::HELP)]
    Bench(bench::Options),
    /// Check formatting, clippy and the kernel half's warnings
    Lint {
        /// Check licences, sources and advisories of the dependencies too, with
        /// cargo-deny (advisories are fetched from the network)
        #[arg(long)]
        deny: bool,
    },
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
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
        // Before all else: a guest has no cargo to ask about a workspace.
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
