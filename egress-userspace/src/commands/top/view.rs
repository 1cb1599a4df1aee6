//! Drawing the frame.

use std::{env, ops::Range};

use ratatui::{
    Frame as Area,
    layout::Rect,
    style::{Color, Style, Stylize as _},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use super::{
    super::duration,
    keys::{HELP, State},
    model::Frame,
    panes::{self, Pane},
    table::{Table, fit},
};

/// On a screen with less than this only what there is room for is drawn.
const LEAST: (u16, u16) = (40, 8);
/// A title, a header and one row.
const LEAST_PANE: u16 = 3;

/// What there is to show.
pub struct Shown<'f> {
    pub frame: &'f Frame,
    /// If there is no router now; the frame is the last one of it then.
    pub missing: Option<Missing<'f>>,
}

/// That there is no router.
pub struct Missing<'f> {
    /// For how long.
    pub seconds: u64,
    /// What was found instead.
    pub error: &'f str,
}

/// How things look: by the terminal's own colours, which its user can read.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colours: bool,
}

impl Theme {
    /// Without colours where the environment says `NO_COLOR` (<https://no-color.org>).
    pub fn from_env() -> Self {
        Self {
            has_colours: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    /// The only colour: red reads well on dark and on light grounds, and means that something is wrong.
    fn alarm(self) -> Style {
        let style = Style::new().bold();
        if self.has_colours {
            style.fg(Color::Red)
        } else {
            style
        }
    }
}

/// The chosen pane's title stands out also without colours.
fn title_style(is_chosen: bool) -> Style {
    if is_chosen {
        Style::new().bold().reversed()
    } else {
        Style::new().bold()
    }
}

/// Draws everything. What is scrolled beyond the last row comes back to it.
pub fn draw(area: &mut Area<'_>, shown: &Shown<'_>, state: &mut State, theme: Theme) {
    let whole = area.area();
    if whole.width < LEAST.0 || whole.height < LEAST.1 {
        let text = format!(
            "{}x{} is too small: 80x24 shows it all. q quits",
            whole.width, whole.height
        );
        area.render_widget(
            Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }),
            whole,
        );
        return;
    }
    let mut rest = whole;
    area.render_widget(title_bar(whole.width, state), take_top(&mut rest, 1));
    let keys = take_bottom(&mut rest, 1);
    area.render_widget(key_bar(keys.width), keys);
    let lines = header(shown, theme, rest.width);
    // The panes are what it is about: the header leaves them the most of a small screen.
    let height = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .min(rest.height / 3);
    area.render_widget(Paragraph::new(lines), take_top(&mut rest, height));
    draw_panes(area, rest, shown, state, theme);
    if state.shows_help {
        draw_help(area, whole);
    }
}

fn take_top(rest: &mut Rect, height: u16) -> Rect {
    let height = height.min(rest.height);
    let top = Rect { height, ..*rest };
    rest.y += height;
    rest.height -= height;
    top
}

fn take_bottom(rest: &mut Rect, height: u16) -> Rect {
    let height = height.min(rest.height);
    rest.height -= height;
    Rect {
        y: rest.bottom(),
        height,
        ..*rest
    }
}

/// Text to the left and to the right, at most as wide as the screen.
fn bar(left: &str, right: &str, width: u16) -> String {
    let width = usize::from(width);
    let right = fit(right, width);
    let left_width = width - right.chars().count();
    format!("{:<left_width$}{right}", fit(left, left_width))
}

fn title_bar(width: u16, state: &State) -> Line<'static> {
    let paused = if state.is_paused { "PAUSED, " } else { "" };
    let interval = humantime::format_duration(state.interval);
    let right = format!("{paused}every {interval} ");
    Line::from(bar(" egress-router top", &right, width))
        .bold()
        .reversed()
}

fn key_bar(width: u16) -> Line<'static> {
    Line::from(bar(
        " q quit  ? help  p pause  s sort  Tab pane  ↑↓ PgUp PgDn scroll  +- interval",
        "",
        width,
    ))
    .dim()
}

