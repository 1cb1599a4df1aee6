//! The layouts that programs of different builds share do not change without a new layout version.
//!
//! `egress-common/layouts.txt` lists every pinned map with its key and value, the records of the ring buffers, and
//! every number with a meaning in them. This test generates the text from the object's BTF and the enums, and compares.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
};

use egress_common::{
    Change, Decision, Identity, LAYOUT_VERSION, NEXT_HOPS, NextHopRef, Outcome, Side, Subscriber,
    protocol, tcp::Flags,
};
use egress_userspace::dataplane::RETIRED_MAPS;
use object::{Object as _, ObjectSection as _};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../egress-common/layouts.txt");
/// `1` rewrites the file if the change needs no new version, `new-version` rewrites it with the next one, and
/// `compatible` rewrites it with the same version in any case.
const VARIABLE: &str = "UPDATE_LAYOUTS";
/// The records in ring buffers, which are not part of their maps' declarations.
const RECORDS: [&str; 2] = ["FlowEvent", "TraceRecord"];

/// A pinned map, as the build script lists it.
#[expect(
    dead_code,
    reason = "the BTF describes a map in more detail than this list"
)]
struct PinnedMap {
    name: &'static str,
    kind: u32,
    key_size: u32,
    value_size: u32,
}

const PINNED: &[PinnedMap] = &include!(concat!(env!("OUT_DIR"), "/pinned_maps.rs"));

#[test]
fn layouts_are_as_written_down_or_have_another_version() {
    let current = layouts();
    let committed = fs::read_to_string(FILE).unwrap_or_default();
    if let Err(reason) =
        check_outcomes(&committed, &current).and_then(|()| check_maps(&committed, &current))
    {
        panic!("{reason}");
    }
    if current == committed {
        return;
    }
    let request = env::var(VARIABLE).unwrap_or_default();
    let difference = difference(&committed, &current);
    let is_harmless = difference.iter().all(|line| is_outcome(&line[1..]));
    let current = if request == "new-version" {
        let line = |version| format!("\nversion {version}\n");
        current.replacen(&line(LAYOUT_VERSION), &line(LAYOUT_VERSION + 1), 1)
    } else {
        current
    };
    if request == "new-version" || request == "compatible" || (request == "1" && is_harmless) {
        fs::write(FILE, current).expect("egress-common/layouts.txt can be written");
        return;
    }
    let difference = difference.join("\n");
    let command =
        |request| format!("{VARIABLE}={request} cargo test -p egress-userspace --test layouts");
    assert!(
        !is_harmless,
        "egress-common/layouts.txt is not up to date; write it again:\n    {}\n{difference}",
        command("1")
    );
    panic!(
        "layouts that programs share have changed, but LAYOUT_VERSION is {LAYOUT_VERSION} as before:\n{difference}\n\
         If this program cannot use the maps that an earlier one has pinned, or the reverse, write\n\
         egress-common/layouts.txt with the next version:\n    {}\n\
         If it can, such as after a field was only renamed:\n    {}",
        command("new-version"),
        command("compatible")
    );
}

#[test]
fn an_outcomes_number_is_never_anothers() {
    let before = "outcome 1 one\nretired 2 two\n";
    check_outcomes(before, "outcome 1 one\nretired 2 two\noutcome 3 three\n").unwrap();
    check_outcomes(before, "retired 1 one\nretired 2 two\n").unwrap();
    for wrong in [
        "outcome 1 other\nretired 2 two\n",
        "outcome 1 one\noutcome 2 two\n",
        "outcome 1 one\n",
        "retired 2 two\n",
    ] {
        check_outcomes(before, wrong).unwrap_err();
    }
}

#[test]
fn a_map_that_is_gone_is_retired() {
    let before = "map ONE: hash\nretired_map TWO\n";
    check_maps(before, "retired_map ONE\nretired_map TWO\n").unwrap();
    check_maps(before, "map ONE: array\nretired_map TWO\nmap THREE: hash\n").unwrap();
    for wrong in ["map ONE: hash\n", "retired_map TWO\n"] {
        check_maps(before, wrong).unwrap_err();
    }
}

/// Checks that every outcome keeps its number or is retired, whatever the version is.
fn check_outcomes(before: &str, now: &str) -> Result<(), String> {
    let has = |line: &str| now.lines().any(|other| other == line);
    for line in before.lines().filter(|line| is_outcome(line)) {
        let retired = line.replacen("outcome", "retired", 1);
        if !has(line) && !has(&retired) {
            return Err(format!(
                "\"{line}\" is missing from the outcomes: an outcome keeps its number; move it to `retired` in \
                 egress-common/src/outcome.rs if it is no longer used"
            ));
        }
    }
    Ok(())
}

