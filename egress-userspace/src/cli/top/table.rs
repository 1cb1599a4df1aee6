//! Tables that fit into a width.

/// As narrow as a column that may shrink gets on a very narrow screen.
const LEAST: usize = 8;

/// How a column is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    pub is_number: bool,
    /// The width that it may shrink to, what is too long cut; none keeps what is in it whole.
    pub shrinks_to: Option<usize>,
    /// Whether cells are cut in the middle, because their ends say more.
    pub keeps_ends: bool,
    /// Columns with the highest number go first where there is no room; 0 stays.
    pub dispensable: u8,
}

impl Column {
    /// Words.
    pub const fn text(title: &'static str) -> Self {
        Self {
            title,
            is_number: false,
            shrinks_to: None,
            keeps_ends: false,
            dispensable: 0,
        }
    }

    /// An address and a port: whole if it is of IPv4.
    pub const fn endpoint(title: &'static str) -> Self {
        Self {
            keeps_ends: true,
            ..Self::text(title).shrinks_to("255.255.255.255:65535".len())
        }
    }

    /// A number, aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Self {
            is_number: true,
            ..Self::text(title)
        }
    }

    /// May be cut off down to this width.
    pub const fn shrinks_to(self, width: usize) -> Self {
        Self {
            shrinks_to: Some(width),
            ..self
        }
    }

    /// Goes where there is no room, after those with a higher number.
    pub const fn dispensable(self, number: u8) -> Self {
        Self {
            dispensable: number,
            ..self
        }
    }
}

/// A table of some columns.
#[derive(Clone, Debug)]
pub struct Table {
    pub columns: &'static [Column],
    /// As many cells as columns in each.
    pub rows: Vec<Vec<String>>,
}

fn length(text: &str) -> usize {
    text.chars().count()
}

impl Table {
    /// The header and the rows as lines of at most this width.
    pub fn lines(&self, width: usize) -> Vec<String> {
        let layout = self.layout(width);
        let header = self.columns.iter().map(|column| column.title);
        let rows = self
            .rows
            .iter()
            .map(|row| self.line(&layout, width, row.iter().map(String::as_str)));
        std::iter::once(self.line(&layout, width, header))
            .chain(rows)
            .collect()
    }

    fn line<'c>(
        &self,
        layout: &Layout,
        width: usize,
        cells: impl Iterator<Item = &'c str>,
    ) -> String {
        let mut cells: Vec<_> = cells.collect();
        cells.resize(self.columns.len(), "");
        let cells: Vec<_> = layout
            .columns
            .iter()
            .map(|(index, width)| {
                let column = &self.columns[*index];
                let cell = if column.keeps_ends {
                    fit_ends(cells[*index], *width)
                } else {
                    fit(cells[*index], *width)
                };
                if column.is_number {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            })
            .collect();
        fit(cells.join(&" ".repeat(layout.gap)).trim_end(), width)
    }

    fn layout(&self, width: usize) -> Layout {
        let widths: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = self.rows.iter().filter_map(|row| row.get(index));
                cells
                    .map(|cell| length(cell))
                    .max()
                    .unwrap_or(0)
                    .max(length(column.title))
            })
            .collect();
        let mut layout = Layout {
            columns: widths.into_iter().enumerate().collect(),
            gap: 2,
        };
        while self.least(&layout) > width {
            let last = layout
                .columns
                .iter()
                .enumerate()
                .max_by_key(|(_, (index, _))| self.columns[*index].dispensable)
                .filter(|(_, (index, _))| self.columns[*index].dispensable > 0);
            match last {
                _ if layout.gap > 1 => layout.gap = 1,
                Some((position, _)) => {
                    layout.columns.remove(position);
                }
                None => break,
            }
        }
        self.shrink(&mut layout, width, |least| least);
        // Where no column can go any more.
        self.shrink(&mut layout, width, |least| least.min(LEAST));
        layout
    }

    /// The width with every column as narrow as it may be.
    fn least(&self, layout: &Layout) -> usize {
        let least = |(index, width): &(usize, usize)| {
            self.columns[*index]
                .shrinks_to
                .map_or(*width, |least| least.min(*width))
        };
        layout.columns.iter().map(least).sum::<usize>() + layout.gaps()
    }

    /// Takes what is too much from the widest of those that may shrink.
    fn shrink(&self, layout: &mut Layout, width: usize, least: fn(usize) -> usize) {
        while layout.width() > width {
            let widest = layout
                .columns
                .iter_mut()
                .filter(|(index, width)| {
                    self.columns[*index]
                        .shrinks_to
                        .is_some_and(|it| least(it) < *width)
                })
                .max_by_key(|(_, width)| *width);
            match widest {
                Some((_, width)) => *width -= 1,
                None => break,
            }
        }
    }
}

struct Layout {
    /// Indexes of columns that are shown, and their widths.
    columns: Vec<(usize, usize)>,
    gap: usize,
}

impl Layout {
    fn gaps(&self) -> usize {
        self.gap * self.columns.len().saturating_sub(1)
    }

    fn width(&self) -> usize {
        self.columns.iter().map(|(_, width)| width).sum::<usize>() + self.gaps()
    }
}

/// The text, its end cut off where it is wider.
pub fn fit(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width == 0 {
        kept
    } else {
        format!("{kept}…")
    }
}

/// The text, its middle cut out where it is wider.
fn fit_ends(text: &str, width: usize) -> String {
    let length = length(text);
    if length <= width || width < 3 {
        return fit(text, width);
    }
    // Of an odd number the end has one more: it has the port.
    let start: String = text.chars().take((width - 1) / 2).collect();
    let end: String = text.chars().skip(length - width / 2).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        const COLUMNS: &[Column] = &[
            Column::text("NAME").shrinks_to(5),
            Column::number("N"),
            Column::text("MORE").dispensable(1),
        ];
        Table {
            columns: COLUMNS,
            rows: vec![
                vec!["a long name".to_owned(), "5".to_owned(), "x".to_owned()],
                vec!["b".to_owned(), "1000".to_owned(), "y".to_owned()],
            ],
        }
    }

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell_and_numbers_are_to_the_right() {
        let lines = [
            "NAME            N  MORE",
            "a long name     5  x",
            "b            1000  y",
        ];
        assert_eq!(table().lines(80), lines);
    }

    #[test]
    fn what_may_shrink_does_before_a_column_goes() {
        assert_eq!(table().lines(19)[1], "a long…     5  x");
        assert_eq!(table().lines(12)[1], "a long…    5");
    }

    #[test]
    fn an_endpoint_keeps_its_port() {
        let endpoint = "[2001:db8:1:2:3:4:5:6]:38942";
        assert_eq!(fit_ends(endpoint, 14), "[2001:…5]:38942".replace("5]", "]"));
        assert_eq!(fit_ends(endpoint, 40), endpoint);
    }

    #[test]
    fn no_line_is_wider_than_asked_for() {
        for width in 0..30 {
            for line in table().lines(width) {
                assert!(length(&line) <= width, "{line:?} is wider than {width}");
            }
        }
    }
}
