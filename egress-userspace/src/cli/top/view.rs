//! Drawing the frame.

use std::{ffi::OsString, rc::Rc};

use ratatui::{
    Frame as Area,
    layout::{Constraint, Direction, Layout, Rect},
    style::{Style, Stylize as _},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Padding, Paragraph, Wrap},
};

use super::{
    keys::{HELP, State},
    model::Frame,
    panes::{self, Header, Pane},
    table::{Cut, share},
};

/// A screen with fewer columns or lines shows only a message.
const LEAST: (u16, u16) = (40, 8);
/// A title, a header and one row.
const LEAST_PANE: u16 = 3;

/// The keys, in the last line.
const KEYS: &str = " q quit  ? help  p pause  s sort  Tab pane  ↑↓ PgUp PgDn scroll  +- interval";

/// The style of an alarm: bold, and red unless the variable `NO_COLOR` is set (<https://no-color.org>). Red is the only
/// colour, because it reads well on dark and light backgrounds.
pub fn alarm(no_color: Option<OsString>) -> Style {
    let style = Style::new().bold();
    if no_color.is_none_or(|value| value.is_empty()) {
        style.red()
    } else {
        style
    }
}

/// Draws the whole screen. A pane that is scrolled past its last row is scrolled back to it.
pub fn draw(area: &mut Area<'_>, frame: &Frame, state: &mut State, alarm: Style) {
    let whole = area.area();
    if whole.width < LEAST.0 || whole.height < LEAST.1 {
        let text = format!(
            "{}x{} is too small: 80x24 shows everything. q quits",
            whole.width, whole.height
        );
        area.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), whole);
        return;
    }
    let lines = header(frame, alarm, whole.width);
    // The panes matter most: the header takes at most a third of the screen.
    let height = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .min((whole.height - 2) / 3);
    let [top, above, panes, bottom] = whole.layout(&Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(height),
        Constraint::Fill(1),
        Constraint::Length(1),
    ]));
    area.render_widget(title_bar(whole.width, state), top);
    area.render_widget(Paragraph::new(lines), above);
    draw_panes(area, panes, frame, state, alarm);
    area.render_widget(Line::from(bar(KEYS, "", whole.width)).dim(), bottom);
    if state.shows_help {
        draw_help(area, whole);
    }
}

/// A line with text on the left and on the right. The left one is cut if both do not fit.
fn bar(left: &str, right: &str, width: u16) -> String {
    let width = usize::from(width);
    let right = Cut::End(0).fit(right, width);
    let left_width = width - right.chars().count();
    format!("{:<left_width$}{right}", Cut::End(0).fit(left, left_width))
}

fn title_bar(width: u16, state: &State) -> Line<'static> {
    let paused = if state.is_paused { "PAUSED, " } else { "" };
    let interval = humantime::format_duration(state.interval);
    let right = format!("{paused}every {interval} ");
    Line::from(bar(" egress-router top", &right, width))
        .bold()
        .reversed()
}

fn header(frame: &Frame, alarm: Style, width: u16) -> Vec<Line<'static>> {
    let mut lines = panes::header(frame);
    // Alarms come first, so that a small screen shows them.
    lines.sort_by_key(|line| !line.is_alarming);
    let line = |line: Header| {
        let value = Cut::End(0).fit(&line.value, width.saturating_sub(9).into());
        let name = Span::from(format!(" {:<8}", line.name)).bold();
        if line.is_alarming {
            Line::from(vec![name, value.into()]).style(alarm)
        } else {
            Line::from(vec![name, value.into()])
        }
    };
    lines.into_iter().map(line).collect()
}

fn draw_panes(area: &mut Area<'_>, whole: Rect, frame: &Frame, state: &mut State, alarm: Style) {
    let tables = Pane::ALL.map(|pane| pane.table(frame));
    let needs = [0, 1, 2].map(|index: usize| {
        let rows = u16::try_from(tables[index].rows.len()).unwrap_or(u16::MAX);
        rows.saturating_add(2).max(LEAST_PANE)
    });
    for ((pane, table), inside) in Pane::ALL
        .into_iter()
        .zip(tables)
        .zip(areas(whole, needs, state.pane).iter().copied())
    {
        if inside.is_empty() {
            continue;
        }
        let rows = table.rows.len();
        let room = usize::from(inside.height.saturating_sub(2));
        let position = &mut state.tables[pane as usize];
        let first = position.offset_mut();
        *first = (*first).min(rows.saturating_sub(room));
        let place = if room < rows {
            format!(" {}-{} of {rows} ", *first + 1, *first + room)
        } else {
            String::new()
        };
        let is_chosen = pane == state.pane;
        if is_chosen {
            state.page = room;
        }
        let title = bar(&format!(" {}", pane.title(frame)), &place, inside.width);
        let title = Line::from(title).bold();
        // The selected pane stands out without colours, too.
        let title = if is_chosen { title.reversed() } else { title };
        let block = Block::new().title(title).padding(Padding::horizontal(1));
        if table.rows.is_empty() {
            area.render_widget(Paragraph::new(pane.if_empty()).dim().block(block), inside);
        } else {
            let style = |row| {
                if pane.is_alarming(frame, row) {
                    alarm
                } else {
                    Style::new()
                }
            };
            let widget = table
                .widget(inside.width.saturating_sub(2), style)
                .block(block);
            area.render_stateful_widget(widget, inside, position);
        }
        if frame.gone.is_some() {
            area.buffer_mut().set_style(inside, Style::new().dim());
        }
    }
}

