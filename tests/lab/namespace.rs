//! Unnamed network namespaces.
//!
//! Only file descriptors hold them, so the kernel removes them with all their interfaces however the process ends.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{env, panic, process, thread};

use anyhow::{Context as _, Result, bail, ensure};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use rtnetlink::packet_route::link::LinkMessage;
use tokio::runtime;

/// A network namespace. It lives as long as this value or one of its clones.
#[derive(Clone, Debug)]
pub struct Namespace {
    role: Arc<str>,
    file: Arc<OwnedFd>,
}

impl Namespace {
    /// Creates a namespace with only `lo`, which is up.
    ///
    /// `role` names the namespace in error messages; it is not a name in the system.
    pub fn new(role: &str) -> Result<Self> {
        let file = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<File> {
                    unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
                    Ok(File::open("/proc/thread-self/ns/net")?)
                })
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
        .with_context(|| format!("creating the network namespace of the {role}"))?;
        let namespace = Self {
            role: role.into(),
            file: Arc::new(file.into()),
        };
        namespace.ip(["link set lo up"])?;
        Ok(namespace)
    }

    /// The namespace's role in the lab, for messages.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// A path through which other processes (`ip link … netns PATH`) find the namespace while this process lives.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", process::id(), self.file.as_raw_fd()).into()
    }

    /// Moves the calling thread into the namespace for good.
    fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network namespace of the {}", self.role))
    }

    /// Runs `work` in the namespace, on a new thread, and waits for it.
    ///
    /// Sockets that `work` opens stay in this namespace, so they can be returned and used from anywhere. Start a child
    /// process that outlives `work` with [`Namespace::command`] on the calling thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
                .unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }

    /// Starts a thread in the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> thread::JoinHandle<Result<T>> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter()?;
            work()
        })
    }

    /// A command that runs in the namespace and is killed when the thread that spawns it ends (`PR_SET_PDEATHSIG`
    /// follows the thread, not the process).
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("LC_ALL", "C").env("PATH", search_path());
        let file = Arc::clone(&self.file);
        let parent = getpid();
        // SAFETY: between fork and exec the closure only makes system calls (setns, prctl, getppid), which are
        // async-signal-safe, and allocates nothing.
        unsafe { command.pre_exec(move || become_child_in(&file, parent)) };
        command
    }

    /// Runs a command to its end and returns its standard output.
    ///
    /// # Errors
    /// When the command cannot start or fails; the message has the command and its standard error.
    pub fn output<I, A>(&self, program: impl AsRef<Path>, arguments: I) -> Result<String>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<str>,
    {
        let mut command = self.command(&program);
        let mut line = program.as_ref().display().to_string();
        for argument in arguments {
            command.arg(argument.as_ref());
            write!(line, " {}", argument.as_ref())?;
        }
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting `{line}` in the {}", self.role))?;
        ensure!(
            output.status.success(),
            "`{line}` in the {} failed ({}): {}",
            self.role,
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).with_context(|| format!("the output of `{line}`"))
    }

    /// Runs a program that reads `script` from its standard input.
    pub fn feed(&self, program: &str, arguments: &[&str], script: &str) -> Result<()> {
        let place = || format!("`{program} {}` in the {}", arguments.join(" "), self.role);
        let mut child = self
            .command(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", place()))?;
        // A program that gives up early closes the pipe; its own message says more.
        let written = child
            .stdin
            .take()
            .map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
        let output = child.wait_with_output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{} failed: {}\n{script}",
            place(),
            message.trim()
        );
        written.with_context(|| format!("writing to {}", place()))
    }

    /// Runs lines of `ip` commands (without the word `ip`) in one process.
    pub fn ip<I, S>(&self, lines: I) -> Result<()>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut batch = String::new();
        for line in lines {
            writeln!(batch, "{}", line.as_ref())?;
        }
        self.feed("ip", &["-batch", "-"], &batch)
    }

    /// Creates an interface of a kind that `ip` does not support.
    pub fn add_link(&self, link: LinkMessage) -> Result<()> {
        self.run(|| {
            let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                Ok(handle.link().add(link).execute().await?)
            })
        })
        .with_context(|| format!("creating an interface in the {}", self.role))
    }

    /// Reads a sysctl below `net.`, such as `net.ipv4.ip_forward`.
    pub fn sysctl(&self, name: &str) -> Result<String> {
        let path = sysctl_path(name)?;
        let value = self.run(|| {
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        })?;
        Ok(value.trim().to_owned())
    }

    /// Writes a sysctl below `net.`.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = sysctl_path(name)?;
        self.run(|| {
            fs::write(&path, value)
                .with_context(|| format!("writing {value} to {}", path.display()))
        })
    }

    /// The state of one of the namespace's interfaces.
    pub fn interface(&self, name: &str) -> Result<Interface> {
        self.run(|| Interface::find(name))
            .with_context(|| format!("the interface {name} of the {}", self.role))
    }
}

