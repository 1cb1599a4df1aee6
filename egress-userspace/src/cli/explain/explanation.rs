//! The result of `explain`: the steps of a connection, and whether it would be forwarded.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::terminal;

/// The width of the columns before a step's detail.
const DETAIL_INDENT: usize = 13;

/// What a step means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// The connection proceeds.
    Good,
    /// The connection proceeds, unless the detail says otherwise.
    Doubt,
    /// The connection ends here.
    End,
}

/// A step of the connection.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// What it means for the connection.
    pub finding: Finding,
    /// What was found, as text.
    pub detail: String,
}

/// The steps of a connection, up to the last one that it reaches.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Whether the connection would be forwarded.
    pub forwarded: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Explanation {
    /// An explanation without steps.
    pub const fn new() -> Self {
        Self {
            forwarded: true,
            steps: Vec::new(),
        }
    }

    /// Adds a step. Returns `true` if the connection proceeds.
    pub fn note(
        &mut self,
        name: &'static str,
        finding: Finding,
        detail: impl Into<String>,
    ) -> bool {
        self.steps.push(Step {
            name,
            finding,
            detail: detail.into(),
        });
        let proceeds = finding != Finding::End;
        self.forwarded &= proceeds;
        proceeds
    }

    /// A line for each step and one for the result, wrapped to `columns`.
    pub fn text(&self, columns: Option<usize>) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let mark = match step.finding {
                Finding::Good => ' ',
                Finding::Doubt => '?',
                Finding::End => '!',
            };
            let detail = columns.map(|columns| columns.saturating_sub(DETAIL_INDENT));
            let detail = terminal::wrap_beside(&step.detail, detail, DETAIL_INDENT);
            let _ = writeln!(text, "{mark} {:<9}  {detail}", step.name);
        }
        text.push_str(if self.forwarded {
            "forwarded"
        } else {
            "not forwarded"
        });
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_wrapped_beside_the_names() {
        let mut explanation = Explanation::new();
        assert!(explanation.note("rule", Finding::Doubt, "1, to a server"));
        assert!(!explanation.note("source", Finding::End, "none"));
        assert_eq!(
            explanation.text(Some(23)),
            "? rule       1, to a\n             server\n! source     none\nnot forwarded"
        );
    }
}
