//! The full-screen view: refreshes, keys and signals, one after the other.

use std::{
    io,
    time::{Duration, Instant},
};

use crossterm::event::{Event, EventStream, KeyEvent};
use futures_util::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval_at},
};

use super::{
    super::instance::Selector,
    count::Count,
    keys::{Action, State},
    model::{Frame, Sort},
    snapshot::Snapshot,
    view::{self, Missing, Shown, Theme},
};

/// Shows the router until a key or a signal ends it.
pub fn run(selector: Selector, sort: Sort, interval: Duration) -> anyhow::Result<()> {
    // Without a router, or without the right to look, there is nothing to show.
    let session = Session::start(selector, sort)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(watch(session, State::new(sort, interval)))
}

/// The terminal as a full screen, until it is dropped. A panic puts it back first, by the hook that is set with it.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have got half way.
                let _ = ratatui::try_restore();
                Err(error)
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has hung up takes nothing any more.
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}

async fn watch(mut session: Session, mut state: State) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let theme = Theme::from_env();
    let mut screen = Screen::take()?;
    let mut events = EventStream::new();
    let mut refreshes = every(state.interval);
    loop {
        let shown = session.shown();
        screen
            .0
            .draw(|area| view::draw(area, &shown, &mut state, theme))?;
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = refreshes.tick() => {
                if !state.is_paused {
                    session.refresh();
                }
            }
            event = events.next() => match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Event::Key(key))) => {
                    if press(key, &mut state, &mut session, &mut refreshes) == Action::Quit {
                        return Ok(());
                    }
                }
                // Another size, for one: the frame is drawn again.
                Some(Ok(_)) => {}
            },
        }
    }
}

fn every(interval: Duration) -> Interval {
    let mut refreshes = interval_at(tokio::time::Instant::now() + interval, interval);
    // After a pause of the whole program one refresh is enough, and rates need time between two.
    refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refreshes
}

fn press(
    key: KeyEvent,
    state: &mut State,
    session: &mut Session,
    refreshes: &mut Interval,
) -> Action {
    let action = state.press(key);
    match action {
        Action::Sort => session.sort(state.sort),
        Action::Reschedule => *refreshes = every(state.interval),
        Action::Draw | Action::Quit => {}
    }
    action
}

/// What is known of the router.
struct Session {
    selector: Selector,
    sort: Sort,
    before: Option<Snapshot>,
    now: Snapshot,
    frame: Frame,
    /// Since when there has been no router, and what was found instead.
    missing: Option<(Instant, String)>,
    count: Count,
}

impl Session {
    fn start(selector: Selector, sort: Sort) -> anyhow::Result<Self> {
        let now = Snapshot::take(&selector.find()?)?;
        let mut session = Self {
            frame: Frame::between(None, &now, sort),
            count: Count::new(selector.clone()),
            selector,
            sort,
            before: None,
            now,
            missing: None,
        };
        session.renew_frame();
        Ok(session)
    }

    /// Looks for the router anew each time: it may have ended, and another may have taken its place. Nothing of it is held
    /// meanwhile, so that what it leaves behind can go.
    fn refresh(&mut self) {
        match self.selector.find().and_then(|it| Snapshot::take(&it)) {
            Ok(snapshot) => {
                if snapshot.started_ns != self.now.started_ns {
                    self.count.forget();
                }
                self.before = Some(std::mem::replace(&mut self.now, snapshot));
                self.missing = None;
                self.renew_frame();
            }
            Err(error) => {
                let since = self
                    .missing
                    .take()
                    .map_or_else(Instant::now, |(since, _)| since);
                self.missing = Some((since, format!("{error:#}")));
            }
        }
    }

    fn sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.renew_frame();
    }

    fn renew_frame(&mut self) {
        self.frame = Frame::between(self.before.as_ref(), &self.now, self.sort);
        if self.frame.flows.total.is_none() {
            self.frame.flows.total = self.count.last();
        }
    }

    fn shown(&self) -> Shown<'_> {
        Shown {
            frame: &self.frame,
            missing: self.missing.as_ref().map(|(since, error)| Missing {
                seconds: since.elapsed().as_secs(),
                error,
            }),
        }
    }
}
