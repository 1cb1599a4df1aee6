//! Which documents are accepted or refused, and the texts of the errors.

mod documents;
mod examples;
mod meaning;
mod properties;
mod structure;

use super::{EgressRouter, parse};

/// The example of the documentation. Tests edit it.
const EXAMPLE: &str = include_str!("../../../docs/examples/egress-router.yaml");
const DUAL_STACK: &str = include_str!("../../../docs/examples/dual-stack.yaml");

/// `text` with the first `from` replaced.
#[track_caller]
fn edited(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "nothing to replace: {from:?}");
    text.replacen(from, to, 1)
}

#[track_caller]
fn valid(text: &str) -> EgressRouter {
    match parse(text, "spec.yaml") {
        Ok(router) => router,
        Err(errors) => panic!("{errors}\n\nin\n{text}"),
    }
}

/// The errors in `text`, as a user reads them.
#[track_caller]
fn errors(text: &str) -> Vec<String> {
    match parse(text, "spec.yaml") {
        Ok(router) => panic!("accepted as {router:#?}"),
        Err(errors) => errors.errors.iter().map(ToString::to_string).collect(),
    }
}

/// Each row is an edit of `text` and all errors that it causes.
#[track_caller]
fn refused(text: &str, table: &[(&str, &str, &[&str])]) {
    for (from, to, expected) in table {
        let found = errors(&edited(text, from, to));
        assert_eq!(&found, expected, "after replacing {from:?} with {to:?}");
    }
}

/// Each row is an edit of `text` that keeps it valid.
#[track_caller]
fn accepted(text: &str, table: &[(&str, &str)]) {
    for (from, to) in table {
        valid(&edited(text, from, to));
    }
}
