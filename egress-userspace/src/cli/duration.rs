//! Durations in options and in output.

use std::time::Duration;

/// Parses a number of seconds, or a duration with units in the format of [`humantime`].
pub fn parse(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text).map_err(|error| {
            format!("{text:?} is not a duration: {error}; expected seconds, or a value such as 500ms, 90s, 2h or 5days")
        }),
    }
}

/// Formats a number of seconds with its two largest units: 3725 is `1h2m`.
pub fn short(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_seconds_or_has_a_unit() {
        assert_eq!(parse("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2min 5s"), Ok(Duration::from_secs(125)));
        for text in ["", "often", "-1", "5 apples"] {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_short_duration_has_at_most_two_units() {
        for (seconds, expected) in [(0, "0s"), (61, "1m1s"), (3725, "1h2m"), (432_000, "5d0h")] {
            assert_eq!(short(seconds), expected);
        }
    }
}
