//! Which running router a command is about.

use egress_userspace::dataplane::Instance;

/// Options of every command that looks into a running router.
#[derive(Debug, clap::Args)]
pub struct Selector {
    /// The router's cluster interface, where several routers run in this network namespace
    #[arg(long, value_name = "NAME")]
    cluster_interface: Option<String>,
}

impl Selector {
    /// Finds the router in this network namespace.
    pub fn find(&self) -> anyhow::Result<Instance> {
        let index = match &self.cluster_interface {
            Some(name) => Some(
                nix::net::if_::if_nametoindex(name.as_str())
                    .map_err(|error| anyhow::anyhow!("there is no interface {name}: {error}"))?,
            ),
            None => None,
        };
        Ok(Instance::only(index)?)
    }
}
