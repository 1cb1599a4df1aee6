//! A router that another program runs: without the binary and its command line.

use std::sync::mpsc;

use anyhow::{Context as _, Result};
use egress_tests::{Lab, Spec, addresses::V4, skip_unless_lab_works, tcp};
use egress_userspace::router::{Pinning, Router, RouterConfig};
use tokio::{runtime, sync::oneshot};

#[test]
fn a_router_of_the_library_forwards_until_it_is_told_to_end() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let (ready, is_ready) = mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let router = lab.router().spawn(move || {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let resource = egress_api::parse(&Spec::dual_stack().yaml(), "the test's spec")?;
            let pinning = Pinning::Off;
            let config = RouterConfig {
                pinning,
                ..RouterConfig::default()
            };
            let mut router = Router::start(config, resource).await?;
            ready.send(())?;
            router.run_until(ended).await?.context("the test is gone")?;
            Ok(router.shut_down().await?)
        })
    });
    if is_ready.recv().is_ok() {
        let rule = V4.http();
        let listener = tcp::listen(lab.servers(), rule.server())?;
        let client = tcp::connect(lab.client(), rule.service())?;
        let (server, source) = tcp::accept(&listener)?;
        tcp::send(&client, &server, b"question")?;
        tcp::send(&server, &client, b"answer")?;
        assert_eq!(source.ip(), V4.router_net1.address);
        let _ = end.send(());
    }
    router.join().expect("no panic")
}
