//! The output of the demo, fitted to the width of the terminal.

use std::env;
use std::io::{IsTerminal as _, stdout};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSeparator, WordSplitter};

/// The width if standard output is not a terminal.
const USUAL_WIDTH: usize = 80;
/// From this width on, two texts are shown side by side.
const WIDE: usize = 110;
/// The maximum width of headings and remarks, because longer lines are hard to read.
const HEADING_WIDTH: usize = 80;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

/// The standard output.
pub struct Page {
    width: usize,
    coloured: bool,
}

impl Page {
    /// Detects the width of the terminal, and whether to use colours (<https://no-color.org>).
    pub fn of_standard_output() -> Self {
        let width = terminal_size_of(stdout()).map(|(Width(width), _)| usize::from(width));
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self {
            width: width.unwrap_or(USUAL_WIDTH),
            coloured: stdout().is_terminal() && !no_color && !dumb,
        }
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.coloured {
            format!("{style}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }

    /// Starts a section.
    pub fn heading(&self, title: &str) {
        let width = self.width.min(HEADING_WIDTH);
        let line = "─".repeat(width.saturating_sub(title.chars().count() + 4));
        let [start, line] = ["──", &line].map(|line| self.styled(DIM, line));
        println!("\n{start} {} {line}\n", self.styled(BOLD, title));
    }

    /// A command that is typed on one of the lab's hosts.
    pub fn command(&self, host: &str, line: &str) {
        let prompt = format!("{host}$");
        // Three columns for the space after the prompt and for ` \` at the end.
        let width = self.width.saturating_sub(prompt.len() + 3);
        let line = wrapped(line, width, 0).join(" \\\n    ");
        println!("{} {}", self.styled(DIM, &prompt), self.styled(BOLD, &line));
    }

    /// A remark of the demo.
    pub fn remark(&self, text: &str) {
        for line in wrapped(text, self.width.min(HEADING_WIDTH), 0) {
            println!("{}", self.styled(DIM, &line));
        }
    }

    /// The output of a program. Continuations of long lines are indented by `hanging`.
    pub fn output(&self, text: &str, hanging: usize) {
        for line in text.lines() {
            for part in wrapped(line, self.width, hanging) {
                println!("{part}");
            }
        }
    }

    /// Two texts side by side, or one below the other if the terminal is too narrow.
    pub fn side_by_side(&self, left: &str, right: &str) {
        if self.width < WIDE {
            println!("{left}\n\n{right}");
            return;
        }
        let widest = left.lines().map(|line| line.chars().count()).max();
        let gap = 4 + widest.unwrap_or(0);
        let rows = left.lines().count().max(right.lines().count());
        let (mut left, mut right) = (left.lines(), right.lines());
        for _ in 0..rows {
            let (left, right) = (left.next().unwrap_or(""), right.next().unwrap_or(""));
            println!("{}", format!("{left:gap$}{right}").trim_end());
        }
    }
}

/// Wraps a line between words; all but the first part are indented.
fn wrapped(line: &str, width: usize, indent: usize) -> Vec<String> {
    let indent = " ".repeat(indent);
    let options = Options::new(width)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .subsequent_indent(&indent);
    textwrap::wrap(line, options)
        .into_iter()
        .map(Into::into)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_goes_on_below_its_own_text() {
        assert_eq!(wrapped("short", 10, 4), ["short"]);
        assert_eq!(
            wrapped("INFO  one two three", 11, 6),
            ["INFO  one", "      two", "      three"]
        );
        assert_eq!(wrapped("one two three", 8, 0), ["one two", "three"]);
        let parts = wrapped("a verylongword b", 6, 0);
        assert_eq!(parts, ["a", "verylongword", "b"]);
    }
}
