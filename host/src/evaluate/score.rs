//! One position: what its logits say about the token that came next.

use super::exponential::exp;

/// Values that are worked on side by side, so that the compiler can use vector instructions.
const LANES: usize = 16;

/// A position under two models.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Kullback-Leibler divergence of the model's distribution from the reference's: the sum of p * ln(p / q) with p of the
    /// reference and q of the model, in nats.
    pub divergence: f64,
    /// Whether both find the same token the most probable; of equal ones the first counts.
    pub agrees: bool,
    /// Negative log-likelihood of the next token under the model, in nats.
    pub model: f64,
    /// The same under the reference.
    pub reference: f64,
}

/// Negative log-likelihood of the token `next` under the distribution with these logits, in nats. `None` if some of them are
/// not numbers, or `next` has none.
pub fn likelihood(logits: &[f32], next: usize) -> Option<f64> {
    let (_, max) = largest(logits)?;
    finite(log_sum(max, sum_up(logits, max)) - f64::from(*logits.get(next)?))
}

/// Compares the distributions with these logits, and what they make of the token `next`. `None` if some of the logits are not
/// numbers, if there are not as many of one as of the other, or if `next` has none.
///
/// With softmax(x)_i = exp(x_i) / Z(x), the divergence is sum(p_i * (r_i - m_i)) + ln Z(m) - ln Z(r), so that one pass
/// takes three sums. Exponentials are float32 and of numbers that are not positive; sums are float64.
pub fn compare(model: &[f32], reference: &[f32], next: usize) -> Option<Comparison> {
    if model.len() != reference.len() {
        return None;
    }
    let ((model_top, model_max), (reference_top, reference_max)) = (largest(model)?, largest(reference)?);
    let [model_sum, reference_sum, differences] = sum_pairs((model, model_max), (reference, reference_max));
    let (model_log, reference_log) = (log_sum(model_max, model_sum), log_sum(reference_max, reference_sum));
    let divergence = finite(differences / reference_sum + model_log - reference_log)?;
    Some(Comparison {
        // Rounding may leave a little less than nothing.
        divergence: divergence.max(0.0),
        agrees: model_top == reference_top,
        model: finite(model_log - f64::from(*model.get(next)?))?,
        reference: finite(reference_log - f64::from(*reference.get(next)?))?,
    })
}

