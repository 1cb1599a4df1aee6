//! Runs a kernel under QEMU.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::guest::SUBCOMMAND;
use crate::process::{cmd, sh};

const MACHINE: &str = "-M q35 -m 2048 -smp 1 -nodefaults -no-user-config -display none -no-reboot";
const KERNEL_ARGUMENTS: &str = "console=ttyS0 quiet panic=-1 oops=panic mitigations=off nokaslr \
                                tsc=reliable random.trust_cpu=on";

/// A machine to start.
pub struct Machine<'m> {
    /// The kernel's image.
    pub kernel: &'m Path,
    /// Its initial file system.
    pub initrd: &'m Path,
    /// The first process: the path of this program in the guest.
    pub init: &'m Path,
    /// The file for the kernel's messages.
    pub console: &'m Path,
    /// The file for a copy of the results.
    pub log: &'m Path,
    /// Whether to run it on this machine's processor, instead of emulating one.
    pub kvm: bool,
    /// The time limit.
    pub limit: Duration,
}

/// How a machine ended.
pub enum Ending {
    /// It turned itself off.
    Ended,
    /// The kernel panicked, with this message.
    Panic(String),
    /// It exceeded the time limit, and was killed.
    Hang,
}

impl Machine<'_> {
    /// Runs the machine to its end, and passes each line of its results to `read`.
    pub fn run(&self, mut read: impl FnMut(&str)) -> Result<Ending> {
        let deadline = Instant::now() + self.limit;
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let lines = follow(&mut child, self.log)?;
        let hangs = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => read(&line),
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => break true,
            }
        };
        if hangs {
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        let console = fs::read(self.console).unwrap_or_default();
        if let Some(message) = panic_in(&String::from_utf8_lossy(&console)) {
            return Ok(Ending::Panic(message.to_owned()));
        }
        if hangs {
            return Ok(Ending::Hang);
        }
        anyhow::ensure!(
            output.status.success(),
            "QEMU failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(Ending::Ended)
    }

    fn command(&self) -> Command {
        // Without la57, because emulating four levels of page tables is faster.
        let emulated = "-accel tcg,thread=multi -cpu max,la57=off";
        let processor = if self.kvm {
            "-accel kvm -cpu host"
        } else {
            emulated
        };
        let machine = format!("{processor} {MACHINE}");
        let machine = machine.split(' ');
        let Self { kernel, initrd, .. } = self;
        let console = format!("file:{}", self.console.display());
        let init = self.init.display();
        let append = format!("{KERNEL_ARGUMENTS} rdinit={init} -- {SUBCOMMAND}");
        let qemu = cmd!(
            sh(),
            "qemu-system-x86_64 {machine...} -serial {console} -serial stdio"
        );
        let qemu = qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        qemu.arg("-append").arg(append).into()
    }
}

/// Reads a child's standard output in a thread, line by line, and keeps a copy.
fn follow(child: &mut Child, log: &Path) -> Result<Receiver<String>> {
    use std::io::Write as _;
    let stdout = child.stdout.take().context("QEMU's output is not a pipe")?;
    let mut copy = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches('\r');
            // The copy is only for people, so an error does not matter.
            let _ = writeln!(copy, "{line}");
            if sender.send(line.to_owned()).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

fn panic_in(console: &str) -> Option<&str> {
    let (_, message) = console.split_once("Kernel panic - ")?;
    message.lines().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_in_the_kernels_messages() {
        let console = "[    1.2] hello\r\n[    2.0] Kernel panic - not syncing: sysrq triggered crash\r\n[ 2.1] CPU: 0\r\n";
        assert_eq!(
            panic_in(console),
            Some("not syncing: sysrq triggered crash")
        );
        assert_eq!(panic_in("[    1.2] hello"), None);
    }
}
