//! Takes the statistics of a model's activations over a text, for quantization.

use std::collections::BTreeMap;

use lfm2_graphs::contract::{CALIBRATION_VERSION, Calibration, StateKind};

use crate::cancel::Cancel;
use crate::decoder::{Decoder, DecoderError, OrtDecoder, RangeObserver};
use crate::documents::Window;

/// Runs every window from an empty state through a graph for calibration, and returns the mean of the squares of what each
/// weight's columns were multiplied with, and the largest magnitude of each channel of keys and values. The ranges of activations are
/// for [`ranges`] to find.
///
/// `model` tells the checkpoint from others, as in the manifest of the package. `progress` is told how many tokens are done.
///
/// # Errors
/// If the graph has no statistics, if a run fails or is cancelled, if there are no tokens, or if activations are not numbers.
pub fn calibrate(
    decoder: &mut OrtDecoder,
    windows: &[Window],
    model: &str,
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<Calibration, CalibrationError> {
    let contract = decoder.contract().clone();
    let statistics = &contract.outputs.statistics;
    if statistics.is_empty() {
        return Err(CalibrationError::NoStatistics);
    }
    let mut sums: Vec<Vec<f64>> = vec![Vec::new(); statistics.len()];
    let mut caches = BTreeMap::<String, Vec<f32>>::new();
    let kind = |name: &str| contract.states.iter().find(|it| it.present.name == name).map(|it| it.kind);
    let mut tokens = 0;
    for window in windows {
        if cancel.is_cancelled() {
            return Err(DecoderError::Cancelled.into());
        }
        decoder.reset();
        decoder.observe(&window.tokens, &mut |place, values| {
            let sums = &mut sums[place];
            sums.resize(values.len(), 0.0);
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += f64::from(*value));
        })?;
        for (name, shape, values) in decoder.states()? {
            let Some(kind) = kind(&name).filter(|kind| kind.grows()) else { continue };
            let channels = largest_by_channel(kind, &shape, &values);
            let known = caches.entry(name).or_insert_with(|| vec![0.0; channels.len()]);
            known.iter_mut().zip(channels).for_each(|(known, value)| *known = maximum(*known, value));
        }
        tokens += window.tokens.len();
        progress(tokens);
    }
    if tokens == 0 {
        return Err(CalibrationError::Nothing);
    }
    let mut weights = BTreeMap::new();
    for (statistic, sums) in statistics.iter().zip(sums) {
        let means: Vec<f32> = sums.iter().map(|sum| (sum / tokens as f64) as f32).collect();
        weights.extend(statistic.weights.iter().map(|weight| (weight.clone(), means.clone())));
    }
    refuse_infinite(weights.iter().chain(&caches).map(|(name, values)| (name, values.as_slice())))?;
    let (model, tokens) = (model.to_owned(), tokens as u64);
    let (states, ranges) = (caches, BTreeMap::new());
    Ok(Calibration { version: CALIBRATION_VERSION, model, tokens, weights, states, ranges })
}

/// Runs every window from an empty state through the graph that tells ranges, and returns between which bounds every activation lies.
/// `progress` is told how many tokens are done.
///
/// # Errors
/// If a run fails or is cancelled, if there are no tokens, or if activations are not numbers.
pub fn ranges(
    observer: &mut RangeObserver,
    windows: &[Window],
    cancel: &Cancel,
    progress: &mut dyn FnMut(usize),
) -> Result<BTreeMap<String, [f32; 2]>, CalibrationError> {
    let mut tokens = 0;
    for window in windows {
        observer.observe(&window.tokens, cancel)?;
        tokens += window.tokens.len();
        progress(tokens);
    }
    if tokens == 0 {
        return Err(CalibrationError::Nothing);
    }
    let ranges = observer.ranges();
    refuse_infinite(ranges.iter().map(|(name, range)| (name, range.as_slice())))?;
    Ok(ranges)
}

fn refuse_infinite<'n>(all: impl Iterator<Item = (&'n String, &'n [f32])>) -> Result<(), CalibrationError> {
    let wrong = all.filter(|(_, values)| !values.iter().all(|it| it.is_finite()));
    let names: Vec<_> = wrong.map(|(name, _)| name.clone()).collect();
    if names.is_empty() { Ok(()) } else { Err(CalibrationError::NotFinite { names }) }
}

/// The largest magnitude that each channel of a cache can have, over its rows: `[1, kv_heads, rows, head_dim]` becomes
/// `[kv_heads * head_dim]`. Keys are rotated in pairs (i, i + head_dim / 2), whose length no position changes.
fn largest_by_channel(kind: StateKind, shape: &[usize], values: &[f32]) -> Vec<f32> {
    let (rows, width) = (shape[2], shape[3]);
    let magnitude = |row: &[f32], channel: usize| match kind {
        StateKind::Key => row[channel].hypot(row[(channel + width / 2) % width]),
        StateKind::Value | StateKind::Conv => row[channel].abs(),
    };
    let heads = values.chunks_exact((rows * width).max(1));
    let channels = heads.flat_map(|head| {
        head.chunks_exact(width).fold(vec![0.0_f32; width], |mut largest, row| {
            let each = largest.iter_mut().enumerate();
            each.for_each(|(channel, known)| *known = maximum(*known, magnitude(row, channel)));
            largest
        })
    });
    channels.collect()
}

/// The larger one, or what is not a number.
fn maximum(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Why there is no calibration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibrationError {
    /// A graph that is to be run as a model.
    #[error("the graph has no statistics; export one with `lfm2-export MODEL --for calibrate --out x.onnx`")]
    NoStatistics,
    /// Nothing was run.
    #[error("the text has no tokens; give a longer one")]
    Nothing,
    /// Infinities, or results of them.
    #[error("what meets these is not finite: {}; the checkpoint is damaged", names.join(", "))]
    NotFinite {
        /// Weights, states and values.
        names: Vec<String>,
    },
    /// A run failed, or was cancelled.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitude_is_taken_over_rows() {
        // Two heads of two rows of four channels.
        let values = [1.0, -2.0, 0.0, 7.0, -3.0, 1.0, 0.5, 0.0, 0.0, 0.0, 9.0, 1.0, 0.0, 4.0, -8.0, 2.0];
        let channels = largest_by_channel(StateKind::Value, &[1, 2, 2, 4], &values);
        assert_eq!(channels, [3.0, 2.0, 0.5, 7.0, 0.0, 4.0, 9.0, 2.0]);
        // Of keys, the first channel turns with the third one, and the second with the fourth.
        let keys = largest_by_channel(StateKind::Key, &[1, 1, 2, 4], &[3.0, 0.0, -4.0, 1.0, 0.0, -5.0, 1.0, 12.0]);
        assert_eq!(keys, [5.0, 13.0, 5.0, 13.0]);
        assert!(maximum(1.0, f32::NAN).is_nan() && maximum(f32::NAN, 1.0).is_nan());
    }
}
