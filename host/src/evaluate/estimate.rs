//! Means and quantiles with their standard errors.
//!
//! Tokens of one text depend on each other, so that their number says too little about how sure a mean is. What is drawn
//! independently are windows of text, and the errors here come from how windows differ: with S_w the sum and n_w the number
//! of the tokens of window w, the mean m is sum(S_w) / sum(n_w), and its variance is that of a ratio estimate,
//! W / (W - 1) * sum((S_w - m n_w)^2) / sum(n_w)^2 (W. Cochran, "Sampling Techniques", 1977, section 6.3).

use serde::Serialize;

/// A number and how far it may be from what an endless text would give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error; unknown if there is one window only.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// exp of the number; the error is carried over by the slope.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, standard_error: self.standard_error.map(|error| error * value) }
    }
}

/// Numbers by window. No window is empty.
#[derive(Clone, Debug, Default)]
pub struct PerWindow {
    values: Vec<f64>,
    /// Where each window ends.
    ends: Vec<usize>,
}

impl PerWindow {
    /// Adds a number to the last window.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Ends the last window, unless nothing was added to it.
    pub fn end_window(&mut self) {
        if self.values.len() > self.ends.last().copied().unwrap_or(0) {
            self.ends.push(self.values.len());
        }
    }

    /// Number of numbers.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Number of windows that have ended.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no window has ended.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The mean of all numbers.
    pub fn mean(&self) -> Estimate {
        self.mean_of(|value| value)
    }

    /// The mean of a function of all numbers.
    fn mean_of(&self, function: impl Fn(f64) -> f64) -> Estimate {
        let sums = |window: &[f64]| (window.iter().map(|&value| function(value)).sum(), window.len() as f64);
        let windows: Vec<(f64, f64)> = self.windows().map(sums).collect();
        let (sum, count) = windows.iter().fold((0.0, 0.0), |(sum, count), window| (sum + window.0, count + window.1));
        let mean = sum / count;
        let residuals: f64 = windows.iter().map(|(sum, count)| (sum - mean * count).powi(2)).sum();
        let number = windows.len() as f64;
        let error = (windows.len() > 1).then(|| (number / (number - 1.0) * residuals).sqrt() / count);
        Estimate { value: mean, standard_error: error }
    }

    /// The smallest numbers that at least these shares of all numbers do not exceed, and the largest number.
    ///
    /// The error of a quantile comes from that of the share below it: half the distance between the quantiles one error to
    /// either side (R. Woodruff, "Confidence Intervals for Medians and Other Position Measures", 1952). Near the largest number
    /// that is too small, because nothing is known beyond it.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> ([Estimate; N], f64) {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * sorted.len() as f64 - 1e-9).ceil().max(1.0) as usize;
            sorted.get(place.min(sorted.len()).saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        let quantiles = shares.map(|share| {
            let value = at(share);
            let below = self.mean_of(|other| f64::from(u8::from(other <= value)));
            let error = below.standard_error.map(|error| (at(share + error) - at(share - error)) / 2.0);
            Estimate { value, standard_error: error }
        });
        (quantiles, at(1.0))
    }

    fn windows(&self) -> impl Iterator<Item = &[f64]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.values[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(windows: &[&[f64]]) -> PerWindow {
        let mut found = PerWindow::default();
        for window in windows {
            window.iter().for_each(|&value| found.push(value));
            found.end_window();
        }
        found
    }

    #[test]
    fn windows_of_one_size_have_the_error_of_their_means() {
        // Means 1, 3 and 5: a standard deviation of 2, over three windows.
        let estimate = windows(&[&[0.0, 2.0], &[3.0, 3.0], &[9.0, 1.0]]).mean();
        assert_eq!(estimate.value, 3.0);
        assert!((estimate.standard_error.unwrap() - 2.0 / 3.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn long_windows_weigh_more() {
        // The mean is 12/4. Residuals: 4 - 1 * 3 = 1 and 8 - 3 * 3 = -1; sqrt(2 * 2) / 4.
        let estimate = windows(&[&[4.0], &[2.0, 2.0, 4.0]]).mean();
        assert_eq!((estimate.value, estimate.standard_error), (3.0, Some(0.5)));
    }

    #[test]
    fn repeating_a_token_makes_nothing_surer() {
        let once = windows(&[&[1.0], &[2.0], &[4.0]]).mean();
        let thrice = windows(&[&[1.0; 3], &[2.0; 3], &[4.0; 3]]).mean();
        assert!((once.standard_error.unwrap() - thrice.standard_error.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn one_window_has_no_known_error() {
        let one = windows(&[&[1.0, 2.0], &[]]);
        assert_eq!((one.len(), one.mean()), (1, Estimate { value: 1.5, standard_error: None }));
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let numbers: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i * 37 % 100 + 1)]).collect();
        let numbers = windows(&numbers.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let (found, max) = numbers.quantiles([0.5, 0.99, 0.999, 0.001]);
        assert_eq!(found.map(|it| it.value), [50.0, 99.0, 100.0, 1.0]);
        assert_eq!(max, 100.0);
        // Of a hundred independent ones, the share below the median has an error of 5 percentage points.
        assert_eq!(found[0].standard_error, Some(5.5));
    }

    #[test]
    fn exponentials_take_their_errors_along() {
        let estimate = Estimate { value: 0.0, standard_error: Some(0.25) }.exp();
        assert_eq!(estimate, Estimate { value: 1.0, standard_error: Some(0.25) });
    }
}
