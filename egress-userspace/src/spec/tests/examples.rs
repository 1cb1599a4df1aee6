use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use super::super::{
    Address, Family, IpPrefix, Macvlan, MacvlanMode, Mode, NetworkInterface, Protocol, Redirect,
    RedirectRule, json_schema,
};
use super::{DUAL_STACK, EXAMPLE, edited, valid};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn rule(destination: &str, port: u16, protocol: Protocol, target: Option<u16>) -> RedirectRule {
    RedirectRule {
        destination_ip: address(destination),
        port: NonZeroU16::new(port).expect("a port"),
        protocol,
        target_port: target.and_then(NonZeroU16::new),
    }
}

#[test]
fn the_documented_example_is_read_in_full() {
    let router = valid(EXAMPLE);
    assert_eq!(router.metadata.name, "egress-router-redirect");
    assert_eq!(router.metadata.namespace.as_deref(), Some("example"));
    assert_eq!(router.spec.mode, Mode::Redirect);
    let macvlan = Macvlan {
        mode: MacvlanMode::Bridge,
        master: None,
    };
    assert_eq!(router.spec.network_interface, NetworkInterface { macvlan });
    let own = Address {
        ip: IpPrefix {
            address: address("192.168.12.99"),
            prefix_length: 24,
        },
        gateway: Some(address("192.168.12.1")),
    };
    assert_eq!(router.spec.addresses, [own]);
    let redirect = Redirect {
        redirect_rules: vec![
            rule("10.0.0.99", 80, Protocol::Udp, None),
            rule("203.0.113.26", 8080, Protocol::Tcp, Some(80)),
            rule("203.0.113.27", 8443, Protocol::Tcp, Some(443)),
        ],
        fallback_ip: None,
    };
    assert_eq!(router.spec.redirect, redirect);
    assert_eq!(
        router.reserved_v4(),
        Some((Ipv4Addr::new(192, 168, 12, 99), 24))
    );
    assert_eq!(router.reserved_v6(), None);
    assert_eq!(router.reserved(Family::V6), None);
}

#[test]
fn a_router_may_have_an_address_of_each_family() {
    let router = valid(DUAL_STACK);
    assert!(router.reserved_v4().is_some());
    assert_eq!(
        router
            .reserved_v6()
            .map(|(address, length)| (address.into(), length)),
        Some((address("2001:db8:12::99"), 64))
    );
    assert_eq!(
        router.spec.redirect.fallback_ip,
        Some(address("203.0.113.99"))
    );
}

#[test]
fn a_target_port_left_out_is_the_port() {
    let rules = valid(EXAMPLE).spec.redirect.redirect_rules;
    let ports: Vec<_> = rules
        .iter()
        .map(|rule| rule.destination_port().get())
        .collect();
    assert_eq!(ports, [80, 80, 443]);
}

#[test]
fn defaults_stand_for_absent_and_null_fields() {
    let full = valid(EXAMPLE);
    let interface = "  networkInterface:\n    macvlan:\n      mode: Bridge\n";
    let without_mode = edited(EXAMPLE, "  mode: Redirect\n", "");
    assert_eq!(valid(&without_mode), full);
    assert_eq!(valid(&edited(&without_mode, interface, "")), full);
    let null = edited(EXAMPLE, interface, "  networkInterface: null\n");
    assert_eq!(valid(&null), full);
    let empty = edited(EXAMPLE, interface, "  networkInterface: {macvlan: {}}\n");
    assert_eq!(valid(&empty), full);
}

#[test]
fn what_a_cluster_adds_is_accepted() {
    let from_cluster = edited(
        EXAMPLE,
        "  namespace: example\n",
        "  namespace: example\n  uid: 1-2\n  generation: 4\n  labels: {a.b/c: d}\n  managedFields: [{f:spec: {}}]\n",
    ) + "status:\n  conditions:\n    - {type: Available, status: 'True'}\n";
    assert_eq!(valid(&from_cluster), valid(EXAMPLE));
}

#[test]
fn the_schema_in_the_documentation_is_the_one_that_is_printed() {
    let written = include_str!("../../../../docs/egressrouter.schema.json");
    let printed = serde_json::to_string_pretty(&json_schema()).expect("a schema is JSON") + "\n";
    assert!(
        written == printed,
        "docs/egressrouter.schema.json is out of date, write it again: egress-router schema > docs/egressrouter.schema.json"
    );
}
