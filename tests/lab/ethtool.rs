//! The features of network devices.

use anyhow::Result;

use crate::namespace::Namespace;

/// Makes the kernel of `host` finish checksums before it hands packets to this
/// interface, as for a device that cannot.
///
/// With it a veth device passes them on unfinished, and a capture behind it sees them so.
///
/// # Errors
/// Also where ethtool(8) is missing.
pub fn finish_checksums_in_software(host: &Namespace, interface: &str) -> Result<()> {
    host.output("ethtool", ["-K", interface, "tx", "off"])?;
    Ok(())
}