/// The areas of the panes. `needs` are the lines that each of them needs.
///
/// If they do not all fit, the selected pane gets twice the share of the others. Spare lines go to the flows. If the
/// screen is too small for three panes, only the selected one is shown.
fn areas(whole: Rect, mut needs: [u16; 3], chosen: Pane) -> Rc<[Rect]> {
    let has_room = whole.height >= 3 * (LEAST_PANE + 1);
    let others = needs[Pane::Rules as usize].saturating_add(needs[Pane::Drops as usize]);
    let flows = &mut needs[Pane::Flows as usize];
    *flows = (*flows).max(whole.height.saturating_sub(others));
    let parts = Pane::ALL.into_iter().zip(needs);
    let parts = parts.map(|(pane, need)| match pane == chosen {
        true if has_room => (need, 2),
        false if has_room => (need, 1),
        true => (whole.height, 0),
        false => (0, 0),
    });
    share(whole, Direction::Vertical, 0, parts)
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
    let help = Text::from(lines);
    let size = [help.width(), help.height()]
        .map(|size| Constraint::Max(u16::try_from(size + 2).unwrap_or(u16::MAX)));
    let inside = whole.centered(size[0], size[1]);
    area.render_widget(Clear, inside);
    let block = Block::bordered().title(" Keys ");
    area.render_widget(Paragraph::new(help).block(block), inside);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{
        Terminal,
        backend::TestBackend,
        buffer::{Buffer, Cell},
        style::Color,
    };

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

    fn render(frame: &Frame, state: &mut State, size: (u16, u16), style: Style) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        terminal
            .draw(|area| draw(area, frame, state, style))
            .unwrap();
        terminal.backend().buffer().clone()
    }

    /// The lines of a screen of this size.
    fn screen(frame: &Frame, state: &mut State, size: (u16, u16)) -> Vec<String> {
        let buffer = render(frame, state, size, Style::new().red());
        let rows = buffer.content.chunks(usize::from(size.0.max(1)));
        rows.map(|row| row.iter().map(Cell::symbol).collect())
            .collect()
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
        // The remaining columns are not cut.
        assert_has(&narrow, "10.128.0.2:300 203.0.113.26:80 ");
    }

    #[test]
    fn scrolling_stops_at_the_last_row() {
        let mut state = state();
        *state.tables[Pane::Flows as usize].offset_mut() = usize::MAX;
        let screen = screen(&frame(), &mut state, SIZES[0]);
        assert_has(&screen, "-200 of 200 ");
        let first = state.tables[Pane::Flows as usize].offset();
        assert_eq!(first, 200 - state.page);
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
    fn alarms_are_above_everything_else() {
        let mut frame = frame();
        frame.router.process_running = false;
        frame.router.reloads.error = Some("spec.redirect:\n  no rules".to_owned());
        frame.gone = Some("for 1m5s; below is its last state: no egress router runs".to_owned());
        let screen = screen(&frame, &mut state(), SIZES[0]);
        assert!(
            screen[1].starts_with(" GONE    for 1m5s; below is its last state: no egress router"),
            "{screen:#?}"
        );
        assert!(
            screen[2].contains("GONE (the dataplane keeps working)"),
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
        let colours = [None, Some("1".into())].map(|no_color| {
            let buffer = render(&frame, &mut state(), SIZES[0], alarm(no_color));
            buffer
                .content
                .iter()
                .filter(|cell| cell.fg != Color::Reset)
                .count()
        });
        assert!(colours[0] > 0 && colours[1] == 0, "{colours:?}");
    }

    #[test]
    fn help_lists_the_keys_and_a_pause_is_shown() {
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
        let mut frame = frame();
        frame.flows.busiest.truncate(40);
        for width in (0..100).step_by(3) {
            for height in 0..30 {
                screen(&frame, &mut state(), (width, height));
            }
        }
        assert_has(&screen(&frame, &mut state(), (30, 6)), "is too small");
        assert_has(&screen(&frame, &mut state(), (60, 12)), "10.128.0.2:300");
    }

    #[test]
    fn the_chosen_pane_has_the_most_lines_and_none_is_lost() {
        for (available, needs, chosen, expected) in [
            (18, [22, 202, 4], Pane::Flows, [5, 9, 4]),
            (18, [22, 202, 4], Pane::Rules, [9, 5, 4]),
            (40, [22, 4, 22], Pane::Flows, [18, 4, 18]),
            (40, [5, 4, 4], Pane::Rules, [5, 31, 4]),
            (10, [22, 202, 4], Pane::Drops, [0, 0, 10]),
        ] {
            let areas = areas(Rect::new(0, 0, 80, available), needs, chosen);
            let heights: Vec<_> = areas.iter().map(|area| area.height).collect();
            assert_eq!(heights, expected, "{available} lines for {needs:?}");
        }
    }
}
