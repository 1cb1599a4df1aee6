//! The redirect rules.

use egress_common::{Outcome, Rule, RuleKey, Side, Tuple};

use crate::{addresses, family::Pipeline};

/// The rule for a packet from a client that belongs to no flow yet.
#[inline(always)]
pub fn find<F: Pipeline>(tuple: &Tuple<F::Address>) -> Result<&'static Rule<F::Address>, Outcome> {
    if !addresses::is_own::<F>(Side::Cluster, tuple.addresses.destination) {
        return Err(Outcome::NotForRouter);
    }
    let key = RuleKey::new(tuple.protocol, tuple.ports.destination);
    // SAFETY: userspace replaces a rule by updating its element, whose memory the kernel keeps until this program ends.
    unsafe { F::rules().get(key) }.ok_or(Outcome::NoRule)
}
