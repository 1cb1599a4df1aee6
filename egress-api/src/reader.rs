//! Reads the values of a spec and collects errors in their structure: fields, types and enumerations.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::error::SpecError;
use crate::node::{Node, quote};

/// The path of a field in the document, such as `spec.redirect.redirectRules[2].port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(String);

impl Path {
    /// The document itself.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// A field of this object.
    pub fn field(&self, name: &str) -> Self {
        let is_plain = !name.is_empty()
            && name.len() <= 63
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_/".contains(&byte));
        Self(match (self.0.as_str(), is_plain) {
            ("", true) => name.to_owned(),
            (parent, true) => format!("{parent}.{name}"),
            (parent, false) => format!("{parent}[{}]", quote(name)),
        })
    }

    /// An item of this list.
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "document"
        } else {
            &self.0
        })
    }
}

/// A value and its path.
#[derive(Debug, Clone)]
pub(crate) struct Located<'n> {
    pub path: Path,
    pub node: &'n Node,
}

impl Located<'_> {
    /// The error "VALUE is not EXPECTED".
    pub fn is_not(&self, expected: impl Into<String>) -> SpecError {
        SpecError::is_not(&self.path, self.node.to_string(), expected)
    }

    /// The error "FOUND; expected EXPECTED", where `found` is a statement about the value.
    pub fn instead(&self, found: impl Into<String>, expected: impl Into<String>) -> SpecError {
        SpecError::instead(&self.path, found, expected)
    }
}

/// The known fields of an object.
#[derive(Debug)]
pub(crate) struct Object<'n> {
    pub path: Path,
    /// Whether the object has fields that match no known name.
    pub has_unknown: bool,
    fields: Vec<(&'static str, Located<'n>)>,
}

impl<'n> Object<'n> {
    /// A field's value. A null counts as absent, as in Kubernetes.
    fn get(&self, name: &str) -> Option<Located<'n>> {
        let (_, value) = self.fields.iter().find(|(known, _)| *known == name)?;
        (*value.node != Node::Null).then(|| value.clone())
    }
}

/// The parent of each field, for fields with the wrong indentation. Contains only fields that exist once: a `port`
/// outside of a rule could belong to any rule.
const HOMES: [(&str, &str); 11] = [
    ("metadata", "the top level"),
    ("spec", "the top level"),
    ("name", "metadata"),
    ("namespace", "metadata"),
    ("networkInterface", "spec"),
    ("addresses", "spec"),
    ("redirect", "spec"),
    ("macvlan", "spec.networkInterface"),
    ("master", "spec.networkInterface.macvlan"),
    ("redirectRules", "spec.redirect"),
    ("fallbackIP", "spec.redirect"),
];

/// The parents of fields in list items.
const ITEM_HOMES: [(&str, &str); 5] = [
    ("ip", "spec.addresses[]"),
    ("gateway", "spec.addresses[]"),
    ("destinationIP", "spec.redirect.redirectRules[]"),
    ("targetPort", "spec.redirect.redirectRules[]"),
    ("protocol", "spec.redirect.redirectRules[]"),
];

fn home_in(
    homes: &[(&'static str, &'static str)],
    name: &str,
) -> Option<(&'static str, &'static str)> {
    homes
        .iter()
        .copied()
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
}

/// Reads values and collects all errors.
#[derive(Debug, Default)]
pub(crate) struct Reader<'n> {
    errors: Vec<SpecError>,
    /// Fields that were found in the wrong object. They are still read, so that they are not reported as missing too.
    misplaced: Vec<(&'static str, Located<'n>)>,
}

impl<'n> Reader<'n> {
    /// Adds an error.
    pub fn error(&mut self, error: SpecError) {
        self.errors.push(error);
    }

    /// All errors.
    pub fn into_errors(self) -> Vec<SpecError> {
        self.errors
    }

