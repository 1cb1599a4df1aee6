//! The parser of `EgressRouter` resources. It returns a result for any input, and accepts its own output for every
//! resource that it accepts.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match egress_api::parse(text, "fuzz") {
        Ok(router) => {
            let json = serde_json::to_string(&router).expect("a valid resource can be written");
            let again =
                egress_api::parse(&json, "json").expect("the parser accepts its own output");
            assert_eq!(again, router, "{json}");
            let yaml = yaml_serde::to_string(&router).expect("a valid resource can be written");
            let again =
                egress_api::parse(&yaml, "yaml").expect("the parser accepts its own output");
            assert_eq!(again, router, "{yaml}");
        }
        Err(errors) => {
            assert!(
                !errors.errors.is_empty(),
                "the resource is refused without an error"
            );
            // Every error has a message.
            for error in &errors.errors {
                assert!(!error.to_string().trim().is_empty());
            }
        }
    }
});
