use super::{DUAL_STACK, EXAMPLE, accepted, edited, errors, refused};

const OWN: &str = "192.168.12.99/24";
const GATEWAY: &str = "gateway: 192.168.12.1";

/// The only error in the example after one edit.
#[track_caller]
fn error_after(from: &str, to: &str) -> String {
    let mut errors = errors(&edited(EXAMPLE, from, to));
    assert_eq!(errors.len(), 1, "after {to:?}: {errors:#?}");
    errors.remove(0)
}

#[test]
fn a_router_needs_an_address() {
    let addresses = "  addresses:\n    - ip: 192.168.12.99/24\n      gateway: 192.168.12.1\n";
    refused(
        EXAMPLE,
        &[
            (
                addresses,
                "",
                &["spec.addresses: missing; expected at least one reserved source address"],
            ),
            (
                addresses,
                "  addresses: []\n",
                &["spec.addresses: empty; expected at least one reserved source address"],
            ),
        ],
    );
}

#[test]
fn an_own_address_has_a_prefix_length_of_its_family() {
    let not_a_prefix = "is not an address with its subnet's prefix length";
    for (wrong, expected) in [
        (
            "192.168.12.99",
            format!("\"192.168.12.99\" {not_a_prefix}: add it, such as 192.168.12.99/24"),
        ),
        (
            "2001:db8::1",
            format!("\"2001:db8::1\" {not_a_prefix}: add it, such as 2001:db8::1/64"),
        ),
        (
            "router/24",
            format!("\"router/24\" {not_a_prefix}: such as 192.168.12.99/24"),
        ),
        (
            "router",
            format!("\"router\" {not_a_prefix}: such as 192.168.12.99/24"),
        ),
        (
            "192.168.12.99/33",
            "/33 is not a prefix length of IPv4 (1–32)".to_owned(),
        ),
        (
            "192.168.12.99/0",
            "/0 is not a prefix length of IPv4 (1–32)".to_owned(),
        ),
        (
            "192.168.12.99/+24",
            "/+24 is not a prefix length of IPv4 (1–32)".to_owned(),
        ),
        (
            "192.168.12.99/",
            "/ is not a prefix length of IPv4 (1–32)".to_owned(),
        ),
        (
            "192.168.12.99/255.255.255.0",
            "/255.255.255.0 is not a prefix length of IPv4 (1–32): write 192.168.12.99/24"
                .to_owned(),
        ),
        (
            "2001:db8::1/129",
            "/129 is not a prefix length of IPv6 (1–128)".to_owned(),
        ),
    ] {
        assert_eq!(
            error_after(OWN, wrong),
            format!("spec.addresses[0].ip: {expected}")
        );
    }
}

#[test]
fn an_own_address_is_a_hosts() {
    let own = "expected the router's own unicast address";
    let without_gateway = edited(EXAMPLE, &format!("      {GATEWAY}\n"), "");
    for (wrong, what) in [
        (
            "192.168.12.0/24",
            "192.168.12.0 is the network address of 192.168.12.0/24",
        ),
        (
            "192.168.12.255/24",
            "192.168.12.255 is the broadcast address of 192.168.12.0/24",
        ),
        (
            "192.168.12.8/30",
            "192.168.12.8 is the network address of 192.168.12.8/30",
        ),
        ("0.0.0.0/32", "0.0.0.0 is the unspecified address"),
        ("127.0.0.1/8", "127.0.0.1 is a loopback address"),
        ("224.0.0.1/32", "224.0.0.1 is a multicast address"),
        (
            "255.255.255.255/32",
            "255.255.255.255 is the broadcast address",
        ),
        ("\"::1/128\"", "::1 is the loopback address"),
        ("fe80::1/64", "fe80::1 is a link-local address"),
        (
            "::ffff:192.168.12.99/120",
            "::ffff:192.168.12.99 is an IPv4 address written as IPv6",
        ),
    ] {
        let errors = errors(&edited(&without_gateway, OWN, wrong));
        assert_eq!(errors[0], format!("spec.addresses[0].ip: {what}; {own}"));
    }
    let anycast = edited(DUAL_STACK, "2001:db8:12::99/64", "\"2001:db8:12::/64\"");
    assert_eq!(
        errors(&anycast),
        [format!(
            "spec.addresses[1].ip: 2001:db8:12:: is the subnet-router anycast address of 2001:db8:12::/64; {own}"
        )]
    );
}

