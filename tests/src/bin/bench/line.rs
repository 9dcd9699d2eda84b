//! A line of the table: something measured, and the target it is held against.

use crate::stats::Samples;

/// What a line's result is held against.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Told for the reader; nothing is promised.
    None,
}

impl Target {
    pub fn met_by(self, result: f64) -> Option<bool> {
        match self {
            Target::AtMost(limit) => Some(result <= limit),
            Target::AtLeast(limit) => Some(result >= limit),
            Target::None => None,
        }
    }
}

/// One measured line.
#[derive(Clone, Debug)]
pub struct Line {
    pub what: String,
    pub target: Target,
    /// What the result is a multiple of, or its unit: `× commit`, `ms`.
    pub of: String,
    pub result: f64,
    pub unit: &'static str,
    pub samples: Samples,
    /// The median of what it is compared with, in the same unit.
    pub base: Option<f64>,
}

impl Line {
    /// The median of `samples` as a multiple of the median of `base`.
    pub fn ratio(what: impl Into<String>, samples: Samples, base: &Samples, of: &str) -> Self {
        let result = samples.median() / base.median();
        Line::of(what, samples, result, "ms", of).beside(base.median())
    }

    /// A result that is not the ratio of two medians.
    pub fn of(
        what: impl Into<String>,
        samples: Samples,
        result: f64,
        unit: &'static str,
        of: &str,
    ) -> Self {
        Line {
            what: what.into(),
            target: Target::None,
            of: of.into(),
            result,
            unit,
            samples,
            base: None,
        }
    }

    /// The median of ratios, each of two runs side by side.
    pub fn ratios(what: impl Into<String>, pairs: &[(f64, f64)], unit: &'static str) -> Self {
        let ratios = Samples::new(pairs.iter().map(|(a, b)| a / b).collect());
        let measured = Samples::new(pairs.iter().map(|pair| pair.0).collect());
        let base = Samples::new(pairs.iter().map(|pair| pair.1).collect());
        let of = format!(
            "×, of {} pairs from {:.3} to {:.3}",
            pairs.len(),
            ratios.percentile(0.0),
            ratios.max()
        );
        Line::of(what, measured, ratios.median(), unit, &of).beside(base.median())
    }

    pub fn at_most(mut self, limit: f64) -> Self {
        self.target = Target::AtMost(limit);
        self
    }

    pub fn at_least(mut self, limit: f64) -> Self {
        self.target = Target::AtLeast(limit);
        self
    }

    pub fn beside(mut self, base: f64) -> Self {
        self.base = Some(base);
        self
    }
}

/// What a row came to.
#[derive(Default)]
pub struct Outcome {
    pub lines: Vec<Line>,
    /// What was not measured, and why.
    pub skipped: Vec<String>,
    pub charts: Vec<crate::chart::Chart>,
}

impl From<Vec<Line>> for Outcome {
    fn from(lines: Vec<Line>) -> Self {
        Outcome {
            lines,
            ..Outcome::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples::new(values.to_vec())
    }

    #[test]
    fn limits_belong_to_what_they_allow() {
        assert_eq!(Target::AtMost(4.0).met_by(4.0), Some(true));
        assert_eq!(Target::AtMost(4.0).met_by(4.01), Some(false));
        assert_eq!(Target::AtLeast(0.95).met_by(0.95), Some(true));
        assert_eq!(Target::AtLeast(0.95).met_by(0.94), Some(false));
        assert_eq!(Target::None.met_by(1.0), None);
    }

    #[test]
    fn a_ratio_is_one_of_medians() {
        let line = Line::ratio("x", samples(&[4.0, 6.0, 8.0]), &samples(&[2.0]), "× y");
        assert_eq!((line.result, line.base), (3.0, Some(2.0)));
    }

    #[test]
    fn pairs_give_the_median_of_their_ratios() {
        // Both drift by a factor of ten between the pairs: the ratios do not.
        let line = Line::ratios("x", &[(9.0, 10.0), (99.0, 100.0), (1.0, 1.0)], "tps");
        assert_eq!(line.result, 0.99);
    }
}
