//! Means and quantiles with their standard errors.
//!
//! Tokens of one text depend on each other, so that their number says too little about how sure a mean is. What is drawn
//! independently are blocks of tokens, and the errors here come from how blocks differ: with S_b the sum and n_b the number
//! of the tokens of block b, the mean m is sum(S_b) / sum(n_b), and its variance is that of a ratio estimate,
//! B / (B - 1) * sum((S_b - m n_b)^2) / sum(n_b)^2 (W. Cochran, "Sampling Techniques", 1977, section 6.3).

use serde::Serialize;

/// A number and how far it may be from what an endless text would give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Its standard error; unknown if there is one block only.
    pub standard_error: Option<f64>,
}

impl Estimate {
    /// exp of the number; the error is carried over by the slope.
    pub fn exp(self) -> Self {
        let value = self.value.exp();
        Self { value, standard_error: self.standard_error.map(|error| error * value) }
    }
}

/// Numbers by block. No block is empty.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    values: Vec<f64>,
    /// Where each block ends.
    ends: Vec<usize>,
}

impl Blocks {
    /// Adds a number to the last block.
    pub fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    /// Ends the last block, unless nothing was added to it.
    pub fn end_block(&mut self) {
        if self.values.len() > self.ends.last().copied().unwrap_or(0) {
            self.ends.push(self.values.len());
        }
    }

    /// Number of numbers.
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// Number of blocks that have ended.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether no block has ended.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The mean of all numbers.
    pub fn mean(&self) -> Estimate {
        self.mean_of(|value| value)
    }

    /// The mean of a function of all numbers.
    fn mean_of(&self, function: impl Fn(f64) -> f64) -> Estimate {
        let blocks: Vec<(f64, f64)> =
            self.blocks().map(|block| (block.iter().map(|&value| function(value)).sum(), block.len() as f64)).collect();
        let (sum, count) = blocks.iter().fold((0.0, 0.0), |(sum, count), block| (sum + block.0, count + block.1));
        let mean = sum / count;
        let residuals: f64 = blocks.iter().map(|(sum, count)| (sum - mean * count).powi(2)).sum();
        let number = blocks.len() as f64;
        let error = (blocks.len() > 1).then(|| (number / (number - 1.0) * residuals).sqrt() / count);
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

    fn blocks(&self) -> impl Iterator<Item = &[f64]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.values[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(blocks: &[&[f64]]) -> Blocks {
        let mut found = Blocks::default();
        for block in blocks {
            block.iter().for_each(|&value| found.push(value));
            found.end_block();
        }
        found
    }

    #[test]
    fn blocks_of_one_size_have_the_error_of_their_means() {
        // Means 1, 3 and 5: a standard deviation of 2, over three blocks.
        let estimate = blocks(&[&[0.0, 2.0], &[3.0, 3.0], &[9.0, 1.0]]).mean();
        assert_eq!(estimate.value, 3.0);
        assert!((estimate.standard_error.unwrap() - 2.0 / 3.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn long_blocks_weigh_more() {
        // The mean is 12/4. Residuals: 4 - 1 * 3 = 1 and 8 - 3 * 3 = -1; sqrt(2 * 2) / 4.
        let estimate = blocks(&[&[4.0], &[2.0, 2.0, 4.0]]).mean();
        assert_eq!((estimate.value, estimate.standard_error), (3.0, Some(0.5)));
    }

    #[test]
    fn repeating_a_token_makes_nothing_surer() {
        let once = blocks(&[&[1.0], &[2.0], &[4.0]]).mean();
        let thrice = blocks(&[&[1.0; 3], &[2.0; 3], &[4.0; 3]]).mean();
        assert!((once.standard_error.unwrap() - thrice.standard_error.unwrap()).abs() < 1e-12);
    }

    #[test]
    fn one_block_has_no_known_error() {
        let one = blocks(&[&[1.0, 2.0], &[]]);
        assert_eq!((one.len(), one.mean()), (1, Estimate { value: 1.5, standard_error: None }));
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let numbers: Vec<Vec<f64>> = (0..100).map(|i| vec![f64::from(i * 37 % 100 + 1)]).collect();
        let numbers = blocks(&numbers.iter().map(Vec::as_slice).collect::<Vec<_>>());
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
