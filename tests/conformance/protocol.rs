//! Protocol numbers (IANA), and the flags of TCP.

use egress_tests::Protocol;

/// ICMP of IPv4.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = Protocol::Tcp.number();
/// UDP.
pub const UDP: u8 = Protocol::Udp.number();
/// ICMP of IPv6.
pub const ICMPV6: u8 = 58;
/// SCTP.
pub const SCTP: u8 = Protocol::Sctp.number();

/// IPv6's hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// IPv6's routing header.
pub const ROUTING: u8 = 43;
/// IPv6's fragment header.
pub const FRAGMENT: u8 = 44;
/// IPv6's destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// TCP's flag FIN.
pub const FIN: u8 = 0x01;
/// TCP's flag SYN.
pub const SYN: u8 = 0x02;
/// TCP's flag RST.
pub const RST: u8 = 0x04;
/// TCP's flag PSH.
pub const PSH: u8 = 0x08;
/// TCP's flag ACK.
pub const ACK: u8 = 0x10;
