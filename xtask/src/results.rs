//! Parses the output of test binaries line by line, from `cargo test` and from the virtual machines of `test-kernels`.
//!
//! A test that cannot run on a machine prints `skipped: <test>: <reason>` and returns. libtest counts it as passed; the
//! results here do not.

use std::fmt;

use anstream::adapter::strip_str;
use clap::ValueEnum;
use serde::Serialize;

/// How many bytes of a failed test's output are kept.
const MAX_OUTPUT: usize = 8 << 10;

/// The format of results.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The results of one test binary.
#[derive(Debug, Default, Serialize)]
pub struct Suite {
    pub name: String,
    /// How the binary ended, in words; `None` if that is unknown.
    pub status: Option<String>,
    pub seconds: f64,
    /// In the order in which they ended.
    pub tests: Vec<Test>,
    /// Measurements of the tests, from lines that begin with `figure: `.
    pub figures: Vec<String>,
    /// The number of tests that the binary announced.
    #[serde(skip)]
    pub announced: usize,
    /// Skipped tests and the reasons, once for each test.
    #[serde(skip)]
    pub skips: Vec<(String, String)>,
    /// The numbers of passed and failed tests in libtest's last line.
    #[serde(skip)]
    counts: Option<(usize, usize)>,
    /// The test whose output is being read.
    #[serde(skip)]
    failing: Option<usize>,
    /// A test whose result is in a later line, because the test printed something.
    #[serde(skip)]
    running: Option<String>,
}

/// The result of one test.
#[derive(Debug, Serialize)]
pub struct Test {
    /// Its path in the binary, such as `module::test`.
    pub name: String,
    pub outcome: Outcome,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it printed, if it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Passed,
    Failed,
    /// It cannot run on this machine, or is ignored.
    Skipped,
    /// It was skipped on another kernel, and the manifest does not expect that.
    SkippedUnexpectedly,
}

impl Suite {
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self {
            name,
            ..Self::default()
        }
    }

    /// Reads a line of libtest or of a test.
    pub fn read_line(&mut self, line: &str) {
        // With one thread, libtest prints the name before it runs the test: `test name ... skipped: name: why`.
        let named = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... "));
        let said = named.map_or(line, |(_, said)| said);
        let skip = said
            .strip_prefix("skipped: ")
            .and_then(|it| it.split_once(": "));
        let figure = said.strip_prefix("figure: ");
        if let Some((name, _)) = named.filter(|_| skip.is_some() || figure.is_some()) {
            self.running = Some(name.to_owned());
        }
        if let Some((test, reason)) = skip {
            if self.skips.iter().all(|(known, _)| known != test) {
                self.skips.push((test.to_owned(), reason.to_owned()));
            }
        } else if let Some(figure) = figure {
            self.figures.push(figure.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.counts = number_before("passed", counts).zip(number_before("failed", counts));
            self.failing = None;
        } else if let Some(test) = output_of(line) {
            self.failing = self.tests.iter().position(|known| known.name == test);
        } else if line == "failures:" {
            self.failing = None;
        } else if let Some(test) = self.failing.map(|index| &mut self.tests[index]) {
            if test.output.len() + line.len() < MAX_OUTPUT {
                test.output.push_str(line);
                test.output.push('\n');
            }
        } else if let Some(tests) = line.strip_prefix("running ") {
            let tests = number_before("tests", tests).or(number_before("test", tests));
            self.announced += tests.unwrap_or(0);
        } else if let Some((name, outcome)) = named {
            self.add_outcome(name, outcome);
        } else if let Some(name) = self.running.take() {
            self.add_outcome(&name, line);
        }
    }

    fn add_outcome(&mut self, name: &str, outcome: &str) {
        let name = name.to_owned();
        let (outcome, reason) = match (outcome, outcome.strip_prefix("ignored")) {
            ("ok", _) => (Outcome::Passed, None),
            ("FAILED", _) => (Outcome::Failed, None),
            (_, Some("")) => (Outcome::Skipped, Some("ignored")),
            (_, Some(why)) => (Outcome::Skipped, Some(why.trim_start_matches([',', ' ']))),
            (_, None) => return self.running = Some(name),
        };
        let (reason, output) = (reason.map(str::to_owned), String::new());
        self.tests.push(Test {
            name,
            outcome,
            reason,
            output,
        });
    }

    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests
            .iter()
            .filter(|test| test.outcome == outcome)
            .count()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed) = (self.count(Outcome::Passed), self.count(Outcome::Failed));
        let skipped = self.tests.len() - passed - failed;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// `---- a::test stdout ----`