fn header(shown: &Shown<'_>, theme: Theme, width: u16) -> Vec<Line<'static>> {
    let width = usize::from(width);
    let line = |name: &str, value: &str, style, value_style| {
        let value = fit(value, width.saturating_sub(9));
        Line::from(vec![
            Span::styled(format!(" {name:<8}"), style),
            Span::styled(value, value_style),
        ])
    };
    let mut lines = Vec::new();
    if let Some(Missing { seconds, error }) = &shown.missing {
        let text = format!(
            "for {}; this is the last of it: {error}",
            duration::short(*seconds)
        );
        lines.push(line("GONE", &text, theme.alarm(), theme.alarm()));
    }
    lines.extend(panes::header(shown.frame).into_iter().map(|(name, value)| {
        let is_alarming =
            name == "REFUSED" || (name == "router" && !shown.frame.router.process_running);
        if is_alarming {
            line(name, &value, theme.alarm(), theme.alarm())
        } else {
            line(name, &value, Style::new().bold(), Style::new())
        }
    }));
    // What is alarming is read first, also where not all lines have room.
    lines.sort_by_key(|line| {
        line.spans
            .first()
            .is_none_or(|name| name.style != theme.alarm())
    });
    lines
}

fn draw_panes(
    area: &mut Area<'_>,
    mut rest: Rect,
    shown: &Shown<'_>,
    state: &mut State,
    theme: Theme,
) {
    let tables = Pane::ALL.map(|pane| pane.table(shown.frame));
    let needs = [0, 1, 2].map(|index: usize| {
        let rows = u16::try_from(tables[index].rows.len()).unwrap_or(u16::MAX);
        rows.saturating_add(2).max(LEAST_PANE)
    });
    let heights = heights(rest.height, needs, state.pane as usize);
    for ((pane, table), height) in Pane::ALL.into_iter().zip(tables).zip(heights) {
        let inside = take_top(&mut rest, height);
        if inside.height == 0 {
            continue;
        }
        let room = usize::from(inside.height.saturating_sub(2));
        let first = &mut state.scroll[pane as usize];
        *first = (*first).min(table.rows.len().saturating_sub(room));
        let visible = *first..(*first + room).min(table.rows.len());
        let is_chosen = pane == state.pane;
        if is_chosen {
            state.page = room;
        }
        let mut lines = vec![title(
            pane,
            shown.frame,
            &table,
            &visible,
            inside.width,
            is_chosen,
        )];
        lines.extend(pane_lines(
            pane,
            shown.frame,
            &table,
            visible,
            inside.width,
            theme,
        ));
        let mut paragraph = Paragraph::new(lines);
        if shown.missing.is_some() {
            paragraph = paragraph.dim();
        }
        area.render_widget(paragraph, inside);
    }
}

/// What the pane has, and where in it we are.
fn title(
    pane: Pane,
    frame: &Frame,
    table: &Table,
    visible: &Range<usize>,
    width: u16,
    is_chosen: bool,
) -> Line<'static> {
    let rows = table.rows.len();
    let place = if visible.len() < rows {
        format!(" {}-{} of {rows} ", visible.start + 1, visible.end)
    } else {
        String::new()
    };
    let title = bar(&format!(" {}", pane.title(frame)), &place, width);
    Line::styled(title, title_style(is_chosen))
}

/// The header and the rows that there is room for.
fn pane_lines(
    pane: Pane,
    frame: &Frame,
    table: &Table,
    visible: Range<usize>,
    width: u16,
    theme: Theme,
) -> Vec<Line<'static>> {
    if table.rows.is_empty() {
        return vec![Line::from(format!(" {}", pane.if_empty())).dim()];
    }
    let lines = table.lines(usize::from(width.saturating_sub(2)));
    let header = Line::from(vec![
        Span::from(" "),
        Span::from(lines[0].clone()).underlined(),
    ]);
    let rows = visible.map(|row| {
        let line = Line::from(format!(" {}", lines[row + 1]));
        if pane.is_alarming(frame, row) {
            line.style(theme.alarm())
        } else {
            line
        }
    });
    std::iter::once(header).chain(rows).collect()
}

