//! Describes scripts in words.

use std::fmt::{self, Write as _};

use crate::protocol::{ACK, FIN, PSH, RST, SYN};
use crate::recipe::{Body, Damage, Piece, Recipe, Twist};
use crate::script::Event;
use crate::wire::Side;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = match self.side {
            Side::Cluster => "cluster",
            Side::Outside => "outside",
        };
        let (flow, what) = (self.flow, self.what);
        write!(f, "from the {from}, flow {flow}: {what}: {}", self.recipe)
    }
}

impl fmt::Display for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; ttl {}, tos {:#04x}, id {}",
            self.body, self.ttl, self.tos, self.id
        )?;
        if self.df {
            f.write_str(", df")?;
        }
        if !self.options.is_empty() {
            write!(f, ", options {}", hex(&self.options))?;
        }
        if !self.extensions.is_empty() {
            write!(f, ", extensions {:?}", self.extensions)?;
        }
        write!(f, "{}", self.twist)?;
        for damage in &self.damage {
            write!(f, ", {damage}")?;
        }
        for piece in &self.fragments {
            write!(f, ", {piece}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp {
                flags,
                seq,
                ack,
                window,
                options,
                length,
            } => {
                let flags = flag_names(*flags);
                write!(
                    f,
                    "tcp {flags} seq {seq} ack {ack} window {window}, {length} bytes"
                )?;
                if !options.is_empty() {
                    write!(f, ", tcp options {}", hex(options))?;
                }
                Ok(())
            }
            Self::Udp { checksum, payload } => {
                let without = if *checksum { "" } else { ", no checksum" };
                write!(f, "udp, {} bytes{without}", payload.len())
            }
            Self::Sctp { tag, chunks } => {
                let kind = chunks.first().copied().unwrap_or_default();
                write!(f, "sctp tag {tag:#x}, chunk {kind}, {} bytes", chunks.len())
            }
            Self::Echo {
                kind: [kind, code],
                sequence,
                length,
            } => write!(f, "icmp {kind}/{code} sequence {sequence}, {length} bytes"),
            Self::Error {
                kind: [kind, code],
                rest,
                about,
                quoted,
            } => {
                let rest = hex(rest);
                write!(
                    f,
                    "icmp {kind}/{code} rest {rest}, {quoted} bytes at most of [{about}]"
                )
            }
            Self::Other { protocol, bytes } => {
                write!(f, "protocol {protocol}, {} bytes", bytes.len())
            }
        }
    }
}

impl fmt::Display for Twist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = self.source {
            write!(f, ", from {source}")?;
        }
        if let Some(destination) = self.destination {
            write!(f, ", to {destination}")?;
        }
        for (name, offset) in [
            ("source", self.source_port),
            ("destination", self.destination_port),
        ] {
            if offset > 0 {
                write!(f, ", {name} port + {offset}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderChecksum(by) => write!(f, "header checksum off by {by:#x}"),
            Self::Checksum(by) => write!(f, "checksum off by {by:#x}"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::HeaderLength(words) => write!(f, "header length {words}"),
            Self::Length(by) => write!(f, "length off by {by}"),
            Self::Byte { at, mask } => write!(f, "byte {at} xor {mask:#04x}"),
            Self::ShortPacket(length) => write!(f, "only {length} bytes after the header"),
            Self::Truncation(length) => write!(f, "truncated to {length} bytes"),
            Self::Trailer(length) => write!(f, "{length} bytes after the packet"),
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = if self.more { " more" } else { "" };
        write!(f, "fragment {}..{}{more}", self.start, self.end)
    }
}

fn flag_names(flags: u8) -> String {
    const NAMES: [(u8, &str); 5] = [
        (SYN, "SYN"),
        (FIN, "FIN"),
        (RST, "RST"),
        (PSH, "PSH"),
        (ACK, "ACK"),
    ];
    let known = NAMES.iter().filter(|(flag, _)| flags & flag != 0);
    let mut names: Vec<_> = known.map(|(_, name)| (*name).to_owned()).collect();
    let others = flags & !NAMES.iter().fold(0, |all, (flag, _)| all | flag);
    if others != 0 || names.is_empty() {
        names.push(format!("{others:#04x}"));
    }
    names.join("+")
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
