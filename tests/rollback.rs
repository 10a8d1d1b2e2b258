//! Tier "chunking": a state that is cut is the state of the tokens that are left.

use lfm2_export::package::Options;
use lfm2_export::recipe::Precision;
use lfm2_host::decoder::{Decoder, DecoderError, OrtDecoder, StateValues};
use lfm2_tests::compare::{FLOAT16, SAME_GRAPH, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, TINY_RANDOM, contrib, needs_portable, portable, rollback};
use lfm2_tests::reference::Reference;

/// Tokens of a verified run: more than the state of the widest convolution has columns.
const RUN: usize = 7;

/// Tokens before the run: none, less than a convolution sees, and more.
const BEFORE: [usize; 3] = [0, 1, 9];

fn tokens(fixture: &str, count: usize) -> Vec<u32> {
    Reference::load(fixture).input_ids.into_iter().cycle().take(count).collect()
}

/// A decoder that has run `before`.
fn after<'d>(decoder: &'d mut OrtDecoder, before: &[u32]) -> &'d mut OrtDecoder {
    decoder.reset();
    if !before.is_empty() {
        decoder.step(before).unwrap();
    }
    decoder
}

fn compare(found: &[StateValues], expected: &[StateValues], tolerance: f64, what: &str) {
    for ((name, shape, found), (_, expected_shape, expected)) in found.iter().zip(expected) {
        assert_eq!(shape, expected_shape, "{what}: {name}");
        let off = error(found, expected);
        assert!(off <= tolerance, "{what}: {name} is off by {off:e}");
    }
}

fn cuts_are_exact(fixture: &str, options: Options, tolerance: f64) {
    let exported = Exported::new(fixture, rollback(options.clone()));
    let (mut decoder, mut plain) = (exported.decoder(), exported.decoder());
    for before in BEFORE {
        let ids = tokens(fixture, before + RUN + 1);
        let (before, rest) = ids.split_at(before);
        let (run, next) = rest.split_at(RUN);
        let all = after(&mut plain, before).step_all(run).unwrap();
        for kept in 0..=RUN {
            let what = format!("{fixture} {options:?} {} + {kept} of {RUN}", before.len());
            let rows = after(&mut decoder, before).verify(run).unwrap();
            let off = error(&rows.iter().copied().collect::<Vec<_>>(), all.as_slice().unwrap());
            assert!(off <= tolerance, "{what}: logits are off by {off:e}");
            decoder.truncate(before.len() + kept).unwrap();
            assert_eq!(decoder.len(), before.len() + kept);
            let cut = decoder.states().unwrap();

            // What was cut off leaves no trace, to the bit.
            let other: Vec<u32> =
                run[..kept].iter().copied().chain((kept..RUN).map(|index| 30 + index as u32)).collect();
            after(&mut plain, before).verify(&other).unwrap();
            plain.truncate(before.len() + kept).unwrap();
            compare(&cut, &plain.states().unwrap(), 0.0, &what);

            // Kernels for less rows may round otherwise.
            after(&mut plain, before);
            if kept > 0 {
                plain.step(&run[..kept]).unwrap();
            }
            compare(&cut, &plain.states().unwrap(), tolerance, &what);
            let expected = plain.step(next).unwrap().to_vec();
            let off = error(decoder.step(next).unwrap().as_slice().unwrap(), &expected);
            assert!(off <= tolerance, "{what}: the next logits are off by {off:e}");
        }
    }
}

#[test]
fn float32() {
    for fixture in TINY_RANDOM.into_iter().chain([TINY_CHAT]) {
        if !needs_portable(fixture) {
            cuts_are_exact(fixture, contrib(Precision::Fp32), SAME_GRAPH);
        }
        cuts_are_exact(fixture, portable(Precision::Fp32), SAME_GRAPH);
    }
}

#[test]
fn float16() {
    for fixture in ["width-5", TINY_CHAT] {
        cuts_are_exact(fixture, contrib(Precision::Fp16), FLOAT16);
        cuts_are_exact(fixture, portable(Precision::Fp16), FLOAT16);
    }
}