/// `PATH`, extended by the directories of `ip`, `nft` and `tc`.
pub fn search_path() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

fn become_child_in(namespace: &OwnedFd, parent: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        // The parent died before prctl(2) was called.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    Ok(())
}

/// Only `net.` follows the namespace of the thread; any other setting would change the machine.
fn sysctl_path(name: &str) -> Result<PathBuf> {
    if !name.starts_with("net.") || name.contains('/') {
        bail!("{name} is not a sysctl of a network namespace (net.…)");
    }
    Ok(Path::new("/proc/sys").join(name.replace('.', "/")))
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index in its namespace.
    pub index: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

impl Interface {
    /// Finds an interface in the calling thread's namespace.
    fn find(name: &str) -> Result<Self> {
        let index = if_nametoindex(name)?;
        let mut mac = None;
        let mut addresses = Vec::new();
        for entry in getifaddrs()?.filter(|entry| entry.interface_name == name) {
            let Some(address) = entry.address else {
                continue;
            };
            if let Some(link) = address.as_link_addr() {
                mac = link.addr().map(Mac);
            } else if let Some(v4) = address.as_sockaddr_in() {
                addresses.push(v4.ip().into());
            } else if let Some(v6) = address.as_sockaddr_in6() {
                addresses.push(v6.ip().into());
            }
        }
        let mac = mac.context("it has no MAC address")?;
        Ok(Self {
            name: name.to_owned(),
            index,
            mac,
            addresses,
        })
    }
}

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip_unless_lab_works;

    #[test]
    fn a_namespace_has_its_own_interfaces_and_sysctls() -> Result<()> {
        skip_unless_lab_works!();
        let (one, other) = (Namespace::new("one")?, Namespace::new("other")?);
        one.ip(["link add probe type veth peer name other"])?;
        assert_eq!(one.interface("probe")?.name, "probe");
        assert!(other.interface("probe").is_err());

        one.set_sysctl("net.ipv4.ip_forward", "1")?;
        assert_eq!(one.sysctl("net.ipv4.ip_forward")?, "1");
        assert_eq!(other.sysctl("net.ipv4.ip_forward")?, "0");
        Ok(())
    }

    #[test]
    fn a_failing_command_says_where_and_why() -> Result<()> {
        skip_unless_lab_works!();
        let namespace = Namespace::new("probe")?;
        let error = namespace
            .ip(["link set nowhere up"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("in the probe"), "{error}");
        assert!(error.contains("nowhere"), "{error}");
        Ok(())
    }

    #[test]
    fn a_mac_address_is_written_as_usual() {
        assert_eq!(
            Mac([2, 0, 0, 0xab, 0xc, 255]).to_string(),
            "02:00:00:ab:0c:ff"
        );
    }

    #[test]
    fn a_sysctl_outside_the_network_is_refused() {
        assert!(sysctl_path("kernel.panic").is_err());
        assert!(sysctl_path("net.ipv4/../../kernel/panic").is_err());
    }
}
