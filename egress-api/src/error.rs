//! What is wrong with a spec, for people and for programs.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong: where, what was found, what was expected, and what to do about it where that is known.
///
/// Displayed as `spec.redirect.redirectRules[2].port: 70000 is not a port (1–65535)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SpecError {
    /// The field, as `spec.redirect.redirectRules[2].port`; `line 3, column 7` for a syntax error, `document` for
    /// what concerns the whole text.
    pub path: String,
    /// What the spec says.
    pub found: String,
    /// What the field takes.
    pub expected: String,
    /// What to do, where there is more to say than `expected` does.
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
    /// `found` is a value that is not an `expected`.
    pub(crate) fn is_not(
        path: impl ToString,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::new(path, found.into(), expected.into(), Phrase::IsNot)
    }

    /// `found` says what is the case instead of `expected`.
    pub(crate) fn instead(
        path: impl ToString,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self::new(path, found.into(), expected.into(), Phrase::Instead)
    }

    /// A required field that is not there.
    pub(crate) fn missing(path: impl ToString, expected: impl Into<String>) -> Self {
        Self::instead(path, "missing", expected)
    }

    /// Adds what to do.
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

/// Everything that is wrong with one spec: never empty.
///
/// Displayed as `file: 2 errors` and one indented line per error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecErrors {
    /// What the text was read from.
    pub file: String,
    /// The errors, one for each thing that has to be changed.
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
