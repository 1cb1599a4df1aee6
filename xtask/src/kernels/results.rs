//! What came of the tests on a kernel.

use std::fmt;

use serde::Serialize;

use super::features;
use super::guest::{MARK, Report};
use super::vm::Ending;
use crate::summary::{outcome_of, skip_of};

/// How much of a failed test's output is kept.
const MAX_OUTPUT: usize = 8 << 10;

/// Everything about one kernel.
#[derive(Debug, Serialize)]
pub struct KernelResults {
    /// The first two numbers of its version.
    pub series: String,
    /// What `uname -r` says.
    pub release: String,
    /// Whether every test passed, or was skipped as declared.
    pub success: bool,
    /// What went wrong beside the tests: a panic, a hang, an unexpected skip.
    pub problems: Vec<String>,
    /// From the start of the machine to its first process.
    pub boot_seconds: f64,
    /// From the start of the machine to its end.
    pub seconds: f64,
    /// The test binaries, in the order that they ran in.
    pub suites: Vec<SuiteResults>,
}

/// What came of one test binary.
#[derive(Debug, Default, Serialize)]
pub struct SuiteResults {
    /// Its name.
    pub name: String,
    /// How it ended; `None` if it did not.
    pub status: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Its tests, in the order that they ended in.
    pub tests: Vec<TestResults>,
    /// What its tests told of this kernel, in lines that begin with `figure: `.
    pub figures: Vec<String>,
    #[serde(skip)]
    announced: usize,
    #[serde(skip)]
    success: bool,
    #[serde(skip)]
    skips: Vec<(String, String)>,
    #[serde(skip)]
    failing: Option<usize>,
    /// A test whose result comes in a later line, as something was printed meanwhile.
    #[serde(skip)]
    running: Option<String>,
}

/// What came of one test.
#[derive(Debug, Serialize)]
pub struct TestResults {
    /// Its path in the binary.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it printed, if it failed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// What comes of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It ran to its end.
    Passed,
    /// It did not.
    Failed,
    /// It could not run, because this kernel is declared to lack something.
    Skipped,
    /// It could not run, and nothing declares that.
    SkippedUnexpectedly,
}

/// Takes in the lines that a guest writes.
#[derive(Debug, Default)]
pub struct Reader {
    release: Option<String>,
    suites: Vec<SuiteResults>,
    problems: Vec<String>,
    is_done: bool,
}

impl Reader {
    /// Takes in a line. What the guest says of itself is returned.
    pub fn read_line(&mut self, line: &str) -> Option<Report> {
        let Some(json) = line.strip_prefix(MARK) else {
            if let Some(suite) = self.suites.last_mut() {
                suite.read_line(line);
            }
            return None;
        };
        let report = match serde_json::from_str(json) {
            Ok(report) => report,
            Err(error) => {
                self.problems
                    .push(format!("the guest wrote {json:?}: {error}"));
                return None;
            }
        };
        match &report {
            Report::Booted { release } => self.release = Some(release.clone()),
            Report::Begin { suite } => self.suites.push(SuiteResults {
                name: suite.clone(),
                ..SuiteResults::default()
            }),
            Report::End {
                status,
                success,
                milliseconds,
                ..
            } => {
                if let Some(suite) = self.suites.last_mut() {
                    suite.status = Some(status.clone());
                    suite.success = *success;
                    #[expect(clippy::cast_precision_loss, reason = "no test runs for that long")]
                    {
                        suite.seconds = *milliseconds as f64 / 1000.0;
                    }
                }
            }
            Report::Problem { message } => self.problems.push(message.clone()),
            Report::Done => self.is_done = true,
        }
        Some(report)
    }

    /// The suite that runs now, or ran last.
    pub fn current(&self) -> Option<&SuiteResults> {
        self.suites.last()
    }

    /// Judges what has been read.
    pub fn finish(mut self, series: &str, ending: &Ending) -> KernelResults {
        match ending {
            Ending::Ended if self.is_done => {}
            Ending::Ended => self.problem("the machine ended before its tests"),
            Ending::Panic(message) => self.problem(&format!("the kernel panicked: {message}")),
            Ending::Hang => self.problem("nothing more came, until the time was over"),
        }
        for suite in &mut self.suites {
            suite.take_out_skips(series);
            self.problems.extend(suite.problems());
        }
        KernelResults {
            series: series.to_owned(),
            release: self.release.unwrap_or_default(),
            success: self.problems.is_empty(),
            problems: self.problems,
            boot_seconds: 0.0,
            seconds: 0.0,
            suites: self.suites,
        }
    }

