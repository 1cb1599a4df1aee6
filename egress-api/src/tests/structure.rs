use crate::reader::listed;
use crate::rule::FIELDS;

use super::{EXAMPLE, accepted, errors, refused};

#[test]
fn api_version_kind_and_mode_have_one_value() {
    refused(
        EXAMPLE,
        &[
            (
                "network.operator.openshift.io/v1",
                "network.operator.openshift.io/v1beta1",
                &[
                    "apiVersion: \"network.operator.openshift.io/v1beta1\" is not the apiVersion of an EgressRouter \
                   (network.operator.openshift.io/v1 is the only one): did you mean network.operator.openshift.io/v1?",
                ],
            ),
            (
                "network.operator.openshift.io/v1",
                "1",
                &[
                    "apiVersion: 1 is not the apiVersion of an EgressRouter (network.operator.openshift.io/v1 is the only one)",
                ],
            ),
            (
                "kind: EgressRouter",
                "kind: egressrouter",
                &[
                    "kind: \"egressrouter\" is not the kind of resource read here (EgressRouter is the only one): the case matters, write EgressRouter",
                ],
            ),
            (
                "kind: EgressRouter",
                "kind: Pod",
                &[
                    "kind: \"Pod\" is not the kind of resource read here (EgressRouter is the only one)",
                ],
            ),
            (
                "mode: Redirect",
                "mode: redirect",
                &[
                    "spec.mode: \"redirect\" is not a mode (Redirect is the only one): the case matters, write Redirect",
                ],
            ),
            (
                "mode: Redirect",
                "mode: HTTPProxy",
                &["spec.mode: \"HTTPProxy\" is not a mode (Redirect is the only one)"],
            ),
            (
                "apiVersion: network.operator.openshift.io/v1\n",
                "",
                &["apiVersion: missing; expected network.operator.openshift.io/v1"],
            ),
            (
                "kind: EgressRouter\n",
                "",
                &["kind: missing; expected EgressRouter"],
            ),
        ],
    );
}

#[test]
fn a_router_has_a_name_as_kubernetes_wants_it() {
    let name = "a name of lower-case letters, digits, '-' and '.' that starts and ends with a letter or digit (at most 253 characters)";
    for wrong in ["Upper", "-a", "a-", "a..b", "a_b", ""] {
        let text = super::edited(
            EXAMPLE,
            "name: egress-router-redirect",
            &format!("name: {wrong:?}"),
        );
        assert_eq!(
            errors(&text),
            [format!("metadata.name: {wrong:?} is not {name}")]
        );
    }
    refused(
        EXAMPLE,
        &[
            (
                "  name: egress-router-redirect\n",
                "",
                &["metadata.name: missing; expected the router's name"],
            ),
            (
                "metadata:\n  name: egress-router-redirect\n  namespace: example\n",
                "",
                &["metadata: missing; expected an object with the router's name"],
            ),
            (
                "metadata:\n  name: egress-router-redirect\n  namespace: example\n",
                "metadata: a\n",
                &["metadata: \"a\" is not an object with name and namespace"],
            ),
        ],
    );
    let text = super::edited(EXAMPLE, "name: egress-router-redirect", "name: 12");
    assert_eq!(
        errors(&text),
        [format!(
            "metadata.name: 12 is not {name}: a text is expected, quote it: \"12\""
        )]
    );
}

#[test]
fn an_unknown_field_is_named_with_the_nearest_known_one() {
    let misspelt = |path: &str, known: &str, meant: &str| {
        vec![format!(
            "{path}: unknown field; expected {known}: did you mean {meant}?"
        )]
    };
    let rule_fields = listed(&FIELDS, "or");
    let table = [
        ("redirectRules:", "redirectRule:", misspelt("spec.redirect.redirectRule", "redirectRules or fallbackIP", "redirectRules")),
        ("redirectRules:", "rules:", misspelt("spec.redirect.rules", "redirectRules or fallbackIP", "redirectRules")),
        ("destinationIP:", "destinationIp:", misspelt("spec.redirect.redirectRules[0].destinationIp", &rule_fields, "destinationIP")),
        ("destinationIP:", "destination:", misspelt("spec.redirect.redirectRules[0].destination", &rule_fields, "destinationIP")),
        ("protocol:", "proto:", misspelt("spec.redirect.redirectRules[0].proto", &rule_fields, "protocol")),
        ("targetPort:", "targetport:", misspelt("spec.redirect.redirectRules[1].targetport", &rule_fields, "targetPort")),
        ("gateway:", "gatway:", misspelt("spec.addresses[0].gatway", "ip or gateway", "gateway")),
        ("addresses:", "address:", misspelt("spec.address", "mode, networkInterface, addresses or redirect", "addresses")),
        ("macvlan:", "macVlan:", misspelt("spec.networkInterface.macVlan", "macvlan", "macvlan")),
        ("spec:", "Spec:", misspelt("Spec", "apiVersion, kind, metadata, spec or status", "spec")),
        ("mode: Redirect", "replicas: 2", vec!["spec.replicas: unknown field; expected mode, networkInterface, addresses or redirect".to_owned()]),
        ("mode: Redirect", "<<: {}", vec!["spec[\"<<\"]: unknown field; expected mode, networkInterface, addresses or redirect: merge keys are not read, write the fields out".to_owned()]),
        ("port: 80\n", "port: 80\n        prot: 1\n", vec![format!("spec.redirect.redirectRules[0].prot: unknown field; expected {rule_fields}: did you mean port, which is here already?")]),
    ];
    for (from, to, expected) in table {
        assert_eq!(
            errors(&super::edited(EXAMPLE, from, to)),
            expected,
            "after {to:?}"
        );
    }
}

