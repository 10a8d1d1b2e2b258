//! Tier "chunking": one shot, any chunks and token by token are the same, logits and states.

use lfm2_export::package::Options;
use lfm2_export::recipe::Precision;
use lfm2_host::decoder::Decoder;
use lfm2_tests::compare::{FLOAT16, SAME_GRAPH, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, needs_portable, portable};
use lfm2_tests::reference::Reference;

/// Ways to cut 24 tokens.
const CUTS: [&[usize]; 6] = [&[23, 1], &[1, 23], &[2, 2, 20], &[7, 1, 1, 15], &[5, 6, 13], &[1; 24]];

fn chunks_are_exact(fixture: &str, options: Options, tolerance: f64) {
    let ids: Vec<u32> = Reference::load(fixture).input_ids.into_iter().cycle().take(24).collect();
    let exported = Exported::new(fixture, &options);
    let mut decoder = exported.decoder();
    let whole = decoder.step_all(&ids).unwrap();
    let states = decoder.states().unwrap();
    for cut in CUTS {
        assert_eq!(cut.iter().sum::<usize>(), ids.len());
        decoder.reset();
        let mut start = 0;
        for &length in cut {
            let logits = decoder.step_all(&ids[start..start + length]).unwrap();
            let expected = whole.slice(ndarray::s![start..start + length, ..]).to_owned();
            let off = error(logits.as_slice().unwrap(), expected.as_slice().unwrap());
            assert!(off <= tolerance, "{fixture} {options:?} {cut:?} at {start}: logits are off by {off:e}");
            start += length;
        }
        for ((name, shape, found), (_, expected_shape, expected)) in decoder.states().unwrap().iter().zip(&states) {
            assert_eq!(shape, expected_shape, "{name}");
            let off = error(found, expected);
            assert!(off <= tolerance, "{fixture} {options:?} {cut:?}: {name} is off by {off:e}");
        }
    }
}

#[test]
fn float32() {
    for fixture in ["original", "width-2", "width-4", "width-5", "bias-width-4", "all-conv", "all-attention", TINY_CHAT]
    {
        assert!(!needs_portable(fixture));
        chunks_are_exact(fixture, contrib(Precision::Fp32), SAME_GRAPH);
        chunks_are_exact(fixture, portable(Precision::Fp32), SAME_GRAPH);
    }
    chunks_are_exact("head-dim-24", portable(Precision::Fp32), SAME_GRAPH);
}

#[test]
fn float16() {
    for fixture in ["original", TINY_CHAT] {
        chunks_are_exact(fixture, contrib(Precision::Fp16), FLOAT16);
        chunks_are_exact(fixture, portable(Precision::Fp16), FLOAT16);
    }
}

#[test]
fn quantized() {
    // Kernels for one and for several rows round differently, which blocks of 4 bits amplify.
    chunks_are_exact(TINY_CHAT, contrib(Precision::Q8), 2e-2);
    chunks_are_exact(TINY_CHAT, contrib(Precision::Q4), 5e-2);
}

#[test]
fn the_decoders_own_chunks_are_exact() {
    let ids: Vec<u32> = Reference::load(TINY_CHAT).input_ids.into_iter().cycle().take(1500).collect();
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32)] {
        let mut decoder = Exported::new(TINY_CHAT, &options).decoder();
        decoder.set_chunk(usize::MAX);
        let expected = decoder.step(&ids).unwrap().to_vec();
        for chunk in [512, 100] {
            decoder.reset();
            decoder.set_chunk(chunk);
            let off = error(decoder.step(&ids).unwrap().as_slice().unwrap(), &expected);
            // Over 1500 tokens the caches of both runs drift apart by their last bits.
            assert!(off <= 2.0 * SAME_GRAPH, "{options:?} chunks of {chunk}: logits are off by {off:e}");
            assert_eq!(decoder.len(), ids.len());
        }
    }
}
