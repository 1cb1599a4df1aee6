//! The benchmarks' own kernel programs (`tests/bench/ebpf`).

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, PerCpuArray, ProgramArray};
use aya::programs::{ProgramFd, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use egress_tests::Namespace;
use egress_tests::namespace::Mac;

/// The longest beginning of a frame that [`Replay`] restores: `HEAD_LEN` of the programs.
const HEAD_LEN: usize = 128;

/// The object with the programs.
#[derive(Clone, Debug)]
pub struct Object(PathBuf);

impl Object {
    /// The object in this file.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn load(&self, loader: &mut EbpfLoader<'_>) -> Result<Ebpf> {
        loader
            .load_file(&self.0)
            .with_context(|| format!("loading {}", self.0.display()))
    }

    /// Makes `interface` drop and count every arriving IPv4 packet.
    pub fn sink(&self, namespace: &Namespace, interface: &str) -> Result<Sink> {
        let mut ebpf = self.load(&mut EbpfLoader::new())?;
        attach(&mut ebpf, "sink", namespace, interface)?;
        Ok(Sink(ebpf))
    }

    /// Makes `from` send every arriving IPv4 packet out of `to`, with these MAC addresses.
    pub fn wire(
        &self,
        namespace: &Namespace,
        [from, to]: [&str; 2],
        destination: Mac,
    ) -> Result<Wire> {
        let out = namespace.interface(to)?;
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&destination.0);
        macs[6..].copy_from_slice(&out.mac.0);
        let mut loader = EbpfLoader::new();
        loader.override_global("MACS", &macs, true);
        loader.override_global("OUT_IFINDEX", &out.index, true);
        let mut ebpf = self.load(&mut loader)?;
        attach(&mut ebpf, "wire", namespace, from)?;
        Ok(Wire { _ebpf: ebpf })
    }

    /// Runs `next`, or nothing, on `frame` repeatedly. With `port_at`, the offset of a UDP source port, each run uses
    /// another port.
    pub fn replay(
        &self,
        next: Option<&ProgramFd>,
        frame: &[u8],
        port_at: Option<usize>,
    ) -> Result<Replay> {
        let len = frame.len().min(HEAD_LEN);
        let (global_len, port_at) = (u32::try_from(len)?, u32::try_from(port_at.unwrap_or(0))?);
        let mut loader = EbpfLoader::new();
        loader.override_global("LEN", &global_len, true);
        loader.override_global("PORT_AT", &port_at, true);
        let mut ebpf = self.load(&mut loader)?;
        classifier(&mut ebpf, "replay")?.load()?;
        let mut head = [0; HEAD_LEN];
        head[..len].copy_from_slice(&frame[..len]);
        let map = ebpf.map_mut("HEAD").context("the object has no HEAD")?;
        Array::<_, [u8; HEAD_LEN]>::try_from(map)?.set(0, head, 0)?;
        let mut programs = ProgramArray::try_from(
            // The kernel empties a program array when its last holder closes it.
            ebpf.take_map("NEXT").context("the object has no NEXT")?,
        )?;
        if let Some(next) = next {
            programs.set(0, next, 0)?;
        }
        Ok(Replay {
            ebpf,
            _programs: programs,
            frame: frame.to_owned(),
        })
    }
}

/// Drops and counts packets until it is itself dropped.
#[derive(Debug)]
pub struct Sink(Ebpf);

impl Sink {
    /// The number of packets so far.
    pub fn taken(&self) -> Result<u64> {
        let map = self.0.map("TAKEN").context("the object has no TAKEN")?;
        let per_cpu = PerCpuArray::<_, u64>::try_from(map)?.get(&0, 0)?;
        Ok(per_cpu.iter().sum())
    }
}

/// A bare redirect until it is dropped.
#[derive(Debug)]
pub struct Wire {
    _ebpf: Ebpf,
}

/// A program that runs on one frame repeatedly.
pub struct Replay {
    ebpf: Ebpf,
    _programs: ProgramArray<aya::maps::MapData>,
    frame: Vec<u8>,
}

/// The longest frame that `BPF_PROG_TEST_RUN` accepts: it must fit into a page with the kernel's own data.
pub const LONGEST_FRAME: usize = 3_520;

impl Replay {
    /// Runs `times` times in the thread's network namespace. Returns the mean duration of a run and the last verdict.
    pub fn run(&mut self, times: u32) -> Result<(Duration, i32)> {
        ensure!(
            self.frame.len() <= LONGEST_FRAME,
            "a frame of {} bytes does not fit into a page",
            self.frame.len()
        );
        let result = classifier(&mut self.ebpf, "replay")?.test_run(TestRunOptions {
            data_in: Some(&self.frame),
            repeat: times,
            ..TestRunOptions::default()
        })?;
        Ok((result.duration, result.return_value.cast_signed()))
    }
}

/// The program of this name that is attached to the ingress of an interface in the thread's namespace.
pub fn attached(interface: &str, name: &str) -> Result<ProgramFd> {
    let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress)
        .with_context(|| format!("asking for the programs on {interface}"))?;
    for program in &programs {
        if program.name_as_str() == Some(name) {
            return Ok(program.fd()?);
        }
    }
    bail!("no program {name} is attached to {interface} by tcx")
}

fn attach(ebpf: &mut Ebpf, program: &str, namespace: &Namespace, interface: &str) -> Result<()> {
    let classifier = classifier(ebpf, program)?;
    classifier.load()?;
    namespace
        .run(|| Ok(classifier.attach(interface, TcAttachType::Ingress)?))
        .with_context(|| format!("attaching {program} to {interface}"))?;
    Ok(())
}

fn classifier<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut SchedClassifier> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}