fn output_of(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

/// The number before a word: `ok. 3 passed; 0 failed; …`.
fn number_before(word: &str, counts: &str) -> Option<usize> {
    let mut parts = counts
        .split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(word));
    parts.find_map(|number| number.trim().parse().ok())
}

/// The sum of all binaries of `cargo test`.
#[derive(Default, Serialize)]
pub struct Summary {
    pub passed: usize,
    /// Including one for each binary that crashed before its result.
    pub failed: usize,
    /// The tests that failed, and the binaries that crashed.
    pub failures: Vec<String>,
    /// What was skipped, as `<test>: <reason>`.
    pub skips: Vec<String>,
}

impl Summary {
    pub fn of(suites: &[Suite]) -> Self {
        let mut summary = Self::default();
        for suite in suites {
            let skips = suite
                .skips
                .iter()
                .map(|(test, reason)| format!("{test}: {reason}"));
            summary.skips.extend(skips);
            for Test {
                name,
                outcome,
                reason,
                ..
            } in &suite.tests
            {
                match (outcome, reason) {
                    (Outcome::Failed, _) => summary.failures.push(name.clone()),
                    (_, Some(reason)) => summary.skips.push(format!("{name}: {reason}")),
                    (_, None) => {}
                }
            }
            // By libtest's own numbers, which are right even if a line was misread.
            if let Some((passed, failed)) = suite.counts {
                summary.passed += passed.saturating_sub(suite.skips.len());
                summary.failed += failed;
            } else {
                summary.failed += 1;
                summary
                    .failures
                    .push(format!("{} ended without a result", suite.name));
            }
        }
        summary
    }

    /// Returns `true` if any test passed or failed.
    pub fn ran_something(&self) -> bool {
        self.passed + self.failed > 0
    }

    pub fn succeeded(&self) -> bool {
        self.failed == 0 && self.ran_something()
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

/// Reads a line of `cargo test`, which runs the binaries in turn.
pub fn read_cargo_line(suites: &mut Vec<Suite>, line: &str) {
    let line = strip_str(line).to_string();
    let line = line.trim_end();
    if let Some(name) = binary_started(line) {
        suites.push(Suite::new(name));
    } else if let Some(suite) = suites.last_mut() {
        suite.read_line(line);
    }
}

/// `     Running tests/redirect.rs (target/debug/deps/…)`, `   Doc-tests egress_common`
fn binary_started(line: &str) -> Option<&str> {
    let name = line.strip_prefix(' ')?.trim_start();
    let name = name
        .strip_prefix("Running ")
        .or_else(|| name.strip_prefix("Doc-tests "))?;
    name.split(" (").next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(output: &str) -> Summary {
        let mut suites = Vec::new();
        output
            .lines()
            .for_each(|line| read_cargo_line(&mut suites, line));
        Summary::of(&suites)
    }

    #[test]
    fn results_of_several_binaries_add_up() {
        let summary = summary(
            "     Running unittests lib/lib.rs (target/debug/deps/a-1)
test checksum ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
     Running redirect.rs (target/debug/deps/b-2)
test http ... FAILED

failures:

---- http stdout ----
test of something else ... FAILED

failures:
    http

test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.70s
",
        );
        assert_eq!(summary.to_string(), "15 passed, 1 failed, 0 skipped");
        assert_eq!(summary.failures, ["http"]);
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
test flood ... ignored, takes an hour
test slow ... ignored
test result: ok. 1 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s
",
        );
        assert_eq!(summary.to_string(), "2 passed, 0 failed, 4 skipped");
        let skips = [
            "udp: needs BPF_PROG_TEST_RUN",
            "flood: takes an hour",
            "slow: ignored",
        ];
        assert_eq!(summary.skips[1..], skips);
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
        assert_eq!(summary.failures, ["redirect.rs ended without a result"]);
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