    fn problem(&mut self, what: &str) {
        let place = match self.suites.last() {
            None => "before any test".to_owned(),
            Some(suite) if suite.status.is_some() => format!("after {}", suite.name),
            Some(suite) => format!("in {}, after {} tests", suite.name, suite.tests.len()),
        };
        self.problems.push(format!("{what} ({place})"));
    }
}

impl SuiteResults {
    fn read_line(&mut self, line: &str) {
        if let Some((name, printed)) = line
            .strip_prefix("test ")
            .and_then(|it| it.split_once(" ... "))
            && (printed.starts_with("skipped: ") || printed.starts_with("figure: "))
        {
            self.running = Some(name.to_owned());
        }
        if let Some(number) = announced(line) {
            self.announced += number;
        } else if let Some((test, reason)) = skip_of(line).and_then(|skip| skip.split_once(": ")) {
            self.skips.push((test.to_owned(), reason.to_owned()));
        } else if let Some((_, figure)) = line.split_once("figure: ") {
            self.figures.push(figure.to_owned());
        } else if let Some(test) = output_of(line) {
            self.failing = self.tests.iter().position(|known| known.name == test);
        } else if line == "failures:" {
            self.failing = None;
        } else if let Some(index) = self.failing {
            let output = &mut self.tests[index].output;
            if output.len() + line.len() < MAX_OUTPUT {
                output.push_str(line);
                output.push('\n');
            }
        } else if let Some((name, outcome)) = outcome_of(line) {
            self.take_outcome(name, outcome);
        } else if let Some(name) = self.running.take() {
            self.take_outcome(&name, line);
        }
    }

    fn take_outcome(&mut self, name: &str, outcome: &str) {
        let (outcome, reason) = match outcome {
            "ok" => (Outcome::Passed, None),
            "FAILED" => (Outcome::Failed, None),
            other => {
                let Some(why) = other.strip_prefix("ignored") else {
                    self.running = Some(name.to_owned());
                    return;
                };
                (Outcome::Skipped, Some(format!("ignored{why}")))
            }
        };
        self.tests.push(TestResults {
            name: name.to_owned(),
            outcome,
            reason,
            output: String::new(),
        });
    }

    /// Tests that were skipped have passed as far as libtest knows.
    fn take_out_skips(&mut self, series: &str) {
        for (skipped, reason) in &self.skips {
            let of_that_name =
                |test: &&mut TestResults| test.name.split("::").any(|part| part == skipped);
            for test in self.tests.iter_mut().filter(of_that_name) {
                if test.outcome == Outcome::Passed {
                    test.outcome = match features::excuse(series, reason) {
                        Some(_) => Outcome::Skipped,
                        None => Outcome::SkippedUnexpectedly,
                    };
                    test.reason = Some(reason.clone());
                }
            }
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for test in &self.tests {
            let name = format!("{}: {}", self.name, test.name);
            match (test.outcome, &test.reason) {
                (Outcome::Failed, _) => problems.push(format!("{name} failed")),
                (Outcome::SkippedUnexpectedly, reason) => problems.push(format!(
                    "{name} was skipped, which nothing declares: {}",
                    reason.as_deref().unwrap_or("for no reason")
                )),
                (Outcome::Passed | Outcome::Skipped, _) => {}
            }
        }
        let status = self.status.as_deref().unwrap_or("did not end");
        let unheard = self.announced.saturating_sub(self.tests.len());
        if unheard > 0 {
            problems.push(format!(
                "{}: nothing was heard of {unheard} tests ({status})",
                self.name
            ));
        } else if self.announced == 0 {
            problems.push(format!("{}: no test ran ({status})", self.name));
        } else if !self.success && self.count(Outcome::Failed) == 0 {
            problems.push(format!("{}: {status}", self.name));
        }
        problems
    }

    /// How many tests ended like this.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.tests
            .iter()
            .filter(|test| test.outcome == outcome)
            .count()
    }

    /// How many tests there are, as far as the binary has said.
    pub fn announced(&self) -> usize {
        self.announced
    }
}

