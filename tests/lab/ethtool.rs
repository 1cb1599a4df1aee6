//! The features of network devices.

use anyhow::Result;

use crate::namespace::Namespace;

/// Makes the kernel of `host` compute checksums before it hands packets to this interface, as for a device without
/// checksum offload.
///
/// A veth device passes packets on with incomplete checksums, and a capture behind it sees them.
///
/// # Errors
/// Fails where ethtool(8) is not installed, too.
pub fn finish_checksums_in_software(host: &Namespace, interface: &str) -> Result<()> {
    host.output("ethtool", ["-K", interface, "tx", "off"])?;
    Ok(())
}
