//! ICMP errors about packets of flows. Each quotes the beginning of the packet.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Outcome,
    Side::{self, Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;
use etherparse::IpNumber;

use crate::{
    bench::{Bench, FAMILIES, FORWARD, Family, V4, V6},
    frames::{Endpoint, Frame, Message, Transport, assert_same, endpoints, icmp, tcp, udp},
};

/// The part of the transport header that every error quotes (RFC 792).
const LEAST: usize = 8;

const fn message(kind: u8, code: u8, rest: [u8; 4]) -> Message {
    Message { kind, code, rest }
}

/// Every error of the family, with every code that is defined (RFC 792, RFC 1122, RFC 1812; RFC 4443).
fn messages(family: &Family) -> Vec<Message> {
    let with_codes = |kind, codes| (0..=codes).map(move |code| message(kind, code, [0; 4]));
    // The pointer is at octet 20 or 40 of the packet; the MTUs are 1400 and 1280.
    if family.client.is_ipv4() {
        with_codes(3, 15)
            .chain(with_codes(4, 0))
            .chain(with_codes(11, 1))
            .chain((0..=2).map(|code| message(12, code, [20, 0, 0, 0])))
            .chain([message(3, 4, [0, 0, 5, 120])])
            .collect()
    } else {
        with_codes(1, 8)
            .chain(with_codes(3, 1))
            .chain((0..=3).map(|code| message(4, code, [0, 0, 0, 40])))
            .chain([message(2, 0, [0, 0, 5, 0])])
            .collect()
    }
}

fn unreachable(family: &Family) -> Message {
    message(if family.client.is_ipv4() { 3 } else { 1 }, 1, [0; 4])
}

/// A packet that causes an error.
#[derive(Debug)]
struct Cause {
    /// The side from which the error comes.
    side: Side,
    /// The packet as it left on that side.
    out: Frame,
    /// The packet as its sender, on the other side, knows it.
    sent: Frame,
}

impl Cause {
    /// The packet up to `len` bytes of its transport header and payload: as it left, and as its sender knows it.
    fn beginnings(&self, len: usize) -> [Vec<u8>; 2] {
        [&self.out, &self.sent].map(|frame| {
            let packet = frame.packet();
            let header_len = packet.len() - self.transport_len();
            packet[..header_len + len].to_vec()
        })
    }

    /// Length of the transport header and its payload.
    fn transport_len(&self) -> usize {
        self.out.bytes().len() - self.out.transport_offset()
    }

    /// The error from a host on the path, which quotes `len` bytes of the transport; and what must become of it.
    fn error(&self, family: &Family, message: Message, len: usize) -> [Frame; 2] {
        let [out, sent] = self.beginnings(len);
        let arrives = icmp(family.outsider, self.out.source.0, message, &out);
        let leaves = icmp(self.sent.destination.0, self.sent.source.0, message, &sent);
        [arrives, leaves.ttl(63)]
    }
}

/// Opens a flow of each protocol. Returns a packet of each direction of each flow.
fn causes(bench: &mut Bench, family: &Family) -> Result<Vec<Cause>> {
    let openings = family.openings().to_vec();
    causes_of(bench, openings)
}

fn causes_of(bench: &mut Bench, openings: Vec<(Frame, Transport)>) -> Result<Vec<Cause>> {
    let mut causes = Vec::new();
    for (request, answer) in openings {
        let (reserved, server) = endpoints(&bench.forward(Cluster, &request.bytes())?)?;
        let (client, service) = (request.source, request.destination);
        let answer = request.answer(answer, b"an answer");
        causes.push(Cause {
            side: Egress,
            out: request.between(reserved, server).ttl(1),
            sent: request.ttl(1),
        });
        causes.push(Cause {
            side: Cluster,
            out: answer.between(service, client).ttl(1),
            sent: answer.between(server, reserved).ttl(1),
        });
    }
    Ok(causes)
}

/// Checks that the error is translated as expected.
fn assert_translated(
    bench: &mut Bench,
    cause: &Cause,
    [arrives, leaves]: &[Frame; 2],
) -> Result<()> {
    let out = bench
        .forward(cause.side, &arrives.bytes())
        .with_context(|| format!("{arrives:?} about {cause:?}"))?;
    assert_same(&out, leaves).with_context(|| format!("{:?} about {cause:?}", arrives.transport))
}

#[test]
fn every_error_reaches_the_sender_as_one_about_the_packet_that_it_has_sent() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            for message in messages(family) {
                let error = cause.error(family, message, LEAST);
                assert_translated(&mut bench, &cause, &error)?;
                let error = cause.error(family, message, cause.transport_len());
                assert_translated(&mut bench, &cause, &error)?;
            }
        }
    }
    Ok(())
}

