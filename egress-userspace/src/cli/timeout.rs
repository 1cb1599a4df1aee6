//! `--timeout NAME=TIME`: idle timeouts of flows.

use std::{fmt::Write as _, str::FromStr, time::Duration};

use egress_common::Timeouts;

use super::duration;

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    name: String,
    seconds: u32,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, time) = text
            .split_once('=')
            .ok_or("expected NAME=TIME, such as tcp_established=2h")?;
        if !Timeouts::NAMES.contains(&name) {
            return Err(format!(
                "there is no timeout {name:?}; expected one of {}",
                Timeouts::NAMES.join(", ")
            ));
        }
        let time = duration::parse(time)?;
        if time.subsec_nanos() != 0 || !(1..=MAX_SECONDS).contains(&time.as_secs()) {
            return Err(format!(
                "{time:?} is not between 1 second and 1 year, in whole seconds"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            seconds: u32::try_from(time.as_secs()).expect("a year fits"),
        })
    }
}

const MAX_SECONDS: u64 = 365 * 86400;

/// The default timeouts, changed by these settings. The last setting of a timeout wins.
pub fn apply(settings: &[Setting]) -> Timeouts {
    let mut timeouts = Timeouts::DEFAULT;
    for setting in settings {
        if let Some(seconds) = timeouts.get_mut(&setting.name) {
            *seconds = setting.seconds;
        }
    }
    timeouts
}

/// A line for each timeout, with its default: for `--help`.
pub fn help() -> String {
    let mut text = "Timeouts, and their defaults:\n".to_owned();
    for (name, seconds, meaning) in Timeouts::DEFAULT.iter() {
        let time = humantime::format_duration(Duration::from_secs(seconds.into())).to_string();
        let _ = writeln!(text, "  {name:<20} {time:>6}  {meaning}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_seconds_or_with_units() {
        for (text, seconds) in [
            ("udp=45", 45),
            ("udp=45s", 45),
            ("udp=2min 5s", 125),
            ("udp=1year", 31_557_600),
        ] {
            let setting = text.parse::<Setting>();
            if seconds > 31_536_000 {
                assert!(setting.unwrap_err().contains("1 year"));
            } else {
                assert_eq!(apply(&[setting.unwrap()]).udp, seconds, "{text}");
            }
        }
    }

    #[test]
    fn an_error_says_what_is_expected() {
        for (text, expected) in [
            ("udp", "expected NAME=TIME"),
            ("tpc_close=5", "expected one of tcp_syn_sent, "),
            ("udp=soon", "expected seconds"),
            ("udp=0", "between 1 second and 1 year"),
            ("udp=1500ms", "whole seconds"),
            ("udp=-5", "is not a duration"),
        ] {
            let error = text.parse::<Setting>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_last_setting_of_a_timeout_wins() {
        let settings = ["icmp=5", "icmp=6", "tcp_close=7"].map(|text| text.parse().unwrap());
        let timeouts = apply(&settings);
        assert_eq!((timeouts.icmp, timeouts.tcp_close), (6, 7));
        assert_eq!(timeouts.udp, Timeouts::DEFAULT.udp);
    }
}
