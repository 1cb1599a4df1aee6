//! The reader of `EgressRouter` resources: whatever it is given, it answers, and what it takes for valid it takes for valid
//! again when it has written it itself.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match egress_api::parse(text, "fuzz") {
        Ok(router) => {
            let json = serde_json::to_string(&router).expect("a valid resource can be written");
            let again = egress_api::parse(&json, "json").expect("what was written is valid");
            assert_eq!(again, router, "{json}");
            let yaml = yaml_serde::to_string(&router).expect("a valid resource can be written");
            let again = egress_api::parse(&yaml, "yaml").expect("what was written is valid");
            assert_eq!(again, router, "{yaml}");
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "refused, and nothing is wrong");
            // Every error can be shown, and says something.
            for error in &errors.errors {
                assert!(!error.to_string().trim().is_empty());
            }
        }
    }
});
