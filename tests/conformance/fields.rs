//! The named fields of a packet, to show where two packets differ.

use crate::canonical::addresses;
use crate::describe::hex;
use crate::family::Family;
use crate::layout::{Layout, word};
use crate::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};

/// A field's name, such as `inner ttl`, and its value.
pub type Field = (String, String);

/// All fields of a packet, in order. Together they cover every byte.
pub fn fields(packet: &[u8]) -> Vec<Field> {
    let mut fields = Vec::new();
    read(&mut Reader {
        fields: &mut fields,
        prefix: "",
        packet,
    });
    fields
}

/// The fields that differ: the name and both values.
pub fn changes(ours: &[u8], theirs: &[u8]) -> Vec<(String, String, String)> {
    const NONE: &str = "–";
    let (ours, theirs) = (fields(ours), fields(theirs));
    let value = |fields: &[Field], name: &str| {
        fields
            .iter()
            .find(|(known, _)| known == name)
            .map_or(NONE.to_owned(), |(_, value)| value.clone())
    };
    let mut names: Vec<_> = ours.iter().map(|(name, _)| name).collect();
    for (name, _) in &theirs {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|name| (name.clone(), value(&ours, name), value(&theirs, name)))
        .filter(|(_, ours, theirs)| ours != theirs)
        .collect()
}

struct Reader<'r> {
    fields: &'r mut Vec<Field>,
    prefix: &'static str,
    packet: &'r [u8],
}

impl Reader<'_> {
    fn put(&mut self, name: &str, value: String) {
        self.fields.push((format!("{}{name}", self.prefix), value));
    }

    fn byte(&mut self, name: &str, at: usize) {
        if let Some(value) = self.packet.get(at) {
            self.put(name, value.to_string());
        }
    }

    fn number(&mut self, name: &str, at: usize) {
        if let Some(value) = word(self.packet, at) {
            self.put(name, value.to_string());
        }
    }

    fn hex(&mut self, name: &str, from: usize, to: usize) {
        let to = to.min(self.packet.len());
        if from < to {
            self.put(name, hex(&self.packet[from..to]));
        }
    }
}

fn read(reader: &mut Reader<'_>) {
    let Some(layout) = Layout::of(reader.packet) else {
        return reader.hex("bytes", 0, usize::MAX);
    };
    match layout.family {
        Family::V4 => {
            reader.hex("version and header length", 0, 1);
            reader.byte("tos", 1);
            reader.number("length", 2);
            reader.number("id", 4);
            reader.hex("fragment", 6, 8);
            reader.byte("ttl", 8);
            reader.byte("protocol", 9);
            reader.hex("header checksum", 10, 12);
        }
        Family::V6 => {
            reader.hex("class and label", 0, 4);
            reader.number("length", 4);
            reader.byte("next header", 6);
            reader.byte("ttl", 7);
        }
    }
    if let Some((source, destination)) = addresses(reader.packet) {
        reader.put("source", source.to_string());
        reader.put("destination", destination.to_string());
    }
    reader.hex("options", layout.family.header_len(), layout.payload);
    if layout.is_later_fragment() {
        return reader.hex("fragment data", layout.payload, usize::MAX);
    }
    transport(reader, &layout);
}

fn transport(reader: &mut Reader<'_>, layout: &Layout) {
    let at = layout.payload;
    match layout.protocol {
        TCP => {
            reader.number("source port", at);
            reader.number("destination port", at + 2);
            reader.hex("seq", at + 4, at + 8);
            reader.hex("ack", at + 8, at + 12);
            reader.hex("flags", at + 12, at + 14);
            reader.number("window", at + 14);
            reader.hex("checksum", at + 16, at + 18);
            reader.number("urgent", at + 18);
            let offset = reader
                .packet
                .get(at + 12)
                .map_or(20, |byte| usize::from(byte >> 4) * 4);
            let end = at + offset.max(20);
            reader.hex("tcp options", at + 20, end);
            reader.hex("data", end, usize::MAX);
        }
        UDP => {
            reader.number("source port", at);
            reader.number("destination port", at + 2);
            reader.number("udp length", at + 4);
            reader.hex("checksum", at + 6, at + 8);
            reader.hex("data", at + 8, usize::MAX);
        }
        SCTP => {
            reader.number("source port", at);
            reader.number("destination port", at + 2);
            reader.hex("tag", at + 4, at + 8);
            reader.hex("checksum", at + 8, at + 12);
            reader.hex("data", at + 12, usize::MAX);
        }
        ICMP | ICMPV6 => icmp(reader, layout),
        _ => reader.hex("data", at, usize::MAX),
    }
}

fn icmp(reader: &mut Reader<'_>, layout: &Layout) {
    let at = layout.payload;
    reader.byte("type", at);
    reader.byte("code", at + 1);
    reader.hex("checksum", at + 2, at + 4);
    reader.hex("rest", at + 4, at + 8);
    let kind = reader.packet.get(at).copied().unwrap_or_default();
    if layout.is_error(kind) && reader.prefix.is_empty() {
        if let Some(packet) = reader.packet.get(at + 8..) {
            read(&mut Reader {
                fields: &mut *reader.fields,
                prefix: "inner ",
                packet,
            });
        }
    } else {
        reader.hex("data", at + 8, usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate;
    use crate::script::Slot;

    #[test]
    fn a_change_of_any_byte_is_one_of_a_field() {
        for family in Family::ALL {
            for number in 0..25 {
                let script = generate::script(1, number, family);
                let event = &script.events[0];
                let (packets, _) = event.packets(&script, Slot(9), 2_000);
                let packet = &packets[0];
                for at in 0..packet.len() {
                    let mut other = packet.clone();
                    other[at] ^= 0x10;
                    assert!(!changes(packet, &other).is_empty(), "byte {at} of {event}");
                }
            }
        }
    }
}
