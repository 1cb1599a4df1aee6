//! Plots the results as SVG: bars with intervals, in a group for each table.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea as _};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color as _, IntoFont as _, RGBColor, TextStyle, WHITE};

use crate::report::{Report, Row, Table, number};
use crate::stats::Estimate;

/// One page of bars.
struct Figure {
    /// The file's name without its extension.
    file: &'static str,
    title: &'static str,
    /// The cases whose tables it shows, if the report has them.
    cases: &'static [&'static str],
    scale: Scale,
    of: fn(&Row) -> Option<Estimate>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
}

const FIGURES: [Figure; 7] = [
    Figure {
        file: "cost",
        title: "Cost of a 64-byte packet beyond sending it, ns (shorter is better)",
        cases: &["flow", "flows60k", "flows1m"],
        scale: Scale::Linear,
        of: |row| row.cost_ns,
    },
    Figure {
        file: "program",
        title: "The router's programs by themselves, ns (shorter is better)",
        cases: &["program"],
        scale: Scale::Linear,
        of: |row| row.value,
    },
    Figure {
        file: "streams",
        title: "TCP, Gbit/s (longer is better)",
        cases: &["stream", "streams8"],
        scale: Scale::Linear,
        of: |row| row.value,
    },
    Figure {
        file: "connections",
        title: "TCP connections a second (longer is better)",
        cases: &["connections"],
        scale: Scale::Linear,
        of: |row| row.value,
    },
    Figure {
        file: "new-flows",
        title: "New UDP flows a second, logarithmic (longer is better)",
        cases: &["rules2", "rules2000", "rules65535"],
        scale: Scale::Logarithmic,
        of: |row| row.value,
    },
    Figure {
        file: "latency-udp",
        title: "Time of an answer over UDP, µs (shorter is better)",
        cases: &["latency-udp"],
        scale: Scale::Linear,
        of: |row| row.value,
    },
    Figure {
        file: "latency-tcp",
        title: "Time of an answer over TCP, µs (shorter is better)",
        cases: &["latency-tcp"],
        scale: Scale::Linear,
        of: |row| row.value,
    },
];

const WIDTH: i32 = 900;
const MARGIN: i32 = 20;
/// The left end of the bars, right of the names.
const LEFT: i32 = 210;
/// The right end of the longest bar, left of its value.
const RIGHT: i32 = WIDTH - 110;
const LINE: i32 = 22;
const BAR: i32 = 14;

const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb5);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);

/// Draws every figure for which the report has data into `directory`.
pub fn save(report: &Report, directory: &Path) -> Result<()> {
    for figure in &FIGURES {
        let tables: Vec<&Table> = report
            .tables
            .iter()
            .filter(|table| figure.cases.contains(&table.case))
            .collect();
        if tables.is_empty() {
            continue;
        }
        let path = directory.join(figure.file).with_extension("svg");
        let svg = figure
            .draw(&tables, &report.machine.to_string())
            .with_context(|| format!("drawing {}", path.display()))?;
        fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;

impl Figure {
    fn draw(&self, tables: &[&Table], footer: &str) -> Result<String> {
        let bars = |table: &Table| -> Vec<(String, Estimate)> {
            let rows = table.rows.iter();
            rows.filter_map(|row| Some((row.name.clone(), (self.of)(row)?)))
                .collect()
        };
        let groups: Vec<_> = tables
            .iter()
            .map(|table| (table.title.as_str(), bars(table)))
            .collect();
        let lines: usize = groups.iter().map(|(_, bars)| bars.len() + 2).sum();
        let height = 2 * MARGIN + LINE * (i32::try_from(lines)? + 2);
        let axis = Axis::of(self.scale, groups.iter().flat_map(|(_, bars)| bars));

        let mut svg = String::new();
        {
            let size = (WIDTH.cast_unsigned(), height.cast_unsigned());
            let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            area.fill(&WHITE)?;
            let mut y = MARGIN;
            write(&area, self.title, (MARGIN, y), 18, HPos::Left)?;
            y += LINE;
            for (title, bars) in &groups {
                y += LINE;
                write(&area, title, (MARGIN, y), 14, HPos::Left)?;
                for (name, estimate) in bars {
                    y += LINE;
                    axis.bar(&area, name, *estimate, y)?;
                }
                y += LINE;
            }
            write(&area, footer, (MARGIN, y + LINE / 2), 11, HPos::Left)?;
            area.present()?;
        }
        Ok(svg)
    }
}

/// Maps values to positions on the page.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn of<'b>(scale: Scale, bars: impl Iterator<Item = &'b (String, Estimate)>) -> Self {
        let (mut from, mut to) = (f64::INFINITY, 0.0_f64);
        for (_, estimate) in bars {
            from = from.min(estimate.low);
            to = to.max(estimate.high);
        }
        let from = match scale {
            Scale::Linear => 0.0,
            // A whole decade below the shortest bar.
            Scale::Logarithmic => 10_f64.powf(from.max(1.0).log10().ceil() - 1.0),
        };
        Self { scale, from, to }
    }

    fn place(&self, value: f64) -> i32 {
        let share = match self.scale {
            Scale::Linear => value / self.to,
            Scale::Logarithmic => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a position between 0 and the page's width"
        )]
        let offset = (share.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)).round() as i32;
        LEFT + offset
    }

    fn bar(&self, area: &Area<'_>, name: &str, estimate: Estimate, y: i32) -> Result<()> {
        let Estimate { value, low, high } = estimate;
        let fill = if name.starts_with("egress-router") {
            OURS
        } else {
            OTHERS
        };
        write(area, name, (LEFT - 8, y), 13, HPos::Right)?;
        let (top, bottom) = (y - BAR / 2, y + BAR / 2);
        let corners = [(LEFT, top), (self.place(value), bottom)];
        area.draw(&Rectangle::new(corners, fill.filled()))?;
        let whisker = vec![(self.place(low), y), (self.place(high), y)];
        area.draw(&PathElement::new(whisker, BLACK.stroke_width(2)))?;
        let end = self.place(value.max(high)) + 6;
        write(area, &number(value), (end, y), 13, HPos::Left)
    }
}

/// Writes text that is vertically centred at this height.
fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<()> {
    // The backend's letters are smaller than requested by this factor (`draw_text` of plotters-svg).
    let style = TextStyle::from(("sans-serif", f64::from(size) * 1.24).into_font())
        .pos(Pos::new(side, VPos::Center))
        .color(&BLACK);
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, bars: &[(f64, f64)]) -> Axis {
        let bars: Vec<_> = bars
            .iter()
            .map(|&(low, high)| {
                let value = high;
                (String::new(), Estimate { value, low, high })
            })
            .collect();
        Axis::of(scale, bars.iter())
    }

    #[test]
    fn a_linear_bar_is_as_long_as_its_value_is_large() {
        let axis = axis(Scale::Linear, &[(40.0, 50.0), (90.0, 100.0)]);
        assert_eq!(axis.place(0.0), LEFT);
        assert_eq!(axis.place(100.0), RIGHT);
        assert_eq!(axis.place(50.0), LEFT + (RIGHT - LEFT) / 2);
    }

    #[test]
    fn on_a_logarithmic_axis_decades_are_alike_and_the_shortest_bar_is_seen() {
        let axis = axis(Scale::Logarithmic, &[(1_000.0, 1_000.0), (1e6, 1e6)]);
        let decade = axis.place(1e4) - axis.place(1e3);
        assert!((axis.place(1e6) - axis.place(1e5) - decade).abs() <= 1);
        assert!(axis.place(1_000.0) > LEFT);
    }
}
