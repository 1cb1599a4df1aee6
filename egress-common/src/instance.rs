//! The record of an instance: its identity, its layout version, and the data that its process keeps there.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

/// The version of all layouts that two programs may share: pinned maps and ring buffer records. A program uses only
/// maps of its own version.
///
/// `layouts.txt` states it above the layouts, and a test compares that file with the object
/// (`docs/decisions/0025-versions-of-pinned-state.md`).
pub const LAYOUT_VERSION: u32 = version_of(include_str!("../layouts.txt"));

/// The number in the first line of the form `version 1`.
const fn version_of(layouts: &str) -> u32 {
    let (mut rest, mut version) = (layouts.as_bytes(), 0);
    while let [first, after @ ..] = rest {
        match (first, after) {
            (b'\n', [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', digits @ ..]) => {
                let mut digits = digits;
                while let [digit @ b'0'..=b'9', after @ ..] = digits {
                    version = 10 * version + (*digit - b'0') as u32;
                    digits = after;
                }
                assert!(version > 0, "layouts.txt has no version");
                return version;
            }
            _ => rest = after,
        }
    }
    panic!("layouts.txt has no version")
}

/// The identity of a dataplane: the first 32 bytes of the map `INSTANCE`, and of `CONFIG` before version 7.
///
/// This layout is the same in every version, so that every program can name a dataplane that it cannot use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Identity {
    /// [`LAYOUT_VERSION`] of the program that filled the maps; 0 if they are not filled yet or no longer used.
    pub layout_version: u32,
    /// Index of the cluster interface (`eth0`) in the router's network namespace.
    pub cluster_ifindex: u32,
    /// Index of the egress interface (`net1`) in the router's network namespace.
    pub egress_ifindex: u32,
    /// The process that runs the router, in its own PID namespace; 0 for none.
    pub pid: u32,
    /// The inode of the router's network namespace (`stat /proc/self/ns/net`), which tells the routers of a node apart.
    pub netns_inode: u64,
    /// When the dataplane was started: `CLOCK_MONOTONIC` in nanoseconds. Of two on the same interfaces, the later one
    /// has replaced the earlier.
    pub started_ns: u64,
}

const _: () = {
    assert!(size_of::<Identity>() == 32);
    assert!(offset_of!(Identity, layout_version) == 0);
    assert!(offset_of!(Identity, cluster_ifindex) == 4);
    assert!(offset_of!(Identity, egress_ifindex) == 8);
    assert!(offset_of!(Identity, pid) == 12);
    assert!(offset_of!(Identity, netns_inode) == 16);
    assert!(offset_of!(Identity, started_ns) == 24);
};

/// The data that only processes read: the only element of the array `INSTANCE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct InstanceInfo {
    /// The identity. It must stay first.
    pub identity: Identity,
    /// The maximum number of flows per family.
    pub max_flows: u32,
    /// 1 if the kernel half ends idle flows, 0 if userspace does.
    pub kernel_expiry: u32,
    /// The generation of the next hops. It changes when the process discards them all, which voids flows' references.
    pub next_hop_generation: u32,
    /// Explicit padding.
    pub padding: u32,
    /// The results of reloads.
    pub reloads: Reloads,
}

const _: () = assert!(offset_of!(InstanceInfo, identity) == 0);

/// The results of the reloads of a running router.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Reloads {
    /// The number of reloads that were applied.
    pub applied: u32,
    /// The number of reloads that were refused.
    pub refused: u32,
    /// When the rules in force were applied: `CLOCK_MONOTONIC` in nanoseconds.
    pub applied_ns: u64,
    /// When the last reload was refused, if none was applied since: `CLOCK_MONOTONIC` in nanoseconds, else 0.
    pub refused_ns: u64,
    /// The error of the last refused reload: UTF-8, truncated to fit, padded with zeros.
    pub error: [u8; 512],
}

impl Reloads {
    /// Truncates a message to fit, at a character boundary.
    pub fn message(text: &str) -> [u8; 512] {
        let mut message = [0; 512];
        let mut len = text.len().min(message.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        message[..len].copy_from_slice(&text.as_bytes()[..len]);
        message
    }

    /// The error of the last refused reload; `None` if there is none.
    pub fn error(&self) -> Option<&str> {
        if self.refused_ns == 0 {
            return None;
        }
        let len = self.error.iter().position(|byte| *byte == 0);
        core::str::from_utf8(&self.error[..len.unwrap_or(self.error.len())]).ok()
    }
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
unsafe impl aya::Pod for InstanceInfo {}
