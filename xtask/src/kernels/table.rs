//! The results as a table: a row for each kernel, a column for each test binary.

use std::fmt::Write as _;

use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use super::results::KernelResults;
use crate::results::{Outcome, Suite};

/// Formats the table, followed by problems, by skipped tests and kernels with the reasons, and by the number of kernels
/// that passed.
pub fn table(results: &[KernelResults], skipped: &[String]) -> String {
    let mut text = String::from("\n");
    let mut table = results.iter().map(row).collect::<Builder>().build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    for line in table.to_string().lines() {
        text += line.trim_end();
        text.push('\n');
    }
    for KernelResults { series, suites, .. } in results {
        let figures: Vec<_> = suites
            .iter()
            .flat_map(|it| it.figures.iter().cloned())
            .collect();
        if !figures.is_empty() {
            let _ = writeln!(text, "{series:<5} {}", figures.join("; "));
        }
    }
    for kernel in results {
        for problem in &kernel.problems {
            let _ = writeln!(text, "failed: {}: {problem}", kernel.series);
        }
    }
    for KernelResults { series, suites, .. } in results {
        for Suite { name, tests, .. } in suites {
            for test in tests.iter().filter(|test| test.outcome == Outcome::Skipped) {
                let (test, reason) = (&test.name, test.reason.as_deref().unwrap_or_default());
                let _ = writeln!(text, "skipped: {series}: {name}: {test}: {reason}");
            }
        }
    }
    for kernel in skipped {
        let _ = writeln!(text, "skipped: {kernel}");
    }
    let passed = results.iter().filter(|kernel| kernel.success).count();
    let (failed, skipped) = (results.len() - passed, skipped.len());
    text + &format!("kernels: {passed} passed, {failed} failed, {skipped} skipped\n")
}

fn row(kernel: &KernelResults) -> Vec<String> {
    let KernelResults {
        series,
        release,
        seconds,
        suites,
        ..
    } = kernel;
    let verdict = if kernel.success { "ok" } else { "FAILED" };
    let mut row = vec![
        series.clone(),
        release.clone(),
        verdict.to_owned(),
        format!("{seconds:.0} s"),
    ];
    row.extend(
        suites
            .iter()
            .map(|suite| format!("{}: {suite}", suite.name)),
    );
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_kernel_is_shown_and_counted() {
        let text = table(&[], &["5.10: no network".to_owned()]);
        assert!(text.contains("skipped: 5.10: no network\n"), "{text}");
        assert!(
            text.ends_with("kernels: 0 passed, 0 failed, 1 skipped\n"),
            "{text}"
        );
    }
}
