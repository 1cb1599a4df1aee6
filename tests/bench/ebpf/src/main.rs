//! What the benchmarks put into the kernel beside the router: three TC programs.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the macro of each entry makes a function that has no documentation"
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

/// The largest beginning of a frame that [`replay`] restores.
const HEAD_LEN: usize = 128;

/// Packets that [`sink`] has taken.
#[btf_map]
pub static TAKEN: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The beginning of the frame that [`replay`] restores.
#[btf_map]
pub static HEAD: Array<[u8; HEAD_LEN], 1> = Array::new();

/// The program that [`replay`] goes on to.
#[btf_map]
pub static NEXT: ProgramArray<1> = ProgramArray::new();

/// Destination and source MAC address that [`wire`] writes; set by the loader.
#[unsafe(no_mangle)]
pub static MACS: Global<[u8; 12]> = Global::new([0; 12]);

/// Index of the interface that [`wire`] sends by; set by the loader.
#[unsafe(no_mangle)]
pub static OUT_IFINDEX: Global<u32> = Global::new(0);

/// How much of the frame [`replay`] restores; set by the loader.
#[unsafe(no_mangle)]
pub static LEN: Global<u32> = Global::new(0);

/// Where the source port is that [`replay`] counts up, or 0 to leave it; set by the loader.
#[unsafe(no_mangle)]
pub static PORT_AT: Global<u32> = Global::new(0);

/// Counts IPv4 packets and drops them. Everything else (ARP) goes on.
#[classifier]
pub fn sink(ctx: TcContext) -> i32 {
    if !is_ipv4(&ctx) {
        return TC_ACT_UNSPEC;
    }
    if let Some(taken) = TAKEN.get_ptr_mut(0) {
        // SAFETY: the value belongs to this CPU, and nothing interrupts the program on it that writes there.
        unsafe { *taken += 1 };
    }
    TC_ACT_SHOT
}

/// Sends IPv4 packets out of another interface with fixed MAC addresses and nothing else changed: what a redirect costs
/// at the least.
#[classifier]
pub fn wire(ctx: TcContext) -> i32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    if !is_ipv4(&ctx) || start + size_of::<[u8; 12]>() > end {
        return TC_ACT_UNSPEC;
    }
    // SAFETY: the bounds were checked, and an array of bytes has no alignment.
    unsafe { *(start as *mut [u8; 12]) = MACS.load() };
    // SAFETY: the helper takes numbers only.
    unsafe { bpf_redirect(OUT_IFINDEX.load(), 0) as i32 }
}

/// Restores the beginning of the frame and runs the next program on it, so that a program that changes its packet can be
/// run again and again by one `BPF_PROG_TEST_RUN`.
#[classifier]
pub fn replay(ctx: TcContext) -> i32 {
    let Some(head) = HEAD.get_ptr_mut(0) else {
        return TC_ACT_SHOT;
    };
    let port_at = PORT_AT.load() as usize;
    if port_at != 0 && port_at < HEAD_LEN - 10 {
        // SAFETY: the value is the only user's, and the place was checked.
        unsafe { count_up(head, port_at) };
    }
    let len = LEN.load();
    if len == 0 || len as usize > HEAD_LEN {
        return TC_ACT_SHOT;
    }
    // SAFETY: the packet is the context's, and the value is at least `len` bytes long.
    let stored = unsafe { bpf_skb_store_bytes(ctx.skb.skb, 0, head.cast(), len, 0) };
    if stored != 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: nothing is left to be dropped here.
    unsafe { NEXT.tail_call(&ctx, 0) };
    TC_ACT_UNSPEC
}

/// Makes the next flow of a UDP datagram: its source port goes up by one, and the first word of its payload down, so
/// that the checksum stays right.
///
/// # Safety
/// `at` and the ten bytes behind it are in the frame's beginning.
#[inline(always)]
unsafe fn count_up(head: *mut [u8; HEAD_LEN], at: usize) {
    let head = head.cast::<u8>();
    for (place, step) in [(at, 1), (at + 8, u16::MAX)] {
        // SAFETY: as promised.
        let word = unsafe { head.add(place) }.cast::<[u8; 2]>();
        // SAFETY: as promised; bytes have no alignment.
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
    // The verifier refuses a program in which this can be reached.
    loop {}
}

// SAFETY: the symbol is only read by the kernel's loader, and nothing else has its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
