//! The known differences, each with its reason.
//!
//! `docs/conformance.md` has a row for each, which says what both routers do and why.

use crate::compare::Case;
use crate::layout::{Layout, set_word, word};
use crate::protocol::{ACK, RST, SYN};
use crate::recipe::{Body, Damage, Extension, Recipe};
use crate::script::Service;
use crate::wire::{CLUSTER_MTU, Side};
use crate::{canonical, checksum};

/// A class of differences.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The class's name, here and in `docs/conformance.md`.
    pub name: &'static str,
    /// Why the difference exists.
    pub reason: Reason,
    explains: fn(&Case<'_>) -> bool,
}

/// Why a difference exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is intended.
    OnPurpose,
    /// It will be removed.
    NotYet,
}

impl Reason {
    /// The reason as written in `docs/conformance.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnPurpose => "on purpose",
            Self::NotYet => "not yet",
        }
    }
}

const fn on_purpose(name: &'static str, explains: fn(&Case<'_>) -> bool) -> Known {
    Known {
        name,
        reason: Reason::OnPurpose,
        explains,
    }
}

const fn not_yet(name: &'static str, explains: fn(&Case<'_>) -> bool) -> Known {
    Known {
        name,
        reason: Reason::NotYet,
        explains,
    }
}

/// All classes. The first that explains a difference counts.
pub const KNOWN: &[Known] = &[
    on_purpose("segment_size", segment_size),
    on_purpose("own_errors", own_errors),
    not_yet("too_big_without_df", too_big_without_df),
    on_purpose("ip_options", ip_options),
    on_purpose("header_checksum", header_checksum),
    on_purpose("trailer", trailer),
    on_purpose("atomic_fragment", atomic_fragment),
    on_purpose("many_extension_headers", many_extension_headers),
    on_purpose("source_routes", source_routes),
    on_purpose("other_protocols", other_protocols),
    on_purpose("no_transit", no_transit),
    on_purpose("opened_from_outside", opened_from_outside),
    on_purpose("reserved_address_inside", reserved_address_inside),
    on_purpose("tcp_tracking", tcp_tracking),
    on_purpose("refused_connection", refused_connection),
    on_purpose("sctp_tracking", sctp_tracking),
    on_purpose("sctp_openings", sctp_openings),
    on_purpose("sctp_refused", sctp_refused),
    on_purpose("sctp_checksum", sctp_checksum),
    on_purpose("damaged_transport", damaged_transport),
    on_purpose("malformed", malformed),
    on_purpose("echo_code", echo_code),
    on_purpose("icmp_queries", icmp_queries),
    on_purpose("icmp_error_checksum", icmp_error_checksum),
    on_purpose("icmp_error_short", icmp_error_short),
    on_purpose("inner_checksum", inner_checksum),
    on_purpose("incomplete_fragments", incomplete_fragments),
    on_purpose("many_early_fragments", many_early_fragments),
    not_yet("sctp_fragments", sctp_fragments),
];

