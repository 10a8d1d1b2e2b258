//! What the decoder does beside computing: growing, ending, stopping, and refusing what does not fit.

use std::fs;
use std::thread;
use std::time::Instant;

use lfm2_export::recipe::Precision;
use lfm2_host::cancel::Cancel;
use lfm2_host::decoder::{Decoder, DecoderError, OrtDecoder, Rewind};
use lfm2_host::package::Package;
use lfm2_host::provider::{self, SessionOptions};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::{Memory, Session, SessionError};
use lfm2_tests::compare::{FLOAT16, SAME_GRAPH, error};
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, portable, rollback};

#[test]
fn caches_grow_without_changing_the_result() {
    // Over 1300 tokens the caches of both runs drift apart by their last bits.
    for (precision, tolerance) in [(Precision::Fp32, 4.0 * SAME_GRAPH), (Precision::Fp16, 2.0 * FLOAT16)] {
        let exported = Exported::new(TINY_CHAT, contrib(precision));
        let mut decoder = exported.decoder();
        // Past several blocks. The first decoder makes room for all of them at once, the second grows with every block.
        let tokens: Vec<u32> = (0..1300).map(|index| 20 + index % 37).collect();
        let expected = decoder.step(&tokens).unwrap().to_vec();
        let states = decoder.states().unwrap();

        let mut grown = exported.decoder();
        for part in tokens[..1298].chunks(100) {
            grown.step(part).unwrap();
        }
        grown.step(&tokens[1298..1299]).unwrap();
        let logits = grown.step(&tokens[1299..]).unwrap().to_vec();
        assert!(error(&logits, &expected) <= tolerance, "{precision:?}");
        for ((name, shape, found), (_, expected_shape, expected)) in grown.states().unwrap().iter().zip(&states) {
            assert_eq!(shape, expected_shape);
            assert!(error(found, expected) <= tolerance, "{precision:?}: {name}");
        }
    }
}

#[test]
fn long_prompts_are_run_in_chunks_with_the_same_result() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32)] {
        let mut decoder = Exported::new(TINY_CHAT, &options).decoder();
        let tokens: Vec<u32> = (0..40).map(|index| 20 + index * 7 % 90).collect();
        let expected = decoder.step(&tokens).unwrap().to_vec();
        let all = reset(&mut decoder).step_all(&tokens).unwrap();
        assert!(error(&all.row(39).to_vec(), &expected) <= SAME_GRAPH);
        for chunk in [1, 7, 39, 40, 41] {
            decoder.set_chunk(chunk);
            // Over the buffers of the run before: nothing of it may be seen.
            let logits = reset(&mut decoder).step(&tokens).unwrap().to_vec();
            assert!(error(&logits, &expected) <= SAME_GRAPH, "{options:?} in chunks of {chunk}");
            let rows = reset(&mut decoder).step_all(&tokens).unwrap();
            assert!(
                error(rows.as_slice().unwrap(), all.as_slice().unwrap()) <= SAME_GRAPH,
                "{options:?} in chunks of {chunk}"
            );
        }
    }
}

#[test]
fn states_in_other_memory_are_the_same() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32), rollback(contrib(Precision::Fp32))] {
        let exported = Exported::new(TINY_CHAT, &options);
        let mut shared = exported.decoder();
        // Whatever is bound has to be bound again, and states come back as new tensors.
        let mut apart = OrtDecoder::new(exported.session().taken_for(Memory::Apart), None).unwrap();
        assert!(!apart.can_rollback());
        let tokens: Vec<u32> = (0..40).map(|index| 20 + index * 7 % 90).collect();
        let run = |decoder: &mut OrtDecoder| {
            decoder.reset();
            let mut rows = decoder.step(&tokens[..20]).unwrap().to_vec();
            decoder.mark().unwrap();
            for _ in 0..2 {
                decoder.rewind().unwrap();
                for token in &tokens[20..30] {
                    rows.extend(decoder.step(&[*token]).unwrap());
                }
            }
            rows.extend(decoder.step_all(&tokens[30..33]).unwrap());
            rows.extend(decoder.step(&tokens[33..]).unwrap());
            rows
        };
        for _ in 0..2 {
            assert!(error(&run(&mut apart), &run(&mut shared)) <= SAME_GRAPH, "{options:?}");
        }
        for ((name, shape, found), (_, expected_shape, expected)) in
            apart.states().unwrap().iter().zip(&shared.states().unwrap())
        {
            assert_eq!(shape, expected_shape);
            assert!(error(found, expected) <= SAME_GRAPH, "{options:?}: {name}");
        }
    }
}

