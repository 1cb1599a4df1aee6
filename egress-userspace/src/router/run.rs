//! The run loop of a router, and its shutdown.

use std::{collections::BTreeSet, error::Error, net::IpAddr, pin::pin};

use egress_common::{Config, Side};
use futures_util::StreamExt as _;

use super::{
    Router,
    error::{RunError, chain},
    spec_file::SpecFile,
};
use crate::{
    net::{interface::NetworkChange, kernel},
    telemetry::{flow_log_writer::FlowLogError, metrics::RunState},
};

impl Router {
    /// Runs the router until `end` completes. It may be called again: events that arrive in between are queued.
    ///
    /// # Errors
    ///
    /// If the kernel refuses an operation that the router depends on. The dataplane stays attached.
    pub async fn run_until<T>(&mut self, end: impl Future<Output = T>) -> Result<T, RunError> {
        let mut end = pin!(end);
        let sweeps_flows = self.dataplane.maps.instance()?.kernel_expiry == 0;
        loop {
            tokio::select! {
                ended = &mut end => return Ok(ended),
                recorded = self.flow_log.record() => {
                    if let Err(error) = recorded {
                        log::error!("flows are missing from the flow log: {}", chain(&error));
                    }
                }
                _ = self.events.spec_file.tick() => {
                    if self.spec_file.as_mut().is_some_and(SpecFile::has_changed) {
                        self.reload_file("the spec has changed").await;
                    }
                }
                query = self.queries.next() => {
                    query.answer(&self.dataplane.maps, &self.state());
                }
                changed = self.events.changes.next() => {
                    self.handle_changes(&changed.unwrap_or_default()).await;
                }
                _ = self.events.next_hops.tick() => self.refresh_next_hops().await,
                _ = self.events.sweeps.tick(), if sweeps_flows => self.sweep()?,
                ready = self.events.kernel_log.readable_mut() => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
            }
        }
    }

    /// Reopens the flow log, so that it can be rotated, and reloads the spec file.
    pub async fn reopen_files(&mut self, reason: &str) {
        if let Err(error) = self.flow_log.reopen() {
            log::error!("could not reopen the flow log, which continues in the old file: {error}");
        }
        if let Some(file) = &mut self.spec_file {
            // The reload below covers this change: the next tick must not report it again.
            file.has_changed();
        }
        self.reload_file(reason).await;
    }

    /// Detaches the dataplane and removes its pins. All flows end.
    ///
    /// # Errors
    ///
    /// If the last lines of the flow log could not be written.
    pub async fn shut_down(self) -> Result<(), FlowLogError> {
        self.attachment
            .detach(*self.dataplane, &self.interfaces)
            .await;
        self.flow_log.finish()
    }

    /// Leaves the dataplane attached, for the next process to take over. It must be pinned.
    ///
    /// # Errors
    ///
    /// If the last lines of the flow log could not be written.
    pub fn leave(self) -> Result<(), FlowLogError> {
        self.attachment.leave();
        self.flow_log.finish()
    }

    /// The state for metrics and health that is not in the maps.
    fn state(&self) -> RunState {
        let servers: BTreeSet<IpAddr> = self.table.destinations().collect();
        RunState {
            started: self.started,
            attached: true,
            cluster: self.cluster.clone(),
            egress: self.egress.clone(),
            reserved: self.resource.reserved().map(|own| own.addr()).collect(),
            servers: servers.into_iter().collect(),
            reloads: self.reloads.clone(),
            next_hops: self.next_hops.counts(),
        }
    }

    /// Applies changes of interfaces, routes and neighbours to the maps.
    async fn handle_changes(&mut self, changed: &[NetworkChange]) {
        if changed
            .iter()
            .any(|change| *change != NetworkChange::Neighbours)
            && let Err(error) = self.next_hops.reset(&mut self.dataplane.maps)
        {
            log::error!("next hops may be those of an old route: {error}");
        }
        self.refresh_next_hops().await;
        if changed.contains(&NetworkChange::Interfaces)
            && let Err(error) = self.refresh_interfaces().await
        {
            log::error!(
                "the addresses and MTUs of the interfaces are not up to date: {}",
                chain(&*error)
            );
        }
    }

    /// Refreshes the next hops. An error does not end the router: without them the kernel half asks the kernel.
    async fn refresh_next_hops(&mut self) {
        let pair = [&self.cluster, &self.egress];
        let maps = &mut self.dataplane.maps;
        if let Err(error) = self.next_hops.refresh(maps, &self.interfaces, pair).await {
            log::warn!(
                "next hops are not up to date, the kernel looks them up for each packet: {error}"
            );
        }
    }

    /// Ends idle flows, on kernels where the kernel half cannot.
    fn sweep(&mut self) -> Result<(), RunError> {
        let timeouts = self.dataplane.maps.config()?.timeouts;
        let swept = self.dataplane.sweep(&timeouts, kernel::monotonic_ns())?;
        if swept.ended > 0 {
            log::debug!("ended {} idle flows, {} are left", swept.ended, swept.live);
        }
        Ok(())
    }

    /// Writes the interfaces' current addresses and MTUs to the maps.
    async fn refresh_interfaces(&mut self) -> Result<(), Box<dyn Error>> {
        let maps = &mut self.dataplane.maps;
        let config = maps.config()?;
        let current = Config {
            cluster_mtu: self.interfaces.mtu(self.cluster.index).await?,
            egress_mtu: self.interfaces.mtu(self.egress.index).await?,
            ..config
        };
        if current != config {
            maps.set_config(&current)?;
        }
        for (side, interface) in [(Side::Cluster, &self.cluster), (Side::Egress, &self.egress)] {
            let addresses = self.interfaces.addresses(interface.index).await?;
            maps.set_addresses(side, &addresses)?;
            if side == Side::Egress {
                for address in self
                    .resource
                    .reserved()
                    .map(|own| own.addr())
                    .filter(|own| !addresses.contains(own))
                {
                    log::error!(
                        "{} has lost the reserved address {address}: replies will not arrive",
                        interface.name
                    );
                }
            }
        }
        Ok(())
    }
}