#[test]
fn the_packet_inside_may_be_cut_anywhere_behind_its_ports() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let shortest = match cause.out.transport {
                // The identifier is in the second word.
                Transport::EchoRequest | Transport::EchoReply => 8,
                _ => 4,
            };
            // A checksum that is quoted in part stays unchanged, because nobody can check it.
            let in_checksum = match cause.out.transport {
                Transport::Tcp(_) => 17..18,
                Transport::Udp => 7..8,
                Transport::Sctp => 9..12,
                _ => 0..0,
            };
            for len in (shortest..=cause.transport_len()).filter(|len| !in_checksum.contains(len)) {
                let error = cause.error(family, unreachable(family), len);
                assert_translated(&mut bench, &cause, &error)
                    .with_context(|| format!("{len} bytes of the transport"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_packet_cut_before_its_ports_ends_names_no_flow() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let [arrives, _] = cause.error(family, unreachable(family), 3);
            let outcome = match cause.side {
                Cluster => Outcome::NoRule,
                Egress => Outcome::EgressOwn,
            };
            bench.refuse(cause.side, &arrives.bytes(), outcome)?;
        }
    }
    Ok(())
}

#[test]
fn an_error_with_a_packet_cut_in_its_ip_header_is_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        let header_len = if family.client.is_ipv4() { 20 } else { 40 };
        for cause in causes(&mut bench, family)? {
            let [mut arrives, _] = cause.error(family, unreachable(family), 0);
            for len in 0..header_len {
                arrives.payload.truncate(header_len - 1 - len);
                bench.refuse(cause.side, &arrives.bytes(), Outcome::Truncated)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_follows_the_packet_inside_stays() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let [mut arrives, mut leaves] =
                cause.error(family, unreachable(family), cause.transport_len());
            for frame in [&mut arrives, &mut leaves] {
                // Padded to 128 bytes and followed by an empty extension structure (RFC 4884).
                frame.payload.resize(128, 0);
                frame.payload.extend([0x20, 0, 0xdf, 0xff]);
            }
            assert_translated(&mut bench, &cause, &[arrives, leaves])?;
        }
    }
    Ok(())
}

#[test]
fn ip_options_inside_and_outside_stay() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for words in [1, 2, 9, 10] {
        let options = vec![1; words * 4];
        let openings = V4
            .openings()
            .map(|(request, answer)| (request.ip_options(&options), answer));
        for cause in causes_of(&mut bench, openings.to_vec())? {
            for len in [LEAST, cause.transport_len()] {
                let error = cause.error(&V4, unreachable(&V4), len);
                let with_options = error.clone().map(|frame| frame.ip_options(&options));
                assert_translated(&mut bench, &cause, &error)?;
                assert_translated(&mut bench, &cause, &with_options)?;
            }
        }
    }
    Ok(())
}

#[test]
fn extension_headers_inside_and_outside_stay() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    const PADDING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    let chain = &[
        (IpNumber::IPV6_HEADER_HOP_BY_HOP, PADDING),
        (IpNumber::IPV6_DESTINATION_OPTIONS, PADDING),
    ];
    let openings = V6
        .openings()
        .map(|(request, answer)| (request.extensions(chain), answer));
    for cause in causes_of(&mut bench, openings.to_vec())? {
        for len in [LEAST, cause.transport_len()] {
            let error = cause.error(&V6, unreachable(&V6), len);
            let with_extensions = error.clone().map(|frame| frame.extensions(chain));
            assert_translated(&mut bench, &cause, &error)?;
            assert_translated(&mut bench, &cause, &with_extensions)?;
        }
    }
    Ok(())
}

#[test]
fn a_quoted_datagram_whose_checksum_would_be_0_gets_0xffff() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, service) = ((family.client, 40_000), (family.router, 80));
        // As sent by the client, the sum is 0.
        let sent = udp(client, service, b"").with_checksum_0();
        for cause in causes_of(&mut bench, vec![(sent, Transport::Udp)])? {
            let error = cause.error(family, unreachable(family), cause.transport_len());
            assert_translated(&mut bench, &cause, &error)?;
        }
    }
    Ok(())
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let error = cause.error(family, unreachable(family), LEAST);
            let [arrives, expected] = error.map(|frame| {
                let mut bytes = frame.bytes();
                // The code.
                bytes[frame.transport_offset() + 1] ^= 1;
                bytes
            });
            let out = bench.forward(cause.side, &arrives)?;
            ensure!(
                out == expected,
                "the receiver would not notice the damage: {cause:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_error_is_no_traffic_of_its_flow() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        let causes = causes(&mut bench, family)?;
        let seen = |bench: &Bench| -> Vec<_> {
            let flows = bench.flows().into_iter();
            flows
                .map(|flow| {
                    (
                        flow.client,
                        flow.router,
                        flow.state,
                        flow.original,
                        flow.reply,
                    )
                })
                .collect()
        };
        let before = seen(&bench);
        for cause in causes {
            let [arrives, _] = cause.error(family, unreachable(family), LEAST);
            bench.forward(cause.side, &arrives.bytes())?;
        }
        ensure!(seen(&bench) == before);
    }
    Ok(())
}

