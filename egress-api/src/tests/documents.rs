use super::{EXAMPLE, accepted, errors, valid};
use crate::{EgressRouter, LoadError, load, source::parse_bytes};

#[test]
fn json_is_read_as_well_as_yaml() {
    let router = valid(EXAMPLE);
    let json = serde_json::to_string(&router).expect("a router is JSON");
    assert_eq!(valid(&json), router);
    let indented_with_tabs = serde_json::to_string_pretty(&router)
        .expect("a router is JSON")
        .replace("  ", "\t");
    assert_eq!(valid(&indented_with_tabs), router);
}

#[test]
fn json_may_escape_with_surrogate_pairs() {
    let metadata = r#""metadata":{"annotations":{"a":"\ud83d\ude00"},"#;
    let json = serde_json::to_string(&valid(EXAMPLE)).expect("a router is JSON");
    valid(&super::edited(&json, r#""metadata":{"#, metadata));
}

#[test]
fn empty_documents_beside_the_router_mean_nothing() {
    let marked = format!("---\n{EXAMPLE}---\n# nothing\n");
    assert_eq!(valid(&marked), valid(EXAMPLE));
}

#[test]
fn a_byte_order_mark_and_dos_line_ends_are_accepted() {
    let text = format!("\u{feff}{}", EXAMPLE.replace('\n', "\r\n"));
    assert_eq!(valid(&text), valid(EXAMPLE));
}

#[test]
fn anchors_are_followed() {
    accepted(
        EXAMPLE,
        &[(
            "destinationIP: 203.0.113.26\n        port: 8080",
            "destinationIP: &server 203.0.113.26\n        port: 1\n        protocol: UDP\n      - destinationIP: *server\n        port: 8080",
        )],
    );
}

#[test]
fn a_text_without_one_router_is_refused() {
    let one = "expected one EgressRouter, as YAML or JSON";
    let two = format!("{EXAMPLE}---\n{EXAMPLE}");
    for (text, expected) in [
        ("", format!("document: empty; {one}")),
        ("# nothing\n---\n", format!("document: empty; {one}")),
        (
            two.as_str(),
            format!("document: 2 documents; {one}: write each to a file of its own"),
        ),
        (
            "[]",
            "document: a list is not an object with apiVersion, kind, metadata, spec and status"
                .to_owned(),
        ),
        (
            "hello",
            "document: \"hello\" is not an object with apiVersion, kind, metadata, spec and status"
                .to_owned(),
        ),
    ] {
        assert_eq!(errors(text), [expected], "in {text:?}");
    }
}

#[test]
fn a_list_of_routers_is_one_error() {
    let list = format!(
        "kind: List\nitems:\n  - {}",
        EXAMPLE.replace('\n', "\n    ")
    );
    assert_eq!(
        errors(&list),
        [
            "kind: \"List\" is not a kind read here (EgressRouter is the only one): take one router out of the list, \
             `kubectl get egressrouter NAME -o yaml` prints just one"
        ]
    );
}

#[test]
fn another_resource_is_one_error() {
    assert_eq!(
        errors("apiVersion: apps/v1\nkind: Deployment\nspec: {replicas: 1}\n"),
        ["kind: \"Deployment\" is not a kind read here (EgressRouter is the only one)"]
    );
}

#[test]
fn a_syntax_error_has_line_and_column() {
    for (text, expected) in [
        (
            "kind: EgressRouter\nspec: a: b\n",
            "line 2, column 8: mapping values are not allowed in this context; expected well-formed YAML or JSON",
        ),
        (
            "kind: [EgressRouter\n",
            "line 2, column 1: did not find expected ',' or ']', while parsing a flow sequence at line 1 column 7",
        ),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        let start = &expected[..expected.find(':').unwrap_or(0)];
        assert!(
            errors[0].starts_with(start),
            "{} instead of {expected}",
            errors[0]
        );
    }
}

#[test]
fn a_tag_of_its_own_is_refused_with_its_place() {
    let text = super::edited(EXAMPLE, "mode: Redirect", "mode: !mine Redirect");
    assert_eq!(
        errors(&text),
        [
            "line 8, column 9: spec.mode: a tag of its own, such as !name, which means nothing here; expected well-formed YAML or JSON"
        ]
    );
}

#[test]
fn a_text_that_expands_without_end_is_refused() {
    let level = |level: usize| {
        let below = vec![format!("*a{}", level - 1); 9].join(", ");
        format!("a{level}: &a{level} [{below}]\n")
    };
    let bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned()
        + &(1..12).map(level).collect::<String>();
    assert_eq!(errors(&bomb).len(), 1);
    assert_eq!(errors(&"[".repeat(100_000)).len(), 1);
    assert_eq!(errors(&"{a: ".repeat(100_000)).len(), 1);
}

#[test]
fn what_is_not_text_is_refused_with_its_place() {
    let errors = parse_bytes(b"kind: \xff", "spec.yaml").expect_err("not UTF-8");
    assert_eq!(
        errors.to_string(),
        "spec.yaml: 1 error\n  document: invalid UTF-8 at byte 6; expected YAML or JSON in UTF-8"
    );
    let endless = vec![b'#'; (16 << 20) + 1];
    let errors = parse_bytes(&endless, "spec.yaml").expect_err("too large");
    assert!(errors.to_string().contains("more than 16 MiB"), "{errors}");
}

#[test]
fn a_file_that_cannot_be_read_is_told_from_a_bad_one() {
    for unreadable in ["/does/not/exist", "/"] {
        let error = load(unreadable).expect_err("no such file, or a directory");
        assert!(matches!(error, LoadError::Unreadable { .. }));
    }
    let bad = load("/dev/null").expect_err("an empty file");
    assert!(matches!(bad, LoadError::Invalid(_)));
}

#[test]
fn serde_accepts_no_more_than_the_parser() {
    let good: EgressRouter = yaml_serde::from_str(EXAMPLE).expect("valid");
    assert_eq!(good, valid(EXAMPLE));
    let bad = EXAMPLE.replace("8080", "0");
    let error = yaml_serde::from_str::<EgressRouter>(&bad).expect_err("port 0");
    assert!(
        error
            .to_string()
            .contains("spec.redirect.redirectRules[1].port: 0 is not a port (1–65535)"),
        "{error}"
    );
}
