//! Tier "chunking": prompts through the companion graph, answers through the general one, on one state.

use std::fs;

use lfm2_export::package::Options;
use lfm2_export::recipe::Precision;
use lfm2_host::decoder::{Decoder, OrtDecoder};
use lfm2_host::package::{Package, PackageError, Prefill};
use lfm2_tests::compare::{agreement, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, with_prefill};
use lfm2_tests::reference::Reference;

/// How far apart two ways may be, as part of the largest value.
#[derive(Clone, Copy)]
struct Bounds {
    error: f64,
    cosine: f64,
}

/// Chunks of other lengths take other kernels, whose sums are rounded otherwise: some 1e-6, through all layers.
const SAME: Bounds = Bounds { error: 1e-5, cosine: 0.999_999 };

/// 8-bit activations with one step for a whole token, through all layers: what lies in the last states is off by some percent of
/// the largest value.
const BYTES: Bounds = Bounds { error: 0.1, cosine: 0.99 };

fn tokens(count: usize) -> Vec<u32> {
    Reference::load(TINY_CHAT).input_ids.into_iter().cycle().take(count).collect()
}

fn states_agree(found: &OrtDecoder, expected: &OrtDecoder, bounds: Bounds, what: &str) {
    for ((name, shape, found), (_, expected_shape, expected)) in
        found.states().unwrap().iter().zip(&expected.states().unwrap())
    {
        assert_eq!(shape, expected_shape, "{what}: {name}");
        let agreement = agreement(found, expected, found.len());
        assert!(agreement.error <= bounds.error && agreement.cosine >= bounds.cosine, "{what}: {name}: {agreement:?}");
    }
}

#[test]
fn states_go_from_graph_to_graph() {
    for fixture in [TINY_CHAT, "bias", "untied", "width-4", "all-conv", "all-attention"] {
        let exported = Exported::new(fixture, with_prefill(Precision::Fp32));
        let vocabulary = exported.decoder().vocab_size() as u32;
        let ids: Vec<u32> = tokens(70).into_iter().map(|id| id % vocabulary).collect();
        let mut general = exported.decoder();
        let expected = general.step(&ids).unwrap().to_vec();
        // Tokens that go through the companion stand between those that do not.
        for cut in [&[70][..], &[40, 30], &[1, 40, 1, 1, 27], &[3, 33, 34], &[33, 1, 1, 35]] {
            let ways = [(exported.decoder_with_twin(30), SAME), (exported.decoder_with_companion(30), BYTES)];
            for (mut mixed, bounds) in ways {
                let mut logits = Vec::new();
                let mut start = 0;
                for length in cut {
                    logits = mixed.step(&ids[start..start + length]).unwrap().to_vec();
                    start += length;
                }
                assert!(mixed.companion().unwrap().is_loaded());
                let what = format!("{fixture} in {cut:?}");
                let agreement = agreement(&logits, &expected, logits.len());
                assert!(agreement.error <= bounds.error && agreement.cosine >= bounds.cosine, "{what}: {agreement:?}");
                states_agree(&mixed, &general, bounds, &what);
            }
        }
    }
}

/// However the caches grow, and whichever graph makes them, it is one state.
#[test]
fn caches_grow_under_both_graphs() {
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let ids = tokens(1300);
    let mut once = exported.decoder_with_twin(2);
    let expected = once.step(&ids).unwrap().to_vec();
    let mut grown = exported.decoder_with_twin(2);
    // The general graph has been bound to buffers that the companion's runs replace, and the other way round.
    for part in [&ids[..1], &ids[1..400], &ids[400..401], &ids[401..600], &ids[600..601], &ids[601..1299], &ids[1299..]]
    {
        grown.step(part).unwrap();
    }
    states_agree(&grown, &once, SAME, "grown");
    once.reset();
    let again = once.step(&ids).unwrap().to_vec();
    assert_eq!(again, expected, "a reset state is an empty one for both graphs");
}

#[test]
fn few_tokens_stay_with_the_general_graph() {
    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Fp32));
    let (mut general, mut mixed) = (exported.decoder(), exported.decoder_with_companion(30));
    let ids = tokens(60);
    for part in ids[..29].chunks(7) {
        assert_eq!(mixed.step(part).unwrap().to_vec(), general.step(part).unwrap().to_vec());
    }
    assert!(!mixed.companion().unwrap().is_loaded(), "nothing has needed it");
    mixed.step(&ids[29..]).unwrap();
    assert!(mixed.companion().unwrap().is_loaded());
    // All logits at once, through either graph.
    let all = mixed.step_all(&ids[..35]).unwrap();
    assert_eq!(all.shape(), [35, mixed.vocab_size()]);
    let last = mixed.step(&ids[..1]).unwrap().to_vec();
    assert_eq!(last.len(), mixed.vocab_size());
}

