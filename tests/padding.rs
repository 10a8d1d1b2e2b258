//! Tier "chunking", padded: a left-padded batch of ragged prompts gives each prompt what it gets alone, in the prefill and in
//! the decode steps after it.

use lfm2_export::package::{DialectName, Options};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::Padding;
use lfm2_tests::compare::{FLOAT16, OTHER_GRAPH, error};
use lfm2_tests::graphs::Runner;
use lfm2_tests::packages::{Exported, TINY_CHAT, TINY_RANDOM, needs_portable, options, portable};
use lfm2_tests::reference::Reference;
use ndarray::{Array2, Axis, concatenate};

/// Decode steps after the prefill.
const STEPS: usize = 3;

/// Logits of the prefill `[batch, vocab_size]` and of each decode step. Every row goes on with its own prompt's tokens.
fn generate(runner: &mut Runner, ids: &Array2<i64>, mask: &Array2<i64>) -> Vec<Array2<f32>> {
    let batch = ids.nrows();
    let mut states = runner.empty_states(batch);
    let mut logits = vec![runner.step(ids.clone(), mask.clone(), &mut states)];
    let mut mask = mask.clone();
    for step in 0..STEPS {
        mask = concatenate![Axis(1), mask, Array2::ones((batch, 1))];
        let next = ids.map_axis(Axis(1), |row| row[row.len() - 1 - step % row.len()]).insert_axis(Axis(1));
        // Single prompts begin at their own first token, so that what follows must not depend on the padding.
        logits.push(runner.step((next + step as i64) % 90, mask.clone(), &mut states));
    }
    logits
}

fn padded_rows_are_as_if_alone(fixture: &str, options: Options, tolerance: f64) {
    let off = largest_error(fixture, &options);
    assert!(off <= tolerance, "{fixture} {options:?}: off by {off:e}");
}

/// How far padded rows are from the reference in the prefill, and from what they give alone in every step.
fn largest_error(fixture: &str, options: &Options) -> f64 {
    let reference = Reference::load(fixture);
    let integers = |name: &str| {
        let (shape, values) = reference.integers[name].clone();
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    };
    let [ids, mask] = ["padded.input_ids", "padded.attention_mask"].map(integers);
    let expected = &reference.floats["padded.logits"].1;
    let mut runner = Runner::open(&Exported::new(fixture, options).graph);

    // The next tokens are read off the end of a row, which padding in front does not change.
    let shortest = mask.sum_axis(Axis(1)).iter().copied().min().unwrap();
    assert_eq!(shortest, 1, "one prompt is as short as can be");
    let together = generate(&mut runner, &ids, &mask);
    let mut largest = error(together[0].as_slice().unwrap(), expected);

    for row in 0..ids.nrows() {
        let padding = mask.row(row).iter().filter(|&&it| it == 0).count();
        let own = ids.slice(ndarray::s![row..row + 1, padding..]).to_owned();
        let alone = single(&mut runner, &own, &ids.row(row).to_vec());
        for (alone, together) in alone.iter().zip(&together) {
            let off = error(together.row(row).as_slice().unwrap(), alone);
            // A NaN must not get lost in a maximum.
            largest = if largest >= off { largest } else { off };
        }
    }
    largest
}

/// One prompt by itself, followed by the tokens that its padded row is followed by.
fn single(runner: &mut Runner, own: &Array2<i64>, padded: &[i64]) -> Vec<Vec<f32>> {
    let mut states = runner.empty_states(1);
    let mut total = own.ncols();
    let mut logits = vec![runner.step(own.clone(), Array2::ones((1, total)), &mut states)];
    for step in 0..STEPS {
        total += 1;
        let next = (padded[padded.len() - 1 - step % padded.len()] + step as i64) % 90;
        logits.push(runner.step(Array2::from_elem((1, 1), next), Array2::ones((1, total)), &mut states));
    }
    logits.into_iter().map(|logits| logits.into_raw_vec_and_offset().0).collect()
}

fn left(precision: Precision) -> Options {
    options(precision, DialectName::Contrib, Padding::Left)
}

#[test]
fn portable_always() {
    for fixture in TINY_RANDOM.into_iter().chain([TINY_CHAT]) {
        padded_rows_are_as_if_alone(fixture, portable(Precision::Fp32), OTHER_GRAPH);
    }
    padded_rows_are_as_if_alone(TINY_CHAT, portable(Precision::Fp16), FLOAT16);
}

#[test]
fn contrib_with_left_padding() {
    for fixture in TINY_RANDOM.into_iter().chain([TINY_CHAT]).filter(|fixture| !needs_portable(fixture)) {
        padded_rows_are_as_if_alone(fixture, left(Precision::Fp32), OTHER_GRAPH);
    }
    padded_rows_are_as_if_alone(TINY_CHAT, left(Precision::Fp16), FLOAT16);
}

#[test]
fn contrib_without_left_padding_is_not_exact() {
    // Should this ever become exact, `--padding left` has lost its purpose, or the test its power.
    let options = options(Precision::Fp32, DialectName::Contrib, Padding::None);
    let off = largest_error(TINY_CHAT, &options);
    assert!(off > 1e-3, "off by {off:e} only");
}