    /// The value of a field that was found in the wrong object.
    pub fn misplaced(&self, name: &str) -> Option<Located<'n>> {
        let (_, value) = self.misplaced.iter().find(|(field, _)| *field == name)?;
        Some(value.clone())
    }

    /// Reads an object with no fields other than `known`.
    ///
    /// A misspelt field is an error, but is read as the field that was meant: its value is checked, and the field is
    /// not reported as missing too.
    pub fn object(
        &mut self,
        place: &Located<'n>,
        known: &'static [&'static str],
    ) -> Option<Object<'n>> {
        let Node::Fields(found) = place.node else {
            self.error(place.is_not(format!("an object with {}", listed(known, "and"))));
            return None;
        };
        let mut object = Object {
            path: place.path.clone(),
            has_unknown: false,
            fields: Vec::new(),
        };
        let mut unknown = Vec::new();
        let mut seen = HashSet::new();
        for (name, node) in found {
            // `duplicates` reports repeated fields.
            if !seen.insert(name) {
                continue;
            }
            let located = Located {
                path: place.path.field(name),
                node,
            };
            match known.iter().find(|known| *known == name) {
                Some(known) => object.fields.push((known, located)),
                None => unknown.push((name, located)),
            }
        }
        for (name, located) in unknown {
            let absent: Vec<_> = known
                .iter()
                .copied()
                .filter(|known| !object.fields.iter().any(|(field, _)| field == known))
                .collect();
            // A name that is correct elsewhere is not a misspelling.
            let meant = match home_in(&HOMES, name) {
                Some((field, _)) => absent.iter().copied().find(|known| *known == field),
                None => nearest(name, &absent),
            };
            self.unknown_field(name, &located, known, meant);
            match meant {
                Some(meant) => object.fields.push((meant, located)),
                None => object.has_unknown = true,
            }
        }
        Some(object)
    }

    fn unknown_field(
        &mut self,
        name: &str,
        located: &Located<'n>,
        known: &[&'static str],
        meant: Option<&str>,
    ) {
        let error = located.instead("unknown field", listed(known, "or"));
        let error = if name == "<<" {
            error.help("merge keys are not read, write the fields out")
        } else if let Some(meant) = meant {
            error.help(format!("did you mean {meant}?"))
        } else if let Some((field, home)) = home_in(&HOMES, name) {
            self.misplaced.push((field, located.clone()));
            error.help(format!("{field} belongs in {home}, check the indentation"))
        } else if let Some((field, home)) = home_in(&ITEM_HOMES, name) {
            error.help(format!("{field} belongs in {home}, check the indentation"))
        } else if let Some(near) = nearest(name, known) {
            error.help(format!("did you mean {near}, which is here already?"))
        } else {
            error
        };
        self.error(error);
    }

    /// A field that must be present.
    pub fn required(
        &mut self,
        object: &Object<'n>,
        name: &str,
        expected: &str,
    ) -> Option<Located<'n>> {
        let field = self.optional(object, name);
        if field.is_none() {
            self.error(SpecError::missing(object.path.field(name), expected));
        }
        field
    }

    /// A field that may be absent.
    pub fn optional(&self, object: &Object<'n>, name: &str) -> Option<Located<'n>> {
        object.get(name).or_else(|| self.misplaced(name))
    }

    /// The items of a list.
    pub fn list(&mut self, place: &Located<'n>, expected: &str) -> Option<Vec<Located<'n>>> {
        let Node::List(items) = place.node else {
            let error = place.is_not(format!("a list of {expected}"));
            self.error(match place.node {
                Node::Fields(_) => error.help("start each item with a dash"),
                _ => error,
            });
            return None;
        };
        let located = |(index, node)| Located {
            path: place.path.item(index),
            node,
        };
        Some(items.iter().enumerate().map(located).collect())
    }

    /// A text.
    pub fn text(&mut self, place: &Located<'n>, expected: &str) -> Option<&'n str> {
        let Node::Text(text) = place.node else {
            let error = place.is_not(expected);
            self.error(match place.node {
                Node::Integer(_) | Node::Float(_) | Node::Bool(_) => {
                    error.help(format!("a text is expected, quote it: \"{}\"", place.node))
                }
                _ => error,
            });
            return None;
        };
        Some(text)
    }

    /// One of a few texts. `what` names the kind of value, such as "a protocol".
    pub fn choice<T: Copy>(
        &mut self,
        place: &Located<'_>,
        what: &str,
        choices: &[(&'static str, T)],
    ) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let text = match place.node {
            Node::Text(text) => text.as_str(),
            _ => "",
        };
        let chosen = choices.iter().find(|(name, _)| *name == text);
        if chosen.is_none() {
            let expected = match names.as_slice() {
                [only] => format!("{what} ({only} is the only one)"),
                several => format!("{what} ({})", listed(several, "or")),
            };
            let error = place.is_not(expected);
            self.error(match nearest(text, &names) {
                Some(name) if name.eq_ignore_ascii_case(text) => {
                    error.help(format!("the case matters, write {name}"))
                }
                Some(name) => error.help(format!("did you mean {name}?")),
                None => error,
            });
        }
        chosen.map(|(_, value)| *value)
    }

    /// Reports fields that are given more than once, anywhere below `place`.
    pub fn duplicates(&mut self, place: &Located<'_>) {
        match place.node {
            Node::Fields(fields) => {
                let mut times: HashMap<&str, usize> = HashMap::new();
                for (name, node) in fields {
                    let path = place.path.field(name);
                    let times = times.entry(name).or_default();
                    *times += 1;
                    // One error for any number of repetitions.
                    if *times == 2 {
                        self.error(SpecError::instead(
                            &path,
                            "given more than once",
                            "each field once",
                        ));
                    }
                    self.duplicates(&Located { path, node });
                }
            }
            Node::List(items) => {
                for (index, node) in items.iter().enumerate() {
                    let path = place.path.item(index);
                    self.duplicates(&Located { path, node });
                }
            }
            _ => {}
        }
    }
}

/// `a, b or c`
pub(crate) fn listed(names: &[&str], conjunction: &str) -> String {
    match names {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {conjunction} {last}", first.join(", ")),
    }
}

/// The known name that `name` most likely stands for.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    /// A Jaro-Winkler similarity, found by trial: `proto` is near `protocol` (0.93), `mtu` is not near `mode` (0.58).
    const NEAR: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    if name.len() < 2 || name.len() > 63 {
        return None;
    }
    let similarity = |known: &str| {
        let known = known.to_ascii_lowercase();
        // The first or last part of a compound name counts as near: `target`, `rules`, `ip`.
        let is_half = known.starts_with(&name) || known.ends_with(&name);
        strsim::jaro_winkler(&known, &name).max(if is_half { 0.85 } else { 0.0 })
    };
    known
        .iter()
        .map(|known| (similarity(known), *known))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
