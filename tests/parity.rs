//! Tier "tiny parity": logits and states of whole models against transformers.

use lfm2_export::package::Options;
use lfm2_export::recipe::Precision;
use lfm2_tests::compare::{Agreement, agreement, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, TINY_RANDOM, contrib, needs_portable, portable};
use lfm2_tests::reference::Reference;

/// Logits at every position and states after the prompt, for one fixture.
fn compare(fixture: &str, options: Options) -> (Agreement, f64) {
    let reference = Reference::load(fixture);
    let mut decoder = Exported::new(fixture, options).decoder();
    let logits = decoder.step_all(&reference.input_ids).unwrap();
    let found = agreement(logits.as_slice().unwrap(), reference.logits(), logits.ncols());

    let contract = decoder.contract().clone();
    let states = decoder.states().unwrap();
    assert_eq!(states.len(), contract.states.len());
    let mut worst = 0.0_f64;
    for (state, (name, _, values)) in contract.states.iter().zip(&states) {
        assert_eq!(*name, state.present.name);
        worst = worst.max(error(values, reference.state(&state.past.name)));
    }
    println!("{fixture:14} {:?} {:?}: {found:?}, states {worst:.1e}", options.dialect, options.precision);
    (found, worst)
}

fn float32(fixture: &str, options: Options) {
    let (logits, states) = compare(fixture, options);
    assert!(logits.cosine >= 0.999_999, "{fixture} {options:?}: {logits:?}");
    assert!(logits.error <= 2e-5, "{fixture} {options:?}: {logits:?}");
    assert!(logits.argmax, "{fixture} {options:?}: {logits:?}");
    assert!(states <= 2e-5, "{fixture} {options:?}: states are off by {states:e}");
}

fn float16(fixture: &str, options: Options) {
    let (logits, states) = compare(fixture, options);
    assert!(logits.cosine >= 0.9999, "{fixture} {options:?}: {logits:?}");
    // Half an ulp of float16 is 5e-4; sums of rounded products over a few layers stay within some of them.
    assert!(states <= 1e-2, "{fixture} {options:?}: states are off by {states:e}");
}

fn with_contrib() -> impl Iterator<Item = &'static str> {
    TINY_RANDOM.into_iter().chain([TINY_CHAT]).filter(|fixture| !needs_portable(fixture))
}

fn with_portable() -> impl Iterator<Item = &'static str> {
    TINY_RANDOM.into_iter().chain([TINY_CHAT])
}

#[test]
fn contrib_float32() {
    with_contrib().for_each(|fixture| float32(fixture, contrib(Precision::Fp32)));
}

#[test]
fn portable_float32() {
    with_portable().for_each(|fixture| float32(fixture, portable(Precision::Fp32)));
}

#[test]
fn contrib_float16() {
    with_contrib().for_each(|fixture| float16(fixture, contrib(Precision::Fp16)));
}

#[test]
fn portable_float16() {
    with_portable().for_each(|fixture| float16(fixture, portable(Precision::Fp16)));
}

#[test]
fn quantized_models_stay_close() {
    // Rounding to 4 and 8 bits is not an error of ours, but how much it may cost is known for the trained model.
    let reference = Reference::load(TINY_CHAT);
    for (precision, cosine) in [(Precision::Q8, 0.9995), (Precision::Q4, 0.97), (Precision::Q4f16, 0.97)] {
        let mut decoder = Exported::new(TINY_CHAT, contrib(precision)).decoder();
        let logits = decoder.step_all(&reference.input_ids).unwrap();
        let found = agreement(logits.as_slice().unwrap(), reference.logits(), logits.ncols());
        println!("{precision}: {found:?}");
        assert!(found.cosine >= cosine, "{precision}: {found:?}");
    }
}

#[test]
fn every_fixture_is_tested() {
    let folder = lfm2_tests::packages::fixture("x");
    let mut names: Vec<_> =
        std::fs::read_dir(folder.parent().unwrap()).unwrap().map(|it| it.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, TINY_RANDOM);
}