/// How `available` lines are shared out among panes that need so many.
///
/// Each has its least, and then lines go where they are needed, two to the chosen one for each of the others'; what is left
/// over is the flows'. Where there is no room for all, the chosen one is the only one.
fn heights(available: u16, needs: [u16; 3], chosen: usize) -> [u16; 3] {
    let mut heights = [0; 3];
    let mut left = available.saturating_sub(3 * LEAST_PANE);
    if left < 3 {
        heights[chosen] = available;
        return heights;
    }
    heights = [LEAST_PANE; 3];
    while left > 0 {
        let share = |index: usize| {
            if index == chosen {
                heights[index] / 2
            } else {
                heights[index]
            }
        };
        let next = (0..3)
            .filter(|index| heights[*index] < needs[*index])
            .min_by_key(|index| share(*index));
        heights[next.unwrap_or(Pane::Flows as usize)] += 1;
        left -= 1;
    }
    heights
}

fn draw_help(area: &mut Area<'_>, whole: Rect) {
    let lines: Vec<_> = HELP
        .iter()
        .map(|(keys, what)| {
            Line::from(vec![
                Span::from(format!(" {keys:<15}")).bold(),
                Span::from(format!(" {what} ")),
            ])
        })
        .collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    let width = u16::try_from(width + 2)
        .unwrap_or(u16::MAX)
        .min(whole.width);
    let height = u16::try_from(lines.len() + 2)
        .unwrap_or(u16::MAX)
        .min(whole.height);
    let inside = Rect {
        x: whole.x + (whole.width - width) / 2,
        y: whole.y + (whole.height - height) / 2,
        width,
        height,
    };
    area.render_widget(Clear, inside);
    let block = Block::bordered().title(" Keys ");
    area.render_widget(Paragraph::new(lines).block(block), inside);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

    use super::{
        super::{
            examples::{flow, outcome, rule, snapshot},
            model::Sort,
            snapshot::Snapshot,
        },
        *,
    };

    const SIZES: [(u16, u16); 2] = [(80, 24), (200, 50)];

    fn state() -> State {
        State::new(Sort::Rate, Duration::from_secs(1))
    }

    fn render(
        shown: &Shown<'_>,
        state: &mut State,
        (width, height): (u16, u16),
        theme: Theme,
    ) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|area| draw(area, shown, state, theme))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    fn lines(buffer: &Buffer) -> Vec<String> {
        let width = usize::from(buffer.area.width.max(1));
        let rows = buffer.content.chunks(width);
        rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect())
            .collect()
    }

    /// What is on a screen of this size.
    fn screen(frame: &Frame, state: &mut State, size: (u16, u16)) -> Vec<String> {
        let shown = Shown {
            frame,
            missing: None,
        };
        lines(&render(&shown, state, size, Theme { has_colours: true }))
    }

    #[track_caller]
    fn assert_has(screen: &[String], words: &str) {
        assert!(
            screen.iter().any(|line| line.contains(words)),
            "{words:?} is not in\n{}",
            screen.join("\n")
        );
    }

    fn snapshots() -> [Snapshot; 2] {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        for (snapshot, factor) in [(&mut before, 0), (&mut now, 1)] {
            snapshot.rules = (0..20).map(|id| rule(id, factor * 3)).collect();
            snapshot.flows = (1..=300)
                .map(|port| flow(port, u64::from(port) * factor))
                .collect();
            snapshot.outcomes = vec![outcome("no_next_hop", factor * 7), outcome("fragment", 12)];
        }
        [before, now]
    }

    fn frame() -> Frame {
        let [before, now] = snapshots();
        Frame::between(Some(&before), &now, Sort::Rate)
    }

    #[test]
    fn every_pane_has_its_rows_at_both_sizes() {
        for size in SIZES {
            let screen = screen(&frame(), &mut state(), size);
            for words in [
                "up 11s, process 4711, tcx on eth0 and net1",
                "300 of 131,072 [..........] 0%",
                "> 600 pkt/s 4.8M bit/s   < 60 pkt/s 480k bit/s   60 new flows/s",
                "Rules: 20",
                "Flows: 200 of 300, by bytes per second",
                "10.128.0.2:300",
                "no_next_hop",
                "q quit",
            ] {
                assert_has(&screen, words);
            }
        }
    }

    #[test]
    fn a_wide_screen_has_the_columns_that_a_narrow_one_leaves_out() {
        assert_has(&screen(&frame(), &mut state(), SIZES[1]), "RESERVED");
        let narrow = screen(&frame(), &mut state(), SIZES[0]);
        assert!(!narrow.join("").contains("RESERVED"));
        // What is left is not cut.
        assert_has(&narrow, "10.128.0.2:300 203.0.113.26:80 ");
    }

    #[test]
    fn scrolling_stops_at_the_last_row() {
        let mut state = state();
        state.scroll[Pane::Flows as usize] = usize::MAX;
        let screen = screen(&frame(), &mut state, SIZES[0]);
        assert_has(&screen, "-200 of 200 ");
        assert_eq!(state.scroll[Pane::Flows as usize], 200 - state.page);
    }

    #[test]
    fn a_bounded_look_at_a_million_flows_says_so() {
        let mut frame = frame();
        frame.flows.looked_at = 20_000;
        frame.flows.total = None;
        assert_has(
            &screen(&frame, &mut state(), SIZES[0]),
            "200 of the first 20,000, there are more",
        );
        frame.flows.total = Some(1_000_000);
        assert_has(
            &screen(&frame, &mut state(), SIZES[0]),
            "200 of the first 20,000 of 1,000,000, by",
        );
    }

    #[test]
    fn what_is_wrong_stands_above_all_else() {
        let mut frame = frame();
        frame.router.process_running = false;
        frame.router.reloads.error = Some("spec.redirect:\n  no rules".to_owned());
        let shown = Shown {
            frame: &frame,
            missing: Some(Missing {
                seconds: 65,
                error: "no egress router runs",
            }),
        };
        let theme = Theme { has_colours: true };
        let screen = lines(&render(&shown, &mut state(), SIZES[0], theme));
        assert!(
            screen[1].starts_with(" GONE    for 1m5s; this is the last of it: no egress router"),
            "{screen:#?}"
        );
        assert!(
            screen[2].contains("GONE (the dataplane goes on by itself)"),
            "{screen:#?}"
        );
        assert!(
            screen[3].starts_with(" REFUSED spec.redirect: no rules"),
            "{screen:#?}"
        );
    }

    #[test]
    fn without_colours_there_are_none() {
        let mut frame = frame();
        frame.router.process_running = false;
        let shown = Shown {
            frame: &frame,
            missing: None,
        };
        let colours = [true, false].map(|has_colours| {
            let buffer = render(&shown, &mut state(), SIZES[0], Theme { has_colours });
            buffer
                .content
                .iter()
                .filter(|cell| cell.fg != Color::Reset)
                .count()
        });
        assert!(colours[0] > 0 && colours[1] == 0, "{colours:?}");
    }

    #[test]
    fn help_lists_the_keys_and_a_pause_is_told() {
        let mut state = state();
        state.shows_help = true;
        state.is_paused = true;
        for size in SIZES {
            let screen = screen(&frame(), &mut state, size);
            for (keys, what) in HELP {
                assert_has(&screen, keys);
                assert_has(&screen, what);
            }
            assert_has(&screen, "PAUSED, every 1s");
        }
    }

    #[test]
    fn a_router_that_does_nothing_says_so() {
        let mut now = snapshot(0);
        now.rules.clear();
        let frame = Frame::between(None, &now, Sort::Rate);
        let screen = screen(&frame, &mut state(), SIZES[0]);
        for words in [
            "no rules",
            "no flows",
            "nothing: every packet was forwarded",
            "rates come with",
        ] {
            assert_has(&screen, words);
        }
    }

    #[test]
    fn any_size_is_drawn() {
        for width in (0..100).step_by(3) {
            for height in 0..30 {
                screen(&frame(), &mut state(), (width, height));
            }
        }
        assert_has(&screen(&frame(), &mut state(), (30, 6)), "is too small");
        assert_has(&screen(&frame(), &mut state(), (60, 12)), "10.128.0.2:300");
    }

    #[test]
    fn the_chosen_pane_has_the_most_lines_and_none_is_lost() {
        for (available, needs, chosen, expected) in [
            (18, [22, 202, 4], 1, [5, 9, 4]),
            (18, [22, 202, 4], 0, [10, 4, 4]),
            (40, [5, 4, 4], 0, [5, 31, 4]),
            (10, [22, 202, 4], 2, [0, 0, 10]),
        ] {
            let heights = heights(available, needs, chosen);
            assert_eq!(heights, expected, "{available} lines for {needs:?}");
            assert_eq!(heights.iter().sum::<u16>(), available);
        }
    }
}