/// ln of the sum of exponentials, from the largest exponent and the sum relative to it.
fn log_sum(max: f32, sum: f64) -> f64 {
    f64::from(max) + sum.ln()
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Place and value of the largest number, the first of equal ones.
fn largest(values: &[f32]) -> Option<(usize, f32)> {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().position(|value| *value == max).map(|place| (place, max))
}

/// Sum of the exponentials relative to the largest.
fn sum_up(values: &[f32], max: f32) -> f64 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for chunk in chunks {
        let weights = exponentials(chunk, max);
        for lane in 0..LANES {
            sums[lane] += f64::from(weights[lane]);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(exp(value - max))).sum::<f64>()
}

/// Sums of the exponentials of both, relative to the largest of each, and of the reference's times how much its logits are
/// higher.
fn sum_pairs((model, model_max): (&[f32], f32), (reference, reference_max): (&[f32], f32)) -> [f64; 3] {
    let ((models, model_rest), (references, reference_rest)) =
        (model.as_chunks::<LANES>(), reference.as_chunks::<LANES>());
    let mut lanes = [[0.0; LANES]; 3];
    for (model, reference) in models.iter().zip(references) {
        let (model_weights, weights) = (exponentials(model, model_max), exponentials(reference, reference_max));
        for lane in 0..LANES {
            let weight = f64::from(weights[lane]);
            lanes[0][lane] += f64::from(model_weights[lane]);
            lanes[1][lane] += weight;
            lanes[2][lane] += weight * (f64::from(reference[lane]) - f64::from(model[lane]));
        }
    }
    let mut sums = lanes.map(|lanes| lanes.iter().sum::<f64>());
    for (model, reference) in model_rest.iter().zip(reference_rest) {
        let weight = f64::from(exp(reference - reference_max));
        sums[0] += f64::from(exp(model - model_max));
        sums[1] += weight;
        sums[2] += weight * (f64::from(*reference) - f64::from(*model));
    }
    sums
}

/// exp(value - max) of each. Apart from the sums, so that the compiler sees one simple loop.
#[inline]
fn exponentials(values: &[f32; LANES], max: f32) -> [f32; LANES] {
    let mut results = [0.0; LANES];
    for (result, value) in results.iter_mut().zip(values) {
        *result = exp(value - max);
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in float64.
    fn by_definition(model: &[f32], reference: &[f32], next: usize) -> Comparison {
        let log_softmax = |logits: &[f32]| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shifted: Vec<f64> = logits.iter().map(|&value| f64::from(value) - f64::from(max)).collect();
            let log = shifted.iter().map(|value| value.exp()).sum::<f64>().ln();
            shifted.into_iter().map(|value| value - log).collect::<Vec<_>>()
        };
        let (m, r) = (log_softmax(model), log_softmax(reference));
        let divergence = m.iter().zip(&r).map(|(m, r)| r.exp() * (r - m)).sum();
        let top =
            |values: &[f64]| values.iter().enumerate().fold(0, |best, (i, v)| if *v > values[best] { i } else { best });
        Comparison { divergence, agrees: top(&m) == top(&r), model: -m[next], reference: -r[next] }
    }

    fn assert_close(found: Comparison, expected: Comparison) {
        // Exponentials have an error of 1e-7, of which most averages out.
        for (found, expected) in [
            (found.divergence, expected.divergence),
            (found.model, expected.model),
            (found.reference, expected.reference),
        ] {
            assert!((found - expected).abs() <= 2e-7 * (1.0 + expected), "{found} instead of {expected}");
        }
        assert_eq!(found.agrees, expected.agrees);
    }

    #[test]
    fn two_tokens_by_hand() {
        // Probabilities 1/2, 1/2 against 3/4, 1/4: 3/4 ln(3/2) + 1/4 ln(1/2).
        let found = compare(&[2.0, 2.0], &[3.0_f32.ln(), 0.0], 1).unwrap();
        let divergence = 0.75 * 1.5_f64.ln() + 0.25 * 0.5_f64.ln();
        let expected = Comparison { divergence, agrees: true, model: 2.0_f64.ln(), reference: 4.0_f64.ln() };
        assert_close(found, expected);
        assert!((divergence - 0.130_812).abs() < 1e-6);
        assert!((likelihood(&[3.0_f32.ln(), 0.0], 0).unwrap() - (4.0_f64 / 3.0).ln()).abs() < 1e-7);
    }

    #[test]
    fn all_sizes_agree_with_the_definition() {
        for size in [1, 2, 15, 16, 17, 100, 1000] {
            // Logits of a peaked distribution, and others a little off.
            let reference: Vec<f32> = (0..size).map(|i| ((i * 7919 % 1009) as f32 * 0.017).sin() * 9.0 - 3.0).collect();
            let model: Vec<f32> =
                reference.iter().enumerate().map(|(i, v)| v + ((i * 31 % 17) as f32 - 8.0) * 0.02).collect();
            let next = size / 2;
            let found = compare(&model, &reference, next).unwrap();
            assert_close(found, by_definition(&model, &reference, next));
            assert!((likelihood(&model, next).unwrap() - found.model).abs() < 1e-12);
        }
    }

    #[test]
    fn equal_logits_have_no_divergence_at_all() {
        let logits: Vec<f32> = (0..500).map(|i| (i as f32).sin() * 20.0).collect();
        let found = compare(&logits, &logits, 3).unwrap();
        assert_eq!((found.divergence, found.agrees), (0.0, true));
        assert_eq!(found.model, found.reference);
        // A constant on all logits changes nothing but by rounding.
        let shifted: Vec<f32> = logits.iter().map(|value| value + 64.0).collect();
        assert!(compare(&shifted, &logits, 3).unwrap().divergence < 1e-6);
    }

    #[test]
    fn small_divergences_are_not_lost() {
        let reference: Vec<f32> = (0..4096).map(|i| ((i * 37 % 101) as f32 * 0.3).cos() * 6.0).collect();
        let model: Vec<f32> = reference.iter().enumerate().map(|(i, v)| v + (i % 3) as f32 * 2e-3).collect();
        let found = compare(&model, &reference, 0).unwrap().divergence;
        let expected = by_definition(&model, &reference, 0).divergence;
        assert!(expected < 2e-6 && (found - expected).abs() < 1e-8, "{found} instead of {expected}");
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for size in [3, 40] {
                let fine = vec![0.5; size];
                let mut bad = fine.clone();
                bad[1] = wrong;
                assert_eq!(compare(&bad, &fine, 0), None);
                assert_eq!(compare(&fine, &bad, 0), None);
                if wrong != f32::NEG_INFINITY {
                    assert_eq!(likelihood(&bad, 0), None, "{wrong} among {size}");
                }
            }
        }
        assert_eq!(likelihood(&[1.0], 1), None);
        assert_eq!(likelihood(&[], 0), None);
        assert_eq!(compare(&[1.0, 2.0], &[1.0], 0), None);
    }
}