/// Checks that every map is still there or is retired, so that a later program removes its pin.
fn check_maps(before: &str, now: &str) -> Result<(), String> {
    let maps = |text: &str| -> BTreeSet<String> {
        text.lines()
            .filter_map(|line| {
                let name = line
                    .strip_prefix("map ")
                    .and_then(|rest| rest.split_once(':'));
                name.map(|(name, _)| name)
                    .or(line.strip_prefix("retired_map "))
            })
            .map(str::to_owned)
            .collect()
    };
    match maps(before).difference(&maps(now)).next() {
        None => Ok(()),
        Some(name) => Err(format!(
            "the map {name} is missing: a map that is no longer used belongs in RETIRED_MAPS in \
             egress-userspace/src/dataplane/pins.rs, so that its pin is removed with an old dataplane"
        )),
    }
}

fn is_outcome(line: &str) -> bool {
    line.starts_with("outcome ") || line.starts_with("retired ")
}

/// The lines that only one of the texts has: `-` before, `+` now. Fields come with the name of their type.
fn difference(before: &str, now: &str) -> Vec<String> {
    let lines = |text: &str| {
        let mut section = "";
        let mut lines = Vec::new();
        for line in text.lines() {
            if line.starts_with(' ') {
                lines.push(format!("{section} {}", line.trim()));
            } else {
                section = line.split(':').next().unwrap_or_default();
                lines.push(line.to_owned());
            }
        }
        lines
    };
    let (before, now) = (lines(before), lines(now));
    let gone = before.iter().filter(|line| !now.contains(line));
    let new = now.iter().filter(|line| !before.contains(line));
    gone.map(|line| format!("-{line}"))
        .chain(new.map(|line| format!("+{line}")))
        .collect()
}

/// The text that the file must contain.
fn layouts() -> String {
    let object = fs::read(env!("EGRESS_ROUTER_BPF_OBJECT")).expect("the object is there");
    let object = object::File::parse(&*object).expect("it is ELF");
    let section = object.section_by_name(".BTF").expect("it has BTF");
    let btf = Btf::parse(section.data().expect("the section has data"));
    let mut text = format!(
        "# What programs of different builds share: tests/layouts.rs of egress-userspace compares it with the object.\n\
         version {LAYOUT_VERSION}\n\n"
    );
    let mut types = BTreeMap::new();
    for PinnedMap { name, .. } in PINNED {
        btf.map(name, &mut text, &mut types);
    }
    for name in RETIRED_MAPS {
        let _ = writeln!(text, "retired_map {name}");
    }
    for name in RECORDS {
        let records: Vec<_> = btf.structs(name).collect();
        assert_eq!(
            records.len(),
            2,
            "the object has no {name} of both families"
        );
        for id in records {
            btf.collect(id, &mut types);
        }
    }
    for (name, body) in types {
        let _ = write!(text, "\n{name}{body}");
    }
    text.push('\n');
    numbers(&mut text);
    text
}

/// Writes every number in a map or record that has a meaning of its own.
fn numbers(text: &mut String) {
    let mut line = |kind: &str, number: u64, name: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{kind} {number} {name}");
    };
    for outcome in Outcome::ALL {
        line("outcome", *outcome as u64, outcome.name());
    }
    for (number, name) in Outcome::RETIRED {
        line("retired", (*number).into(), name);
    }
    for is_addressed in [false, true] {
        let decision = Decision::Forwarded { is_addressed };
        line(
            "decision",
            decision.number().into(),
            &format!("{decision:?}"),
        );
    }
    let first = Decision::Unknown(0).number();
    line("decision", first.into(), "and more: outcome 0 and more");
    for change in Change::ALL {
        line("change", change as u64, &format!("{change:?}"));
    }
    for side in [Side::Cluster, Side::Egress] {
        line("side", side as u64, &format!("{side:?}"));
    }
    for subscriber in [Subscriber::Log, Subscriber::Follow, Subscriber::Trace] {
        line("subscriber", subscriber as u64, &format!("{subscriber:?}"));
    }
    line("lease", Subscriber::FOREVER, "FOREVER");
    for (flag, name) in [
        (Flags::FIN, "FIN"),
        (Flags::SYN, "SYN"),
        (Flags::RST, "RST"),
        (Flags::ACK, "ACK"),
    ] {
        line("seen", flag.into(), name);
    }
    for number in [
        protocol::TCP,
        protocol::UDP,
        protocol::SCTP,
        protocol::ICMP,
        protocol::ICMPV6,
    ] {
        let name = protocol::name(number).expect("it has a name");
        line("protocol", number.into(), name);
    }
    line("next_hop", NextHopRef::NONE.index().into(), "NONE");
    line("next_hop", NEXT_HOPS.into(), "of the next generation");
    let identity = size_of::<Identity>() as u64;
    line("identity", identity, "bytes, in every version");
}

