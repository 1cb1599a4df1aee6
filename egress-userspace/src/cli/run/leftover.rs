//! What routers before this one have left on the interfaces, other than what this one takes over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use thiserror::Error;
use tokio::time::sleep;

use crate::{
    dataplane::{self, DiscoverError, Instance, MapsError, Pins},
    net::interface::{Interface, Interfaces},
};

/// A dataplane by tcx comes before ours, and decides what becomes of packets, for as long as it is pinned.
#[derive(Debug, Error)]
#[error(
    "the dataplane of an earlier router is attached to {interface}, and is pinned where this one does not look: name its \
     directory by --pin-path to take it over, or remove that directory (rm -r) to take it off"
)]
pub struct StillAttached {
    interface: String,
}

/// Dataplanes of routers that are gone, pinned beside ours, on the same interfaces.
pub struct Leftover(Vec<Pins>);

impl Leftover {
    /// How long the kernel may take to take off what a process had that was killed just now.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Looks for them beside `own`, or where pins are by default.
    ///
    /// # Errors
    ///
    /// [`StillAttached`] if there is one that is pinned elsewhere.
    pub async fn find(
        own: Option<&Pins>,
        cluster: &Interface,
        egress: &Interface,
    ) -> anyhow::Result<Self> {
        let parent = own.and_then(|pins| pins.directory().parent());
        let ours = [cluster.index, egress.index];
        let leftover: Vec<_> = dataplane::pinned_under(parent.unwrap_or(Path::new(Pins::DEFAULT)))
            .into_iter()
            .filter(|(_, identity)| {
                ours.contains(&identity.cluster_ifindex) || ours.contains(&identity.egress_ifindex)
            })
            .map(|(pins, _)| pins)
            .filter(|other| Some(other.directory()) != own.map(Pins::directory))
            .collect();
        if leftover.is_empty() && !own.is_some_and(Pins::has_links) {
            expect_nothing_by_tcx(cluster, egress).await?;
        }
        Ok(Self(leftover))
    }

    /// Takes them off, when ours is in place.
    pub fn remove(self) {
        for pins in self.0 {
            let directory = pins.directory().display();
            // Those of another version are nobody's when the kernel has freed the programs.
            let maps = pins.maps().ok();
            let removed = pins.remove().map_err(anyhow::Error::from);
            let removed = removed.and_then(|()| Ok(maps.map_or(Ok(()), |mut it| it.retire())?));
            match removed {
                Ok(()) => log::warn!(
                    "replaced the dataplane that was pinned in {directory}, whose flows end"
                ),
                Err(error) => log::error!(
                    "the dataplane that is pinned in {directory} stays attached before this one: {error}"
                ),
            }
        }
    }
}

async fn expect_nothing_by_tcx(cluster: &Interface, egress: &Interface) -> anyhow::Result<()> {
    let deadline = Instant::now() + Leftover::PATIENCE;
    while let Some(interface) = dataplane::attached_by_tcx(cluster, egress) {
        if Instant::now() > deadline {
            let interface = interface.name.clone();
            return Err(StillAttached { interface }.into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Cleans up after a router that was killed: by clsact its programs stay attached.
pub async fn replace_filters(
    interfaces: &Interfaces,
    cluster: &Interface,
    egress: &Interface,
) -> anyhow::Result<()> {
    let instances = match dataplane::discover() {
        Ok(instances) => instances,
        Err(error @ DiscoverError::List(_)) => {
            log::debug!("cannot see what a killed router may have left: {error}");
            return Ok(());
        }
        Err(DiscoverError::Maps(error @ MapsError::Version { .. })) => {
            log::debug!("{error}");
            if Instance::detach_leftover(interfaces, cluster, egress).await? {
                log::warn!(
                    "replaced the dataplane that a router of another version had left attached"
                );
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let ours = [cluster.index, egress.index];
    for Instance { info, .. } in instances {
        let identity = info.identity;
        let shared =
            ours.contains(&identity.cluster_ifindex) || ours.contains(&identity.egress_ifindex);
        if shared && Instance::detach_leftover(interfaces, cluster, egress).await? {
            log::warn!(
                "replaced the dataplane that process {}, which is gone, had left attached",
                identity.pid
            );
        }
    }
    Ok(())
}
