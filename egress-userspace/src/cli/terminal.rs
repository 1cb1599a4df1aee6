//! Fitting text to the terminal that it is printed to. What goes into a pipe or a file is left as it is.

use std::{io, os::fd::AsFd};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// How many columns the terminal has that standard output is; `None` if it is none.
pub fn columns() -> Option<usize> {
    columns_of(io::stdout())
}

/// How many columns the terminal has that this file is; `None` if it is none, or does not tell.
pub fn columns_of(file: impl AsFd) -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(file)?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Breaks the lines of `text` between words so that each has no more than `columns` columns. What follows a break is
/// indented by `hanging` more than the line itself. Words, such as addresses, stay whole.
pub fn wrap(text: &str, columns: Option<usize>, hanging: usize) -> String {
    let Some(columns) = columns else {
        return text.to_owned();
    };
    let lines: Vec<_> = text
        .lines()
        .map(|line| wrap_line(line, columns, hanging))
        .collect();
    lines.join("\n")
}

/// Breaks `text` between words into `columns` columns, and indents every line but the first by `indent`: it stands
/// beside a name.
pub fn wrap_beside(text: &str, columns: Option<usize>, indent: usize) -> String {
    let beside = format!("\n{:indent$}", "");
    wrap(text, columns, 0).replace('\n', &beside)
}

fn wrap_line(line: &str, columns: usize, hanging: usize) -> String {
    let words = line.trim_start();
    let own = &line[..line.len() - words.len()];
    let indent = " ".repeat(own.len() + hanging);
    let options = Options::new(columns)
        .initial_indent(own)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation);
    textwrap::fill(words, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_indented() {
        let text = "  a few words\nand [2001:db8:1234:5678::1]:443";
        assert_eq!(
            wrap(text, Some(10), 2),
            "  a few\n    words\nand\n  [2001:db8:1234:5678::1]:443"
        );
        assert_eq!(wrap(text, Some(80), 2), text);
        assert_eq!(wrap(text, None, 2), text);
    }
}
