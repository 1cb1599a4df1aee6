//! The description, usage and options of each subcommand as Markdown, for `docs/commands.md`.

use std::fmt::Write as _;

use clap::{Arg, Command};
use textwrap::{Options, WordSplitter};

/// The longest line of prose in the documentation.
const COLUMNS: usize = 120;

/// The section of each subcommand, between `<!-- generated: NAME -->` and `<!-- end -->`.
pub fn sections(mut command: Command) -> String {
    command.build();
    let documented = command.get_subcommands_mut();
    let documented = documented.filter(|it| it.get_name() != "help");
    documented.map(section).collect()
}

fn section(command: &mut Command) -> String {
    let short = command.get_about().unwrap_or_default().to_string();
    let about = command.get_long_about().unwrap_or_default().to_string();
    let about = format!("{short}.{}", about.strip_prefix(&short).unwrap_or(""));
    let about = textwrap::fill(
        &about,
        Options::new(COLUMNS)
            .break_words(false)
            .word_splitter(WordSplitter::NoHyphenation),
    );
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let rows: String = command
        .get_arguments()
        .filter(|it| !it.is_hide_set() && !matches!(it.get_id().as_str(), "help" | "version"))
        .map(row)
        .collect();
    let name = command.get_name();
    let mut section = format!("<!-- generated: {name} -->\n{about}\n\n    {usage}\n\n");
    if !rows.is_empty() {
        _ = writeln!(section, "| option | default | |\n|---|---|---|\n{rows}");
    }
    section + "<!-- end -->\n"
}

/// The row of an option: its syntax, its default, and its help with the meanings of its values.
fn row(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let mut cell = help.unwrap_or_default().to_string();
    let mut default = String::new();
    if argument.get_action().takes_values() {
        for (index, value) in argument.get_possible_values().iter().enumerate() {
            let name = value.get_name();
            _ = match value.get_help() {
                Some(meaning) => write!(cell, "<br>`{name}`: {meaning}"),
                None if index == 0 => write!(cell, ": `{name}`"),
                None => write!(cell, ", `{name}`"),
            };
        }
        default.extend(
            argument
                .get_default_values()
                .iter()
                .map(|it| format!("`{}` ", it.display())),
        );
    }
    let cell = cell.replace('\n', " ").replace('|', r"\|");
    format!("| `{argument}` | {default}| {cell} |\n")
}
