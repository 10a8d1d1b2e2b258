//! Guessing ahead over a scripted decoder: less runs, and nothing else is different.

use std::time::Duration;

use super::super::{
    fake::{END, Fake, VOCAB, cancel_after, engine, greedy, only, settings, tokens},
    *,
};
use crate::{
    cancel::Cancel,
    decoder::DecoderError,
    generation::{Generation, Overrides},
};

/// Ten words, twice: the second time they can be looked up.
const TEXT: &str = "apple river stone cloud bread light house green paper silver";

fn guessing(fake: Fake, longest: usize) -> Engine<Fake> {
    let mut engine = engine(fake);
    engine.speculate(longest).unwrap();
    engine.set_draft_cost(DraftCost::Fixed(0.3)).unwrap();
    engine
}

/// Lengths of the steps.
fn lengths(engine: &Engine<Fake>) -> Vec<usize> {
    engine.decoder().steps.iter().map(Vec::len).collect()
}

/// An answer that repeats the prompt.
fn repeat(generation: &Generation, context: usize, longest: usize) -> (Answer, String, Engine<Fake>) {
    let prompt = tokens(&format!(" {TEXT}"));
    let mut engine = guessing(Fake::repeating(context, prompt.len(), prompt.clone()), longest);
    let mut pieces = String::new();
    let answer = engine.generate(&prompt, generation, &Cancel::new(), &mut |text| pieces.push_str(text)).unwrap();
    (answer, pieces, engine)
}

#[test]
fn a_repetition_needs_few_runs() {
    let (plain, _, without) = repeat(&greedy(), 200, 0);
    assert_eq!(lengths(&without)[1..], vec![1; plain.timings.decode_runs]);
    assert_eq!((plain.timings.decode_runs, plain.timings.drafted_tokens), (plain.timings.decode_tokens, 0));
    let (answer, pieces, engine) = repeat(&greedy(), 200, 8);
    assert_eq!((&answer.text, &answer.tokens, answer.finish_reason), (&plain.text, &plain.tokens, plain.finish_reason));
    assert_eq!(pieces, answer.text);
    let Timings { decode_runs, decode_tokens, drafted_tokens, accepted_tokens, .. } = answer.timings;
    assert_eq!(decode_runs, engine.decoder().steps.len() - 1);
    assert!(3 * decode_runs <= decode_tokens, "{:?}", lengths(&engine));
    assert!(lengths(&engine)[1..].iter().all(|&length| length <= 9), "{:?}", lengths(&engine));
    // Only what was guessed behind the end was wrong.
    assert_eq!(decode_runs + accepted_tokens, decode_tokens);
    assert!(accepted_tokens <= drafted_tokens && drafted_tokens < accepted_tokens + 8, "{drafted_tokens}");
    assert_eq!((engine.state_tokens(), engine.decoder().len()), (without.state_tokens(), without.decoder().len()));
}

#[test]
fn limits_and_stops_within_a_draft_are_exact() {
    let prompt = tokens(&format!(" {TEXT}"));
    let generations = (1..prompt.len() + 2)
        .map(|limit| Generation { max_new_tokens: Some(limit), ..greedy() })
        .chain(
            ["cloud", "d bre", " ", "silver", "silvers"].map(|stop| Generation { stop: vec![stop.into()], ..greedy() }),
        )
        .chain([Generation { eos: vec![END, prompt[6]], ..greedy() }]);
    for generation in generations {
        let (expected, _, plain) = repeat(&generation, 200, 0);
        let (answer, pieces, engine) = repeat(&generation, 200, 8);
        assert_eq!((answer.tokens, &answer.text), (expected.tokens, &expected.text), "{generation:?}");
        assert_eq!((pieces, answer.finish_reason), (answer.text, expected.finish_reason), "{generation:?}");
        assert_eq!(engine.decoder().len(), plain.decoder().len(), "{generation:?}");
        assert_eq!(engine.state_tokens(), engine.decoder().len(), "{generation:?}");
    }
    for context in prompt.len()..2 * prompt.len() + 2 {
        let (expected, _, plain) = repeat(&greedy(), context, 0);
        // The decoder fails if it is given more than it holds.
        let (answer, _, engine) = repeat(&greedy(), context, 8);
        assert_eq!((answer.tokens, answer.finish_reason), (expected.tokens, expected.finish_reason), "{context}");
        assert_eq!(engine.decoder().len(), plain.decoder().len(), "{context}");
    }
}

