use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::{DUAL_STACK, EXAMPLE};
use crate::{
    Address, ApiVersion, EgressRouter, EgressRouterSpec, Family, Kind, Macvlan, MacvlanMode,
    Metadata, Mode, NetworkInterface, Protocol, Redirect, RedirectRule, address::broadcast, parse,
    source::parse_bytes,
};

/// A host's address in 10/8 or `2001:db8::/32`, never at the edge of a subnet of eight addresses or more.
fn host(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => (0_u32..0x20_0000)
            .prop_map(|bits| Ipv4Addr::from_bits(0x0a00_0002 | bits << 3).into())
            .boxed(),
        Family::V6 => any::<u64>()
            .prop_map(|bits| {
                Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(bits) << 16 | 0x8002).into()
            })
            .boxed(),
    }
}

fn own(family: Family) -> impl Strategy<Value = Address> {
    (host(family), 9..=family.bits(), any::<bool>()).prop_filter_map(
        "the gateway or the address is at the edge of the subnet",
        move |(address, prefix_length, has_gateway)| {
            let ip = IpNet::new(address, prefix_length).expect("a prefix length of the family");
            let gateway = match address {
                IpAddr::V4(address) => IpAddr::from(Ipv4Addr::from_bits(address.to_bits() ^ 0x3)),
                IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() ^ 0x3).into(),
            };
            let is_valid = prefix_length <= family.bits() - 3 || prefix_length == family.bits();
            is_valid.then_some(Address {
                ip,
                gateway: has_gateway.then_some(gateway),
            })
        },
    )
}

fn rule(families: Vec<Family>) -> impl Strategy<Value = RedirectRule> {
    let protocol = select(Protocol::ALL.as_slice());
    let destination = select(families).prop_flat_map(host);
    (
        destination,
        any::<NonZeroU16>(),
        protocol,
        option::of(any::<NonZeroU16>()),
    )
        .prop_map(
            |(destination_ip, port, protocol, target_port)| RedirectRule {
                destination_ip,
                port,
                protocol,
                target_port,
            },
        )
}

fn interface() -> impl Strategy<Value = NetworkInterface> {
    let mode = select(vec![
        MacvlanMode::Bridge,
        MacvlanMode::Private,
        MacvlanMode::Vepa,
        MacvlanMode::Passthru,
    ]);
    (mode, option::of("[a-z0-9_.-]{3,15}")).prop_map(|(mode, master)| NetworkInterface {
        macvlan: Macvlan { mode, master },
    })
}

prop_compose! {
    fn valid_router()
        (families in select(vec![vec![Family::V4], vec![Family::V6], vec![Family::V4, Family::V6], vec![Family::V6, Family::V4]]))
        (
            addresses in families.iter().map(|family| own(*family)).collect::<Vec<_>>(),
            mut redirect_rules in vec(rule(families.clone()), 0..20),
            fallback_ip in option::of(select(families).prop_flat_map(host)),
            network_interface in interface(),
            name in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?(\\.[a-z0-9]{1,9})?",
            namespace in option::of("[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?"),
        ) -> Option<EgressRouter> {
            let is_edge_or_own = |destination: IpAddr| addresses.iter().any(|own| {
                own.ip.addr() == destination || own.ip.network() == destination
                    || broadcast(own.ip).is_some_and(|broadcast| broadcast == destination)
            });
            redirect_rules.retain(|rule| !is_edge_or_own(rule.destination_ip));
            redirect_rules.sort_by_key(|rule| (rule.port, rule.protocol, rule.family()));
            redirect_rules.dedup_by_key(|rule| (rule.port, rule.protocol, rule.family()));
            let fallback_ip = fallback_ip.filter(|address| !is_edge_or_own(*address));
            (fallback_ip.is_some() || !redirect_rules.is_empty()).then_some(EgressRouter {
                api_version: ApiVersion::V1,
                kind: Kind::EgressRouter,
                metadata: Metadata { name, namespace },
                spec: EgressRouterSpec {
                    network_interface,
                    addresses,
                    mode: Mode::Redirect(Redirect { redirect_rules, fallback_ip }),
                },
            })
        }
}

