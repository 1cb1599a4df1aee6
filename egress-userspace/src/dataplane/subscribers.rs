//! Listening to what the kernel half does: the ring buffers that it writes to, and the switches by which it does.

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

/// The maps behind the subscribers, of which everybody who listens has handles of their own.
pub(super) struct SubscriberMaps {
    pub(super) until: Named,
    pub(super) lost: Named,
    pub(super) filter: Named,
    /// By the subscriber's number.
    pub(super) rings: [Named; Subscriber::COUNT],
}

/// A map with its name.
pub(super) struct Named {
    name: &'static str,
    data: MapData,
}

impl Named {
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
            until: self.until.open()?,
            lost: self.lost.open()?,
            filter: self.filter.open()?,
            ring: self.rings[subscriber as usize].open()?,
        })
    }
}

/// A subscriber: the switch that makes the kernel half record, and the ring buffer that it records to.
pub struct Subscription {
    subscriber: Subscriber,
    until: Array<MapData, u64>,
    lost: PerCpuArray<MapData, u64>,
    filter: Array<MapData, TraceFilter>,
    ring: RingBuf<MapData>,
}

/// Why it cannot be listened.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else does.
    #[error("another process {} already; a record goes to one reader only", doing(*.0))]
    Taken(Subscriber),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The claim that keeps others off could not be made.
    #[error("could not find out who else listens: {0}")]
    Claim(#[from] io::Error),
}

const fn doing(subscriber: Subscriber) -> &'static str {
    match subscriber {
        Subscriber::Log => "keeps this router's flow log",
        Subscriber::Follow => "follows this router's flows",
        Subscriber::Trace => "traces this router's packets",
    }
}

/// For how long a listener is told of things unless it says that it is still there.
const LEASE_NS: u64 = 5_000_000_000;

impl Subscription {
    /// Becomes the only one who listens by it to the router whose cluster interface has this index.
    ///
    /// Nothing is recorded before [`Listener::renew`].
    ///
    /// # Errors
    ///
    /// [`ListenError::Taken`] if another process listens.
    pub fn listen(self, cluster_ifindex: u32) -> Result<Listener, ListenError> {
        let claim = claim(self.subscriber, cluster_ifindex)?;
        let mut listener = Listener {
            lost: self.lost()?,
            subscriber: self,
            _claim: claim,
        };
        if listener.subscriber.subscriber != Subscriber::Log {
            // What a reader before this one has left. The flow log has no gaps, and goes on with it.
            while listener.subscriber.ring.next().is_some() {}
        }
        Ok(listener)
    }

    /// Switches it off, if a killed process has left it on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn silence(&mut self) -> Result<(), MapsError> {
        self.record_until(0)
    }

    fn lost(&self) -> Result<u64, MapsError> {
        let values = named("EVENTS_LOST", self.lost.get(&(self.subscriber as u32), 0))?;
        Ok(values.iter().sum())
    }

    fn record_until(&mut self, until_ns: u64) -> Result<(), MapsError> {
        named(
            "SUBSCRIBERS",
            self.until.set(self.subscriber as u32, until_ns, 0),
        )
    }
}

/// A socket whose abstract name belongs to the network namespace, and vanishes with the process.
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

/// Who listens by a subscriber. It is switched off when this is dropped, and by itself when the process is killed; that of the
/// flow log stays on as long as the kernel half is there.
pub struct Listener {
    subscriber: Subscription,
    /// Records lost up to now.
    lost: u64,
    _claim: UnixDatagram,
}

impl Listener {
    /// Listens for some seconds more; to be called at least each second.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn renew(&mut self, now_ns: u64) -> Result<(), MapsError> {
        let until_ns = match self.subscriber.subscriber {
            // The next process of the same router goes on with what is recorded in the meantime.
            Subscriber::Log => Subscriber::FOREVER,
            Subscriber::Follow | Subscriber::Trace => now_ns.saturating_add(LEASE_NS),
        };
        self.subscriber.record_until(until_ns)
    }

    /// Says which packets [`Subscriber::Trace`] is to tell of.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_filter(&mut self, filter: &TraceFilter) -> Result<(), MapsError> {
        named("TRACE_FILTER", self.subscriber.filter.set(0, filter, 0))
    }

    /// The next record, if there is one.
    pub fn next_record<T>(&mut self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.subscriber.ring.next().map(|record| read(&record))
    }

    /// How many records were lost since this was last asked, because they were not read fast enough.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn take_lost(&mut self) -> Result<u64, MapsError> {
        let lost = self.subscriber.lost()?;
        Ok(lost - std::mem::replace(&mut self.lost, lost).min(lost))
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.subscriber.ring.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The next process of the router goes on with the flow log, or silences it.
        if self.subscriber.subscriber != Subscriber::Log {
            // On failure the lease runs out.
            let _ = self.subscriber.silence();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_listens_by_a_tap_and_others_by_the_other_taps() {
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
