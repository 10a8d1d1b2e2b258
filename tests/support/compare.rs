//! How far numbers are from what they should be.

/// Largest [`error`] of the same float32 graph, run in other parts or over other buffers: kernels for one and for several rows sum
/// in another order, and 1e-6 is seen over a few layers. Processors have other kernels, which is what the rest is for.
pub const SAME_GRAPH: f64 = 5e-6;

/// Largest [`error`] of float32 numbers that other operators, another graph or another program computed: exponentials, roots and
/// norms differ in their last bits too. 1.4e-6 is seen here.
pub const OTHER_GRAPH: f64 = 2e-5;

/// Largest [`error`] of float16 numbers: half an ulp is 5e-4, and over a few layers sums of rounded products stay within some of
/// them. Up to 3.7e-3 is seen.
pub const FLOAT16: f64 = 1e-2;

/// How rows of numbers agree with expected ones.
#[derive(Clone, Copy, Debug)]
pub struct Agreement {
    /// Smallest cosine of a row and its expectation.
    pub cosine: f64,
    /// Largest difference, relative to the largest expected magnitude of all rows.
    pub error: f64,
    /// Whether the largest number is at the same place in every row.
    pub argmax: bool,
}

/// Compares rows of `width` numbers.
pub fn agreement(found: &[f32], expected: &[f32], width: usize) -> Agreement {
    assert_eq!(found.len(), expected.len(), "as many numbers as expected");
    assert!(!found.is_empty() && found.len().is_multiple_of(width));
    assert!(found.iter().all(|value| value.is_finite()), "all numbers are finite");
    let rows = || found.chunks(width).zip(expected.chunks(width));
    Agreement {
        cosine: rows().map(|(a, b)| cosine(a, b)).fold(1.0, f64::min),
        error: error(found, expected),
        argmax: rows().all(|(a, b)| argmax(a) == argmax(b)),
    }
}

/// Largest difference, relative to the largest expected magnitude. Zeros must be met exactly if nothing else is expected.
pub fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many numbers as expected");
    let largest = expected.iter().fold(0.0_f64, |largest, value| largest.max(f64::from(value.abs())));
    let differences = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    // A NaN must not get lost in a maximum.
    let difference = differences.fold(0.0, |largest: f64, it| if it > largest || it.is_nan() { it } else { largest });
    if difference == 0.0 { 0.0 } else { difference / largest }
}

/// Place of the largest number, the first of several.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = i;
        }
    }
    best
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
