//! Compares the packets that left both routers.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::canonical::{addresses, is_intact};
use crate::fields::{changes, fields};
use crate::script::{Event, Script};
use crate::twin::Outcome;
use crate::wire::{Output, Side};

/// An event and the outcome in both routers.
#[derive(Clone, Copy, Debug)]
pub struct Case<'c> {
    /// The script to which the event belongs.
    pub script: &'c Script,
    pub event: &'c Event,
    /// What left both routers.
    pub outcome: &'c Outcome,
}

/// A router's reaction to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// The number of packets that left on the other side.
    pub crossed: usize,
    /// The number of packets that went back.
    pub answered: usize,
}

impl Reaction {
    fn of(outputs: &[Output], event: &Event) -> Self {
        let on = |side: Side| outputs.iter().filter(|output| output.side == side).count();
        Self {
            crossed: on(event.side.other()),
            answered: on(event.side),
        }
    }

    /// Whether no packet left.
    pub fn is_nothing(self) -> bool {
        self.crossed + self.answered == 0
    }

    /// Whether the packet was forwarded without an answer to its sender.
    pub fn is_forwarded(self) -> bool {
        self.crossed > 0 && self.answered == 0
    }

    /// Whether the sender got an answer and no other packet left.
    pub fn is_answered(self) -> bool {
        self.answered > 0 && self.crossed == 0
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.crossed, self.answered) {
            (0, 0) => f.write_str("nothing"),
            (crossed, 0) => write!(f, "forwards {crossed}"),
            (0, answered) => write!(f, "answers {answered}"),
            (crossed, answered) => write!(f, "forwards {crossed}, answers {answered}"),
        }
    }
}

impl Case<'_> {
    /// Our router's reaction.
    pub fn ours(&self) -> Reaction {
        Reaction::of(&self.outcome.ours, self.event)
    }

    /// The reaction of the kernel's NAT.
    pub fn kernels(&self) -> Reaction {
        Reaction::of(&self.outcome.kernels, self.event)
    }

    /// Whether the outcomes differ or ours is wrong.
    pub fn differs(&self) -> bool {
        self.outcome.ours != self.outcome.kernels || self.breach().is_some()
    }

    /// What is wrong with our router's packets, whatever the kernel's NAT does.
    pub fn breach(&self) -> Option<&'static str> {
        let is_sound = self.event.recipe.is_sound();
        self.outcome.ours.iter().find_map(|output| {
            if !self.is_from_the_router(output) {
                Some("a packet leaves untranslated")
            } else if is_sound && !is_intact(&output.packet) {
                Some("a sound packet leaves with a wrong checksum")
            } else {
                None
            }
        })
    }

    /// The pod may answer from either address, but from `eth0`'s only to clients.
    fn is_from_the_router(&self, output: &Output) -> bool {
        let network = self.script.family.network();
        let own = [network.router_net1.address, network.router_eth0.address];
        let own = match output.side {
            Side::Cluster => &own[..],
            Side::Outside => &own[..1],
        };
        addresses(&output.packet).is_some_and(|(source, _)| {
            own.contains(&source)
                || matches!(source, IpAddr::V6(source) if source.is_unicast_link_local())
        })
    }

    /// Whether the routers forwarded different numbers of packets, so that their states differ from now on.
    pub fn parts_ways(&self) -> bool {
        self.ours() != self.kernels()
    }

    /// The packets that left both, as pairs of ours and the kernel's.
    pub fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.outcome
            .ours
            .iter()
            .zip(&self.outcome.kernels)
            .map(|(ours, kernels)| (&ours.packet[..], &kernels.packet[..]))
    }

    /// The script's events before this one.
    pub fn earlier(&self) -> impl Iterator<Item = &Event> {
        self.script
            .events
            .iter()
            .take_while(|event| !std::ptr::eq(*event, self.event))
    }

    /// The names of the fields that differ, if the same packets left both.
    pub fn changed_fields(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (ours, kernels) in self.pairs() {
            for (name, ..) in changes(ours, kernels) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Whether the same packets left both, and differ only in `expected` fields.
    pub fn only_changes(&self, expected: &[&str]) -> bool {
        !self.parts_ways()
            && self
                .changed_fields()
                .iter()
                .all(|name| expected.contains(&name.as_str()))
    }

    /// A line that is the same for all differences of one kind.
    pub fn signature(&self) -> String {
        let (family, what, side) = (self.script.family, self.event.what, self.event.side);
        let kind = self.script.kind;
        let invalid = if self.outcome.invalid {
            ", invalid to the kernel"
        } else {
            ""
        };
        let difference = if self.parts_ways() {
            format!(
                "ours {}, the kernel {}{invalid}",
                self.ours(),
                self.kernels()
            )
        } else {
            format!("differs in {}{invalid}", self.changed_fields().join(", "))
        };
        let breach = self
            .breach()
            .map_or(String::new(), |breach| format!("{breach}; "));
        format!("{family} {kind}: {what} ({side:?}): {breach}{difference}")
    }

    /// Describes everything that left. Packets that left both are compared field by field.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "  {}", self.event);
        if self.parts_ways() {
            for (name, outputs) in [
                ("ours", &self.outcome.ours),
                ("kernel", &self.outcome.kernels),
            ] {
                describe_outputs(&mut text, name, outputs);
            }
        } else {
            for (ours, kernels) in self.pairs() {
                for (name, ours, kernels) in changes(ours, kernels) {
                    let _ = writeln!(text, "    {name}: ours {ours}, the kernel {kernels}");
                }
            }
        }
        text
    }
}

fn describe_outputs(text: &mut String, name: &str, outputs: &[Output]) {
    if outputs.is_empty() {
        let _ = writeln!(text, "    {name}: nothing");
    }
    for output in outputs {
        let fields: Vec<_> = fields(&output.packet)
            .into_iter()
            .map(|(name, value)| format!("{name} {}", shortened(&value)))
            .collect();
        let _ = writeln!(text, "    {name}, {:?}: {}", output.side, fields.join(", "));
    }
}

fn shortened(value: &str) -> &str {
    const LONGEST: usize = 60;
    value.get(..LONGEST).unwrap_or(value)
}
