//! Changes of the resource while the router runs.

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
    /// Puts the rules of a resource in force. On an error, the previous rules stay in force, and `status` shows the
    /// error. The log gives `reason` as the cause of the reload.
    ///
    /// Returns what has changed, or `None` if this resource is in force already.
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
        self.conclude(reason, &result);
        result
    }

    /// Reads the spec's file again, and puts its rules in force.
    pub(super) async fn reload_file(&mut self, reason: &str) {
        let file = self.spec_file.as_ref().ok_or(ReloadError::NoFile);
        let resource = file.and_then(|file| Ok(egress_api::load(file.path())?));
        let result = match resource {
            Ok(resource) => self.replace(resource).await,
            Err(error) => Err(error),
        };
        self.conclude(reason, &result);
    }

    /// Reports a reload in the log, the metrics and `status`.
    fn conclude(&mut self, reason: &str, result: &Result<Option<RulesChange>, ReloadError>) {
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
                log::debug!("{reason}: nothing is different");
            }
            Err(error) => {
                let error = chain(error);
                log::error!("{reason}, but is refused; the rules stay as they are: {error}");
                self.reloads.refuse(error);
            }
        }
        if let Err(error) = self.report(result) {
            log::error!(
                "status cannot show the last change of the spec: {}",
                chain(&error)
            );
        }
    }

    /// Replaces the rules, and returns what has changed.
    async fn replace(&mut self, wanted: EgressRouter) -> Result<Option<RulesChange>, ReloadError> {
        if wanted == self.resource {
            return Ok(None);
        }
        let table = RuleTable::from(&wanted);
        self.check(&wanted, &table).await?;
        let change = self.dataplane.maps.apply_rules(&table)?;
        (self.resource, self.table) = (wanted, table);
        if self.config.on_rule_change == OnRuleChange::Close {
            let ended = self
                .dataplane
                .end_flows_without_rule()
                .map_err(ReloadError::FlowsNotEnded)?;
            log::info!("ended {ended} flows of rules that are not in force any more");
        }
        Ok(Some(change))
    }

    /// Checks that a spec can replace the one in force.
    async fn check(&self, wanted: &EgressRouter, table: &RuleTable) -> Result<(), ReloadError> {
        let cluster = self
            .interfaces
            .find(&self.cluster.name, "it was there when the router started")
            .await?;
        let egress = self
            .interfaces
            .find(&self.egress.name, "it was there when the router started")
            .await?;
        interface::check(&cluster, &egress, wanted.reserved())?;
        let is_new = |family: &Family| {
            table.reserved(*family).is_some() && self.table.reserved(*family).is_none()
        };
        match Family::ALL.into_iter().find(is_new) {
            Some(family) => Err(ReloadError::NewFamily { family }),
            None => Ok(()),
        }
    }

    /// Writes down for `status` how it went.
    fn report(
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
