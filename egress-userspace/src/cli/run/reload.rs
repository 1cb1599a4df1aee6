//! Changes of the spec while the router runs.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use egress_api::{EgressRouter, Family, RuleTable, STDIN};
use egress_common::Reloads;

use super::{OnRuleChange, Router, reserved};
use crate::{
    dataplane::RulesChange,
    net::{interface, kernel},
};

/// How fresh a file is that may have been written to again without its times telling.
const FRESH: Duration = Duration::from_secs(2);

/// The spec's file. It is looked at by its name, which finds the new file of a `ConfigMap` that is mounted, too: there a
/// symbolic link is replaced.
pub struct SpecFile {
    /// `None` for standard input.
    path: Option<String>,
    seen: Option<Stamp>,
    /// Whether it was so fresh when it was looked at that it has to be read once more.
    again: bool,
}

/// What tells a file from what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(path: &str) -> io::Result<(Self, SystemTime)> {
        let metadata = fs::metadata(path)?;
        let stamp = Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        };
        Ok((stamp, metadata.modified()?))
    }
}

impl SpecFile {
    /// The file that was read just before the call, or is read right after it.
    pub fn new(name: &str) -> Self {
        let mut file = Self {
            path: (name != STDIN).then(|| name.to_owned()),
            seen: None,
            again: false,
        };
        file.has_changed();
        file
    }

    /// Whether it is another one than when this was asked last. A file that is gone has not changed: it is being replaced.
    pub fn has_changed(&mut self) -> bool {
        let Some(path) = &self.path else {
            return false;
        };
        let Ok((stamp, modified)) = Stamp::of(path) else {
            return false;
        };
        let is_fresh = modified.elapsed().unwrap_or_default() < FRESH;
        let has_changed = self.seen != Some(stamp) || self.again;
        self.again = is_fresh;
        self.seen = Some(stamp);
        has_changed
    }
}

impl Router<'_> {
    /// Reads the spec and puts its rules in force. If that cannot be, those before stay, and `status` tells why.
    pub async fn reload(&mut self, reason: &str) {
        let result = self.try_reload().await;
        match &result {
            Ok(Some(_)) => self.reloads.apply(SystemTime::now()),
            Ok(None) => self.reloads.last_error = None,
            Err(error) => self.reloads.refuse(format!("{error:#}")),
        }
        match &result {
            Ok(Some(change)) => log::info!(
                "{reason}: {} rules are in force, {} new, {} gone",
                change.kept + change.added,
                change.added,
                change.removed
            ),
            Ok(None) => log::debug!("{reason}: nothing is different"),
            Err(error) => {
                log::error!("{reason}, but is refused; the rules stay as they are: {error:#}");
            }
        }
        if let Err(error) = self.report(&result) {
            log::error!("status cannot show the last change of the spec: {error:#}");
        }
    }

    /// What has changed, if anything.
    async fn try_reload(&mut self) -> anyhow::Result<Option<RulesChange>> {
        anyhow::ensure!(
            self.args.config != STDIN,
            "the spec came by standard input, which cannot be read again"
        );
        let wanted = egress_api::load(&self.args.config)?;
        if wanted == self.spec {
            return Ok(None);
        }
        self.check(&wanted).await?;
        let change = self.dataplane.maps.apply_rules(&RuleTable::from(&wanted))?;
        self.spec = wanted;
        if self.args.on_rule_change == OnRuleChange::Close {
            let ended = self
                .dataplane
                .end_flows_without_rule()
                .context("the rules are in force, but flows of those before may live on")?;
            log::info!("ended {ended} flows of rules that are not in force any more");
        }
        Ok(Some(change))
    }

    /// Checks that a spec can replace the one in force.
    async fn check(&self, wanted: &EgressRouter) -> anyhow::Result<()> {
        let cluster = self
            .interfaces
            .find(&self.cluster.name, "it was there when the router started")
            .await?;
        let egress = self
            .interfaces
            .find(&self.egress.name, "it was there when the router started")
            .await?;
        interface::check(&cluster, &egress, reserved(wanted))?;
        let (has, had) = (RuleTable::from(wanted), RuleTable::from(&self.spec));
        for family in Family::ALL {
            anyhow::ensure!(
                had.reserved(family).is_some() || has.reserved(family).is_none(),
                "spec.addresses: the router was started without an {family} address, and has no flow table for it; \
                 start it anew"
            );
        }
        Ok(())
    }

    /// Writes down for `status` how it went.
    fn report(&mut self, result: &anyhow::Result<Option<RulesChange>>) -> anyhow::Result<()> {
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
                reloads.error = Reloads::message(&format!("{error:#}"));
            }
        }
        maps.set_instance(&instance)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_replaced_written_to_or_linked_elsewhere_has_changed() {
        let directory =
            std::env::temp_dir().join(format!("egress-router-spec-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("router.yaml");
        let old = SystemTime::now() - 2 * FRESH;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::write(&path, text).unwrap();
            fs::File::open(&path).unwrap().set_modified(old).unwrap();
        };
        write("one", "1");
        write("two", "2");
        std::os::unix::fs::symlink(directory.join("one"), &path).unwrap();
        let mut file = SpecFile::new(path.to_str().unwrap());
        assert!(!file.has_changed());
        std::os::unix::fs::symlink(directory.join("two"), directory.join("next")).unwrap();
        fs::rename(directory.join("next"), &path).unwrap();
        assert!(file.has_changed(), "the link leads elsewhere");
        assert!(!file.has_changed());
        write("two", "22");
        assert!(file.has_changed(), "written to");
        assert!(!file.has_changed());
        fs::remove_file(&path).unwrap();
        assert!(!file.has_changed(), "gone");
        fs::remove_dir_all(&directory).unwrap();
    }
}