#[test]
fn every_address_of_a_point_to_point_subnet_is_a_hosts() {
    for own in [
        "192.168.12.0/31",
        "192.168.12.1/31",
        "192.168.12.0/32",
        "192.168.12.255/32",
    ] {
        accepted(
            &edited(EXAMPLE, &format!("      {GATEWAY}\n"), ""),
            &[(OWN, own)],
        );
    }
    accepted(
        DUAL_STACK,
        &[
            ("2001:db8:12::99/64", "\"2001:db8:12::/127\""),
            ("2001:db8:12::99/64", "\"2001:db8:12::/128\""),
        ],
    );
}

#[test]
fn there_is_one_address_of_each_family() {
    let add = |ip: &str| format!("{GATEWAY}\n    - ip: {ip}");
    assert_eq!(
        error_after(GATEWAY, &add("192.168.12.99/25")),
        "spec.addresses[1].ip: 192.168.12.99 is given already (spec.addresses[0].ip); expected each address once"
    );
    assert_eq!(
        error_after(GATEWAY, &add("192.168.12.100/24")),
        "spec.addresses[1].ip: 192.168.12.100/24 is a second IPv4 address (spec.addresses[0].ip is the first); expected \
         at most one address of each family"
    );
}

#[test]
fn a_gateway_is_a_neighbour() {
    for (wrong, expected) in [
        (
            "192.168.13.1",
            "192.168.13.1 is outside of 192.168.12.0/24; expected a gateway in the subnet of 192.168.12.99/24",
        ),
        (
            "2001:db8::1",
            "2001:db8::1 is IPv6, and the address is IPv4; expected a gateway of the same family as 192.168.12.99/24",
        ),
        (
            "192.168.12.99",
            "192.168.12.99 is the router's own address; expected the next hop's address",
        ),
        (
            "192.168.12.0",
            "192.168.12.0 is the network address of 192.168.12.0/24; expected the next hop's address",
        ),
        (
            "192.168.12.255",
            "192.168.12.255 is the broadcast address of 192.168.12.0/24; expected the next hop's address",
        ),
        (
            "0.0.0.0",
            "0.0.0.0 is the unspecified address; expected the address of a router",
        ),
        (
            "192.168.12.1/24",
            "\"192.168.12.1/24\" is not an IP address: an address is expected and not a subnet, such as 192.168.12.1 without the prefix length",
        ),
        ("\"\"", "\"\" is not an IP address"),
    ] {
        assert_eq!(
            error_after(GATEWAY, &format!("gateway: {wrong}")),
            format!("spec.addresses[0].gateway: {expected}")
        );
    }
}

#[test]
fn a_gateway_of_a_single_address_may_be_anywhere() {
    let single = edited(EXAMPLE, OWN, "192.168.12.99/32");
    accepted(
        &single,
        &[
            (GATEWAY, "gateway: 10.1.2.3"),
            (GATEWAY, "gateway: 192.168.12.1"),
        ],
    );
    let single = edited(DUAL_STACK, "2001:db8:12::99/64", "2001:db8:12::99/128");
    accepted(&single, &[("gateway: fe80::1", "gateway: 2001:db8:99::1")]);
    let own = edited(EXAMPLE, OWN, "192.168.12.99/32");
    assert_eq!(
        errors(&edited(&own, GATEWAY, "gateway: 192.168.12.99")),
        [
            "spec.addresses[0].gateway: 192.168.12.99 is the router's own address; expected the next hop's address"
        ]
    );
}

#[test]
fn an_ipv6_gateway_may_be_link_local() {
    accepted(DUAL_STACK, &[("gateway: fe80::1", "gateway: fe80::2")]);
    refused(
        DUAL_STACK,
        &[(
            "gateway: fe80::1",
            "gateway: 2001:db8:13::1",
            &[
                "spec.addresses[1].gateway: 2001:db8:13::1 is outside of 2001:db8:12::/64; expected a gateway in the subnet of 2001:db8:12::99/64",
            ],
        )],
    );
}

