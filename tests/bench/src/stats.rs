//! Statistics of measurements on a busy machine.
//!
//! Noise only ever slows things down, so a contender's value is not the mean of its samples but a quantile near the
//! good end. The bootstrap shows how reliable the value is: rounds are drawn again with replacement, and the interval
//! contains 90 % of the draws. Rounds are drawn as a whole, because the contenders of one round share the same noise.

use serde::Serialize;

/// The quantile that represents a contender, near the good end.
const GOOD: f64 = 0.8;
/// The number of times that rounds are drawn again.
const DRAWS: usize = 1_000;
/// The share of draws below the interval, and above it.
const TAIL: f64 = 0.05;

/// The quantile `share` (0 to 1) of `values`, with linear interpolation (type 7 of Hyndman and Fan,
/// <https://doi.org/10.1080/00031305.1996.10473566>).
///
/// NaN without values.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[expect(clippy::cast_precision_loss, reason = "samples are far fewer")]
    let place = share.clamp(0.0, 1.0) * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    let (low, high) = (sorted[below], sorted[above]);
    low + (high - low) * place.fract()
}

/// Which samples are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// Rates.
    Higher,
    /// Times and sizes.
    Lower,
}

impl Better {
    /// The value that represents samples of which some were disturbed.
    pub fn robust(self, values: &[f64]) -> f64 {
        match self {
            Self::Higher => quantile(values, GOOD),
            Self::Lower => quantile(values, 1.0 - GOOD),
        }
    }
}

/// A value, with the interval that contains 90 % of the bootstrap's draws.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The value from all rounds.
    pub value: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Estimate {
    /// A value that is known exactly.
    pub const fn exact(value: f64) -> Self {
        Self {
            value,
            low: value,
            high: value,
        }
    }
}

/// The samples of contenders that were measured side by side, in rounds.
#[derive(Clone, Debug)]
pub struct Samples {
    better: Better,
    /// The values, by contender and round.
    values: Vec<Vec<f64>>,
}

impl Samples {
    /// Takes `values` by contender and round, with the same number of rounds for each contender.
    ///
    /// # Panics
    /// If the numbers of rounds differ.
    pub fn new(better: Better, values: Vec<Vec<f64>>) -> Self {
        assert!(
            values.windows(2).all(|pair| pair[0].len() == pair[1].len()),
            "the contenders differ in their number of rounds"
        );
        Self { better, values }
    }

    fn rounds(&self) -> usize {
        self.values.first().map_or(0, Vec::len)
    }

    fn robust(&self, contender: usize, rounds: &[usize]) -> f64 {
        let drawn: Vec<f64> = rounds
            .iter()
            .map(|&round| self.values[contender][round])
            .collect();
        self.better.robust(&drawn)
    }

    /// Estimates `statistic`, which gets the contenders' values through a function of their index.
    pub fn estimate(&self, statistic: impl Fn(&dyn Fn(usize) -> f64) -> f64) -> Estimate {
        let of = |rounds: &[usize]| statistic(&|contender| self.robust(contender, rounds));
        let every: Vec<usize> = (0..self.rounds()).collect();
        // A fixed seed: the same samples always give the same interval.
        let mut random = fastrand::Rng::with_seed(1);
        let draws: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let drawn: Vec<usize> = every.iter().map(|_| random.usize(..every.len())).collect();
                of(&drawn)
            })
            .collect();
        Estimate {
            value: of(&every),
            low: quantile(&draws, TAIL),
            high: quantile(&draws, 1.0 - TAIL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_quantile_lies_between_the_samples_around_it() {
        let values = [4.0, 1.0, 3.0, 2.0, 5.0];
        assert!(close(quantile(&values, 0.0), 1.0));
        assert!(close(quantile(&values, 0.5), 3.0));
        assert!(close(quantile(&values, 0.8), 4.2));
        assert!(close(quantile(&values, 1.0), 5.0));
    }

    #[test]
    fn one_sample_is_every_quantile_and_none_is_no_number() {
        assert!(close(quantile(&[7.0], 0.99), 7.0));
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn slow_rounds_hardly_move_a_robust_value() {
        let quiet = [100.0, 101.0, 99.0, 100.0, 100.0, 101.0, 100.0, 99.0];
        let mut disturbed = quiet;
        disturbed[..3].fill(20.0);
        let (quiet, disturbed) = (
            Better::Higher.robust(&quiet),
            Better::Higher.robust(&disturbed),
        );
        assert!((quiet - disturbed).abs() < 1.0, "{quiet} {disturbed}");
    }

    #[test]
    fn of_times_the_short_ones_count() {
        assert!(close(Better::Lower.robust(&[1.0, 1.0, 1.0, 9.0]), 1.0));
    }

    #[test]
    fn an_interval_has_its_value_inside_and_steady_samples_have_none() {
        let noisy: Vec<f64> = (0..24).map(|round| f64::from(round % 7)).collect();
        let samples = Samples::new(Better::Higher, vec![noisy, vec![3.0; 24]]);
        let noisy = samples.estimate(|value| value(0));
        assert!(noisy.low <= noisy.value && noisy.value <= noisy.high);
        assert!(noisy.low < noisy.high);
        assert_eq!(samples.estimate(|value| value(1)), Estimate::exact(3.0));
    }

    #[test]
    fn what_slows_both_contenders_of_a_round_leaves_their_ratio() {
        let one: Vec<f64> = (1..=24).map(f64::from).collect();
        let other = one.iter().map(|value| 2.0 * value).collect();
        let samples = Samples::new(Better::Higher, vec![one, other]);
        let ratio = samples.estimate(|value| value(0) / value(1));
        assert!(close(ratio.low, 0.5) && close(ratio.high, 0.5), "{ratio:?}");
    }
}
