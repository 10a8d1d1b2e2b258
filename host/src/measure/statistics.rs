//! Numbers that sum up samples.

/// The arithmetic mean; nothing of nothing.
pub fn mean(samples: &[f64]) -> Option<f64> {
    (!samples.is_empty()).then(|| samples.iter().sum::<f64>() / samples.len() as f64)
}

/// The standard deviation of what the samples were drawn from, with Bessel's correction: the square root of the sum of
/// squared distances from the mean over `n - 1`. Nothing for fewer than two samples.
pub fn deviation(samples: &[f64]) -> Option<f64> {
    let mean = mean(samples).filter(|_| samples.len() > 1)?;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    Some((squares / (samples.len() - 1) as f64).sqrt())
}

/// The middle sample, or the mean of the two in the middle; nothing of nothing.
pub fn median(samples: &[f64]) -> Option<f64> {
    percentile(samples, 50.0)
}

/// The value below which `percent` (0 to 100) of the samples lie: linear between the two samples around rank
/// `(n - 1) percent / 100`, which is type 7 of Hyndman and Fan, "Sample Quantiles in Statistical Packages" (The American
/// Statistician, 1996), and the default of NumPy. Nothing of nothing.
pub fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = sorted.len().checked_sub(1)? as f64 * percent.clamp(0.0, 100.0) / 100.0;
    let (below, above) = (sorted.get(rank.floor() as usize)?, sorted.get(rank.ceil() as usize)?);
    Some(below + (above - below) * rank.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let samples = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(mean(&samples), Some(2.5));
        // Squares 2.25 + 2.25 + 0.25 + 0.25 = 5 over 3.
        assert!((deviation(&samples).unwrap() - (5.0_f64 / 3.0).sqrt()).abs() < 1e-15);
        assert_eq!(median(&samples), Some(2.5));
        assert_eq!(median(&samples[..3]), Some(3.0));
        // Rank 3 * 0.95 = 2.85: from 3 to 4, to 0.85 of the way.
        assert!((percentile(&samples, 95.0).unwrap() - 3.85).abs() < 1e-12);
        assert_eq!((percentile(&samples, 0.0), percentile(&samples, 100.0)), (Some(1.0), Some(4.0)));
        assert_eq!((percentile(&samples, -3.0), percentile(&samples, 300.0)), (Some(1.0), Some(4.0)));
    }

    #[test]
    fn few_samples() {
        assert_eq!(
            (mean(&[7.0]), deviation(&[7.0]), median(&[7.0]), percentile(&[7.0], 99.0)),
            (Some(7.0), None, Some(7.0), Some(7.0))
        );
        assert_eq!((mean(&[]), deviation(&[]), median(&[]), percentile(&[], 99.0)), (None, None, None, None));
        assert_eq!(deviation(&[2.0, 2.0, 2.0]), Some(0.0));
    }
}
