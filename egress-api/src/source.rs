//! Where a spec comes from: a file or standard input.

use std::fs::File;
use std::io::{self, Read};

use crate::error::{SpecError, SpecErrors};
use crate::model::EgressRouter;
use crate::{document, resource};

/// The file name that stands for standard input.
pub const STDIN: &str = "-";

/// In bytes. A rule takes about a hundred: one for every port of each protocol fits. Kubernetes refuses much smaller
/// objects.
const LARGEST: u64 = 16 << 20;

/// Why there is no router.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read at all.
    #[error("cannot read {file}: {cause}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The file can be read, but there is no valid router in it.
    #[error(transparent)]
    Invalid(#[from] SpecErrors),
}

/// Reads one `EgressRouter` from YAML or JSON.
///
/// `source` is what the errors call the text: a file name, mostly.
///
/// # Errors
/// Everything that is wrong, in one go. Only a syntax error hides what comes after it.
pub fn parse(text: &str, source: &str) -> Result<EgressRouter, SpecErrors> {
    document::read(text)
        .and_then(|node| resource::read(&node))
        .map_err(|errors| SpecErrors {
            file: source.to_owned(),
            errors,
        })
}

/// Reads and checks the spec in `file`; `-` is standard input.
///
/// # Errors
/// [`LoadError::Unreadable`], or everything that is wrong with the spec.
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

/// Reads one more byte than is allowed, so that an endless file ends here.
fn read_all(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`parse`] for what may not even be text.
pub(crate) fn parse_bytes(bytes: &[u8], source: &str) -> Result<EgressRouter, SpecErrors> {
    let invalid = |found: String, expected: &str| SpecErrors {
        file: source.to_owned(),
        errors: vec![SpecError::instead("document", found, expected)],
    };
    if bytes.len() as u64 > LARGEST {
        return Err(invalid(
            "more than 16 MiB".to_owned(),
            "one EgressRouter, as YAML or JSON",
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let found = format!("no UTF-8 at byte {}", error.valid_up_to());
        invalid(found, "YAML or JSON in UTF-8")
    })?;
    parse(text, source)
}
