//! Queries from the pages to the run loop, which owns the maps.

use std::{future::pending, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{flow_counts::FlowTables, snapshot::Snapshot, state::RunState};
use crate::dataplane::Maps;

/// How long the run loop may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A query from a page, with the channel for the answer.
pub enum Query {
    /// For `/metrics`.
    Metrics(oneshot::Sender<Result<Reading, String>>),
    /// For `/healthz` and `/readyz`.
    State(oneshot::Sender<RunState>),
}

/// What the run loop reads itself, and the flow tables for a walk on another thread.
pub struct Reading {
    pub(super) snapshot: Snapshot,
    pub(super) tables: FlowTables,
}

impl Query {
    /// Sends the answer. Costs a few system calls per rule and none per flow.
    pub fn answer(self, maps: &Maps, state: &RunState) {
        // Sending fails if the client has disconnected.
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
    /// Yields no query, ever.
    pub(super) const NONE: Self = Self(None);

    /// Waits for the next query. The future is cancellation safe.
    pub async fn next(&mut self) -> Query {
        if let Some(queries) = &mut self.0
            && let Some(query) = queries.recv().await
        {
            return query;
        }
        // There is no HTTP server, so there will be no query.
        pending().await
    }
}

/// The pages' end of the channel.
pub(super) struct RunLoop(mpsc::Sender<Query>);

impl RunLoop {
    /// Sends a query and waits for the answer; `None` if the run loop does not answer in time.
    pub async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(query(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER_TIMEOUT, asked).await.ok()?
    }
}

/// A channel that holds up to `queries` waiting queries.
pub(super) fn channel(queries: usize) -> (RunLoop, Queries) {
    let (sender, receiver) = mpsc::channel(queries);
    (RunLoop(sender), Queries(Some(receiver)))
}