#[test]
fn an_error_about_no_flow_is_dropped_where_its_port_is_one_of_flows() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        causes(&mut bench, family)?;
        let server = (family.web, 80);
        for (port, outcome) in [
            (1024, Outcome::UnrelatedIcmpError),
            (32_767, Outcome::UnrelatedIcmpError),
            (61_000, Outcome::UnrelatedIcmpError),
            (65_535, Outcome::UnrelatedIcmpError),
            // A port of the pod's own connections.
            (32_768, Outcome::EgressOwn),
            (60_999, Outcome::EgressOwn),
            (1023, Outcome::EgressOwn),
        ] {
            let reserved = (family.reserved, port);
            for inside in [
                tcp(reserved, server, "S"),
                udp(reserved, server, b""),
                tcp(reserved, server, "").transport(Transport::Sctp),
            ] {
                let error = icmp(
                    family.outsider,
                    family.reserved,
                    unreachable(family),
                    &inside.packet(),
                );
                bench.refuse(Egress, &error.bytes(), outcome)?;
            }
            // The pod's own pings may have any identifier.
            let ping = tcp(reserved, server, "").transport(Transport::EchoRequest);
            let error = icmp(
                family.outsider,
                family.reserved,
                unreachable(family),
                &ping.packet(),
            );
            bench.refuse(Egress, &error.bytes(), Outcome::EgressOwn)?;
        }
        // On eth0: an error about a packet that the pod itself sent there.
        let inside = tcp((family.router, 9090), (family.client, 2000), "SA");
        let error = icmp(
            family.outsider,
            family.router,
            unreachable(family),
            &inside.packet(),
        );
        bench.refuse(Cluster, &error.bytes(), Outcome::NoRule)?;
    }
    Ok(())
}

#[test]
fn an_error_that_almost_matches_its_flow_is_not_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let (source, destination) = (cause.out.source, cause.out.destination);
            // No flow has this port on either side.
            let other_port = |(address, _): Endpoint| (address, 33_000);
            let mut forged = vec![
                // In the wrong direction, and as the other side knows it.
                cause.out.between(destination, source),
                cause.sent.clone(),
                cause.out.between(source, (family.outsider, destination.1)),
                cause.out.between((family.outsider, source.1), destination),
            ];
            if !matches!(
                cause.out.transport,
                Transport::EchoRequest | Transport::EchoReply
            ) {
                forged.push(cause.out.between(source, other_port(destination)));
                forged.push(cause.out.between(other_port(source), destination));
            }
            for inside in forged {
                let to = match cause.side {
                    Cluster => family.router,
                    Egress => family.reserved,
                };
                let error = icmp(family.outsider, to, unreachable(family), &inside.packet());
                let ran = bench.run(cause.side, &error.bytes())?;
                ensure!(
                    ran.verdict != FORWARD && ran.frame == error.bytes(),
                    "an error about {inside:?} was taken for one about {:?}",
                    cause.out
                );
            }
        }
    }
    Ok(())
}

/// An error goes to the sender of the quoted packet; an error to another address is forged.
#[test]
fn an_error_for_another_address_than_the_senders_is_not_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for cause in causes(&mut bench, family)? {
            let [inside, _] = cause.beginnings(LEAST);
            let (others, outcome) = match cause.side {
                Egress => ([family.router, family.client], Outcome::NotForEgress),
                Cluster => ([family.reserved, family.web], Outcome::NotForRouter),
            };
            for other in others {
                let error = icmp(family.outsider, other, unreachable(family), &inside);
                bench.refuse(cause.side, &error.bytes(), outcome)?;
            }
        }
    }
    Ok(())
}

#[test]
fn messages_that_tell_hosts_of_routes_and_errors_about_errors_are_left_to_the_stack() -> Result<()>
{
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        let redirect = message(if family.client.is_ipv4() { 5 } else { 137 }, 0, [0; 4]);
        for cause in causes(&mut bench, family)? {
            let [error, _] = cause.error(family, unreachable(family), LEAST);
            let [redirect, _] = cause.error(family, redirect, LEAST);
            let about_error = icmp(
                family.outsider,
                cause.out.source.0,
                unreachable(family),
                &error
                    .between((cause.out.source.0, 0), (family.outsider, 0))
                    .packet(),
            );
            let [redirected, erred] = match cause.side {
                Cluster => [Outcome::OtherProtocol, Outcome::NoRule],
                Egress => [Outcome::EgressOwn; 2],
            };
            bench.refuse(cause.side, &redirect.bytes(), redirected)?;
            bench.refuse(cause.side, &about_error.bytes(), erred)?;
        }
    }
    Ok(())
}
