//! Stale dataplanes: those of earlier routers on the same interfaces that this router does not take over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::error::StartError;
use crate::{
    dataplane::{self, DiscoverError, Instance, MapsError, Pins},
    net::interface::{Interface, Interfaces},
};

/// Stale dataplanes that are pinned.
pub struct StaleDataplanes(Vec<Pins>);

impl StaleDataplanes {
    /// How long the kernel may take to detach the programs of a process that was just killed.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Finds them in the directories beside `own`, or in the default place.
    ///
    /// # Errors
    ///
    /// [`StartError::StillAttached`] if one is pinned elsewhere.
    pub async fn find(
        own: Option<&Pins>,
        cluster: &Interface,
        egress: &Interface,
    ) -> Result<Self, StartError> {
        let parent = own.and_then(|pins| pins.directory().parent());
        let ours = [cluster.index, egress.index];
        let stale: Vec<_> = dataplane::pinned_under(parent.unwrap_or(Path::new(Pins::DEFAULT)))
            .into_iter()
            .filter(|(_, identity)| {
                ours.contains(&identity.cluster_ifindex) || ours.contains(&identity.egress_ifindex)
            })
            .map(|(pins, _)| pins)
            .filter(|other| Some(other.directory()) != own.map(Pins::directory))
            .collect();
        if stale.is_empty() && !own.is_some_and(Pins::has_links) {
            expect_nothing_by_tcx(cluster, egress).await?;
        }
        Ok(Self(stale))
    }

    /// Detaches them. Ours has to be attached by then.
    pub fn remove(self) {
        for pins in self.0 {
            let directory = pins.directory().display();
            // Those of another version are nobody's when the kernel has freed the programs.
            let maps = pins.maps().ok();
            let removed = pins.remove().map_err(StartError::from);
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

async fn expect_nothing_by_tcx(cluster: &Interface, egress: &Interface) -> Result<(), StartError> {
    let deadline = Instant::now() + StaleDataplanes::PATIENCE;
    while let Some(interface) = dataplane::attached_by_tcx(cluster, egress) {
        if Instant::now() > deadline {
            let interface = interface.name.clone();
            return Err(StartError::StillAttached { interface });
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Removes the clsact filters of a router that was killed.
pub async fn remove_filters(
    interfaces: &Interfaces,
    cluster: &Interface,
    egress: &Interface,
) -> Result<(), StartError> {
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
