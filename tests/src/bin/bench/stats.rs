//! Medians, percentiles and spreads.

/// What a number of measurements come to.
#[derive(Clone, Debug)]
pub struct Samples {
    sorted: Vec<f64>,
}

impl Samples {
    /// Panics if there are none, or one is no number.
    pub fn new(mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "nothing was measured");
        assert!(values.iter().all(|v| v.is_finite()), "{values:?}");
        values.sort_by(f64::total_cmp);
        Samples { sorted: values }
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    pub fn max(&self) -> f64 {
        self.sorted[self.len() - 1]
    }

    pub fn median(&self) -> f64 {
        let (low, high) = ((self.len() - 1) / 2, self.len() / 2);
        (self.sorted[low] + self.sorted[high]) / 2.0
    }

    /// The smallest value that so many percent of all do not exceed (nearest rank).
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.len() as f64).ceil() as usize;
        self.sorted[rank.clamp(1, self.len()) - 1]
    }

    pub fn p99(&self) -> f64 {
        self.percentile(99.0)
    }

    /// How far the middle half of the values lies apart, as a part of the median.
    pub fn spread(&self) -> f64 {
        let apart = self.percentile(75.0) - self.percentile(25.0);
        if self.median() == 0.0 {
            return 0.0;
        }
        apart / self.median().abs()
    }

    /// Share of the values, in percent, that do not exceed each: for a plot.
    pub fn distribution(&self) -> Vec<(f64, f64)> {
        let share = |i: usize| (i + 1) as f64 * 100.0 / self.len() as f64;
        let points = self.sorted.iter().enumerate();
        points.map(|(i, v)| (*v, share(i))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(Samples::new(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples::new(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert_eq!(Samples::new(vec![7.0]).median(), 7.0);
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred = Samples::new((1..=100).map(f64::from).collect());
        assert_eq!(hundred.p99(), 99.0);
        assert_eq!(hundred.percentile(100.0), 100.0);
        assert_eq!(hundred.percentile(1.0), 1.0);
        assert_eq!(Samples::new(vec![1.0, 5.0]).p99(), 5.0);
    }

    #[test]
    fn spread_is_the_middle_half() {
        let four = Samples::new(vec![1.0, 2.0, 3.0, 100.0]);
        assert_eq!(four.spread(), (3.0 - 1.0) / 2.5);
        assert_eq!(Samples::new(vec![0.0]).spread(), 0.0);
    }

    #[test]
    #[should_panic(expected = "nothing was measured")]
    fn no_measurements_are_no_samples() {
        Samples::new(Vec::new());
    }

    #[test]
    #[should_panic]
    fn what_is_no_number_is_no_measurement() {
        Samples::new(vec![1.0, f64::NAN]);
    }
}