#[test]
fn quantized() {
    // Kernels for one and for several rows round differently, which blocks of 4 bits amplify.
    cuts_are_exact(TINY_CHAT, contrib(Precision::Q8), 2e-2);
    cuts_are_exact(TINY_CHAT, contrib(Precision::Q4), 5e-2);
}

/// A long sequence with guesses of which none, some and all are right, across growing caches.
#[test]
fn a_sequence_of_cuts_is_the_sequence_of_what_was_kept() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32)] {
        let exported = Exported::new(TINY_CHAT, rollback(options.clone()));
        let ids: Vec<u32> = (0..620).map(|index| 20 + index * 7 % 90).collect();
        let mut decoder = exported.decoder();
        decoder.step(&ids[..500]).unwrap();
        let mut turn = 0;
        while decoder.len() < ids.len() {
            let start = decoder.len();
            let (right, wrong) = (turn % 4, turn % 3);
            let right = right.min(ids.len() - start);
            let run: Vec<u32> = ids[start..start + right].iter().copied().chain((0..wrong).map(|_| 5)).collect();
            turn += 1;
            match run.len() {
                0 => drop(decoder.step(&ids[start..=start]).unwrap()),
                _ => drop(decoder.verify(&run).unwrap()),
            }
            if !run.is_empty() {
                // In two cuts, which is the same as in one.
                decoder.truncate(start + right + wrong / 2).unwrap();
                decoder.truncate(start + right).unwrap();
            }
        }
        let mut plain = exported.decoder();
        plain.step(&ids).unwrap();
        // Over so many tokens the caches of both drift apart by their last bits.
        compare(&decoder.states().unwrap(), &plain.states().unwrap(), 4.0 * SAME_GRAPH, &format!("{options:?}"));
    }
}

#[test]
fn only_verified_tokens_can_be_taken_back() {
    let exported = Exported::new(TINY_CHAT, rollback(contrib(Precision::Fp32)));
    let mut decoder = exported.decoder();
    assert!(decoder.can_rollback());
    decoder.step(&[20, 21, 22]).unwrap();
    let refused = |decoder: &mut OrtDecoder, len| {
        let error = decoder.truncate(len).unwrap_err();
        assert!(matches!(error, DecoderError::NotCuttable { .. }), "{error}");
    };
    refused(&mut decoder, 2);
    decoder.truncate(3).unwrap();
    decoder.verify(&[23, 24]).unwrap();
    refused(&mut decoder, 2);
    refused(&mut decoder, 6);
    decoder.truncate(4).unwrap();
    refused(&mut decoder, 5);
    decoder.step(&[25]).unwrap();
    refused(&mut decoder, 4);
    assert!(matches!(decoder.verify(&[]), Err(DecoderError::NoTokens)));
    assert!(matches!(decoder.verify(&[5000]), Err(DecoderError::UnknownToken { .. })));
    let mut short = OrtDecoder::new(exported.session(), Some(4)).unwrap();
    short.step(&[20, 21, 22]).unwrap();
    assert!(matches!(short.verify(&[23, 24]), Err(DecoderError::ContextFull { held: 3, given: 2, .. })));
    short.verify(&[23]).unwrap();
    short.truncate(3).unwrap();
    short.reset();
    refused(&mut short, 3);
}

#[test]
fn graphs_without_columns_say_what_is_missing() {
    let mut decoder = Exported::new(TINY_CHAT, contrib(Precision::Fp32)).decoder();
    assert!(!decoder.can_rollback());
    let message = decoder.verify(&[20, 21]).unwrap_err().to_string();
    assert!(message.contains("lfm2-export MODEL --rollback"), "{message}");
    assert!(decoder.is_empty());
    // Caches alone can always be shortened.
    assert!(Exported::new("all-attention", contrib(Precision::Fp32)).decoder().can_rollback());
}