/// A BTF type, as far as map declarations and values use it.
struct Type {
    name: String,
    kind: u32,
    /// Bytes of a struct, union, number or enum; the type that others are about.
    size_or_id: u32,
    /// Of a struct or union: name, type and offset in bits. Of an array: element type and length.
    members: Vec<(String, u32, u32)>,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const DECL_TAG: u32 = 17;
const ENUM64: u32 = 19;

/// The BPF Type Format (`linux/btf.h`), little-endian.
struct Btf(Vec<Type>);

impl Btf {
    fn parse(data: &[u8]) -> Self {
        let word = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().expect("four bytes"));
        let header = word(4) as usize;
        let mut at = header + word(8) as usize;
        let end = at + word(12) as usize;
        let strings = &data[header + word(16) as usize..];
        let string = |offset: u32| {
            let text = &strings[offset as usize..];
            let len = text.iter().position(|byte| *byte == 0).expect("an end");
            readable(str::from_utf8(&text[..len]).expect("UTF-8"))
        };
        // Type 0 is `void`.
        let mut all = vec![Type {
            name: "()".to_owned(),
            kind: 0,
            size_or_id: 0,
            members: Vec::new(),
        }];
        while at < end {
            let info = word(at + 4);
            let (kind, len) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let extra = at + 12;
            let members = match kind {
                STRUCT | UNION => (0..len)
                    .map(|index| extra + 12 * index)
                    .map(|at| (string(word(at)), word(at + 4), word(at + 8)))
                    .collect(),
                ARRAY => vec![(String::new(), word(extra), word(extra + 8))],
                _ => Vec::new(),
            };
            all.push(Type {
                name: string(word(at)),
                kind,
                size_or_id: word(at + 8),
                members,
            });
            at = extra
                + match kind {
                    INT | VAR | DECL_TAG => 4,
                    ARRAY => 12,
                    STRUCT | UNION | DATASEC | ENUM64 => 12 * len,
                    ENUM | FUNC_PROTO => 8 * len,
                    _ => 0,
                };
        }
        Self(all)
    }

    fn get(&self, id: u32) -> &Type {
        &self.0[id as usize]
    }

    /// The structs with this name, whatever their generic parameters are.
    fn structs(&self, name: &str) -> impl Iterator<Item = u32> {
        (0..).zip(&self.0).filter_map(move |(id, it)| {
            (it.kind == STRUCT && it.name.split('<').next() == Some(name)).then_some(id)
        })
    }

    /// Writes a line for a map, and collects the types of its keys and values.
    fn map(&self, name: &str, text: &mut String, types: &mut BTreeMap<String, String>) {
        let map = self.0.iter().find(|it| it.kind == VAR && it.name == name);
        let map = map.unwrap_or_else(|| panic!("BTF has no map {name}"));
        let _ = write!(text, "map {name}:");
        for (field, pointer, _) in &self.get(map.size_or_id).members {
            let id = self.get(*pointer).size_or_id;
            if matches!(field.as_str(), "key" | "value") {
                let _ = write!(text, ", {field} {}", self.name(id));
                self.collect(id, types);
                continue;
            }
            // A number is the length of an array.
            let number = self.get(id).members[0].2;
            let _ = match field.as_str() {
                "type" => write!(text, " {}", map_type(number)),
                _ => write!(text, ", {field} {number}"),
            };
        }
        text.push('\n');
    }

    /// The name of a type, as a field shows it.
    fn name(&self, id: u32) -> String {
        let it = self.get(id);
        match it.kind {
            ARRAY => {
                let (_, element, len) = &it.members[0];
                format!("[{}; {len}]", self.name(*element))
            }
            PTR => format!("*{}", self.name(it.size_or_id)),
            _ if it.name.is_empty() => "_".to_owned(),
            _ => it.name.clone(),
        }
    }

    /// Adds the fields of a type, and those of the types in it.
    fn collect(&self, id: u32, types: &mut BTreeMap<String, String>) {
        let it = self.get(id);
        if it.kind == ARRAY {
            return self.collect(it.members[0].1, types);
        }
        if !matches!(it.kind, STRUCT | UNION) {
            return;
        }
        let mut body = format!(": {} bytes\n", it.size_or_id);
        for (field, of, bits) in &it.members {
            let _ = writeln!(body, "  {} {field}: {}", bits / 8, self.name(*of));
            self.collect(*of, types);
        }
        let before = types.insert(it.name.clone(), body.clone());
        assert!(before.is_none_or(|it| it == body), "two types {}", it.name);
    }
}

/// A name as in the source, without paths. BTF encodes characters that the kernel does not allow, such as `_3C_` for
/// `<`.
fn readable(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('_') {
        text.push_str(before);
        let code = after.get(..3).and_then(|code| code.strip_suffix('_'));
        let code = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        if let Some(code) = code.filter(|code| code.is_ascii_punctuation() || *code == b' ') {
            text.push(code.into());
            rest = &after[3..];
        } else {
            text.push('_');
            rest = after;
        }
    }
    text.push_str(rest);
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let parts = text.split_inclusive("::").map(|part| {
        let path = part.strip_suffix("::");
        path.map_or(part, |path| path.trim_end_matches(is_word))
    });
    parts.collect()
}

/// The name of a map type in `linux/bpf.h`, if the object uses it.
fn map_type(kind: u32) -> String {
    match kind {
        1 => "hash".to_owned(),
        2 => "array".to_owned(),
        6 => "percpu_array".to_owned(),
        9 => "lru_hash".to_owned(),
        22 => "queue".to_owned(),
        27 => "ringbuf".to_owned(),
        _ => format!("type {kind}"),
    }
}