#[test]
fn a_port_is_a_number_from_1_to_65535() {
    accepted(
        EXAMPLE,
        &[
            ("port: 80\n", "port: 1\n"),
            ("port: 80\n", "port: 65535\n"),
            ("port: 80\n", "port: 0x50\n"),
        ],
    );
    for (wrong, found, help) in [
        ("0", "0", ""),
        ("65536", "65536", ""),
        ("70000", "70000", ""),
        ("-1", "-1", ""),
        (
            "340282366920938463463374607431768211455",
            "\"340282366920938463463374607431768211455\"",
            "",
        ),
        ("80.0", "80.0", ""),
        ("1e3", "1000.0", ""),
        (".nan", "NaN", ""),
        ("true", "true", ""),
        ("{}", "an object", ""),
        ("\"80\"", "\"80\"", ": write 80, a number without quotes"),
        ("\"0\"", "\"0\"", ""),
        (
            "http",
            "\"http\"",
            ": names of services are not looked up, write the number",
        ),
        (
            "8000-8010",
            "\"8000-8010\"",
            ": a rule takes one port, write a rule for each",
        ),
        (
            "80/tcp",
            "\"80/tcp\"",
            ": write 80, and TCP as the rule's protocol",
        ),
    ] {
        assert_eq!(
            error_after("port: 80\n", &format!("port: {wrong}\n")),
            format!("spec.redirect.redirectRules[0].port: {found} is not a port (1–65535){help}")
        );
        assert_eq!(
            error_after("targetPort: 80\n", &format!("targetPort: {wrong}\n")),
            format!(
                "spec.redirect.redirectRules[1].targetPort: {found} is not a port (1–65535){help}"
            )
        );
    }
}

#[test]
fn a_protocol_is_tcp_udp_or_sctp() {
    accepted(EXAMPLE, &[("UDP", "TCP"), ("UDP", "SCTP")]);
    for (wrong, found, help) in [
        ("tcp", "\"tcp\"", ": the case matters, write TCP"),
        ("Sctp", "\"Sctp\"", ": the case matters, write SCTP"),
        ("ICMP", "\"ICMP\"", ""),
        ("6", "6", ""),
    ] {
        assert_eq!(
            error_after("protocol: UDP", &format!("protocol: {wrong}")),
            format!(
                "spec.redirect.redirectRules[0].protocol: {found} is not a protocol (TCP, UDP or SCTP){help}"
            )
        );
    }
}

#[test]
fn no_two_rules_take_the_same_packets() {
    let taken = "spec.redirect.redirectRules[2]: 8080/TCP over IPv4 is already taken by spec.redirect.redirectRules[1]; \
                 expected one rule for each port, protocol and address family";
    assert_eq!(error_after("port: 8443", "port: 8080"), taken);
    accepted(
        EXAMPLE,
        &[(
            "port: 8443\n        protocol: TCP",
            "port: 8080\n        protocol: UDP",
        )],
    );
    // Other errors in a rule do not hide this one.
    let text = EXAMPLE
        .replace("port: 8443", "port: 8080")
        .replace("targetPort: 443", "targetPort: 0");
    assert_eq!(
        errors(&text),
        [
            "spec.redirect.redirectRules[2].targetPort: 0 is not a port (1–65535)",
            taken
        ]
    );
}

#[test]
fn a_destination_is_an_address_and_nothing_else() {
    let not = "is not an IP address";
    for (wrong, expected) in [
        (
            "10.0.0.0/24",
            format!(
                "\"10.0.0.0/24\" {not}: an address is expected and not a subnet, such as 10.0.0.0 without the prefix length"
            ),
        ),
        (
            "server.example.com",
            format!(
                "\"server.example.com\" {not}: host names are not looked up, write the address of the server"
            ),
        ),
        (
            "10.0.0.99:80",
            format!("\"10.0.0.99:80\" {not}: write 10.0.0.99, a server's port goes to targetPort"),
        ),
        (
            "\"[2001:db8::1]:80\"",
            format!(
                "\"[2001:db8::1]:80\" {not}: write 2001:db8::1, a server's port goes to targetPort"
            ),
        ),
        (
            "\"[2001:db8::1]\"",
            format!("\"[2001:db8::1]\" {not}: write 2001:db8::1"),
        ),
        (
            "\" 10.0.0.99\"",
            format!("\" 10.0.0.99\" {not}: write 10.0.0.99"),
        ),
        (
            "fe80::1%eth0",
            format!(
                "\"fe80::1%eth0\" {not}: an address with a zone cannot be routed, give the server a global one"
            ),
        ),
        (
            "010.0.0.99",
            format!(
                "\"010.0.0.99\" {not}: some programs read numbers with leading zeros as octal, write 10.0.0.99 if that is meant"
            ),
        ),
        ("10.0.0.999", format!("\"10.0.0.999\" {not}")),
        ("[10.0.0.99]", format!("a list {not}: such as 203.0.113.26")),
    ] {
        assert_eq!(
            error_after(
                "destinationIP: 10.0.0.99",
                &format!("destinationIP: {wrong}")
            ),
            format!("spec.redirect.redirectRules[0].destinationIP: {expected}")
        );
    }
}

