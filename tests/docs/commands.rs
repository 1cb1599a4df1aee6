//! The parts of `docs/commands.md` that are generated from clap: description, usage and options of each subcommand.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result};
use clap::{Arg, Command};
use egress_userspace::cli;

use super::COMMANDS;

/// The longest line of prose in the documentation.
const COLUMNS: usize = 120;
/// The line after each section.
const END: &str = "<!-- end -->\n";

/// The section of each subcommand, between `<!-- generated: NAME -->` and `<!-- end -->`.
fn sections(mut command: Command) -> Vec<String> {
    command.build();
    let documented = command.get_subcommands_mut();
    let documented = documented.filter(|it| it.get_name() != "help");
    documented.map(section).collect()
}

fn section(command: &mut Command) -> String {
    let short = command.get_about().unwrap_or_default().to_string();
    let about = command.get_long_about().unwrap_or_default().to_string();
    let about = format!("{short}.{}", about.strip_prefix(&short).unwrap_or(""));
    let options = textwrap::Options::new(COLUMNS)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let about = textwrap::fill(&about, options);
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
    section + END
}

/// The row of an option: how it is written, its default, and what it does, with its values if it has a list of them.
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

/// Puts the program's sections in place of those of the page, from `<!-- generated: NAME -->` to `<!-- end -->`.
fn with_sections(page: &str, sections: &[String]) -> Result<String> {
    let mut updated = page.to_owned();
    for section in sections {
        let marker = section.lines().next().unwrap_or_default();
        let (before, after) = updated
            .split_once(&format!("{marker}\n"))
            .with_context(|| format!("docs/commands.md has no line {marker}"))?;
        let (_, after) = after
            .split_once(END)
            .with_context(|| format!("docs/commands.md: {marker} has no end"))?;
        updated = format!("{before}{section}{after}");
    }
    Ok(updated)
}

#[test]
fn the_commands_and_their_options_are_those_of_the_program() -> Result<()> {
    let expected = with_sections(COMMANDS, &sections(cli::command()))?;
    if env::var_os("UPDATE_DOCS").is_some() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/commands.md");
        // Other tests read the page at the same time.
        if expected != COMMANDS {
            fs::write(page, &expected)?;
        }
        return Ok(());
    }
    let changed = expected.lines().find(|line| !COMMANDS.contains(line));
    assert!(
        COMMANDS == expected,
        "docs/commands.md is not current, such as the line {:?}; UPDATE_DOCS=1 rewrites it",
        changed.unwrap_or_default()
    );
    Ok(())
}
