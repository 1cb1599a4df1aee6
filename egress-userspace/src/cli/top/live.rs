//! The full-screen view: handles refreshes, keys and signals in turn.

use std::{
    env,
    time::{Duration, Instant},
};

use crossterm::event::{Event, EventStream};
use futures_util::StreamExt as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval_at},
};

use super::{
    super::{duration, instance::Selector},
    count::Count,
    keys::{Action, State},
    model::{Frame, Sort},
    snapshot::Snapshot,
    view,
};

/// Shows the router until a key or a signal ends it.
pub fn run(selector: Selector, sort: Sort, interval: Duration) -> anyhow::Result<()> {
    // Fails before the screen changes if there is no router, or no privilege to read its maps.
    let session = Session::start(selector, sort)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(watch(session, State::new(sort, interval)));
    // This fails if the terminal has hung up.
    let _ = ratatui::try_restore();
    result
}

async fn watch(mut session: Session, mut state: State) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let alarm = view::alarm(env::var_os("NO_COLOR"));
    // This also sets a panic hook that restores the terminal.
    let mut terminal = ratatui::try_init()?;
    let mut events = EventStream::new();
    let mut refreshes = every(state.interval);
    loop {
        terminal.draw(|area| view::draw(area, &session.frame, &mut state, alarm))?;
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
            _ = refreshes.tick() => {
                if !state.is_paused {
                    session.refresh(state.sort);
                }
            }
            event = events.next() => match event {
                None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Event::Key(key))) => match state.press(key) {
                    Action::Draw => {}
                    Action::Sort => session.renew_frame(state.sort),
                    Action::Reschedule => refreshes = every(state.interval),
                    Action::Quit => return Ok(()),
                },
                // For example a resize: only draws again.
                Some(Ok(_)) => {}
            },
        }
    }
}

fn every(interval: Duration) -> Interval {
    let mut refreshes = interval_at(tokio::time::Instant::now() + interval, interval);
    // One refresh is enough after the process was stopped, and rates need time between two.
    refreshes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refreshes
}

/// What is known about the router.
struct Session {
    selector: Selector,
    before: Option<Snapshot>,
    now: Snapshot,
    frame: Frame,
    /// Since when there has been no router.
    gone_since: Option<Instant>,
    count: Count,
}

impl Session {
    fn start(selector: Selector, sort: Sort) -> anyhow::Result<Self> {
        let now = Snapshot::take(&selector.find()?)?;
        let mut session = Self {
            frame: Frame::between(None, &now, sort),
            count: Count::default(),
            selector,
            before: None,
            now,
            gone_since: None,
        };
        session.renew_frame(sort);
        Ok(session)
    }

    /// Finds the router again each time, because another may have replaced it. Keeps no file descriptor of it in
    /// between, so that the kernel can free the dataplane of a router that ended.
    fn refresh(&mut self, sort: Sort) {
        match self.selector.find().and_then(|it| Snapshot::take(&it)) {
            Ok(snapshot) => {
                if snapshot.started_ns != self.now.started_ns {
                    // The count is that of another router.
                    self.count = Count::default();
                }
                self.before = Some(std::mem::replace(&mut self.now, snapshot));
                self.gone_since = None;
                self.frame.gone = None;
                self.renew_frame(sort);
            }
            Err(error) => {
                let since = self.gone_since.get_or_insert_with(Instant::now);
                let time = duration::short(since.elapsed().as_secs());
                self.frame.gone = Some(format!("for {time}; below is its last state: {error:#}"));
            }
        }
    }

    fn renew_frame(&mut self, sort: Sort) {
        let gone = self.frame.gone.take();
        self.frame = Frame::between(self.before.as_ref(), &self.now, sort);
        self.frame.gone = gone;
        if self.frame.flows.total.is_none() {
            self.frame.flows.total = self.count.last(&self.selector);
        }
    }
}
