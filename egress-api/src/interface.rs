//! `spec.networkInterface`: the macvlan that traffic leaves by.

use crate::model::{Macvlan, MacvlanMode, NetworkInterface};
use crate::reader::{Located, Reader};

const MODES: [(&str, MacvlanMode); 4] = [
    ("Bridge", MacvlanMode::Bridge),
    ("Private", MacvlanMode::Private),
    ("VEPA", MacvlanMode::Vepa),
    ("Passthru", MacvlanMode::Passthru),
];
const INTERFACE_NAME: &str =
    "an interface name (1–15 bytes, without white space, '/' and ':', and neither '.' nor '..')";

/// Reads the interface, or returns the default if the field is absent.
pub(crate) fn read<'n>(
    reader: &mut Reader<'n>,
    place: Option<&Located<'n>>,
) -> Option<NetworkInterface> {
    let Some(place) = place else {
        return Some(NetworkInterface::default());
    };
    let object = reader.object(place, &["macvlan"])?;
    let macvlan = match reader.optional(&object, "macvlan") {
        Some(place) => macvlan(reader, &place)?,
        None => Macvlan::default(),
    };
    Some(NetworkInterface { macvlan })
}

fn macvlan<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<Macvlan> {
    let object = reader.object(place, &["mode", "master"])?;
    let mode = match reader.optional(&object, "mode") {
        Some(place) => reader.choice(&place, "a macvlan mode", &MODES),
        None => Some(MacvlanMode::default()),
    };
    let master = match reader.optional(&object, "master") {
        Some(place) => Some(master(reader, &place)?),
        None => None,
    };
    Some(Macvlan {
        mode: mode?,
        master,
    })
}

fn master<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<String> {
    let name = reader.text(place, INTERFACE_NAME)?;
    // The kernel's own rule: dev_valid_name() in net/core/dev.c, with IFNAMSIZ 16 for name and final NUL.
    let is_valid = (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| {
            byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace() || byte == 0x0b
        });
    if !is_valid {
        reader.error(place.is_not(INTERFACE_NAME));
        return None;
    }
    Some(name.to_owned())
}
