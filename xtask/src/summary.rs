//! Summing up the output of `cargo test`.

use std::fmt;

/// What the lines of `cargo test` amount to.
///
/// A test that cannot run on a machine writes `skipped: <test>: <reason>` and
/// returns; libtest then counts it as passed, and this takes it out again.
#[derive(Debug, Default)]
pub struct Summary {
    passed: usize,
    failed: usize,
    skips: Vec<String>,
    failures: Vec<String>,
    binary: Option<Binary>,
}

/// A test binary that runs now.
#[derive(Debug, Default)]
struct Binary {
    name: String,
    /// Who wrote that it skips; a test may say so more than once.
    skips: Vec<String>,
}

impl Summary {
    /// Takes in a line of cargo's, libtest's or a test's output.
    pub fn read_line(&mut self, line: &str) {
        let line = without_colours(line);
        let line = line.trim_end();
        if let Some(name) = binary_started(line) {
            self.finish();
            self.binary = Some(Binary {
                name: name.to_owned(),
                skips: Vec::new(),
            });
        } else if let Some(skipped) = skip_of(line) {
            let skips = &mut self.binary.get_or_insert_default().skips;
            if !skips.iter().any(|known| test_of(known) == test_of(skipped)) {
                skips.push(skipped.to_owned());
            }
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            let skips = self.binary.take().unwrap_or_default().skips;
            self.passed += count(counts, "passed").saturating_sub(skips.len());
            self.failed += count(counts, "failed");
            self.skips.extend(skips);
        } else if let Some((name, outcome)) = outcome_of(line) {
            if outcome == "FAILED" {
                self.failures.push(name.to_owned());
            } else if let Some(reason) = outcome.strip_prefix("ignored") {
                let reason = reason.trim_start_matches([',', ' ']);
                let reason = if reason.is_empty() { "ignored" } else { reason };
                self.skips.push(format!("{name}: {reason}"));
            }
        }
    }

    /// Closes the account of the binary that ran last: one that gave no result
    /// crashed, and counts as failed.
    pub fn finish(&mut self) {
        if let Some(binary) = self.binary.take() {
            self.failed += 1;
            self.failures
                .push(format!("{} ended without a result", binary.name));
            self.skips.extend(binary.skips);
        }
    }

    /// How many tests passed.
    pub fn passed(&self) -> usize {
        self.passed
    }

    /// How many tests failed, a crashed binary counting as one.
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// What was skipped, as `<test>: <reason>`.
    pub fn skips(&self) -> &[String] {
        &self.skips
    }

    /// The tests that failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// Whether any test ran to its end.
    pub fn ran_something(&self) -> bool {
        self.passed + self.failed > 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            passed,
            failed,
            skips,
            ..
        } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {} skipped",
            skips.len()
        )
    }
}

/// `     Running tests/redirect.rs (target/debug/deps/…)`, `   Doc-tests egress_common`
fn binary_started(line: &str) -> Option<&str> {
    let trimmed = line.trim_start();
    if trimmed.len() == line.len() {
        return None;
    }
    let name = trimmed
        .strip_prefix("Running ")
        .or_else(|| trimmed.strip_prefix("Doc-tests "))?;
    Some(name.split(" (").next().unwrap_or(name))
}

/// `skipped: a_test: why`, also behind the `test a_test ... ` that a libtest
/// with one thread writes before it runs the test.
pub fn skip_of(line: &str) -> Option<&str> {
    let line = match line.strip_prefix("test ") {
        Some(rest) => rest.split_once(" ... ")?.1,
        None => line,
    };
    line.strip_prefix("skipped: ")
}

/// The test of `a_test: why`.
fn test_of(skipped: &str) -> &str {
    skipped.split(": ").next().unwrap_or(skipped)
}

/// `test a_test ... ok`
pub fn outcome_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.rsplit_once(" ... ")
}

/// The number before a word: `ok. 3 passed; 0 failed; …`.
fn count(counts: &str, what: &str) -> usize {
    counts
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(what))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// Leaves out the escape sequences with which cargo colours its words.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            characters.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> Summary {
        let mut summary = Summary::default();
        output.lines().for_each(|line| summary.read_line(line));
        summary.finish();
        summary
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let summary = summary(
            "     Running unittests lib/lib.rs (target/debug/deps/a-1)
test checksum ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running redirect.rs (target/debug/deps/b-2)
test http ... FAILED
test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.70s
",
        );
        assert_eq!(summary.to_string(), "15 passed, 1 failed, 0 skipped");
        assert_eq!(summary.failures(), ["http"]);
    }

    #[test]
    fn a_skipped_test_is_not_a_passed_one() {
        let summary = summary(
            "     Running redirect.rs (target/debug/deps/b-2)
skipped: udp: needs root to make network namespaces
skipped: udp: needs root to make network namespaces
test udp ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
     Running packets.rs (target/debug/deps/c-2)
test udp ... skipped: udp: needs BPF_PROG_TEST_RUN
ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 2 skipped");
        assert_eq!(summary.skips()[1], "udp: needs BPF_PROG_TEST_RUN");
    }

    #[test]
    fn an_ignored_test_is_skipped_with_its_reason() {
        let summary = summary(
            "     Running load.rs (target/debug/deps/b-2)
test flood ... ignored, takes an hour
test slow ... ignored
test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(summary.to_string(), "1 passed, 0 failed, 2 skipped");
        assert_eq!(summary.skips(), ["flood: takes an hour", "slow: ignored"]);
    }

    #[test]
    fn a_binary_that_crashes_is_a_failure() {
        let summary = summary(
            "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m redirect.rs (target/debug/deps/b-2)
running 2 tests
error: test failed, to rerun pass `-p egress-tests --test redirect`
   Doc-tests egress_common
test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(summary.to_string(), "0 passed, 1 failed, 0 skipped");
        assert_eq!(summary.failures(), ["redirect.rs ended without a result"]);
    }

    #[test]
    fn only_skipped_tests_means_that_nothing_ran() {
        let summary = summary(
            "     Running redirect.rs (target/debug/deps/b-2)
skipped: udp: needs root
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.00s
",
        );
        assert!(!summary.ran_something());
        assert_eq!(summary.to_string(), "0 passed, 0 failed, 1 skipped");
    }
}
