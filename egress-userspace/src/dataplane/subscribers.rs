//! Subscribers: the ring buffers that the kernel half writes records to, and the leases that enable them.

use std::{
    io,
    os::{
        fd::{AsFd as _, AsRawFd, RawFd},
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use egress_common::{Subscriber, TraceFilter};
use thiserror::Error;

use super::maps_error::{MapsError, named};

/// The maps of the subscribers. Each [`Subscription`] opens handles of its own.
pub(super) struct SubscriberMaps {
    pub(super) leases: NamedMap,
    pub(super) lost: NamedMap,
    pub(super) filter: NamedMap,
    /// Indexed by the subscriber's number.
    pub(super) rings: [NamedMap; Subscriber::COUNT],
}

/// A map with its name.
pub(super) struct NamedMap {
    name: &'static str,
    data: MapData,
}

impl NamedMap {
    pub(super) fn new(name: &'static str, map: Map) -> Result<Self, MapsError> {
        match map {
            Map::Array(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => {
                Ok(Self { name, data })
            }
            _ => Err(MapsError::Missing(name)),
        }
    }

    fn open<T: TryFrom<Map, Error = MapError>>(&self) -> Result<T, MapsError> {
        let open = || {
            let fd = self.data.fd().as_fd().try_clone_to_owned()?;
            T::try_from(Map::from_map_data(MapData::from_fd(fd)?)?)
        };
        named(self.name, open())
    }
}

impl SubscriberMaps {
    pub(super) fn open(&self, subscriber: Subscriber) -> Result<Subscription, MapsError> {
        Ok(Subscription {
            subscriber,
            leases: self.leases.open()?,
            lost: self.lost.open()?,
            filter: self.filter.open()?,
            ring: self.rings[subscriber as usize].open()?,
        })
    }
}

/// The maps of one subscriber.
pub struct Subscription {
    subscriber: Subscriber,
    leases: Array<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    filter: Array<MapData, TraceFilter>,
    ring: RingBuf<MapData>,
}

/// Why a process cannot listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process listens to this subscriber.
    #[error("another process {} already; a record goes to one reader only", activity(*.0))]
    Taken(Subscriber),
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The socket that excludes other processes could not be created.
    #[error("could not check for other listeners: {0}")]
    Claim(#[from] io::Error),
}

const fn activity(subscriber: Subscriber) -> &'static str {
    match subscriber {
        Subscriber::Log => "keeps this router's flow log",
        Subscriber::Follow => "follows this router's flows",
        Subscriber::Trace => "traces this router's packets",
    }
}

/// The duration of a lease.
const LEASE_NS: u64 = 5_000_000_000;

impl Subscription {
    /// Becomes the only listener of this subscriber, at the router whose cluster interface has this index.
    ///
    /// The kernel half records nothing before the first [`Listener::renew`].
    ///
    /// # Errors
    ///
    /// [`ListenError::Taken`] if another process listens.
    pub fn listen(self, cluster_ifindex: u32) -> Result<Listener, ListenError> {
        let claim = claim(self.subscriber, cluster_ifindex)?;
        let mut listener = Listener {
            lost: self.lost()?,
            subscription: self,
            _claim: claim,
        };
        if listener.subscription.subscriber != Subscriber::Log {
            // Discards what an earlier listener left. The flow log keeps it, so that it has no gaps.
            while listener.subscription.ring.next().is_some() {}
        }
        Ok(listener)
    }

    /// Ends the lease, which a killed process may have left.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn end_lease(&mut self) -> Result<(), MapsError> {
        self.set_lease(0)
    }

    fn lost(&self) -> Result<u64, MapsError> {
        let values = named("EVENTS_LOST", self.lost.get(&(self.subscriber as u32), 0))?;
        Ok(values.iter().sum())
    }

    fn set_lease(&mut self, until_ns: u64) -> Result<(), MapsError> {
        named(
            "SUBSCRIBERS",
            self.leases.set(self.subscriber as u32, until_ns, 0),
        )
    }
}

/// Binds an abstract socket name, which is unique in the network namespace and is freed when the process ends.
fn claim(subscriber: Subscriber, cluster_ifindex: u32) -> Result<UnixDatagram, ListenError> {
    let name = format!(
        "egress-router/{cluster_ifindex}/subscriber/{}",
        subscriber as u32
    );
    match UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?) {
        Ok(socket) => Ok(socket),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err(ListenError::Taken(subscriber))
        }
        Err(error) => Err(error.into()),
    }
}

/// The only reader of a subscriber's records. Dropping it ends the lease; after a kill the lease expires. The lease of
/// the flow log never expires.
pub struct Listener {
    subscription: Subscription,
    /// The number of records lost before the last [`Listener::take_lost`].
    lost: u64,
    _claim: UnixDatagram,
}

impl Listener {
    /// Renews the lease. To be called at least once a second.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn renew(&mut self, now_ns: u64) -> Result<(), MapsError> {
        let until_ns = match self.subscription.subscriber {
            // The next process of the same router reads what is recorded in the meantime.
            Subscriber::Log => Subscriber::FOREVER,
            Subscriber::Follow | Subscriber::Trace => now_ns.saturating_add(LEASE_NS),
        };
        self.subscription.set_lease(until_ns)
    }

    /// Sets which packets [`Subscriber::Trace`] records.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_filter(&mut self, filter: &TraceFilter) -> Result<(), MapsError> {
        named("TRACE_FILTER", self.subscription.filter.set(0, filter, 0))
    }

    /// The next record, if there is one.
    pub fn next_record<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.subscription.ring.next().map(|record| read(&record))
    }

    /// The number of records lost since the last call because they were not read fast enough.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn take_lost(&mut self) -> Result<u64, MapsError> {
        let lost = self.subscription.lost()?;
        Ok(lost - std::mem::replace(&mut self.lost, lost).min(lost))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.subscription.ring.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next process of the router continues the flow log, or ends its lease.
        if self.subscription.subscriber != Subscriber::Log {
            // On failure the lease expires.
            let _ = self.subscription.end_lease();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscriber_has_one_listener() {
        let ifindex = u32::MAX - 2;
        let follower = claim(Subscriber::Follow, ifindex).unwrap();
        let error = claim(Subscriber::Follow, ifindex).unwrap_err();
        assert_eq!(
            error.to_string(),
            "another process follows this router's flows already; a record goes to one reader only"
        );
        claim(Subscriber::Trace, ifindex).unwrap();
        drop(follower);
        claim(Subscriber::Follow, ifindex).unwrap();
    }
}
