//! Reloading: replacing the resource while the router runs.

use std::time::SystemTime;

use egress_api::{EgressRouter, Family, RuleTable};
use egress_common::Reloads;

use super::{
    Router,
    config::OnRuleChange,
    error::{ReloadError, chain},
};
use crate::{
    dataplane::{MapsError, RulesChange},
    net::{interface, kernel},
};

impl Router {
    /// Puts the rules of a resource in force. On an error the previous rules stay, and `status` shows the error.
    /// The log line starts with `reason`, such as "SIGHUP".
    ///
    /// Returns what has changed, or `None` if the resource is already in force.
    ///
    /// # Errors
    ///
    /// If the interfaces or the maps do not fit the resource.
    pub async fn reload(
        &mut self,
        reason: &str,
        resource: EgressRouter,
    ) -> Result<Option<RulesChange>, ReloadError> {
        let result = self.replace(resource).await;
        self.record_result(reason, &result);
        result
    }

    /// Reads the spec file again and puts its rules in force.
    pub(super) async fn reload_file(&mut self, reason: &str) {
        let file = self.spec_file.as_ref().ok_or(ReloadError::NoFile);
        let resource = file.and_then(|file| Ok(egress_api::load(file.path())?));
        let result = match resource {
            Ok(resource) => self.replace(resource).await,
            Err(error) => Err(error),
        };
        self.record_result(reason, &result);
    }

    /// Records the result of a reload for the log, the metrics and `status`.
    fn record_result(&mut self, reason: &str, result: &Result<Option<RulesChange>, ReloadError>) {
        match result {
            Ok(Some(change)) => {
                self.reloads.apply(SystemTime::now());
                log::info!(
                    "{reason}: {} rules are in force, {} new, {} gone",
                    change.kept + change.added,
                    change.added,
                    change.removed
                );
            }
            Ok(None) => {
                self.reloads.last_error = None;
                log::debug!("{reason}: nothing has changed");
            }
            Err(error) => {
                let error = chain(error);
                log::error!("{reason}, but is refused; the rules stay as they are: {error}");
                self.reloads.refuse(error);
            }
        }
        if let Err(error) = self.store_result(result) {
            log::error!(
                "status cannot show the result of the last reload: {}",
                chain(&error)
            );
        }
    }

    /// Returns what has changed, or `None` if the resource is already in force.
    async fn replace(
        &mut self,
        resource: EgressRouter,
    ) -> Result<Option<RulesChange>, ReloadError> {
        if resource == self.resource {
            return Ok(None);
        }
        let table = RuleTable::from(&resource);
        self.check(&resource, &table).await?;
        let change = self.dataplane.maps.apply_rules(&table)?;
        (self.resource, self.table) = (resource, table);
        if self.config.on_rule_change == OnRuleChange::Close {
            let ended = self
                .dataplane
                .end_flows_without_rule()
                .map_err(ReloadError::FlowsNotEnded)?;
            log::info!("ended {ended} flows of rules that are no longer in force");
        }
        Ok(Some(change))
    }

    /// Checks that a resource can replace the one in force.
    async fn check(&self, resource: &EgressRouter, table: &RuleTable) -> Result<(), ReloadError> {
        let cluster = self
            .interfaces
            .find(&self.cluster.name, "it was there when the router started")
            .await?;
        let egress = self
            .interfaces
            .find(&self.egress.name, "it was there when the router started")
            .await?;
        interface::check(&cluster, &egress, resource.reserved())?;
        let is_new = |family: &Family| {
            table.reserved(*family).is_some() && self.table.reserved(*family).is_none()
        };
        match Family::ALL.into_iter().find(is_new) {
            Some(family) => Err(ReloadError::NewFamily { family }),
            None => Ok(()),
        }
    }

    /// Stores the result in the map `INSTANCE`, where `status` finds it.
    fn store_result(
        &mut self,
        result: &Result<Option<RulesChange>, ReloadError>,
    ) -> Result<(), MapsError> {
        let maps = &mut self.dataplane.maps;
        let mut instance = maps.instance()?;
        let reloads = &mut instance.reloads;
        match result {
            Ok(change) => {
                if change.is_some() {
                    reloads.applied += 1;
                    reloads.applied_ns = kernel::monotonic_ns();
                }
                reloads.refused_ns = 0;
                reloads.error = Reloads::message("");
            }
            Err(error) => {
                reloads.refused += 1;
                reloads.refused_ns = kernel::monotonic_ns();
                reloads.error = Reloads::message(&chain(error));
            }
        }
        maps.set_instance(&instance)
    }
}