#[test]
fn a_long_prompt_stops_within_a_run() {
    let exported = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let mut decoder = exported.decoder();
    let cancel = Cancel::new();
    decoder.set_cancel(cancel.clone());
    let length = decoder.context_length().min(2000);
    decoder.set_chunk(length);
    let tokens: Vec<u32> = (0..length as u32).map(|index| 20 + index % 37).collect();
    let start = Instant::now();
    let expected = decoder.step(&tokens).unwrap().to_vec();
    let whole = start.elapsed();
    decoder.reset();

    let asked = thread::spawn({
        let cancel = cancel.clone();
        move || {
            thread::sleep(whole / 10);
            cancel.cancel();
        }
    });
    let start = Instant::now();
    assert!(matches!(decoder.step(&tokens), Err(DecoderError::Cancelled)));
    assert!(start.elapsed() < whole, "stopped in the one chunk that there is");
    asked.join().unwrap();
    assert!(decoder.is_empty(), "what was done is not known");
    // A single token is finished, so that an answer that is stopped keeps its state.
    decoder.step(&tokens[..1]).unwrap();
    assert_eq!(decoder.len(), 1);
    assert!(matches!(decoder.step(&tokens[1..3]), Err(DecoderError::Cancelled)));
    assert!(decoder.is_empty());
    cancel.clear();
    assert!(error(decoder.step(&tokens).unwrap().as_slice().unwrap(), &expected) <= SAME_GRAPH);
}

#[test]
fn a_failed_run_leaves_nothing_until_the_reset() {
    let exported = Exported::new("resaved", contrib(Precision::Fp32));
    let tokens: Vec<u32> = (0..800).map(|index| index % 90).collect();
    let expected = exported.decoder().step(&tokens[..5]).unwrap().to_vec();
    // With a longer context than the graph has position tables for, running fails.
    fs::remove_file(exported.package().join("lfm2.manifest.json")).unwrap();
    let mut bytes = fs::read(&exported.graph).unwrap();
    let (from, to) = (&br#""context_length":512"#[..], &br#""context_length":999"#[..]);
    let position = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[position..position + to.len()].copy_from_slice(to);
    fs::write(&exported.graph, bytes).unwrap();

    let mut decoder = exported.decoder();
    decoder.step(&tokens[..5]).unwrap();
    let failure = decoder.step(&tokens[5..]).unwrap_err();
    assert!(matches!(failure, DecoderError::Run { held: 5, .. }), "{failure}");
    let failure = decoder.step(&tokens[..1]).unwrap_err().to_string();
    assert!(failure.contains("undefined"), "{failure}");
    decoder.reset();
    assert!(error(decoder.step(&tokens[..5]).unwrap().as_slice().unwrap(), &expected) <= SAME_GRAPH);
}

#[test]
fn the_context_ends_with_an_error_and_nothing_is_lost() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32)] {
        let exported = Exported::new(TINY_CHAT, &options);
        let mut decoder = OrtDecoder::new(exported.session(), Some(10)).unwrap();
        assert_eq!((decoder.context_length(), decoder.len(), decoder.is_empty()), (10, 0, true));
        let tokens: Vec<u32> = (20..40).collect();
        let error_of = |decoder: &mut OrtDecoder, tokens: &[u32]| decoder.step(tokens).unwrap_err();
        let full = error_of(&mut decoder, &tokens[..11]);
        assert!(matches!(full, DecoderError::ContextFull { held: 0, given: 11, context_length: 10 }), "{full}");
        decoder.step(&tokens[..9]).unwrap();
        let full = error_of(&mut decoder, &tokens[9..11]);
        assert!(matches!(full, DecoderError::ContextFull { held: 9, given: 2, context_length: 10 }), "{full}");
        let last = decoder.step(&tokens[9..10]).unwrap().to_vec();
        assert!(matches!(error_of(&mut decoder, &[1]), DecoderError::ContextFull { held: 10, .. }));
        assert!(matches!(error_of(&mut decoder, &[]), DecoderError::NoTokens));

        decoder.reset();
        let vocab_size = decoder.vocab_size() as u32;
        let unknown = error_of(&mut decoder, &[1, vocab_size]);
        assert!(matches!(unknown, DecoderError::UnknownToken { .. }) && decoder.is_empty(), "{unknown}");
        let again = decoder.step(&tokens[..10]).unwrap().to_vec();
        assert!(error(&again, &last) <= SAME_GRAPH);
    }
}

#[test]
fn the_whole_context_of_the_model_can_be_used_and_no_more() {
    let exported = Exported::new("resaved", contrib(Precision::Fp32));
    let mut decoder = exported.decoder();
    let length = decoder.context_length();
    let tokens: Vec<u32> = (0..length as u32).map(|index| index % 90).collect();
    decoder.step(&tokens[..length - 1]).unwrap();
    assert!(decoder.step(&tokens[length - 1..]).unwrap().iter().all(|value| value.is_finite()));
    assert!(matches!(decoder.step(&[1]), Err(DecoderError::ContextFull { .. })));
    let message = OrtDecoder::new(exported.session(), Some(length + 1)).err().unwrap().to_string();
    assert!(message.contains("--max-context") && message.contains(&length.to_string()), "{message}");
}

