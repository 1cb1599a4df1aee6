//! What the demo writes, fitted to the terminal it is written to.

use std::env;
use std::io::{IsTerminal as _, stdout};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSeparator, WordSplitter};

/// Where no terminal says how wide it is.
const USUAL_WIDTH: usize = 80;
/// From here on two columns stand side by side.
const WIDE: usize = 110;
/// Longer lines are hard to read, and headings are no longer than this.
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
    /// Finds out how wide the terminal is, and whether it wants colours (<https://no-color.org>).
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

    /// Begins a part.
    pub fn heading(&self, title: &str) {
        let width = self.width.min(HEADING_WIDTH);
        let line = "─".repeat(width.saturating_sub(title.chars().count() + 4));
        let [start, line] = ["──", &line].map(|line| self.styled(DIM, line));
        println!("\n{start} {} {line}\n", self.styled(BOLD, title));
    }

    /// A command as it is typed on one of the lab's hosts.
    pub fn command(&self, host: &str, line: &str) {
        let prompt = format!("{host}$");
        // Room for the prompt's space and a continuation's ` \`.
        let width = self.width.saturating_sub(prompt.len() + 3);
        let line = wrapped(line, width, 0).join(" \\\n    ");
        println!("{} {}", self.styled(DIM, &prompt), self.styled(BOLD, &line));
    }

    /// What the demo itself says.
    pub fn remark(&self, text: &str) {
        for line in wrapped(text, self.width.min(HEADING_WIDTH), 0) {
            println!("{}", self.styled(DIM, &line));
        }
    }

    /// What a program has written. Lines that are too long go on at the column `hanging`.
    pub fn output(&self, text: &str, hanging: usize) {
        for line in text.lines() {
            for part in wrapped(line, self.width, hanging) {
                println!("{part}");
            }
        }
    }

    /// A table in which every row is broken at the same places, if it is too wide: before each of `columns`, which are
    /// texts of the header. What is broken off stands below the header's second word.
    pub fn table(&self, text: &str, columns: &[&str]) {
        let widest = text.lines().map(|line| line.chars().count()).max();
        let header = text.lines().next().unwrap_or_default();
        if widest <= Some(self.width) {
            println!("{text}");
            return;
        }
        let second = header.find(' ').unwrap_or(0);
        let indent = header[second..].find(|c| c != ' ').unwrap_or(0) + second;
        for line in text.lines() {
            for (index, part) in broken(line, header, columns).iter().enumerate() {
                let indent = if index == 0 { 0 } else { indent };
                println!("{:indent$}{part}", "");
            }
        }
    }

    /// Two texts side by side, or one below the other where the terminal is too narrow for that.
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

/// Breaks a row before each of the header's `columns`. A column that starts with a mark, such as `⇒`, is one that each
/// row has at a place of its own.
fn broken(row: &str, header: &str, columns: &[&str]) -> Vec<String> {
    let chars: Vec<char> = row.chars().collect();
    let place = |column: &&str| {
        let text = if column.is_ascii() { header } else { row };
        text.find(*column)
            .map(|bytes| text[..bytes].chars().count())
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for end in columns.iter().filter_map(place).chain([chars.len()]) {
        let end = end.clamp(start, chars.len());
        parts.push(
            chars[start..end]
                .iter()
                .collect::<String>()
                .trim_end()
                .to_owned(),
        );
        start = end;
    }
    parts
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

    #[test]
    fn a_row_is_broken_where_the_header_says() {
        let header = "PROTO  CLIENT ⇒ SERVER          STATE  AGE";
        let row = "TCP    10.0.0.1:5 ⇒ 10.0.0.2:6  OPEN    1s";
        let columns = ["⇒", "STATE"];
        assert_eq!(
            broken(header, header, &columns),
            ["PROTO  CLIENT", "⇒ SERVER", "STATE  AGE"]
        );
        assert_eq!(
            broken(row, header, &columns),
            ["TCP    10.0.0.1:5", "⇒ 10.0.0.2:6", "OPEN    1s"]
        );
    }
}
