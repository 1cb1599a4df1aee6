//! Loads a spec from a file or standard input.

use std::fs::File;
use std::io::{self, Read};

use crate::error::{SpecError, SpecErrors};
use crate::model::EgressRouter;
use crate::{document, resource};

/// The file name that stands for standard input.
pub const STDIN: &str = "-";

/// The maximum size of a spec in bytes. A rule for every port of each protocol must fit, at about 100 bytes per rule.
/// Kubernetes' own limit is much lower.
const MAX_LEN: u64 = 16 << 20;

/// Why a resource could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {file}: {cause}")]
    Unreadable {
        /// The file, as the caller named it.
        file: String,
        /// The system's error.
        #[source]
        cause: io::Error,
    },
    /// The file does not contain a valid `EgressRouter`.
    #[error(transparent)]
    Invalid(#[from] SpecErrors),
}

/// Parses and checks one `EgressRouter` in YAML or JSON.
///
/// `source` names the text in errors, such as a file name.
///
/// # Errors
/// All errors at once. Only a syntax error hides those that follow it.
pub fn parse(text: &str, source: &str) -> Result<EgressRouter, SpecErrors> {
    document::read(text)
        .and_then(|node| resource::read(&node))
        .map_err(|errors| SpecErrors {
            file: source.to_owned(),
            errors,
        })
}

/// Reads, parses and checks the `EgressRouter` in `file`; `-` is standard input.
///
/// # Errors
/// [`LoadError::Unreadable`], or all errors in the resource.
pub fn load(file: &str) -> Result<EgressRouter, LoadError> {
    let unreadable = |cause| LoadError::Unreadable {
        file: file.to_owned(),
        cause,
    };
    let (name, bytes) = if file == STDIN {
        ("standard input", read_all(io::stdin().lock()))
    } else {
        (file, File::open(file).and_then(read_all))
    };
    Ok(parse_bytes(&bytes.map_err(unreadable)?, name)?)
}

/// Stops one byte after the limit, which [`parse_bytes`] then reports. This also ends an endless file.
fn read_all(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`parse`] for bytes that may not be text.
pub(crate) fn parse_bytes(bytes: &[u8], source: &str) -> Result<EgressRouter, SpecErrors> {
    let invalid = |found: String, expected: &str| SpecErrors {
        file: source.to_owned(),
        errors: vec![SpecError::instead("document", found, expected)],
    };
    if bytes.len() as u64 > MAX_LEN {
        return Err(invalid(
            "more than 16 MiB".to_owned(),
            "one EgressRouter, as YAML or JSON",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let found = format!("invalid UTF-8 at byte {}", error.valid_up_to());
        invalid(found, "YAML or JSON in UTF-8")
    })?;
    parse(text, source)
}
