//! Percentiles of one round, medians over rounds.

use std::time::Duration;

/// What was sampled in one round, sorted.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Of these.
    #[must_use]
    pub fn new(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        Self(samples)
    }

    /// The smallest sample that so many thousandths do not exceed; zero if there is none.
    #[must_use]
    pub fn at(&self, thousandths: usize) -> Duration {
        let rank = (self.0.len() * thousandths).div_ceil(1000).max(1) - 1;
        self.0.get(rank).copied().unwrap_or_default()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was sampled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The rounds of one subject.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Vec<Samples>);

impl Rounds {
    /// One more.
    pub fn push(&mut self, samples: Samples) {
        self.0.push(samples);
    }

    /// A percentile in each round.
    #[must_use]
    pub fn at(&self, thousandths: usize) -> Spread {
        Spread::of(self.0.iter().map(|round| micros(round.at(thousandths))).collect())
    }

    /// All samples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Samples::len).sum()
    }

    /// Whether nothing was sampled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A figure of several rounds: the median, and from the least to the most.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl Spread {
    /// Of these figures, one a round.
    #[must_use]
    pub fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_unstable_by(f64::total_cmp);
        let (Some(least), Some(most)) = (figures.first(), figures.last()) else {
            return Self::default();
        };
        let middle = figures.len() / 2;
        let median = if figures.len().is_multiple_of(2) {
            f64::midpoint(figures[middle - 1], figures[middle])
        } else {
            figures[middle]
        };
        Self {
            median,
            least: *least,
            most: *most,
        }
    }

    /// The median, and the spread behind it: "120 (115-140)".
    #[must_use]
    pub fn text(&self) -> String {
        let digits = |figure: f64| match figure {
            small if small < 10.0 => format!("{small:.1}"),
            large => thousands(large.round() as u64),
        };
        format!("{} ({}-{})", digits(self.median), digits(self.least), digits(self.most))
    }
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A number with a comma at every third digit.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let check = |count: u64, thousandths: usize, expected: u64| {
            let samples = Samples::new((1..=count).rev().map(Duration::from_micros).collect());
            assert_eq!(samples.at(thousandths), Duration::from_micros(expected), "{count}");
        };
        check(100, 500, 50);
        check(100, 990, 99);
        check(1000, 999, 999);
        check(1, 990, 1);
        check(3, 999, 3);
        assert_eq!(Samples::default().at(500), Duration::ZERO);
    }

    #[test]
    fn a_spread_says_its_middle_and_its_ends() {
        let check = |figures: &[f64], expected: &str| assert_eq!(Spread::of(figures.to_vec()).text(), expected);
        check(&[3.0, 1.0, 2.0], "2.0 (1.0-3.0)");
        check(&[10_000.0, 20_000.0], "15,000 (10,000-20,000)");
        check(&[], "0.0 (0.0-0.0)");
    }

    #[test]
    fn commas() {
        for (number, expected) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), expected);
        }
    }
}