#[test]
fn a_companion_that_cannot_be_loaded_leaves_the_state_as_it_was() {
    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Fp32));
    let (mut general, mut mixed) = (exported.decoder(), exported.decoder_with_companion(10));
    let ids = tokens(30);
    mixed.step(&ids[..5]).unwrap();
    general.step(&ids[..5]).unwrap();
    fs::remove_file(exported.package().join("lfm2.prefill.onnx_data")).unwrap();
    for _ in 0..2 {
        let message = mixed.step(&ids[5..]).unwrap_err().to_string();
        assert!(message.contains("lfm2.prefill.onnx"), "{message}");
    }
    assert_eq!(mixed.step(&ids[5..9]).unwrap().to_vec(), general.step(&ids[5..9]).unwrap().to_vec());
}

#[test]
fn a_package_tells_what_is_wrong_with_its_companion() {
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Q4));
    assert!(Package::open(&exported.graph).unwrap().prefill(Prefill::Auto).unwrap().is_none());

    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Q4));
    let folder = exported.package();
    let package = Package::open(&folder).unwrap();
    assert_eq!(package.graph(), exported.graph, "the companion is never meant by the name of the folder");
    package.prefill(Prefill::Auto).unwrap().unwrap().verify().unwrap();

    for name in ["lfm2.prefill.onnx_data", "lfm2.prefill.onnx"] {
        let aside = folder.join("aside");
        fs::rename(folder.join(name), &aside).unwrap();
        // The graph itself is whole.
        let package = Package::open(&folder).unwrap();
        package.verify().unwrap();
        let failure = package.prefill(Prefill::Auto).unwrap_err();
        assert!(matches!(failure, PackageError::Prefill { .. }), "{failure}");
        let message = failure.to_string();
        assert!(message.contains(&format!("{name} is missing")) && message.contains("--prefill same"), "{message}");
        fs::rename(&aside, folder.join(name)).unwrap();
    }

    // Where the graph that decodes is the more exact one, the companion has to be asked for.
    for precision in [Precision::Q8, Precision::Fp32] {
        let exported = Exported::new(TINY_CHAT, with_prefill(precision));
        let package = Package::open(&exported.graph).unwrap();
        assert!(package.prefill(Prefill::Auto).unwrap().is_none(), "{precision}");
        assert!(package.prefill(Prefill::Int8).unwrap().is_some(), "{precision}");
    }

    // Of another export: the context is another one.
    let short = Exported::new(TINY_CHAT, Options { max_context: Some(100), ..with_prefill(Precision::Q4) });
    for exported in [&exported, &short] {
        fs::remove_file(exported.package().join("lfm2.manifest.json")).unwrap();
    }
    assert!(
        Package::open(&exported.graph).unwrap().prefill(Prefill::Auto).unwrap().is_some(),
        "without a manifest its name tells"
    );
    fs::copy(short.package().join("lfm2.prefill.onnx"), folder.join("lfm2.prefill.onnx")).unwrap();
    let failure = Package::open(&exported.graph).unwrap().prefill(Prefill::Auto).unwrap_err();
    assert!(matches!(failure, PackageError::Companion { .. }), "{failure}");
}

/// Companions are about faster prompts, not other ones: what the companion says is nearer to float32 than what 4 bits say.
#[test]
fn the_companion_is_as_faithful_as_the_graph_that_decodes() {
    let ids = tokens(64);
    let exact = Exported::new(TINY_CHAT, contrib(Precision::Fp32)).decoder().step_all(&ids).unwrap();
    let exported = Exported::new(TINY_CHAT, with_prefill(Precision::Q4));
    let off = |mut decoder: OrtDecoder| {
        let logits = decoder.step_all(&ids).unwrap();
        error(logits.as_slice().unwrap(), exact.as_slice().unwrap())
    };
    let (general, companion) = (off(exported.decoder()), off(exported.decoder_with_companion(2)));
    assert!(companion <= general, "{companion:e} against {general:e}");
}
