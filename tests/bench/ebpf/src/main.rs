//! The benchmarks' own kernel programs: three TC programs.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "each entry's macro generates an undocumented function"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "a verdict fits into the program's result"
)]

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::{bpf_redirect, bpf_skb_store_bytes},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// `ETH_P_IP` as `__sk_buff` has it, in network byte order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;

/// The longest beginning of a frame that [`replay`] restores.
const HEAD_LEN: usize = 128;

/// The number of packets that [`sink`] has taken.
#[btf_map]
pub static TAKEN: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The beginning of the frame that [`replay`] restores.
#[btf_map]
pub static HEAD: Array<[u8; HEAD_LEN], 1> = Array::new();

/// The program that [`replay`] calls.
#[btf_map]
pub static NEXT: ProgramArray<1> = ProgramArray::new();

/// The destination and source MAC address that [`wire`] writes; set by the loader.
#[unsafe(no_mangle)]
pub static MACS: Global<[u8; 12]> = Global::new([0; 12]);

/// The index of the interface on which [`wire`] sends; set by the loader.
#[unsafe(no_mangle)]
pub static OUT_IFINDEX: Global<u32> = Global::new(0);

/// The length of the frame's beginning that [`replay`] restores; set by the loader.
#[unsafe(no_mangle)]
pub static LEN: Global<u32> = Global::new(0);

/// The offset of the source port that [`replay`] increments, or 0 to leave it; set by the loader.
#[unsafe(no_mangle)]
pub static PORT_AT: Global<u32> = Global::new(0);

/// Counts IPv4 packets and drops them. Everything else (ARP) passes.
#[classifier]
pub fn sink(ctx: TcContext) -> i32 {
    if !is_ipv4(&ctx) {
        return TC_ACT_UNSPEC;
    }
    if let Some(taken) = TAKEN.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, and no other run of the program on this CPU interrupts this one.
        unsafe { *taken += 1 };
    }
    TC_ACT_SHOT
}

/// Sends IPv4 packets out of another interface with fixed MAC addresses and no other change: the minimum cost of a
/// redirect.
#[classifier]
pub fn wire(ctx: TcContext) -> i32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if !is_ipv4(&ctx) || start + size_of::<[u8; 12]>() > end {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the bounds were checked, and an array of bytes has no alignment.
    unsafe { *(start as *mut [u8; 12]) = MACS.load() };
    // SAFETY: the helper's arguments are numbers.
    unsafe { bpf_redirect(OUT_IFINDEX.load(), 0) as i32 }
}

/// Restores the beginning of the frame and runs the next program on it. One `BPF_PROG_TEST_RUN` can thus run a program
/// that changes its packet many times.
#[classifier]
pub fn replay(ctx: TcContext) -> i32 {
    let Some(head) = HEAD.get_ptr_mut(0) else {
        return TC_ACT_SHOT;
    };
    let port_at = PORT_AT.load() as usize;
    if port_at != 0 && port_at < HEAD_LEN - 10 {
        // SAFETY: nothing else uses the value, and the offset was checked.
        unsafe { count_up(head, port_at) };
    }
    let len = LEN.load();
    if len == 0 || len as usize > HEAD_LEN {
        return TC_ACT_SHOT;
    }
    // SAFETY: the packet belongs to the context, and the value is at least `len` bytes long.
    let stored = unsafe { bpf_skb_store_bytes(ctx.skb.skb, 0, head.cast(), len, 0) };
    if stored != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: no value must be dropped after this point.
    unsafe { NEXT.tail_call(&ctx, 0) };
    TC_ACT_UNSPEC
}

/// Turns a UDP datagram into one of the next flow: increments its source port and decrements the first word of its
/// payload, so that the checksum stays right.
///
/// # Safety
/// `at` and the ten bytes after it are within the frame's beginning.
#[inline(always)]
unsafe fn count_up(head: *mut [u8; HEAD_LEN], at: usize) {
    let head = head.cast::<u8>();
    for (place, step) in [(at, 1), (at + 8, u16::MAX)] {
        // SAFETY: guaranteed by the caller.
        let word = unsafe { head.add(place) }.cast::<[u8; 2]>();
        // SAFETY: guaranteed by the caller; bytes have no alignment.
        unsafe { *word = u16::from_be_bytes(*word).wrapping_add(step).to_be_bytes() };
    }
}

#[inline(always)]
fn is_ipv4(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid while the program runs; the verifier checks the field.
    unsafe { (*ctx.skb.skb).protocol == IPV4 }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program in which this is reachable.
    loop {}
}

// SAFETY: only the kernel's loader reads the symbol, and no other symbol has its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
