//! Parses a text with exactly one document.

use serde::Deserialize as _;

use crate::error::SpecError;
use crate::node::Node;

const DOCUMENT: &str = "document";
const ONE_ROUTER: &str = "one EgressRouter, as YAML or JSON";

/// The YAML parser refuses more than 128 levels, but only after a time that grows with the square of the nesting.
const MAX_NESTING: usize = 1000;

/// Reads the text's only document.
pub(crate) fn read(text: &str) -> Result<Node, Vec<SpecError>> {
    let documents = documents(text).map_err(|error| vec![error])?;
    match <[Node; 1]>::try_from(documents) {
        Ok([document]) => Ok(document),
        Err(documents) if documents.is_empty() => {
            Err(vec![SpecError::instead(DOCUMENT, "empty", ONE_ROUTER)])
        }
        Err(documents) => Err(vec![
            SpecError::instead(
                DOCUMENT,
                format!("{} documents", documents.len()),
                ONE_ROUTER,
            )
            .help("write each to a file of its own"),
        ]),
    }
}

/// The documents of a text, without empty ones: a trailing `---` has no meaning.
fn documents(text: &str) -> Result<Vec<Node>, SpecError> {
    // JSON is YAML except for details such as surrogate pairs in escapes, which the YAML parser does not support.
    if let Ok(document) = serde_json::from_str(text) {
        return Ok(without_empty(vec![document]));
    }
    if nesting(text) > MAX_NESTING {
        return Err(SpecError::instead(
            DOCUMENT,
            format!("nested deeper than {MAX_NESTING} levels"),
            ONE_ROUTER,
        ));
    }
    let mut documents = Vec::new();
    for document in yaml_serde::Deserializer::from_str(text) {
        documents.push(Node::deserialize(document).map_err(syntax_error)?);
    }
    Ok(without_empty(documents))
}

/// The depth of nested brackets. Brackets in quotes count too, as they usually come in pairs.
fn nesting(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn without_empty(mut documents: Vec<Node>) -> Vec<Node> {
    documents.retain(|document| *document != Node::Null);
    documents
}

fn syntax_error(error: yaml_serde::Error) -> SpecError {
    let message = error.to_string();
    let Some(location) = error.location() else {
        return SpecError::instead(DOCUMENT, message, ONE_ROUTER);
    };
    let (line, column) = (location.line(), location.column());
    let message = message
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&message);
    SpecError::instead(
        format!("line {line}, column {column}"),
        message,
        "well-formed YAML or JSON",
    )
}
