//! The record of an instance: whose dataplane this is, of which version its maps are, and what its process keeps there.

use core::mem::offset_of;

use bytemuck::{Pod, Zeroable};

/// The version of every layout that two programs may share: of pinned maps and of ring buffers' records. A program uses
/// only maps of its own version.
///
/// `layouts.txt` holds it next to the layouts. A test compares that file with the object
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

/// Whose dataplane it is, and of which version: the first 32 bytes of the map `INSTANCE`, and before version 7 of `CONFIG`.
///
/// No version changes this layout, so that every program can name a dataplane that it cannot use.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Identity {
    /// [`LAYOUT_VERSION`] of the program that filled the maps; 0 while they are not filled, or not used any more.
    pub layout_version: u32,
    /// Index of the cluster interface (`eth0`) in the router's network namespace.
    pub cluster_ifindex: u32,
    /// Index of the egress interface (`net1`) in the router's network namespace.
    pub egress_ifindex: u32,
    /// Process that runs the router, in its own PID namespace; 0 for none.
    pub pid: u32,
    /// Inode of the router's network namespace (`stat /proc/self/ns/net`), which tells routers on one node apart.
    pub netns_inode: u64,
    /// When the dataplane was started: `CLOCK_MONOTONIC` in nanoseconds. Of two on the same interfaces, the later one has
    /// replaced the other.
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

/// What processes read and packets do not: the only value of the array `INSTANCE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct InstanceInfo {
    /// Whose dataplane it is. It stays first.
    pub identity: Identity,
    /// How many flows the table of a family holds at most.
    pub max_flows: u32,
    /// 1 where the kernel half ends idle flows by itself; 0 where userspace does.
    pub kernel_expiry: u32,
    /// How often the process has numbered the next hops anew.
    pub next_hop_generation: u32,
    /// Explicit padding.
    pub padding: u32,
    /// How changes of the spec went.
    pub reloads: Reloads,
}

const _: () = assert!(offset_of!(InstanceInfo, identity) == 0);

/// How changes of the spec of a running router went.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Reloads {
    /// How many were applied.
    pub applied: u32,
    /// How many were refused.
    pub refused: u32,
    /// When the rules in force were put there: `CLOCK_MONOTONIC` in nanoseconds.
    pub applied_ns: u64,
    /// When the last one was refused, if none was applied since: `CLOCK_MONOTONIC` in nanoseconds, else 0.
    pub refused_ns: u64,
    /// Why it was refused: UTF-8, as much as fits, filled up with zeros.
    pub error: [u8; 512],
}

impl Reloads {
    /// As much of a message as fits, at the end of a character.
    pub fn message(text: &str) -> [u8; 512] {
        let mut message = [0; 512];
        let mut len = text.len().min(message.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        message[..len].copy_from_slice(&text.as_bytes()[..len]);
        message
    }

    /// Why the last one was refused; `None` if it was not.
    pub fn error(&self) -> Option<&str> {
        if self.refused_ns == 0 {
            return None;
        }
        let len = self.error.iter().position(|byte| *byte == 0);
        core::str::from_utf8(&self.error[..len.unwrap_or(self.error.len())]).ok()
    }
}

#[cfg(feature = "user")]
// SAFETY: `bytemuck::Pod` asks for more than aya's.
unsafe impl aya::Pod for InstanceInfo {}
