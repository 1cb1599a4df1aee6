//! What the demo writes, fitted to the terminal it is written to.

use std::env;
use std::io::{IsTerminal as _, stdout};

use terminal_size::{Width, terminal_size_of};

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
        let line = "─".repeat(
            self.width
                .min(HEADING_WIDTH)
                .saturating_sub(title.chars().count() + 4),
        );
        println!(
            "\n{} {} {}\n",
            self.styled(DIM, "──"),
            self.styled(BOLD, title),
            self.styled(DIM, &line)
        );
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
        let rows = left.lines().count().max(right.lines().count());
        let gap = 4 + left
            .lines()
            .map(|line| line.chars().count())
            .max()
            .unwrap_or(0);
        let (mut left, mut right) = (left.lines(), right.lines());
        for _ in 0..rows {
            let (left, right) = (
                left.next().unwrap_or_default(),
                right.next().unwrap_or_default(),
            );
            println!("{}", format!("{left:gap$}{right}").trim_end());
        }
    }
}

/// Breaks a row before each of the header's `columns`. A column that starts with a mark, such as `⇒`, is one that each
/// row has at a place of its own.
fn broken(row: &str, header: &str, columns: &[&str]) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest: Vec<char> = row.chars().collect();
    let mut taken = 0;
    for column in columns {
        let place = if column.starts_with(|c: char| c.is_ascii()) {
            char_index(header, column).and_then(|index| index.checked_sub(taken))
        } else {
            char_index(&rest.iter().collect::<String>(), column)
        };
        let Some(place) = place.filter(|place| *place <= rest.len()) else {
            continue;
        };
        let tail = rest.split_off(place);
        parts.push(rest.iter().collect::<String>().trim_end().to_owned());
        rest = tail;
        taken += place;
    }
    parts.push(rest.iter().collect::<String>().trim_end().to_owned());
    parts
}

/// Where `part` begins in `text`, in characters.
fn char_index(text: &str, part: &str) -> Option<usize> {
    text.find(part).map(|bytes| text[..bytes].chars().count())
}

/// Wraps a line between words; all but the first part are indented.
fn wrapped(line: &str, width: usize, indent: usize) -> Vec<String> {
    if line.chars().count() <= width {
        return vec![line.to_owned()];
    }
    // The first words keep the spaces between them: they may be columns.
    let start: String = line.chars().take(indent).collect();
    let mut parts = vec![start];
    let mut fresh = true;
    for word in line[parts[0].len()..].split(' ') {
        let part = parts.last_mut().expect("it starts with one part");
        if !fresh && part.chars().count() + 1 + word.chars().count() > width {
            parts.push(format!("{:indent$}{word}", ""));
            continue;
        }
        if !fresh {
            part.push(' ');
        }
        part.push_str(word);
        fresh = false;
    }
    parts
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
    }

    #[test]
    fn a_word_that_is_too_long_stands_alone() {
        assert_eq!(
            wrapped("a verylongword b", 6, 0),
            ["a", "verylongword", "b"]
        );
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
