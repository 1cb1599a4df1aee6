//! The keys, and the state of the view that they change.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;

use super::{model::Sort, panes::Pane};

/// The shortest and the longest time between two refreshes.
pub const INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_hours(1)];

/// The keys and what they do, for the overlay.
pub const HELP: &[(&str, &str)] = &[
    ("q, Esc, Ctrl-C", "quit"),
    ("?, h", "this help"),
    ("p, Space", "pause or resume"),
    ("s", "change the order of flows"),
    ("Tab, Shift-Tab", "select the next or previous pane"),
    ("Up, Down, k, j", "scroll by a line"),
    ("PgUp, PgDn", "scroll by a page"),
    ("Home, End", "scroll to the first or last line"),
    ("+, -", "refresh less or more often"),
];

/// What the user has chosen.
#[derive(Clone, Debug)]
pub struct State {
    pub pane: Pane,
    pub sort: Sort,
    pub is_paused: bool,
    pub shows_help: bool,
    pub interval: Duration,
    /// The scroll position of each pane. Drawing keeps it within the rows.
    pub tables: [TableState; 3],
    /// How many rows the selected pane had room for when it was last drawn.
    pub page: usize,
}

/// What to do after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Only draw again.
    Draw,
    /// Sort the flows again.
    Sort,
    /// Use the new interval between refreshes.
    Reschedule,
    Quit,
}

impl State {
    /// The state at the start of the command.
    pub fn new(sort: Sort, interval: Duration) -> Self {
        Self {
            pane: Pane::Flows,
            sort,
            is_paused: false,
            shows_help: false,
            interval,
            tables: [TableState::new(); 3],
            page: 1,
        }
    }

    /// Handles a key.
    pub fn press(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                _ => Action::Draw,
            };
        }
        match key.code {
            // Esc closes the help first.
            KeyCode::Esc if self.shows_help => self.shows_help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Char('?' | 'h') => self.shows_help = !self.shows_help,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Char('s') => {
                self.sort = self.sort.next();
                return Action::Sort;
            }
            KeyCode::Char('+' | '=') => return self.set_interval(self.interval.saturating_mul(2)),
            KeyCode::Char('-') => return self.set_interval(self.interval / 2),
            KeyCode::Tab => self.pane = self.pane.below(1),
            KeyCode::BackTab => self.pane = self.pane.below(2),
            _ => self.scroll(key.code),
        }
        Action::Draw
    }

    fn set_interval(&mut self, interval: Duration) -> Action {
        self.interval = interval.clamp(INTERVALS[0], INTERVALS[1]);
        Action::Reschedule
    }

    fn scroll(&mut self, key: KeyCode) {
        let page = self.page.max(1);
        let first = self.tables[self.pane as usize].offset_mut();
        *first = match key {
            KeyCode::Up | KeyCode::Char('k') => first.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => first.saturating_add(1),
            KeyCode::PageUp => first.saturating_sub(page),
            KeyCode::PageDown => first.saturating_add(page),
            KeyCode::Home => 0,
            KeyCode::End => usize::MAX,
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State::new(Sort::Rate, Duration::from_secs(1))
    }

    fn press(state: &mut State, code: KeyCode) -> Action {
        state.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn q_escape_and_control_c_quit() {
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(state().press(control_c), Action::Quit);
        assert_eq!(press(&mut state(), KeyCode::Char('c')), Action::Draw);
        for code in [KeyCode::Char('q'), KeyCode::Esc] {
            assert_eq!(press(&mut state(), code), Action::Quit);
        }
    }

    #[test]
    fn escape_closes_the_help_first() {
        let mut state = state();
        press(&mut state, KeyCode::Char('?'));
        assert!(state.shows_help);
        assert_eq!(press(&mut state, KeyCode::Esc), Action::Draw);
        assert!(!state.shows_help);
    }

    #[test]
    fn the_interval_stays_within_its_bounds() {
        let mut state = state();
        for (code, bound) in [('+', INTERVALS[1]), ('-', INTERVALS[0])] {
            for _ in 0..100 {
                assert_eq!(press(&mut state, KeyCode::Char(code)), Action::Reschedule);
            }
            assert_eq!(state.interval, bound);
        }
    }

    fn offsets(state: &State) -> [usize; 3] {
        state.tables.map(|table| table.offset())
    }

    #[test]
    fn each_pane_scrolls_by_itself() {
        let mut state = state();
        state.page = 10;
        press(&mut state, KeyCode::PageDown);
        press(&mut state, KeyCode::Up);
        press(&mut state, KeyCode::Tab);
        press(&mut state, KeyCode::Up);
        assert_eq!(offsets(&state), [0, 9, 0]);
        assert_eq!(state.pane, Pane::Drops);
        press(&mut state, KeyCode::BackTab);
        press(&mut state, KeyCode::Home);
        assert_eq!(offsets(&state), [0, 0, 0]);
    }

    #[test]
    fn sorting_goes_around() {
        let mut state = state();
        let mut seen = vec![state.sort];
        loop {
            assert_eq!(press(&mut state, KeyCode::Char('s')), Action::Sort);
            if seen.contains(&state.sort) {
                break;
            }
            seen.push(state.sort);
        }
        assert_eq!((seen.len(), state.sort), (4, Sort::Rate));
    }
}
