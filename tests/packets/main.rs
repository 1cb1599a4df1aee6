//! Single packets through the kernel half, by `BPF_PROG_TEST_RUN`: what goes in, what the program decides, and what
//! comes out, byte by byte.

mod bench;
mod blank;
mod clients;
mod echo;
mod errors;
mod events;
mod expiry;
mod fallback;
mod flows;
mod fragments;
mod frames;
mod hostile;
mod ipv6;
mod loading;
mod mtu;
mod next_hops;
mod outcomes;
mod pool;
mod ports;
mod sctp;
mod servers;
mod trace;
mod ttl;