#[test]
fn the_value_of_a_misspelt_field_is_checked_too() {
    let fields = listed(&FIELDS, "or");
    refused(
        EXAMPLE,
        &[(
            "protocol: UDP",
            "proto: icmp",
            &[
                &format!(
                    "spec.redirect.redirectRules[0].proto: unknown field; expected {fields}: did you mean protocol?"
                ),
                "spec.redirect.redirectRules[0].proto: \"icmp\" is not a protocol (TCP, UDP or SCTP)",
            ],
        )],
    );
}

#[test]
fn a_field_at_the_wrong_depth_is_told_where_it_belongs_and_is_read() {
    let (before, redirect) = EXAMPLE.split_at(EXAMPLE.find("  redirect:").expect("a redirect"));
    let outdented = before.to_owned() + &redirect.replace("\n  ", "\n").replace("8080", "0")[2..];
    assert_eq!(
        errors(&outdented),
        [
            "redirect: unknown field; expected apiVersion, kind, metadata, spec or status: redirect belongs in spec, check the indentation",
            "redirect.redirectRules[1].port: 0 is not a port (1–65535)",
        ]
    );
    refused(
        EXAMPLE,
        &[
            (
                "  redirect:\n    redirectRules:",
                "  redirectRules:",
                &[
                    "spec.redirectRules: unknown field; expected mode, networkInterface, addresses or redirect: redirectRules belongs in spec.redirect, check the indentation",
                ],
            ),
            (
                "      mode: Bridge\n",
                "      mode: Bridge\n    master: eth1\n",
                &[
                    "spec.networkInterface.master: unknown field; expected macvlan: master belongs in spec.networkInterface.macvlan, check the indentation",
                ],
            ),
            (
                "  mode: Redirect\n",
                "  gateway: 192.168.12.1\n",
                &[
                    "spec.gateway: unknown field; expected mode, networkInterface, addresses or redirect: gateway belongs in spec.addresses[], check the indentation",
                ],
            ),
        ],
    );
}

#[test]
fn a_field_that_is_given_twice_is_one_error_among_others() {
    refused(
        EXAMPLE,
        &[
            (
                "  mode: Redirect\n",
                "  mode: Redirect\n  mode: Redirect\n  mode: Redirect\n",
                &["spec.mode: given more than once; expected each field once"],
            ),
            (
                "port: 80\n",
                "port: 0\n        port: 80\n",
                &[
                    "spec.redirect.redirectRules[0].port: given more than once; expected each field once",
                    "spec.redirect.redirectRules[0].port: 0 is not a port (1–65535)",
                ],
            ),
        ],
    );
}

#[test]
fn an_unknown_field_that_is_repeated_is_unknown_once() {
    refused(
        EXAMPLE,
        &[(
            "  mode: Redirect\n",
            "  a: 1\n  a: 2\n  a: 3\n",
            &[
                "spec.a: given more than once; expected each field once",
                "spec.a: unknown field; expected mode, networkInterface, addresses or redirect",
            ],
        )],
    );
}

#[test]
fn required_fields_are_missed_each() {
    refused(
        EXAMPLE,
        &[
            (
                "- destinationIP: 10.0.0.99\n        port",
                "- port",
                &[
                    "spec.redirect.redirectRules[0].destinationIP: missing; expected the IP address of a server",
                ],
            ),
            (
                "        port: 80\n",
                "",
                &["spec.redirect.redirectRules[0].port: missing; expected a port (1–65535)"],
            ),
            (
                "        port: 80\n",
                "        port:\n",
                &["spec.redirect.redirectRules[0].port: missing; expected a port (1–65535)"],
            ),
            (
                "        protocol: UDP\n",
                "",
                &["spec.redirect.redirectRules[0].protocol: missing; expected TCP, UDP or SCTP"],
            ),
            (
                "- ip: 192.168.12.99/24\n      gateway",
                "- gateway",
                &[
                    "spec.addresses[0].ip: missing; expected an address with its subnet's prefix length",
                ],
            ),
        ],
    );
    assert_eq!(
        errors("{}"),
        [
            "apiVersion: missing; expected network.operator.openshift.io/v1",
            "kind: missing; expected EgressRouter",
            "metadata: missing; expected an object with the router's name",
            "spec: missing; expected an object with addresses and redirect",
        ]
    );
}

