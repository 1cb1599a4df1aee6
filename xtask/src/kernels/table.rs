//! The results for people: a row for each kernel, a column for each test binary.

use std::fmt::Write as _;

use super::results::{KernelResults, Outcome, SuiteResults};

/// The table, then what went wrong, then what was skipped and why: tests, and `skipped` kernels. Ends with how many
/// kernels passed.
pub fn table(results: &[KernelResults], skipped: &[String]) -> String {
    let mut text = String::from("\n");
    let rows: Vec<_> = results.iter().map(row).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    for kernel in results {
        let figures: Vec<_> = kernel
            .suites
            .iter()
            .flat_map(|suite| &suite.figures)
            .collect();
        if !figures.is_empty() {
            let figures: Vec<_> = figures.into_iter().map(String::as_str).collect();
            let _ = writeln!(text, "{:<5} {}", kernel.series, figures.join("; "));
        }
    }
    for kernel in results {
        for problem in &kernel.problems {
            let _ = writeln!(text, "failed: {}: {problem}", kernel.series);
        }
    }
    for kernel in results {
        for suite in &kernel.suites {
            for test in suite
                .tests
                .iter()
                .filter(|test| test.outcome == Outcome::Skipped)
            {
                let reason = test.reason.as_deref().unwrap_or_default();
                let _ = writeln!(
                    text,
                    "skipped: {}: {}: {}: {reason}",
                    kernel.series, suite.name, test.name
                );
            }
        }
    }
    for kernel in skipped {
        let _ = writeln!(text, "skipped: {kernel}");
    }
    let passed = results.iter().filter(|kernel| kernel.success).count();
    let _ = writeln!(
        text,
        "kernels: {passed} passed, {} failed, {} skipped",
        results.len() - passed,
        skipped.len()
    );
    text
}

fn row(kernel: &KernelResults) -> Vec<String> {
    let mut row = vec![
        kernel.series.clone(),
        kernel.release.clone(),
        if kernel.success { "ok" } else { "FAILED" }.to_owned(),
        format!("{:.0} s", kernel.seconds),
    ];
    row.extend(kernel.suites.iter().map(cell));
    row
}

fn cell(suite: &SuiteResults) -> String {
    format!("{}: {suite}", suite.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_could_not_be_had_is_shown_and_counted() {
        let text = table(&[], &["5.10: no network".to_owned()]);
        assert!(text.contains("skipped: 5.10: no network\n"), "{text}");
        assert!(
            text.ends_with("kernels: 0 passed, 0 failed, 1 skipped\n"),
            "{text}"
        );
    }
}
