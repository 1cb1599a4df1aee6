//! The frame as plain text.

use std::fmt::Write as _;

use super::{
    model::Frame,
    panes::{self, Pane},
};

/// So many flows are printed; as JSON there are more.
const FLOWS: usize = 20;

/// The whole frame, as wide as it needs to be.
pub fn text(frame: &Frame) -> String {
    let mut text = String::new();
    for (name, value) in panes::header(frame) {
        let _ = writeln!(text, "{name:<8} {value}");
    }
    for pane in Pane::ALL {
        let mut frame = frame.clone();
        if pane == Pane::Flows {
            frame.flows.busiest.truncate(FLOWS);
        }
        let _ = writeln!(text, "\n{}", pane.title(&frame));
        let table = pane.table(&frame);
        if table.rows.is_empty() {
            let _ = writeln!(text, "{}", pane.if_empty());
        } else {
            let _ = writeln!(text, "{}", table.lines(usize::MAX).join("\n"));
        }
    }
    text.truncate(text.trim_end().len());
    text
}