#[test]
fn a_value_of_the_wrong_type_is_said_to_be_one() {
    refused(
        EXAMPLE,
        &[
            (
                "    - ip: 192.168.12.99/24\n      gateway: 192.168.12.1\n",
                "    ip: 192.168.12.99/24\n    gateway: 192.168.12.1\n",
                &[
                    "spec.addresses: an object is not a list of objects with ip and gateway: start each item with a dash",
                ],
            ),
            (
                "    - ip: 192.168.12.99/24\n      gateway: 192.168.12.1\n",
                "    - 192.168.12.99/24\n",
                &["spec.addresses[0]: \"192.168.12.99/24\" is not an object with ip and gateway"],
            ),
            (
                "macvlan:\n      mode: Bridge",
                "macvlan: true",
                &["spec.networkInterface.macvlan: true is not an object with mode and master"],
            ),
            (
                "port: 80\n",
                "port: [80, 81]\n",
                &[
                    "spec.redirect.redirectRules[0].port: a list is not a port (1–65535): a rule takes one port, write a rule for each",
                ],
            ),
            (
                "destinationIP: 10.0.0.99",
                "destinationIP: 10.5",
                &[
                    "spec.redirect.redirectRules[0].destinationIP: 10.5 is not an IP address: such as 203.0.113.26",
                ],
            ),
        ],
    );
}

#[test]
fn macvlan_has_four_modes_and_a_master_with_a_kernel_name() {
    accepted(
        EXAMPLE,
        &[
            ("mode: Bridge", "mode: Private"),
            ("mode: Bridge", "mode: VEPA"),
            ("mode: Bridge", "mode: Passthru"),
            ("mode: Bridge", "mode: Bridge\n      master: eno1.100"),
            ("mode: Bridge", "master: fifteen-letters"),
        ],
    );
    let modes = "a macvlan mode (Bridge, Private, VEPA or Passthru)";
    for (wrong, help) in [
        ("bridge", ": the case matters, write Bridge"),
        ("Vepa", ": the case matters, write VEPA"),
        ("Passthrough", ": did you mean Passthru?"),
        ("Source", ""),
    ] {
        let text = super::edited(EXAMPLE, "mode: Bridge", &format!("mode: {wrong}"));
        let expected =
            format!("spec.networkInterface.macvlan.mode: {wrong:?} is not {modes}{help}");
        assert_eq!(errors(&text), [expected]);
    }
    for wrong in ["sixteen--letters", "eth0:1", "a/b", "a b", ".", ".."] {
        let text = super::edited(EXAMPLE, "mode: Bridge", &format!("master: {wrong:?}"));
        let expected = format!(
            "spec.networkInterface.macvlan.master: {wrong:?} is not an interface name (1–15 bytes, without white space, \
             '/' and ':', and neither '.' nor '..')"
        );
        assert_eq!(errors(&text), [expected]);
    }
}

#[test]
fn one_error_hides_no_other() {
    let text = EXAMPLE
        .replace("kind: EgressRouter", "kind: EgressRoute")
        .replace("mode: Bridge", "mode: bridge")
        .replace("192.168.12.99/24", "192.168.12.99")
        .replace("UDP", "udp")
        .replace("8080", "70000")
        .replace("203.0.113.27", "server.example.com")
        .replace("targetPort: 443", "targetPort: 0");
    assert_eq!(
        errors(&text),
        [
            "kind: \"EgressRoute\" is not the kind of resource read here (EgressRouter is the only one): did you mean EgressRouter?",
            "spec.networkInterface.macvlan.mode: \"bridge\" is not a macvlan mode (Bridge, Private, VEPA or Passthru): the case matters, write Bridge",
            "spec.addresses[0].ip: \"192.168.12.99\" is not an address with its subnet's prefix length: add it, such as 192.168.12.99/24",
            "spec.redirect.redirectRules[0].protocol: \"udp\" is not a protocol (TCP, UDP or SCTP): the case matters, write UDP",
            "spec.redirect.redirectRules[1].port: 70000 is not a port (1–65535)",
            "spec.redirect.redirectRules[2].destinationIP: \"server.example.com\" is not an IP address: host names are not looked up, write the address of the server",
            "spec.redirect.redirectRules[2].targetPort: 0 is not a port (1–65535)",
        ]
    );
}
