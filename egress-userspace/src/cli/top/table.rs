//! Tables that fit the width of the screen.

use std::rc::Rc;

use ratatui::{
    layout::{Constraint, Direction, Layout, Rect},
    style::{Style, Stylize as _},
    text::Text,
    widgets::{Row, Table as Widget},
};

use super::super::output::{self, Narrow};

/// How a long cell is cut. The number is a width: while another column can be left out, this one does not shrink below
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is not cut.
    Never,
    /// The beginning is kept.
    End(usize),
    /// Both ends are kept.
    Middle(usize),
}

impl Cut {
    /// For an address and a port. Those of IPv4 always fit.
    pub const ENDPOINT: Self = Self::Middle("255.255.255.255:65535".len());

    /// The text in at most `width` characters. An ellipsis stands for what is cut.
    pub fn fit(self, text: &str, width: usize) -> String {
        let length = text.chars().count();
        if length <= width {
            return text.to_owned();
        }
        let Some(kept) = width.checked_sub(1) else {
            return String::new();
        };
        let end = match self {
            // The end has the port, so it gets the odd character.
            Self::Middle(_) => kept.div_ceil(2),
            Self::Never | Self::End(_) => 0,
        };
        let start = text.chars().take(kept - end).chain(['…']);
        start.chain(text.chars().skip(length - end)).collect()
    }
}

/// A column, its rank and its cut. If the columns do not fit, the one with the highest rank is left out first. Those of
/// rank 0 stay.
#[derive(Clone, Copy, Debug)]
pub struct Column(pub output::Column, pub u8, pub Cut);

impl Column {
    fn least(&self) -> usize {
        match self.2 {
            Cut::Never => usize::MAX,
            Cut::End(least) | Cut::Middle(least) => least,
        }
    }

    /// The text, cut to the width and aligned.
    fn cell(&self, text: &str, width: u16) -> Text<'static> {
        let text = Text::from(self.2.fit(text, width.into()));
        if self.0.is_number {
            text.right_aligned()
        } else {
            text
        }
    }
}

/// A table of some columns.
#[derive(Clone, Debug)]
pub struct Table {
    pub columns: &'static [Column],
    /// Each has as many cells as there are columns.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The whole table as plain text.
    pub fn text(self) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| column.0).collect();
        let lines: Vec<_> = output::table(&columns, self.rows, None, Narrow::Wrap).collect();
        lines.join("\n")
    }

    /// The table as a widget of this width, with a style for each row.
    pub fn widget(&self, width: u16, style: impl Fn(usize) -> Style) -> Widget<'static> {
        let (columns, gap) = self.columns_for(width);
        let row = |cell: &dyn Fn(usize) -> String| {
            let cells = columns.iter();
            Row::new(cells.map(|(index, width)| self.columns[*index].cell(&cell(*index), *width)))
        };
        let titles = row(&|index| self.columns[index].0.title.to_owned());
        let rows = self.rows.iter().enumerate();
        let rows =
            rows.map(|(number, cells)| row(&|index| cells[index].clone()).style(style(number)));
        Widget::new(rows, columns.iter().map(|(_, width)| *width))
            .header(titles.underlined())
            .column_spacing(gap)
    }

    /// The columns that fit, as their indexes and widths, and the gap between them.
    fn columns_for(&self, room: u16) -> (Vec<(usize, u16)>, u16) {
        let mut kept: Vec<_> = (0..self.columns.len()).collect();
        let mut gap = 2;
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].as_str());
            let cells = cells.chain([self.columns[index].0.title]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = kept.iter().map(|index| width(*index)).collect();
        loop {
            let least = |index: &usize| widths[*index].min(self.columns[*index].least()) + gap;
            if kept.iter().map(least).sum::<usize>() <= usize::from(room) + gap {
                break;
            }
            let last = kept
                .iter()
                .copied()
                .max_by_key(|index| self.columns[*index].1);
            match last.filter(|last| self.columns[*last].1 > 0) {
                _ if gap > 1 => gap = 1,
                Some(last) => kept.retain(|index| *index != last),
                None => break,
            }
        }
        let gap = u16::try_from(gap).unwrap_or(1);
        let parts = kept.iter().map(|index| {
            (
                u16::try_from(widths[*index]).unwrap_or(u16::MAX),
                u16::from(self.columns[*index].least() < usize::MAX),
            )
        });
        let areas = share(Rect::new(0, 0, room, 1), Direction::Horizontal, gap, parts);
        let widths = areas.iter().map(|area| area.width);
        (kept.into_iter().zip(widths).collect(), gap)
    }
}

/// Splits an area among parts. Each part is what it needs, in columns or lines, and its weight.
///
/// A part never gets more than it needs. If the area is too small, parts of weight 0 still get what they need, and the
/// others share the rest by weight. [`Layout`] has no such constraint: a share with a limit.
pub fn share(
    whole: Rect,
    direction: Direction,
    gap: u16,
    parts: impl Iterator<Item = (u16, u16)>,
) -> Rc<[Rect]> {
    let (needs, mut sizes): (Vec<_>, Vec<_>) = parts
        .map(|(need, weight)| match weight {
            0 => (need, Constraint::Length(need)),
            _ => (need, Constraint::Fill(weight)),
        })
        .unzip();
    loop {
        let areas = Layout::new(direction, &sizes).spacing(gap).split(whole);
        let mut has_too_much = false;
        for ((area, need), size) in areas.iter().zip(&needs).zip(&mut sizes) {
            let given = match direction {
                Direction::Horizontal => area.width,
                Direction::Vertical => area.height,
            };
            if matches!(size, Constraint::Fill(_)) && given > *need {
                *size = Constraint::Length(*need);
                has_too_much = true;
            }
        }
        if !has_too_much {
            return areas;
        }
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{buffer::Buffer, widgets::Widget as _};

    use super::*;

    /// The lines on a screen of this width.
    fn lines(width: u16) -> Vec<String> {
        const COLUMNS: &[Column] = &[
            Column(output::Column::text("NAME"), 0, Cut::End(5)),
            Column(output::Column::number("N"), 0, Cut::Never),
            Column(output::Column::text("MORE"), 1, Cut::Never),
        ];
        let row = |cells: [&str; 3]| cells.map(ToOwned::to_owned).to_vec();
        let table = Table {
            columns: COLUMNS,
            rows: vec![row(["a long name", "5", "x"]), row(["b", "1000", "y"])],
        };
        let area = Rect::new(0, 0, width, 3);
        let mut buffer = Buffer::empty(area);
        let widget = table.widget(width, |_| Style::new());
        widget.render(area, &mut buffer);
        let line = |y| {
            (0..width)
                .map(|x| buffer[(x, y)].symbol())
                .collect::<String>()
        };
        (0..3).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell_and_numbers_are_to_the_right() {
        let expected = [
            "NAME            N  MORE",
            "a long name     5  x",
            "b            1000  y",
        ];
        assert_eq!(lines(80), expected);
    }

    #[test]
    fn what_may_shrink_does_before_a_column_goes() {
        assert_eq!(lines(19)[1], "a long…     5  x");
        assert_eq!(lines(12)[1], "a long…    5");
    }

    #[test]
    fn an_endpoint_keeps_its_port() {
        let endpoint = "[2001:db8:1:2:3:4:5:6]:38942";
        assert_eq!(Cut::ENDPOINT.fit(endpoint, 14), "[2001:…]:38942");
        for cut in [Cut::ENDPOINT, Cut::End(0)] {
            for width in 0..30 {
                assert_eq!(cut.fit(endpoint, width).chars().count(), width.min(28));
            }
        }
    }
}
