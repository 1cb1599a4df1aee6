//! What the pages ask the run loop, which owns the maps.

use std::{future::pending, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{flow_counts::FlowTables, snapshot::Snapshot, state::RunState};
use crate::dataplane::Maps;

/// How long the run loop has to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What a page asks.
pub enum Query {
    /// For `/metrics`.
    Metrics(oneshot::Sender<Result<Reading, String>>),
    /// For `/healthz` and `/readyz`.
    State(oneshot::Sender<RunState>),
}

/// What the run loop reads at once, and the flow tables, which are walked elsewhere.
pub struct Reading {
    pub(super) snapshot: Snapshot,
    pub(super) tables: FlowTables,
}

impl Query {
    /// Answers, with a few system calls for each rule and none for flows.
    pub fn answer(self, maps: &Maps, state: &RunState) {
        // The client may have gone meanwhile.
        match self {
            Self::Metrics(reply) => drop(reply.send(read(maps, state))),
            Self::State(reply) => drop(reply.send(state.clone())),
        }
    }
}

fn read(maps: &Maps, state: &RunState) -> Result<Reading, String> {
    let snapshot = Snapshot::take(maps, state).map_err(|error| error.to_string())?;
    let tables = FlowTables::duplicate(maps, snapshot.instance.max_flows);
    Ok(Reading {
        snapshot,
        tables: tables.map_err(|error| error.to_string())?,
    })
}

/// The run loop's end of the channel.
pub struct Queries(Option<mpsc::Receiver<Query>>);

impl Queries {
    /// Of nobody: there will be no query.
    pub(super) const NONE: Self = Self(None);

    /// The next query.
    pub async fn next(&mut self) -> Query {
        if let Some(queries) = &mut self.0
            && let Some(query) = queries.recv().await
        {
            return query;
        }
        // Nobody listens, so nobody will ask.
        pending().await
    }
}

/// The pages' end of the channel.
pub(super) struct RunLoop(mpsc::Sender<Query>);

impl RunLoop {
    /// Asks the run loop; `None` if it does not answer in time.
    pub async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(query(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_TIMEOUT, asked).await.ok()?
    }
}

/// A channel with room for this many queries.
pub(super) fn channel(queries: usize) -> (RunLoop, Queries) {
    let (sender, receiver) = mpsc::channel(queries);
    (RunLoop(sender), Queries(Some(receiver)))
}
