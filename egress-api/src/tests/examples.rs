use std::net::IpAddr;

use serde_json::json;

use super::{DUAL_STACK, EXAMPLE, edited, valid};
use crate::{
    Address, Family, Macvlan, MacvlanMode, Mode, NetworkInterface, Protocol, RuleTable, json_schema,
};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn the_documented_example_is_read_in_full() {
    let router = valid(EXAMPLE);
    assert_eq!(router.metadata.name, "egress-router-redirect");
    assert_eq!(router.metadata.namespace.as_deref(), Some("example"));
    let macvlan = Macvlan {
        mode: MacvlanMode::Bridge,
        master: None,
    };
    assert_eq!(router.spec.network_interface, NetworkInterface { macvlan });
    let own = Address {
        ip: "192.168.12.99/24"
            .parse()
            .expect("an address with its prefix length"),
        gateway: Some(address("192.168.12.1")),
    };
    assert_eq!(router.spec.addresses, [own]);
    let spec = serde_json::to_value(&router.spec).expect("a spec is JSON");
    let redirect = json!({"redirectRules": [
        {"destinationIP": "10.0.0.99", "port": 80, "protocol": "UDP"},
        {"destinationIP": "203.0.113.26", "port": 8080, "protocol": "TCP", "targetPort": 80},
        {"destinationIP": "203.0.113.27", "port": 8443, "protocol": "TCP", "targetPort": 443},
    ]});
    assert_eq!(spec["redirect"], redirect);
}

#[test]
fn the_rule_table_has_the_rules_in_order_and_what_they_leave_from() {
    let table = RuleTable::from(&valid(EXAMPLE));
    let rules = table.rules.iter().map(|rule| {
        let server = (rule.destination, rule.target_port.get());
        (rule.protocol, rule.port.get(), server)
    });
    let expected = [
        (Protocol::Udp, 80, (address("10.0.0.99"), 80)),
        (Protocol::Tcp, 8080, (address("203.0.113.26"), 80)),
        (Protocol::Tcp, 8443, (address("203.0.113.27"), 443)),
    ];
    assert_eq!(rules.collect::<Vec<_>>(), expected);
    assert_eq!(table.reserved_v4, Some([192, 168, 12, 99].into()));
    assert!(table.reserved_v6.is_none() && table.fallbacks().count() == 0);
    assert_eq!(table.len(), 3);
}

#[test]
fn a_router_may_have_an_address_of_each_family() {
    let table = RuleTable::from(&valid(DUAL_STACK));
    assert!(table.reserved_v4.is_some());
    assert_eq!(table.reserved(Family::V6), Some(address("2001:db8:12::99")));
    assert_eq!(
        table.fallbacks().collect::<Vec<_>>(),
        [address("203.0.113.99")]
    );
}

#[test]
fn a_target_port_left_out_is_the_port() {
    let Mode::Redirect(redirect) = valid(EXAMPLE).spec.mode;
    let ports: Vec<_> = redirect
        .redirect_rules
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
    let written = include_str!("../../../docs/egressrouter.schema.json");
    let printed = serde_json::to_string_pretty(&json_schema()).expect("a schema is JSON") + "\n";
    assert!(
        written == printed,
        "docs/egressrouter.schema.json is out of date, write it again: egress-router schema > docs/egressrouter.schema.json"
    );
}
