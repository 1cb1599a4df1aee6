//! What is said of a connection, step by step.

use std::fmt::Write as _;

use serde::Serialize;

use super::super::terminal;

/// The columns before a step's detail.
const NAMES: usize = 13;

/// What a step means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// It goes on.
    Good,
    /// It goes on, unless what is said happens.
    Doubt,
    /// It ends here.
    End,
}

/// A step on the connection's way.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// What it means for the connection.
    pub finding: Finding,
    /// What was found, for people.
    pub detail: String,
}

/// The steps of a connection, as far as it comes.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// Whether the connection would be forwarded.
    pub forwarded: bool,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Explanation {
    /// With no step yet.
    pub const fn new() -> Self {
        Self {
            forwarded: true,
            steps: Vec::new(),
        }
    }

    /// Adds a step. Whether the connection goes on.
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
        let goes_on = finding != Finding::End;
        self.forwarded &= goes_on;
        goes_on
    }

    /// A line for each step, and one for the result, in a terminal with so many columns.
    pub fn text(&self, columns: Option<usize>) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let mark = match step.finding {
                Finding::Good => ' ',
                Finding::Doubt => '?',
                Finding::End => '!',
            };
            let detail = columns.map(|columns| columns.saturating_sub(NAMES));
            let detail = terminal::wrap_beside(&step.detail, detail, NAMES);
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
    fn details_are_broken_beside_the_names() {
        let mut explanation = Explanation::new();
        assert!(explanation.note("rule", Finding::Doubt, "1, to a server"));
        assert!(!explanation.note("source", Finding::End, "none"));
        assert_eq!(
            explanation.text(Some(23)),
            "? rule       1, to a\n             server\n! source     none\nnot forwarded"
        );
    }
}