impl fmt::Display for SuiteResults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.count(Outcome::Skipped) + self.count(Outcome::SkippedUnexpectedly);
        write!(
            formatter,
            "{} passed, {} failed, {skipped} skipped",
            self.count(Outcome::Passed),
            self.count(Outcome::Failed),
        )
    }
}

/// `running 12 tests`
fn announced(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("running ")?;
    let (number, word) = rest.split_once(' ')?;
    word.starts_with("test").then(|| number.parse().ok())?
}

/// `---- a::test stdout ----`
fn output_of(line: &str) -> Option<&str> {
    line.strip_prefix("---- ")?.strip_suffix(" stdout ----")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(lines: &str, ending: &Ending) -> KernelResults {
        let mut reader = Reader::default();
        for line in lines.lines() {
            reader.read_line(line);
        }
        reader.finish("5.10", ending)
    }

    const BOOTED: &str = "==guest== {\"booted\":{\"release\":\"5.10.0\"}}\n";
    const BEGIN: &str = "==guest== {\"begin\":{\"suite\":\"packets\"}}\n";

    fn end(success: bool) -> String {
        format!(
            "\n==guest== {{\"end\":{{\"suite\":\"packets\",\"status\":\"exit status\",\"success\":{success},\
             \"milliseconds\":1500}}}}\n==guest== \"done\"\n"
        )
    }

    #[test]
    fn tests_that_pass_are_a_success() {
        let text = format!(
            "{BOOTED}{BEGIN}running 1 test\ntest a ... ok\n{}",
            end(true)
        );
        let results = results(&text, &Ending::Ended);
        assert!(results.success, "{results:?}");
        assert_eq!(results.release, "5.10.0");
        assert_eq!(
            results.suites[0].to_string(),
            "1 passed, 0 failed, 0 skipped"
        );
    }

    #[test]
    fn a_failing_test_is_named_with_its_output() {
        let text = format!(
            "{BOOTED}{BEGIN}running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n\
             ---- b::c stdout ----\nError: wrong port\n\nfailures:\n    b::c\n{}",
            end(false)
        );
        let results = results(&text, &Ending::Ended);
        assert_eq!(results.problems, ["packets: b::c failed"]);
        assert_eq!(results.suites[0].tests[1].output, "Error: wrong port\n\n");
    }

    #[test]
    fn only_a_declared_skip_is_no_problem() {
        let text = format!(
            "{BOOTED}{BEGIN}running 2 tests\nskipped: a: the kernel has no tcx (Linux 6.6)\n\
             skipped: b: no reason\ntest a ... ok\ntest m::b::over_ipv4 ... ok\n{}",
            end(true)
        );
        let results = results(&text, &Ending::Ended);
        assert_eq!(
            results.problems,
            ["packets: m::b::over_ipv4 was skipped, which nothing declares: no reason"]
        );
        assert_eq!(
            results.suites[0].to_string(),
            "0 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn a_result_is_found_behind_what_a_test_prints() {
        let text = format!(
            "{BOOTED}{BEGIN}running 3 tests\ntest a ... figure: 5 ms\nfigure: 3 instructions\nok\n\
             test b ... skipped: b: the kernel has no tcx\nok\ntest c ... ok\n{}",
            end(true)
        );
        let results = results(&text, &Ending::Ended);
        assert!(results.success, "{results:?}");
        assert_eq!(
            results.suites[0].to_string(),
            "2 passed, 0 failed, 1 skipped"
        );
        assert_eq!(results.suites[0].figures, ["5 ms", "3 instructions"]);
    }

    #[test]
    fn a_panic_a_hang_and_an_early_end_are_problems() {
        let text = format!("{BOOTED}{BEGIN}running 2 tests\ntest a ... ok\n");
        for (ending, words) in [
            (
                Ending::Panic("oops".to_owned()),
                "the kernel panicked: oops (in packets, after 1 tests)",
            ),
            (
                Ending::Hang,
                "nothing more came, until the time was over (in packets, after 1 tests)",
            ),
            (
                Ending::Ended,
                "the machine ended before its tests (in packets, after 1 tests)",
            ),
        ] {
            let results = results(&text, &ending);
            assert!(!results.success);
            assert_eq!(results.problems[0], words);
            assert_eq!(
                results.problems[1],
                "packets: nothing was heard of 1 tests (did not end)"
            );
        }
    }
}