/// Any value that a text can hold.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,20}".prop_map(Into::into),
        field().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Into::into),
            vec((field(), inner), 0..6)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 19] = [
    "apiVersion",
    "kind",
    "metadata",
    "spec",
    "status",
    "name",
    "mode",
    "networkInterface",
    "macvlan",
    "addresses",
    "ip",
    "gateway",
    "redirect",
    "redirectRules",
    "fallbackIP",
    "destinationIP",
    "port",
    "protocol",
    "targetPort",
];

fn field() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(FIELDS.as_slice()).prop_map(str::to_owned), 1 => ".{0,12}"]
}

/// Either there is a router, or there are errors and each says where.
fn router_or_errors(text: &str) -> Result<(), TestCaseError> {
    if let Err(errors) = parse(text, "spec.yaml") {
        prop_assert!(!errors.errors.is_empty(), "no error, no router");
        for error in &errors.errors {
            prop_assert!(!error.path.is_empty(), "no path: {error}");
            let shown = error.to_string();
            prop_assert!(
                !shown.contains('\n') || error.path.starts_with("line"),
                "{shown}"
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_valid_router_survives_being_written_and_read(router in valid_router()) {
        if let Some(router) = router {
            let yaml = yaml_serde::to_string(&router).expect("a router is YAML");
            match parse(&yaml, "spec.yaml") {
                Ok(read) => prop_assert_eq!(&read, &router),
                Err(errors) => prop_assert!(false, "{}\n{}", errors, yaml),
            }
            let json = serde_json::to_string(&router).expect("a router is JSON");
            prop_assert_eq!(serde_json::from_str::<EgressRouter>(&json).ok(), Some(router));
        }
    }

    #[test]
    fn any_text_is_a_router_or_has_errors(text in ".*") {
        router_or_errors(&text)?;
    }

    #[test]
    fn any_bytes_are_a_router_or_have_errors(bytes in vec(any::<u8>(), 0..200)) {
        if let Err(errors) = parse_bytes(&bytes, "spec.yaml") {
            prop_assert!(!errors.errors.is_empty());
        }
    }

    #[test]
    fn any_value_in_any_field_is_a_router_or_has_errors(
        metadata in value(), spec in value(), addresses in value(), redirect in value(), rule in value(), whole in value()
    ) {
        let complete = serde_json::json!({
            "apiVersion": "network.operator.openshift.io/v1",
            "kind": "EgressRouter",
            "metadata": metadata,
            "spec": { "addresses": addresses, "redirect": { "redirectRules": [rule, redirect.clone()], "fallbackIP": spec.clone() } },
        });
        router_or_errors(&complete.to_string())?;
        router_or_errors(&serde_json::json!({ "spec": spec, "redirect": redirect }).to_string())?;
        router_or_errors(&whole.to_string())?;
    }

    #[test]
    fn a_mutated_router_is_a_router_or_has_errors(
        text in select(vec![EXAMPLE, DUAL_STACK]),
        mutations in vec((any::<Index>(), 0_usize..8, "[ -~\n]{0,6}"), 1..4),
    ) {
        let mut text: Vec<char> = text.chars().collect();
        for (index, removed, inserted) in mutations {
            let at = index.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
            if text.is_empty() {
                break;
            }
        }
        router_or_errors(&text.into_iter().collect::<String>())?;
    }

    #[test]
    fn a_subnet_holds_its_own_edges(own in prop_oneof![own(Family::V4), own(Family::V6)]) {
        prop_assert!(own.ip.contains(&own.ip.addr()));
        prop_assert!(own.ip.contains(&own.ip.network()));
        if let Some(broadcast) = broadcast(own.ip) {
            prop_assert!(own.ip.contains(&IpAddr::from(broadcast)));
            prop_assert!(own.ip.network() < IpAddr::from(broadcast));
        }
    }
}