#[test]
fn wrong_guesses_are_taken_back_and_become_rare() {
    // The prompt says that 400 is followed by 401, 402, and that is never so. Some of what follows is the same word with and
    // without a space, which may be guessed.
    let prompt = [400, 401, 402, 400, 401, 402];
    let said: Vec<u32> = (0..120).flat_map(|index| [400, 500 + index]).collect();
    let mut engine = guessing(Fake::repeating(1000, prompt.len(), said.clone()), 8);
    let answer = engine.generate(&prompt, &greedy(), &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(answer.tokens, [&said[..], &[END]].concat());
    let Timings { decode_runs, decode_tokens, drafted_tokens, accepted_tokens, .. } = answer.timings;
    assert_eq!(decode_runs + accepted_tokens, decode_tokens);
    assert!(accepted_tokens < 10 && (1..80).contains(&drafted_tokens), "{accepted_tokens} of {drafted_tokens}");
    assert_eq!(engine.decoder().len(), prompt.len() + said.len());
    // The state can be continued.
    let longer = [&prompt[..], &said, &[300]].concat();
    let next = engine.generate(&longer, &greedy(), &Cancel::new(), &mut |_| {}).unwrap();
    assert_eq!(next.timings.reused_tokens, longer.len() - 1);
}

#[test]
fn cancelling_within_a_draft_keeps_what_was_said() {
    let prompt = tokens(&format!(" {TEXT}"));
    for calls in 1..12 {
        let [expected, found] = [0, 8].map(|longest| {
            let mut engine = guessing(Fake::repeating(200, prompt.len(), prompt.clone()), longest);
            let cancel = Cancel::new();
            let answer = engine.generate(&prompt, &greedy(), &cancel, &mut cancel_after(calls, &cancel)).unwrap();
            (answer.tokens, answer.text, answer.finish_reason, engine.decoder().len())
        });
        assert_eq!(found, expected, "after {calls} pieces");
    }
}

#[test]
fn a_failed_verification_leaves_no_state() {
    let prompt = tokens(&format!(" {TEXT}"));
    let mut fake = Fake::repeating(200, prompt.len(), prompt.clone());
    fake.failure = Some((2, || DecoderError::Run { held: 2, source: "device lost".into() }));
    let mut engine = guessing(fake, 8);
    let error = engine.generate(&prompt, &greedy(), &Cancel::new(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("device lost"), "{error}");
    assert!(lengths(&engine)[2] > 1, "a verification");
    assert_eq!((engine.state_tokens(), engine.decoder().len()), (0, 0));
}

#[test]
fn a_decoder_that_takes_nothing_back_is_refused() {
    let mut engine = engine(Fake::saying(100, []));
    let message = engine.speculate(4).unwrap_err().to_string();
    assert!(message.contains("lfm2-export MODEL --rollback") && message.contains("--speculate"), "{message}");
    engine.speculate(0).unwrap();
}

#[test]
fn the_cost_of_guesses_is_learnt_from_answer_to_answer() {
    let prompt = tokens(&[TEXT; 20].join(" "));
    let paces: [fn(usize) -> Duration; 2] =
        [|tokens| Duration::from_millis(10 * tokens as u64), |tokens| Duration::from_millis(100 + tokens as u64)];
    let [dear, cheap] = paces.map(|pace| {
        let fake = Fake::new(1000, {
            let prompt = prompt.clone();
            move |history| only(prompt[history.len() % prompt.len()])
        });
        let mut engine = engine(fake.with_rollback().with_pace(pace));
        engine.speculate(8).unwrap();
        let generation = Generation { max_new_tokens: Some(120), ..greedy() };
        [0, 1].map(|_| {
            engine.reset();
            engine.generate(&prompt, &generation, &Cancel::new(), &mut |_| {}).unwrap().timings.drafted_tokens
        })
    });
    // At first tokens are taken to cost what they usually do; by the second answer it is known that these pay nothing.
    assert!(dear[0] > 0 && dear[1] <= 16, "{dear:?}");
    assert!(cheap[0] >= 80 && cheap[1] >= cheap[0], "{cheap:?}");
}

#[test]
fn a_cost_of_guesses_is_a_number_of_at_least_0() {
    let mut engine = engine(Fake::saying(100, []));
    for cost in [-0.1, f64::NAN] {
        let error = engine.set_draft_cost(DraftCost::Fixed(cost)).unwrap_err().to_string();
        assert!(error.contains(&cost.to_string()) && error.contains("at least 0"), "{error}");
    }
    for cost in [DraftCost::Fixed(0.0), DraftCost::Fixed(f64::INFINITY), DraftCost::Learnt] {
        engine.set_draft_cost(cost).unwrap();
    }
}

/// Logits that depend on the last two tokens and leave several choices of some 20 tokens, so that guesses are right and wrong.
fn mixed(history: &[u32]) -> Vec<f32> {
    let seed = history.iter().rev().take(2).fold(17_u32, |seed, token| seed.wrapping_mul(31).wrapping_add(*token));
    let mut logits = vec![f32::NEG_INFINITY; VOCAB];
    for choice in 0..4_u32 {
        logits[300 + (seed.wrapping_mul(2_654_435_761).rotate_left(8 * choice) % 20) as usize] = choice as f32;
    }
    logits[END as usize] = -2.0;
    logits
}

proptest::proptest! {
    /// The same tokens, random numbers and state, however tokens are drawn and wherever the limits lie.
    #[test]
    fn guessing_changes_nothing_but_the_runs(
        prompt in proptest::collection::vec(300_u32..320, 1..30),
        seed in 0_u64..1000,
        temperature in 0..3,
        penalty in 0..2,
        limit in 1_usize..80,
        room in 0_usize..80,
        longest in 1_usize..10,
    ) {
        let overrides = Overrides {
            temperature: Some([0.0, 0.5, 1.0][temperature as usize]),
            repetition_penalty: Some([1.0, 1.3][penalty as usize]),
            seed: Some(seed),
            max_new_tokens: Some(limit),
            ..Overrides::default()
        };
        let generation = settings(&overrides);
        let [expected, found] = [0, longest].map(|longest| {
            let mut engine = guessing(Fake::new(prompt.len() + room, mixed).with_rollback(), longest);
            let answer = engine.generate(&prompt, &generation, &Cancel::new(), &mut |_| {}).unwrap();
            assert_eq!(engine.state_tokens(), engine.decoder().len());
            (answer.tokens, answer.text, answer.finish_reason, engine.decoder().len())
        });
        proptest::prop_assert_eq!(found, expected);
    }
}