#[test]
fn a_destination_is_another_hosts_unicast_address() {
    for (wrong, what) in [
        ("0.0.0.0", "0.0.0.0 is the unspecified address"),
        ("127.0.0.1", "127.0.0.1 is a loopback address"),
        ("224.0.0.251", "224.0.0.251 is a multicast address"),
        (
            "255.255.255.255",
            "255.255.255.255 is the broadcast address",
        ),
        ("\"::\"", ":: is the unspecified address"),
        ("\"::1\"", "::1 is the loopback address"),
        ("fe80::1", "fe80::1 is a link-local address"),
        ("ff02::1", "ff02::1 is a multicast address"),
        (
            "192.168.12.99",
            "192.168.12.99 is the router itself (spec.addresses[0].ip)",
        ),
        (
            "192.168.12.255",
            "192.168.12.255 is the broadcast or network address of 192.168.12.99/24 (spec.addresses[0].ip)",
        ),
    ] {
        let expected = format!("{what}; expected the unicast address of a server");
        assert_eq!(
            error_after(
                "destinationIP: 10.0.0.99",
                &format!("destinationIP: {wrong}")
            ),
            format!("spec.redirect.redirectRules[0].destinationIP: {expected}")
        );
        let fallback = format!("  redirect:\n    fallbackIP: {wrong}\n");
        assert_eq!(
            error_after("  redirect:\n", &fallback),
            format!("spec.redirect.fallbackIP: {expected}")
        );
    }
    assert_eq!(
        error_after(
            "destinationIP: 10.0.0.99",
            "destinationIP: ::ffff:10.0.0.99"
        ),
        "spec.redirect.redirectRules[0].destinationIP: ::ffff:10.0.0.99 is an IPv4 address written as IPv6; expected the \
         unicast address of a server: write 10.0.0.99"
    );
    assert_eq!(
        errors(&edited(DUAL_STACK, "2001:db8:113::27", "2001:db8:12::99")),
        [
            "spec.redirect.redirectRules[2].destinationIP: 2001:db8:12::99 is the router itself (spec.addresses[1].ip); \
          expected the unicast address of a server"
        ]
    );
}

#[test]
fn a_destination_has_an_address_of_its_family_to_leave_from() {
    let expected = "2001:db8::1 is IPv6, and spec.addresses has no IPv6 address to leave from; expected a destination of the \
                    same family as one of the router's addresses: add an IPv6 address to spec.addresses";
    assert_eq!(
        error_after("destinationIP: 10.0.0.99", "destinationIP: 2001:db8::1"),
        format!("spec.redirect.redirectRules[0].destinationIP: {expected}")
    );
    assert_eq!(
        error_after(
            "  redirect:\n",
            "  redirect:\n    fallbackIP: 2001:db8::1\n"
        ),
        format!("spec.redirect.fallbackIP: {expected}")
    );
    // The family of an address that cannot be read is unknown, so no family is missing for certain.
    let unknown_family = EXAMPLE
        .replace(OWN, "2001:db8::99")
        .replace(GATEWAY, "gateway: fe80::1");
    assert_eq!(errors(&unknown_family).len(), 1);
}

#[test]
fn a_router_redirects_something() {
    let (before, _) = EXAMPLE.split_at(EXAMPLE.find("  redirect:").expect("a redirect"));
    let nothing =
        "spec.redirect: neither rules nor a fallback; expected redirectRules, fallbackIP or both";
    for (redirect, expected) in [
        (
            "",
            "spec.redirect: missing; expected redirectRules, fallbackIP or both",
        ),
        (
            "  redirect:\n",
            "spec.redirect: missing; expected redirectRules, fallbackIP or both",
        ),
        ("  redirect: {}\n", nothing),
        ("  redirect: {redirectRules: []}\n", nothing),
        (
            "  redirect: {redirectRules: null, fallbackIP: null}\n",
            nothing,
        ),
        (
            "  redirect: {fallbackIP: ''}\n",
            "spec.redirect.fallbackIP: \"\" is not an IP address",
        ),
        (
            "  redirect: {fallbacks: 1.2.3.4}\n",
            "spec.redirect.fallbacks: unknown field; expected redirectRules or fallbackIP: did you mean fallbackIP?",
        ),
        (
            "  redirect: {to: 1.2.3.4}\n",
            "spec.redirect.to: unknown field; expected redirectRules or fallbackIP",
        ),
        (
            "  fallbackIP: 1.2.3.4\n",
            "spec.fallbackIP: unknown field; expected mode, networkInterface, addresses or redirect: fallbackIP belongs in spec.redirect, check the indentation",
        ),
    ] {
        assert_eq!(errors(&format!("{before}{redirect}")), [expected]);
    }
    super::valid(&format!("{before}  redirect: {{fallbackIP: 1.2.3.4}}\n"));
}