#[test]
fn files_that_do_not_fit_their_description_are_errors() {
    let exported = Exported::new("resaved", contrib(Precision::Fp32));
    let data = exported.package().join("lfm2.onnx_data");
    fs::remove_file(exported.package().join("lfm2.manifest.json")).unwrap();
    let whole = fs::read(&exported.graph).unwrap();

    // Changes of the same length keep the file an ONNX file.
    for (from, to, part) in [
        (r#""vocab_size":96"#, r#""vocab_size":95"#, "no row of 95 logits"),
        (r#""present_conv.0","#, r#""present_conv.7","#, "no output present_conv.7"),
        (r#"{"name":"past_conv.0","#, r#"{"name":"past_conv.2","#, "past_conv.2 is described twice"),
        (r#"{"name":"past_conv.0","#, r#"{"name":"past_conv.9","#, "input past_conv.0 is not described"),
        (r#"{"name":"past_conv.0","dtype":"float32""#, r#"{"name":"past_conv.0","dtype":"float16""#, "past_conv.0 is"),
        (r#""shape":["batch_size",64,2]"#, r#""shape":["batch_size",63,2]"#, "63, 2]"),
        (r#""minimum_runtime_minor":30"#, r#""minimum_runtime_minor":99"#, "1.99 or newer"),
    ] {
        let position = whole.windows(from.len()).position(|bytes| bytes == from.as_bytes());
        let position = position.unwrap_or_else(|| panic!("{from} is not in the file"));
        let mut changed = whole.clone();
        changed[position..position + to.len()].copy_from_slice(to.as_bytes());
        fs::write(&exported.graph, changed).unwrap();
        let message = first_error(&exported).unwrap_or_else(|| panic!("{to} is accepted"));
        assert!(message.contains(part), "{to}: {message}");
    }
    for length in [whole.len() / 4, whole.len() / 2, whole.len() - 1] {
        fs::write(&exported.graph, &whole[..length]).unwrap();
        let message = first_error(&exported).unwrap_or_else(|| panic!("cut to {length} bytes"));
        assert!(message.contains("lfm2.onnx"), "{message}");
    }
    fs::write(&exported.graph, &whole).unwrap();
    assert_eq!(first_error(&exported), None);
    let weights = fs::read(&data).unwrap();
    fs::write(&data, &weights[..weights.len() / 2]).unwrap();
    let message = first_error(&exported).expect("half of the weights");
    assert!(message.contains("lfm2.onnx"), "{message}");
}

#[test]
fn exported_packages_verify_until_a_byte_changes() {
    let exported = Exported::new("resaved", contrib(Precision::Q8));
    let verify = || Package::open(&exported.package()).unwrap().verify();
    verify().unwrap();
    let data = exported.package().join("lfm2.onnx_data");
    let mut weights = fs::read(&data).unwrap();
    weights[100] ^= 1;
    fs::write(&data, weights).unwrap();
    let message = verify().unwrap_err().to_string();
    assert!(message.contains("lfm2.onnx_data") && !message.contains("config.json"), "{message}");
}

fn reset(decoder: &mut OrtDecoder) -> &mut OrtDecoder {
    decoder.reset();
    decoder
}

/// What the first step, or anything before it, fails with.
fn first_error(exported: &Exported) -> Option<String> {
    let package = match Package::open(&exported.graph) {
        Ok(package) => package,
        Err(error) => return Some(error.to_string()),
    };
    let session = match load(&package) {
        Ok(session) => session,
        Err(error) => return Some(error.to_string()),
    };
    match OrtDecoder::new(session, None) {
        Ok(mut decoder) => decoder.step(&[1, 2, 3]).err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn load(package: &Package) -> Result<Session, SessionError> {
    let runtime = Runtime::load(None).unwrap();
    Session::new(runtime, package, provider::named("cpu").unwrap(), &SessionOptions::default())
}

#[test]
fn a_marked_state_comes_back_as_it_was() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32), contrib(Precision::Fp16)] {
        let mut decoder = Exported::new(TINY_CHAT, &options).decoder();
        assert!(matches!(decoder.rewind(), Err(DecoderError::NotMarked)));
        let tokens: Vec<u32> = (0..1200).map(|index| 20 + index * 7 % 90).collect();
        decoder.step(&tokens[..30]).unwrap();
        decoder.mark().unwrap();
        let states = decoder.states().unwrap();
        let expected = decoder.step(&tokens[30..33]).unwrap().to_vec();
        // After a single step, and after so many that the caches were replaced.
        for more in [33..34, 33..1200] {
            decoder.step(&tokens[more]).unwrap();
            decoder.rewind().unwrap();
            assert_eq!((decoder.len(), decoder.states().unwrap()), (30, states.clone()), "{options:?}");
            // The same kernels on the same values: not a bit differs.
            assert_eq!(decoder.step(&tokens[30..33]).unwrap().to_vec(), expected, "{options:?}");
        }
        decoder.reset();
        assert!(matches!(decoder.rewind(), Err(DecoderError::NotMarked)));
    }
}
