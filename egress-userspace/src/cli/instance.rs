//! The options that select a running router.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::dataplane::{DiscoverError, Instance};

/// Options of every command that looks into a running router.
#[derive(Clone, Debug, clap::Args)]
pub struct Selector {
    /// The router's cluster interface, if several routers run in this network namespace
    #[arg(long, value_name = "NAME")]
    cluster_interface: Option<String>,

    /// The directory where the dataplane is pinned. Opening it needs fewer privileges than listing the kernel's
    /// programs
    #[arg(long, value_name = "DIRECTORY")]
    pin_path: Option<PathBuf>,
}

impl Selector {
    /// Finds the router in this network namespace.
    pub fn find(&self) -> anyhow::Result<Instance> {
        let index = self.cluster_interface.as_deref().map(index).transpose()?;
        let Some(directory) = &self.pin_path else {
            return Ok(Instance::only(index)?);
        };
        let instance = Instance::pinned(directory)?;
        if index.is_some_and(|index| index != instance.info.identity.cluster_ifindex) {
            return Err(DiscoverError::NotPinned(directory.clone()))
                .context("no router with that cluster interface");
        }
        Ok(instance)
    }
}

fn index(name: &str) -> anyhow::Result<u32> {
    nix::net::if_::if_nametoindex(name)
        .map_err(|error| anyhow::anyhow!("there is no interface {name}: {error}"))
}
