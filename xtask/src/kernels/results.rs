//! The results of the tests on a kernel.

use serde::Serialize;

use super::guest::{MARK, Report};
use super::manifest;
use super::vm::Ending;
use crate::results::{Outcome, Suite};

/// The status of a binary without failures.
const SUCCESS: &str = "exit status: 0";

/// The results of one kernel.
#[derive(Debug, Serialize)]
pub struct KernelResults {
    /// The first two numbers of its version.
    pub series: String,
    /// What `uname -r` says.
    pub release: String,
    /// Whether every test passed or was skipped as expected, and nothing else went wrong.
    pub success: bool,
    /// What went wrong: failures, unexpected skips, a panic, a hang.
    pub problems: Vec<String>,
    /// From the start of the machine to its first process.
    pub boot_seconds: f64,
    /// From the start of the machine to its end.
    pub seconds: f64,
    /// The test binaries, in the order in which they ran.
    pub suites: Vec<Suite>,
}

/// Reads the lines that a guest writes.
#[derive(Default)]
pub struct Reader {
    release: String,
    suites: Vec<Suite>,
    problems: Vec<String>,
    is_done: bool,
}

impl Reader {
    /// Reads a line. Returns it if it is a report of the guest itself.
    pub fn read_line(&mut self, line: &str) -> Option<Report> {
        let Some(json) = line.strip_prefix(MARK) else {
            self.suites.last_mut()?.read_line(line);
            return None;
        };
        let report = serde_json::from_str(json);
        match &report {
            Ok(Report::Booted { release }) => self.release.clone_from(release),
            Ok(Report::Begin { suite }) => self.suites.push(Suite::new(suite)),
            Ok(Report::End {
                status, seconds, ..
            }) => {
                let suite = self.suites.last_mut()?;
                (suite.status, suite.seconds) = (Some(status.clone()), *seconds);
            }
            Ok(Report::Problem { message }) => self.problems.push(message.clone()),
            Ok(Report::Done) => self.is_done = true,
            Err(error) => self
                .problems
                .push(format!("the guest wrote {json:?}: {error}")),
        }
        report.ok()
    }

    /// The suite that is running, or ran last.
    pub fn current(&self) -> Option<&Suite> {
        self.suites.last()
    }

    /// Evaluates what has been read.
    pub fn finish(mut self, series: &str, ending: &Ending) -> KernelResults {
        let place = match self.suites.last() {
            None => "before any test".to_owned(),
            Some(suite) if suite.status.is_some() => format!("after {}", suite.name),
            Some(suite) => format!("in {}, after {} tests", suite.name, suite.tests.len()),
        };
        let what = match ending {
            Ending::Ended if self.is_done => None,
            Ending::Ended => Some("the machine ended before its tests".to_owned()),
            Ending::Panic(message) => Some(format!("the kernel panicked: {message}")),
            Ending::Hang => Some("the machine hung until the time limit".to_owned()),
        };
        self.problems
            .extend(what.map(|what| format!("{what} ({place})")));
        for suite in &mut self.suites {
            mark_skips(suite, series);
            self.problems.extend(problems_of(suite));
        }
        KernelResults {
            series: series.to_owned(),
            release: self.release,
            success: self.problems.is_empty(),
            problems: self.problems,
            boot_seconds: 0.0,
            seconds: 0.0,
            suites: self.suites,
        }
    }
}

/// Marks the tests that were skipped, which libtest counts as passed.
fn mark_skips(suite: &mut Suite, series: &str) {
    for (skipped, reason) in &suite.skips {
        let is_expected = manifest::expects_skip(series, reason);
        let tests = suite
            .tests
            .iter_mut()
            .filter(|test| test.outcome == Outcome::Passed);
        for test in tests.filter(|test| test.name.split("::").any(|part| part == skipped)) {
            test.outcome = if is_expected {
                Outcome::Skipped
            } else {
                Outcome::SkippedUnexpectedly
            };
            test.reason = Some(reason.clone());
        }
    }
}

fn problems_of(suite: &Suite) -> Vec<String> {
    let mut problems = Vec::new();
    let name = &suite.name;
    for test in &suite.tests {
        let reason = test.reason.as_deref().unwrap_or_default();
        match test.outcome {
            Outcome::Failed => problems.push(format!("{name}: {} failed", test.name)),
            Outcome::SkippedUnexpectedly => {
                problems.push(format!(
                    "{name}: {} was skipped unexpectedly: {reason}",
                    test.name
                ));
            }
            Outcome::Passed | Outcome::Skipped => {}
        }
    }
    let status = suite.status.as_deref().unwrap_or("did not end");
    let missing = suite.announced.saturating_sub(suite.tests.len());
    if missing > 0 {
        problems.push(format!("{name}: {missing} tests have no result ({status})"));
    } else if suite.announced == 0 {
        problems.push(format!("{name}: no test ran ({status})"));
    } else if status != SUCCESS && suite.count(Outcome::Failed) == 0 {
        problems.push(format!("{name}: {status}"));
    }
    problems
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

    fn end(code: u8) -> String {
        format!(
            "\n==guest== {{\"end\":{{\"suite\":\"packets\",\"status\":\"exit status: {code}\",\
             \"seconds\":1.5}}}}\n==guest== \"done\"\n"
        )
    }

    #[test]
    fn a_failing_test_is_named_with_its_output() {
        let text = format!(
            "{BOOTED}{BEGIN}running 2 tests\ntest a ... ok\ntest b::c ... FAILED\n\nfailures:\n\n\
             ---- b::c stdout ----\nError: wrong port\n\nfailures:\n    b::c\n{}",
            end(101)
        );
        let results = results(&text, &Ending::Ended);
        assert_eq!(results.problems, ["packets: b::c failed"]);
        assert_eq!(results.suites[0].tests[1].output, "Error: wrong port\n\n");
    }

    #[test]
    fn an_unexpected_skip_is_a_problem() {
        let text = format!(
            "{BOOTED}{BEGIN}running 2 tests\nskipped: a: the kernel has no tcx (Linux 6.6)\n\
             skipped: b: no reason\ntest a ... ok\ntest m::b::over_ipv4 ... ok\n{}",
            end(0)
        );
        let results = results(&text, &Ending::Ended);
        assert_eq!(
            results.problems,
            ["packets: m::b::over_ipv4 was skipped unexpectedly: no reason"]
        );
        assert_eq!(
            results.suites[0].to_string(),
            "0 passed, 0 failed, 2 skipped"
        );
    }

    #[test]
    fn a_result_is_found_after_the_output_of_a_test() {
        let text = format!(
            "{BOOTED}{BEGIN}running 3 tests\ntest a ... figure: 5 ms\nfigure: 3 instructions\nok\n\
             test b ... skipped: b: the kernel has no tcx\nok\ntest c ... ok\n{}",
            end(0)
        );
        let results = results(&text, &Ending::Ended);
        assert!(results.success, "{results:?}");
        assert_eq!(results.release, "5.10.0");
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
                "the machine hung until the time limit (in packets, after 1 tests)",
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
                "packets: 1 tests have no result (did not end)"
            );
        }
    }
}
