//! Stale dataplanes: what earlier routers left on the interfaces, except the dataplane that this one takes over.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use egress_common::Identity;
use tokio::time::sleep;

use super::error::StartError;
use crate::{
    dataplane::{self, DiscoverError, Instance, MapsError, Pins},
    net::interface::{Interface, Interfaces},
};

/// Stale dataplanes of the same interfaces that are pinned next to ours.
pub struct StaleDataplanes(Vec<Pins>);

impl StaleDataplanes {
    /// How long the kernel may take to detach the unpinned programs of a process that was just killed.
    const DETACH_TIMEOUT: Duration = Duration::from_secs(2);

    /// Searches the parent directory of `own`, or the default one.
    ///
    /// # Errors
    ///
    /// [`StartError::StillAttached`] if a stale dataplane is pinned elsewhere.
    pub async fn find(
        own: Option<&Pins>,
        cluster: &Interface,
        egress: &Interface,
    ) -> Result<Self, StartError> {
        let parent = own.and_then(|pins| pins.directory().parent());
        let stale: Vec<_> = dataplane::pinned_under(parent.unwrap_or(Path::new(Pins::DEFAULT)))
            .into_iter()
            .filter(|(_, identity)| shares_interface(identity, cluster, egress))
            .map(|(pins, _)| pins)
            .filter(|other| Some(other.directory()) != own.map(Pins::directory))
            .collect();
        if stale.is_empty() && !own.is_some_and(Pins::has_links) {
            check_nothing_on_tcx(cluster, egress).await?;
        }
        Ok(Self(stale))
    }

    /// Detaches and removes them. To be called once our dataplane is attached.
    pub fn remove(self) {
        for pins in self.0 {
            let directory = pins.directory().display();
            // Maps of another version cannot be retired: they disappear when the kernel has freed the programs.
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

/// Whether a dataplane is attached to one of these interfaces.
fn shares_interface(identity: &Identity, cluster: &Interface, egress: &Interface) -> bool {
    let ours = [cluster.index, egress.index];
    ours.contains(&identity.cluster_ifindex) || ours.contains(&identity.egress_ifindex)
}

async fn check_nothing_on_tcx(cluster: &Interface, egress: &Interface) -> Result<(), StartError> {
    let deadline = Instant::now() + StaleDataplanes::DETACH_TIMEOUT;
    while let Some(interface) = dataplane::attached_by_tcx(cluster, egress) {
        if Instant::now() > deadline {
            let interface = interface.name.clone();
            return Err(StartError::StillAttached { interface });
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Detaches the programs of a router that was killed. With clsact they stay attached until somebody removes them.
pub async fn remove_filters(
    interfaces: &Interfaces,
    cluster: &Interface,
    egress: &Interface,
) -> Result<(), StartError> {
    let instances = match dataplane::discover() {
        Ok(instances) => instances,
        Err(error @ DiscoverError::List(_)) => {
            log::debug!("cannot check whether a killed router left programs attached: {error}");
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
    for Instance { info, .. } in instances {
        let identity = info.identity;
        if shares_interface(&identity, cluster, egress)
            && Instance::detach_leftover(interfaces, cluster, egress).await?
        {
            log::warn!(
                "replaced the dataplane that process {}, which is gone, had left attached",
                identity.pid
            );
        }
    }
    Ok(())
}
