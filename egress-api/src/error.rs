//! Errors in a spec, for people and for programs.

use std::fmt;

use serde::Serialize;

/// An error: where it is, what was found, what was expected and, if known, what to do.
///
/// Displayed as `spec.redirect.redirectRules[2].port: 70000 is not a port (1–65535)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpecError {
    /// The field, such as `spec.redirect.redirectRules[2].port`. `line 3, column 7` for a syntax error, `document` for
    /// an error in the whole text.
    pub path: String,
    /// What the spec contains.
    pub found: String,
    /// What the field accepts.
    pub expected: String,
    /// Advice that goes beyond `expected`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    phrase: Phrase,
}

/// How `found` and `expected` make a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phrase {
    /// "70000 is not a port": `found` is a value.
    IsNot,
    /// "unknown field; expected …": `found` is a statement.
    Instead,
}

impl SpecError {
    /// "FOUND is not EXPECTED", where `found` is a value.
    pub(crate) fn is_not(
        path: impl ToString,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::new(path, found.into(), expected.into(), Phrase::IsNot)
    }

    /// "FOUND; expected EXPECTED", where `found` is a statement.
    pub(crate) fn instead(
        path: impl ToString,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::new(path, found.into(), expected.into(), Phrase::Instead)
    }

    /// A required field is missing.
    pub(crate) fn missing(path: impl ToString, expected: impl Into<String>) -> Self {
        Self::instead(path, "missing", expected)
    }

    /// Adds advice.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn new(path: impl ToString, found: String, expected: String, phrase: Phrase) -> Self {
        Self {
            path: path.to_string(),
            found,
            expected,
            help: None,
            phrase,
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            found,
            expected,
            ..
        } = self;
        match self.phrase {
            Phrase::IsNot => write!(f, "{path}: {found} is not {expected}")?,
            Phrase::Instead => write!(f, "{path}: {found}; expected {expected}")?,
        }
        match &self.help {
            Some(help) => write!(f, ": {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SpecError {}

/// All errors in a spec, at least one.
///
/// Displayed as `file: 2 errors` and one indented line per error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecErrors {
    /// The name of the file or other source.
    pub file: String,
    /// The errors, one for each necessary change.
    pub errors: Vec<SpecError>,
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        let plural = if count == 1 { "error" } else { "errors" };
        write!(f, "{}: {count} {plural}", self.file)?;
        for error in &self.errors {
            write!(f, "\n  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}
