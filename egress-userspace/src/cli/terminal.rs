//! Fits text to the width of a terminal. Output to a pipe or a file is not wrapped.

use std::{io, os::fd::AsFd};

use terminal_size::{Width, terminal_size_of};
use textwrap::{Options, WordSplitter};

/// The width of standard output; `None` if it is not a terminal.
pub fn columns() -> Option<usize> {
    columns_of(io::stdout())
}

/// The width of this file; `None` if it is not a terminal or its width is unknown.
pub fn columns_of(file: impl AsFd) -> Option<usize> {
    let (Width(columns), _) = terminal_size_of(file)?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Wraps the lines of `text` to `columns`. Continuations are indented by `hanging` more than their line. Words, such as
/// addresses, stay whole.
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

/// Wraps `text` to `columns`, and indents every line but the first by `indent`, for text beside a name.
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
    fn lines_are_wrapped_between_words_and_indented() {
        let text = "  a few words\nand [2001:db8:1234:5678::1]:443";
        assert_eq!(
            wrap(text, Some(10), 2),
            "  a few\n    words\nand\n  [2001:db8:1234:5678::1]:443"
        );
        assert_eq!(wrap(text, Some(80), 2), text);
        assert_eq!(wrap(text, None, 2), text);
    }
}
