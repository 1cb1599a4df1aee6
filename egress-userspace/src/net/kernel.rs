//! Kernel features, privileges and settings, which the router checks before it changes anything.

use std::{fs, io, os::linux::fs::MetadataExt as _};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use thiserror::Error;

/// Why the router cannot run on this kernel, or as this user.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The process lacks capabilities.
    #[error(
        "missing {missing}: run as root, or give the process CAP_BPF (to load programs and maps), CAP_PERFMON (for \
         their pointer arithmetic), CAP_NET_ADMIN (to attach them to interfaces), and before Linux 5.11 \
         CAP_SYS_RESOURCE or no limit on locked memory (ulimit -l unlimited)"
    )]
    Privileges {
        /// The missing capabilities, separated by commas.
        missing: String,
    },
    /// The kernel lacks a BPF helper that the dataplane requires.
    #[error(
        "this kernel has no {helper}: the dataplane needs Linux {since} or newer (this is {release})"
    )]
    Helper {
        /// The helper's name.
        helper: &'static str,
        /// The first kernel that has it.
        since: &'static str,
        /// The running kernel.
        release: String,
    },
    /// A probe failed.
    #[error("could not find out what this kernel can do: {0}")]
    Probe(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Optional kernel features. The kernel half is specialised for them at load time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `bpf_ktime_get_coarse_ns` (Linux 5.11).
    pub coarse_clock: bool,
    /// `bpf_timer` (Linux 5.15) and `bpf_loop` (5.17), with which the kernel half ends idle flows itself.
    pub kernel_expiry: bool,
}

/// Checks that the process has the capabilities that the router needs.
///
/// Capabilities that are only permitted, such as those from file capabilities in a container image, become effective
/// for this thread and the threads that it starts later.
///
/// # Errors
///
/// [`KernelError::Privileges`] with the missing capabilities.
pub fn check_privileges() -> Result<(), KernelError> {
    let effective = raise_permitted().map_err(|error| KernelError::Probe(error.into()))?;
    let has = |capability| effective.contains(&capability);
    let missing: Vec<_> = [
        (
            Capability::CAP_BPF,
            has(Capability::CAP_BPF) || has(Capability::CAP_SYS_ADMIN),
        ),
        (
            Capability::CAP_PERFMON,
            has(Capability::CAP_PERFMON) || has(Capability::CAP_SYS_ADMIN),
        ),
        (Capability::CAP_NET_ADMIN, has(Capability::CAP_NET_ADMIN)),
        (
            Capability::CAP_SYS_RESOURCE,
            has(Capability::CAP_SYS_RESOURCE) || !maps_are_limited(&release()),
        ),
    ]
    .into_iter()
    .filter(|(_, present)| !present)
    .map(|(capability, _)| capability.to_string())
    .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(KernelError::Privileges {
            missing: missing.join(", "),
        })
    }
}

/// Whether maps count against a limit of locked memory, which they do before Linux 5.11.
fn maps_are_limited(release: &str) -> bool {
    let mut numbers = release.split('.').map(str::parse::<u32>);
    let is_old = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (5, 11),
        _ => false,
    };
    is_old && getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(_, hard)| hard != RLIM_INFINITY)
}

/// Makes the needed capabilities effective as far as they are permitted. Returns all effective capabilities.
fn raise_permitted() -> Result<CapsHashSet, caps::errors::CapsError> {
    let needed = CapsHashSet::from([
        Capability::CAP_BPF,
        Capability::CAP_PERFMON,
        Capability::CAP_NET_ADMIN,
        // Before Linux 5.11, to lock the memory of the maps.
        Capability::CAP_SYS_RESOURCE,
    ]);
    let permitted = caps::read(None, CapSet::Permitted)?;
    let effective = caps::read(None, CapSet::Effective)?;
    let available: CapsHashSet = needed.intersection(&permitted).copied().collect();
    if available.is_subset(&effective) {
        return Ok(effective);
    }
    let all = effective.union(&available).copied().collect();
    caps::set(None, CapSet::Effective, &all)?;
    Ok(all)
}

/// Probes the kernel for features.
///
/// # Errors
///
/// [`KernelError::Helper`] if the kernel lacks a required helper.
pub fn features() -> Result<Features, KernelError> {
    features_with(|helper| is_helper_supported(ProgramType::SchedClassifier, helper))
}

fn features_with<E: std::error::Error + Send + Sync + 'static>(
    has: impl Fn(BpfHelper) -> Result<bool, E>,
) -> Result<Features, KernelError> {
    let has = |helper| has(helper).map_err(|error| KernelError::Probe(Box::new(error)));
    for (helper, name, since) in [(
        BpfHelper::BPF_FUNC_redirect_neigh,
        "bpf_redirect_neigh",
        "5.10",
    )] {
        if !has(helper)? {
            return Err(KernelError::Helper {
                helper: name,
                since,
                release: release(),
            });
        }
    }
    Ok(Features {
        coarse_clock: has(BpfHelper::BPF_FUNC_ktime_get_coarse_ns)?,
        kernel_expiry: has(BpfHelper::BPF_FUNC_timer_init)? && has(BpfHelper::BPF_FUNC_loop)?,
    })
}

/// The running kernel's release, such as `6.12.0-1-amd64`.
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The inode of this thread's network namespace.
///
/// # Errors
///
/// If `/proc` is not mounted.
pub fn netns_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.st_ino())
}

/// The first and last port that the kernel assigns to the pod's own sockets: `net.ipv4.ip_local_port_range`.
///
/// # Errors
///
/// If it cannot be read.
pub fn local_port_range() -> io::Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(path)?;
    let mut numbers = text.split_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{path}: {text:?} is not two ports"),
        )),
    }
}

/// Whether the kernel forwards IPv4 packets between the pod's interfaces.
///
/// # Errors
///
/// If it cannot be read.
pub fn ip_forward() -> io::Result<bool> {
    Ok(fs::read_to_string("/proc/sys/net/ipv4/ip_forward")?.trim() != "0")
}

/// Waits until every BPF program run that is in progress has ended, so that none still uses values that it read
/// earlier.
pub fn wait_for_running_programs() {
    /// `MEMBARRIER_CMD_GLOBAL` in `linux/membarrier.h`: waits for an RCU grace period.
    const GLOBAL: nix::libc::c_int = 1;
    // SAFETY: the system call takes two integers and accesses no memory.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_membarrier, GLOBAL, 0) };
    if result != 0 {
        // Kernels with `nohz_full` refuse the command. No program runs for this long.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of the flow table's time stamps.
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("every Linux has this clock");
    u64::try_from(now.tv_sec()).unwrap_or(0) * 1_000_000_000
        + u64::try_from(now.tv_nsec()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_required_helper_is_refused_with_the_helpers_name() {
        let error = features_with(|helper| {
            Ok::<_, io::Error>(helper != BpfHelper::BPF_FUNC_redirect_neigh)
        })
        .unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("bpf_redirect_neigh") && message.contains("Linux 5.10 or newer"),
            "{message}"
        );
    }

    #[test]
    fn a_kernel_without_the_coarse_clock_is_accepted() {
        let features = features_with(|helper| {
            Ok::<_, io::Error>(helper != BpfHelper::BPF_FUNC_ktime_get_coarse_ns)
        });
        assert_eq!(
            features.unwrap(),
            Features {
                coarse_clock: false,
                kernel_expiry: true
            }
        );
    }

    #[test]
    fn the_local_port_range_can_be_read() {
        let (first, last) = local_port_range().unwrap();
        assert!(first <= last);
    }
}