/// The class that explains a difference, if any.
pub fn explain(case: &Case<'_>) -> Option<&'static Known> {
    if case.breach().is_some() {
        return None;
    }
    KNOWN.iter().find(|known| (known.explains)(case))
}

/// Whether conntrack finds the packet invalid, and so leaves it untranslated for the pod, while ours translates it.
fn is_invalid_to_the_kernel_only(case: &Case<'_>) -> bool {
    case.outcome.invalid && case.ours().is_forwarded() && case.kernels().crossed == 0
}

fn is_tcp(case: &Case<'_>) -> bool {
    matches!(case.event.recipe.body, Body::Tcp { .. })
}

fn is_sctp(case: &Case<'_>) -> bool {
    matches!(case.event.recipe.body, Body::Sctp { .. })
}

fn is_error(case: &Case<'_>) -> bool {
    matches!(case.event.recipe.body, Body::Error { .. })
}

fn has_damage(case: &Case<'_>, wanted: fn(&Damage) -> bool) -> bool {
    case.event.recipe.damage.iter().any(wanted)
}

fn is_whole_and_sound(case: &Case<'_>) -> bool {
    !has_damage(case, |damage| !matches!(damage, Damage::Checksum(_)))
}

fn segment_size(case: &Case<'_>) -> bool {
    let Body::Tcp { flags, .. } = case.event.recipe.body else {
        return false;
    };
    let largest = usize::from(CLUSTER_MTU) - case.script.family.header_len() - 20;
    flags & SYN != 0
        && !case.parts_ways()
        && case.pairs().all(|(ours, kernels)| {
            let (Some(ours), Some(kernels)) = (without_size(ours), without_size(kernels)) else {
                return false;
            };
            ours.1 == kernels.1
                && usize::from(ours.0) == largest
                && usize::from(kernels.0) > largest
        })
}

/// The segment size that a segment offers, and the packet without that size.
fn without_size(packet: &[u8]) -> Option<(u16, Vec<u8>)> {
    const SIZE_OPTION: [u8; 2] = [2, 4];
    let layout = Layout::of(packet)?;
    let options = layout.payload + 20;
    let option = (options..packet.len().checked_sub(3)?)
        .find(|at| packet[*at..].starts_with(&SIZE_OPTION))?;
    let size = word(packet, option + 2)?;
    let mut packet = packet.to_vec();
    set_word(&mut packet, option + 2, 0);
    // At an odd offset, the bytes of the size lie in two words, and the checksum adds them swapped.
    let counted = if (option - layout.payload) % 2 == 0 {
        size
    } else {
        size.swap_bytes()
    };
    let sum = word(&packet, layout.payload + 16)?;
    set_word(
        &mut packet,
        layout.payload + 16,
        checksum::follow(sum, counted, 0),
    );
    Some((size, packet))
}

fn own_errors(case: &Case<'_>) -> bool {
    const MAY_DIFFER: &[&str] = &[
        "tos",
        "length",
        "header checksum",
        "checksum",
        "inner data",
        "inner tcp options",
    ];
    case.ours().is_answered()
        && case.only_changes(MAY_DIFFER)
        && case
            .pairs()
            .all(|(ours, kernels)| match (quoted(ours), quoted(kernels)) {
                (Some(ours), Some(kernels)) => kernels.starts_with(ours),
                _ => false,
            })
}

/// The packet that an ICMP error quotes.
fn quoted(packet: &[u8]) -> Option<&[u8]> {
    let layout = Layout::of(packet)?;
    let is_error = layout.is_error(*packet.get(layout.payload)?);
    is_error.then(|| packet.get(layout.payload + 8..)).flatten()
}

fn too_big_without_df(case: &Case<'_>) -> bool {
    !case.event.recipe.df
        && case.event.what == "around the mtu"
        && case.ours().is_answered()
        && case.kernels().is_forwarded()
}

fn ip_options(case: &Case<'_>) -> bool {
    let has_options = !case.event.recipe.options.is_empty()
        || has_damage(case, |damage| matches!(damage, Damage::HeaderLength(6..)));
    has_options
        && (case.only_changes(&["header checksum", "options", "checksum", "inner options"])
            || case.ours().is_forwarded() && case.kernels().crossed == 0)
}

fn header_checksum(case: &Case<'_>) -> bool {
    has_damage(case, |damage| matches!(damage, Damage::HeaderChecksum(_)))
        && case.ours().is_forwarded()
        && case.kernels().is_nothing()
}

fn trailer(case: &Case<'_>) -> bool {
    has_damage(case, |damage| {
        matches!(damage, Damage::Trailer(_) | Damage::Length(..0))
    }) && case.only_changes(&["data"])
}

fn atomic_fragment(case: &Case<'_>) -> bool {
    const MAY_DIFFER: &[&str] = &[
        "length",
        "next header",
        "options",
        "checksum",
        "inner length",
        "inner next header",
        "inner options",
        "inner data",
    ];
    case.event
        .recipe
        .extensions
        .contains(&Extension::AtomicFragment)
        && (case.only_changes(MAY_DIFFER) || is_for_the_pod(case))
}

/// Whether a packet goes to a port without a rule, in a lab without a fallback.
fn is_for_the_pod(case: &Case<'_>) -> bool {
    matches!(
        case.script.flows[case.event.flow].service,
        Service::Port(..)
    ) && case.ours().crossed == 0
        && case.kernels().crossed == 0
}

fn many_extension_headers(case: &Case<'_>) -> bool {
    case.event.recipe.extensions.len() > 5
        && case.ours().crossed == 0
        && case.kernels().is_forwarded()
}

fn source_routes(case: &Case<'_>) -> bool {
    let is_to_go_on = |extension: &Extension| matches!(extension, Extension::Routing(1..));
    case.event.recipe.extensions.iter().any(is_to_go_on)
        && case.ours().crossed == 0
        && case.kernels().is_forwarded()
}

fn other_protocols(case: &Case<'_>) -> bool {
    matches!(case.event.recipe.body, Body::Other { .. }) && case.ours().crossed == 0
}

fn no_transit(case: &Case<'_>) -> bool {
    let network = case.script.family.network();
    let own = [network.router_net1.address, network.router_eth0.address];
    let is_foreign = |destination| {
        let side_of_own = match case.event.side {
            Side::Cluster => own[1],
            Side::Outside => own[0],
        };
        destination != side_of_own
            && !(case.event.side == Side::Cluster && own.contains(&destination))
    };
    case.event.recipe.twist.destination.is_some_and(is_foreign) && case.ours().is_nothing()
}

fn opened_from_outside(case: &Case<'_>) -> bool {
    let Body::Tcp { flags, .. } = case.event.recipe.body else {
        return false;
    };
    let may_open = flags & (SYN | ACK) == SYN || !case.event.recipe.fragments.is_empty();
    case.event.side == Side::Outside
        && may_open
        && case.ours().is_nothing()
        && case.kernels().is_answered()
}

fn reserved_address_inside(case: &Case<'_>) -> bool {
    let reserved = case.script.family.network().router_net1.address;
    case.event.side == Side::Cluster
        && case.event.recipe.twist.destination == Some(reserved)
        && case.ours().crossed == 0
}

fn tcp_tracking(case: &Case<'_>) -> bool {
    is_tcp(case) && is_whole_and_sound(case) && is_invalid_to_the_kernel_only(case)
}

fn refused_connection(case: &Case<'_>) -> bool {
    let was_reset = case
        .earlier()
        .any(|event| matches!(event.recipe.body, Body::Tcp { flags, .. } if flags & RST != 0));
    was_reset
        && !case.outcome.invalid
        && (is_tcp(case) || is_error(case))
        && case.ours().is_forwarded()
        && case.kernels().crossed == 0
}

fn sctp_tracking(case: &Case<'_>) -> bool {
    is_sctp(case) && is_whole_and_sound(case) && is_invalid_to_the_kernel_only(case)
}

fn sctp_openings(case: &Case<'_>) -> bool {
    // INIT, and chunks from the middle of an association: DATA, SACK, HEARTBEAT, COOKIE ECHO.
    const OPENINGS: [u8; 5] = [1, 0, 3, 4, 10];
    let Body::Sctp { chunks, .. } = &case.event.recipe.body else {
        return false;
    };
    chunks
        .first()
        .is_some_and(|chunk| !OPENINGS.contains(chunk))
        && case.ours().crossed == 0
        && case.kernels().is_forwarded()
}

fn many_early_fragments(case: &Case<'_>) -> bool {
    const HELD: usize = 8;
    case.event.what == "fragments in reverse" && case.event.recipe.fragments.len() > HELD + 1
}

fn sctp_refused(case: &Case<'_>) -> bool {
    const INIT: u8 = 1;
    let Body::Sctp { chunks, .. } = &case.event.recipe.body else {
        return false;
    };
    chunks.first() == Some(&INIT)
        && is_for_the_pod(case)
        && case.ours().is_answered()
        && case.kernels().is_answered()
}

fn sctp_checksum(case: &Case<'_>) -> bool {
    let [damage] = case.event.recipe.damage[..] else {
        return false;
    };
    let residue = |packet: &[u8]| {
        let layout = Layout::of(packet)?;
        canonical::crc_residue(&packet[layout.payload..])
    };
    let is_as_wrong_as_before = |ours: &[u8]| match damage {
        Damage::Checksum(by) => {
            let [high, low] = by.to_be_bytes();
            residue(ours) == Some([high, low, 0, 0])
        }
        _ => residue(ours) != Some([0; 4]),
    };
    is_sctp(case)
        && case.only_changes(&["checksum"])
        && case
            .pairs()
            .all(|(ours, kernels)| is_as_wrong_as_before(ours) && residue(kernels) == Some([0; 4]))
}

fn damaged_transport(case: &Case<'_>) -> bool {
    !is_whole_and_sound(case) && is_invalid_to_the_kernel_only(case)
}

fn malformed(case: &Case<'_>) -> bool {
    !is_whole_and_sound(case) && case.ours().is_nothing() && case.kernels().is_answered()
}

fn echo_code(case: &Case<'_>) -> bool {
    matches!(case.event.recipe.body, Body::Echo { kind: [_, code], .. } if code > 0)
        && is_invalid_to_the_kernel_only(case)
}

fn icmp_queries(case: &Case<'_>) -> bool {
    case.event.what == "other icmp" && case.ours().crossed == 0
}

fn icmp_error_checksum(case: &Case<'_>) -> bool {
    is_error(case)
        && has_damage(case, |damage| matches!(damage, Damage::Checksum(_)))
        && case.ours().is_forwarded()
        && case.kernels().is_nothing()
}

fn icmp_error_short(case: &Case<'_>) -> bool {
    let Body::Error { about, quoted, .. } = &case.event.recipe.body else {
        return false;
    };
    let headers = headers_inside(case, about);
    *quoted < headers + 8 && case.ours().is_forwarded() && case.kernels().is_nothing()
}

fn inner_checksum(case: &Case<'_>) -> bool {
    const TCP_HEADER_LEN: usize = 20;
    let Body::Error { about, quoted, .. } = &case.event.recipe.body else {
        return false;
    };
    let is_cut_off = *quoted < headers_inside(case, about) + TCP_HEADER_LEN;
    let may_differ = match about.body {
        Body::Tcp { .. } => is_cut_off,
        Body::Sctp { .. } => true,
        _ => false,
    };
    may_differ && case.only_changes(&["checksum", "inner checksum"])
}

/// The length of the headers before the transport in a packet quoted by an error.
fn headers_inside(case: &Case<'_>, about: &Recipe) -> usize {
    case.script.family.header_len() + about.options.len() + about.extensions.len() * 8
}

fn incomplete_fragments(case: &Case<'_>) -> bool {
    const KINDS: [&str; 4] = [
        "fragments without the last",
        "overlapping fragments",
        "fragments over the header",
        "a tiny first fragment",
    ];
    KINDS.contains(&case.event.what) && case.kernels().crossed == 0
}

fn sctp_fragments(case: &Case<'_>) -> bool {
    is_sctp(case)
        && !case.event.recipe.fragments.is_empty()
        && case.ours().answered == 0
        && case.kernels().is_forwarded()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = include_str!("../../docs/conformance.md");

    #[test]
    fn the_documented_differences_are_those_that_the_comparison_knows() {
        let documented: Vec<_> = DOCUMENT
            .lines()
            .filter_map(|line| {
                let (name, cells) = line.strip_prefix("| `")?.split_once("` | ")?;
                Some((name, cells.split(" | ").next()?))
            })
            .collect();
        let known: Vec<_> = KNOWN
            .iter()
            .map(|known| (known.name, known.reason.name()))
            .collect();
        assert_eq!(documented, known);
    }
}
