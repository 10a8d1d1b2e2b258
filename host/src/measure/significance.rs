//! Whether two sets of times differ by more than chance.

use serde::Serialize;

use super::statistics::median;

/// How much faster `b` is than `a`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Median time of `a` over median time of `b`: the ratio of speeds.
    pub ratio: f64,
    /// The interval of the ratio of speeds; nothing if there are too few times to give one.
    pub interval: Option<Interval>,
}

/// Where a ratio lies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
    /// The probability with which an interval made like this holds the true ratio.
    pub confidence: f64,
}

/// The probability with which an interval may miss the true ratio.
const ALPHA: f64 = 0.05;

/// Above so many pairs of times the distribution is taken to be normal.
const EXACT_PAIRS: usize = 2500;

/// The 97.5th percentile of the standard normal distribution.
const NORMAL: f64 = 1.959_963_984_540_054;

/// Compares the times `a` with the times `b`, all positive. Nothing if one of them is empty.
///
/// The interval is that of Hodges and Lehmann ("Estimates of Location Based on Rank Tests", Annals of Mathematical Statistics,
/// 1963), as in Hollander and Wolfe, "Nonparametric Statistical Methods", section 4.3, on the logarithms of the times: with
/// `k` such that the statistic U of Mann and Whitney is below `k` with a probability of at most 0.025 if nothing differs, it
/// reaches from the k-th smallest to the k-th largest of all `a[i] / b[j]`. It leaves out 1 just if the Mann-Whitney test says
/// that the two differ, and assumes nothing about the form of the distributions. With four times each there is the
/// first interval.
pub fn compare(a: &[f64], b: &[f64]) -> Option<Comparison> {
    let ratio = median(a)? / median(b)?;
    let mut ratios: Vec<f64> = a.iter().flat_map(|a| b.iter().map(move |b| a / b)).collect();
    ratios.sort_by(f64::total_cmp);
    let (k, missed) = rank(a.len(), b.len());
    let ends = k.checked_sub(1).and_then(|index| Some((ratios.get(index)?, ratios.get(ratios.len() - k)?)));
    let interval = ends.map(|(&low, &high)| Interval { low, high, confidence: 1.0 - 2.0 * missed });
    Some(Comparison { ratio, interval })
}

/// The largest `k` for which `U < k` has a probability of at most half of [`ALPHA`], and that probability; 0 if there is none.
fn rank(n: usize, m: usize) -> (usize, f64) {
    let pairs = n * m;
    if pairs > EXACT_PAIRS {
        let deviation = (pairs as f64 * (n + m + 1) as f64 / 12.0).sqrt();
        return ((pairs as f64 / 2.0 - NORMAL * deviation).floor() as usize, ALPHA / 2.0);
    }
    let (mut k, mut below) = (0, 0.0);
    for probability in distribution(n, m) {
        if below + probability > ALPHA / 2.0 {
            break;
        }
        below += probability;
        k += 1;
    }
    (k, below)
}

/// The probabilities of U = 0, 1, ..., `n m` if all orders of `n` and `m` times are as probable: the recurrence of Mann and
/// Whitney ("On a Test of Whether One of Two Random Variables is Stochastically Larger than the Other", Annals of Mathematical
/// Statistics, 1947). The largest time is one of the `n` with probability `n / (n + m)`, and then above all `m`.
fn distribution(n: usize, m: usize) -> Vec<f64> {
    // Of 0, 1, ..., m times against those of the rows done so far.
    let mut row: Vec<Vec<f64>> = vec![vec![1.0]; m + 1];
    for i in 1..=n {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=m {
            let (from_first, from_second) = (i as f64 / (i + j) as f64, j as f64 / (i + j) as f64);
            let mut probabilities = vec![0.0; i * j + 1];
            for (u, probability) in row[j].iter().enumerate() {
                probabilities[u + j] += from_first * probability;
            }
            for (u, probability) in next[j - 1].iter().enumerate() {
                probabilities[u] += from_second * probability;
            }
            next.push(probabilities);
        }
        row = next;
    }
    row.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_of_u() {
        // Of the 252 orders of five and five, 1, 1, 2 and 3 have U = 0, 1, 2 and 3.
        let found = distribution(5, 5);
        for (found, orders) in found.iter().zip([1.0, 1.0, 2.0, 3.0]) {
            assert!((found - orders / 252.0).abs() < 1e-15);
        }
        assert_eq!(found.len(), 26);
        for (n, m) in [(1, 1), (3, 7), (50, 50)] {
            let probabilities = distribution(n, m);
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            let mirrored: Vec<f64> = probabilities.iter().rev().copied().collect();
            assert!(probabilities.iter().zip(&mirrored).all(|(a, b)| (a - b).abs() < 1e-12));
        }
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Critical values of the two-sided test at 0.05, to which 1 is added here.
        for (n, m, critical) in [(4, 4, 0), (5, 5, 2), (5, 6, 3), (10, 10, 23), (20, 20, 127)] {
            assert_eq!(rank(n, m).0, critical + 1, "{n} and {m}");
        }
        assert_eq!((rank(3, 3), rank(1, 20)), ((0, 0.0), (0, 0.0)));
        // Exact and normal agree where one takes over from the other.
        let exact = rank(50, 50).0 as f64;
        let normal = 1250.0 - NORMAL * (2500.0_f64 * 101.0 / 12.0).sqrt();
        assert!((exact - normal).abs() < 2.0, "{exact} {normal}");
        assert_eq!(rank(60, 60).1, 0.025);
    }

    #[test]
    fn an_interval_by_hand() {
        let (a, b) = ([2.0, 2.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0]);
        let comparison = compare(&a, &b).unwrap();
        assert_eq!(comparison.ratio, 2.0);
        // The smallest and the largest of the 16 ratios; two of 70 orders are more extreme.
        let interval = comparison.interval.unwrap();
        assert_eq!((interval.low, interval.high), (2.0, 4.0));
        assert!((interval.confidence - (1.0 - 2.0 / 70.0)).abs() < 1e-12);

        let (a, b) = ([10.0, 11.0, 12.0, 13.0, 14.0], [10.0; 5]);
        let interval = compare(&a, &b).unwrap().interval.unwrap();
        // The third smallest and third largest of each ratio five times.
        assert_eq!((interval.low, interval.high), (1.0, 1.4));
        assert_eq!(compare(&a[..3], &b).map(|found| found.interval.is_some()), Some(true));
        assert_eq!(compare(&a[..3], &b[..3]).map(|found| found.interval.is_some()), Some(false));
        assert_eq!(compare(&[], &b), None);
    }
}
