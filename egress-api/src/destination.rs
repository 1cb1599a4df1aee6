//! The destinations of rules and of the fallback.

use std::net::IpAddr;

use crate::address::{OwnAddresses, broadcast};
use crate::family::Family;
use crate::ip::{self, unusable};
use crate::reader::{Located, Reader};

/// Reads a destination.
///
/// An unusable address is an error, but is returned all the same: its family is needed for further checks.
pub(crate) fn read<'n>(
    reader: &mut Reader<'n>,
    place: &Located<'n>,
    own: &OwnAddresses,
) -> Option<IpAddr> {
    let address = ip::read(reader, place)?;
    check(reader, place, address, own);
    Some(address)
}

fn check<'n>(reader: &mut Reader<'n>, place: &Located<'n>, address: IpAddr, own: &OwnAddresses) {
    const EXPECTED: &str = "the unicast address of a server";
    let family = Family::of(address);
    let error = if let Some(kind) = unusable(address) {
        let error = place.instead(format!("{address} is {kind}"), EXPECTED);
        match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => error.help(format!("write {v4}")),
                None => error,
            },
            IpAddr::V4(_) => error,
        }
    } else if let Some((path, _)) = own.find(|own| own.addr() == address) {
        place.instead(
            format!("{address} is the router itself ({path}.ip)"),
            EXPECTED,
        )
    } else if let Some((path, own)) = own.find(|own| {
        broadcast(own).is_some_and(|broadcast| broadcast == address || own.network() == address)
    }) {
        place.instead(
            format!("{address} is the broadcast or network address of {own} ({path}.ip)"),
            EXPECTED,
        )
    } else if own.lacks(family) {
        place
            .instead(
                format!("{address} is {family}, and spec.addresses has no {family} address to leave from"),
                "a destination of the same family as one of the router's addresses",
            )
            .help(format!("add an {family} address to spec.addresses"))
    } else {
        return;
    };
    reader.error(error);
}
