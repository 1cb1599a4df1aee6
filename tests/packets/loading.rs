//! The kernel's work before the first packet.

use std::{fmt::Write as _, io::Write as _, time::Instant};

use anyhow::Result;
use egress_tests::skip_unless_lab_works;
use egress_userspace::{
    dataplane::{Dataplane, Options, PROGRAMS},
    net::kernel,
};
use log::LevelFilter;

/// Reports what this kernel made of the object, in lines that begin with `figure: `.
#[test]
fn the_kernel_half_loads_with_everything_that_this_kernel_has() -> Result<()> {
    skip_unless_lab_works!();
    let features = kernel::features()?;
    let started = Instant::now();
    let mut dataplane = Dataplane::load(&Options {
        cluster_ifindex: 1,
        egress_ifindex: 1,
        max_flows_v4: 1024,
        max_flows_v6: 1024,
        max_rules: Options::MIN_RULES,
        log_level: LevelFilter::Info,
        features,
    })?;
    let mut lines = format!("figure: loaded in {} ms\n", started.elapsed().as_millis());
    for name in PROGRAMS {
        // Linux 5.16 and newer report the number.
        if let Some(count) = dataplane
            .program(name)?
            .info()?
            .verified_instruction_count()
        {
            writeln!(lines, "figure: {name}: {count} instructions verified")?;
        }
    }
    let expiry = if features.kernel_expiry {
        dataplane.start_expiry()?;
        "the kernel"
    } else {
        "userspace"
    };
    writeln!(lines, "figure: idle flows are ended by {expiry}")?;
    // Bypasses the test harness, which shows captured output only for failed tests.
    std::io::stderr().write_all(lines.as_bytes())?;
    Ok(())
}
