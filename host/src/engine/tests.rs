//! The generation loop over a scripted decoder.

mod guessing;

use std::{cell::RefCell, rc::Rc};

use super::{
    fake::{END, Fake, VOCAB, cancel_after, engine, greedy, only, settings, tokenizer, tokens},
    *,
};
use crate::{
    cancel::Cancel,
    generation::{Generation, Overrides},
};

fn ignore(_: &str) {}

/// The answer to a short prompt, and the pieces of text in order.
fn run(engine: &mut Engine<Fake>, generation: &Generation) -> (Answer, Vec<String>) {
    let mut pieces = Vec::new();
    let answer = engine
        .generate(&tokens("Say it."), generation, &Cancel::new(), &mut |text| pieces.push(text.to_owned()))
        .unwrap();
    (answer, pieces)
}

#[test]
fn the_end_token_ends_the_answer_and_is_not_in_the_text() {
    let said = tokens("The capital of France is Paris.");
    let mut engine = engine(Fake::saying(100, said.clone()));
    let (answer, pieces) = run(&mut engine, &greedy());
    assert_eq!(answer.text, "The capital of France is Paris.");
    assert_eq!(pieces.concat(), answer.text);
    assert!(pieces.len() > 3, "the text comes in pieces: {pieces:?}");
    assert_eq!(answer.finish_reason, FinishReason::Stop);
    assert_eq!(answer.tokens, [&said[..], &[END]].concat());
    assert_eq!(answer.prompt_tokens, tokens("Say it.").len());
    assert_eq!(answer.timings.prefill_tokens, answer.prompt_tokens);
    assert_eq!(answer.timings.decode_tokens, said.len());
    // The prompt in one step, then one token each; the end token is never fed.
    let steps: Vec<usize> = engine.decoder().steps.iter().map(Vec::len).collect();
    assert_eq!(steps, [vec![answer.prompt_tokens], vec![1; said.len()]].concat());
}

#[test]
fn the_number_of_tokens_is_limited() {
    for limit in 0..4 {
        let said = tokens("one two three four five six");
        let mut engine = engine(Fake::saying(100, said.clone()));
        let (answer, _) = run(&mut engine, &Generation { max_new_tokens: Some(limit), ..greedy() });
        assert_eq!(answer.finish_reason, FinishReason::Length);
        assert_eq!(answer.tokens, said[..limit]);
        assert_eq!(answer.text, tokenizer().decode(&said[..limit]).unwrap());
        assert_eq!(engine.decoder().steps.len(), limit, "nothing is computed that nobody asks for");
    }
}

#[test]
fn a_full_context_ends_the_answer() {
    let prompt = tokens("Say it.");
    for room in 0..3 {
        let mut engine = engine(Fake::new(prompt.len() + room, |_| only(300)));
        let (answer, _) = run(&mut engine, &greedy());
        assert_eq!(answer.finish_reason, FinishReason::Context);
        // The last token needs no place: it is sampled from the logits of the one before.
        assert_eq!(answer.tokens.len(), room + 1);
        assert_eq!(engine.state_tokens(), prompt.len() + room);
    }
}

#[test]
fn a_decoder_that_runs_out_of_context_ends_the_answer() {
    let mut fake = Fake::new(100, |_| only(300));
    fake.failure = Some((2, || DecoderError::ContextFull { held: 5, given: 1, context_length: 5 }));
    let mut engine = engine(fake);
    let (answer, _) = run(&mut engine, &greedy());
    assert_eq!(answer.finish_reason, FinishReason::Context);
    assert_eq!(answer.tokens, [300, 300]);
    assert_eq!(engine.state_tokens(), tokens("Say it.").len() + 1);
}

#[test]
fn prompts_that_cannot_run_are_refused_with_their_numbers() {
    let mut engine = engine(Fake::saying(4, []));
    let mut error =
        |prompt: &[u32]| engine.generate(prompt, &greedy(), &Cancel::new(), &mut ignore).unwrap_err().to_string();
    assert!(error(&[300; 5]).contains("has 5 tokens, but the context holds 4"));
    assert!(error(&[]).contains("empty"));
    assert!(error(&[300, VOCAB as u32]).contains("token 1024"));
    assert!(engine.decoder().is_empty());
}

#[test]
fn stop_strings_are_found_across_tokens_and_never_shown() {
    let text = "apple river stone cloud bread";
    let said = tokens(text);
    for stop in ["river", "r stone cl", " ", "e r", "bread", "read", "apple"] {
        let mut engine = engine(Fake::saying(100, said.clone()));
        let (answer, pieces) = run(&mut engine, &Generation { stop: vec![stop.into()], ..greedy() });
        assert_eq!(answer.finish_reason, FinishReason::Stop, "{stop}");
        assert_eq!(answer.text, text[..text.find(stop).unwrap()], "{stop}");
        assert_eq!(pieces.concat(), answer.text, "{stop}");
        assert!(said.starts_with(&answer.tokens) && !answer.tokens.contains(&END), "{stop}");
    }
    // What only looked like the beginning of a stop string is shown in the end.
    let mut engine = engine(Fake::saying(100, said));
    let (answer, pieces) = run(&mut engine, &Generation { stop: vec!["breads".into()], ..greedy() });
    assert_eq!((answer.text.as_str(), pieces.concat().as_str()), (text, text));
}

#[test]
fn characters_made_of_several_tokens_come_whole() {
    let text = "👋😀 こんにちは مرحبا";
    let mut engine = engine(Fake::saying(200, tokens(text)));
    let (answer, pieces) = run(&mut engine, &greedy());
    assert_eq!(answer.text, text);
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
}

#[test]
fn special_tokens_are_hidden() {
    let mut said = tokens("yes");
    said.insert(0, 10);
    let mut engine = engine(Fake::saying(100, said.clone()));
    let (answer, _) = run(&mut engine, &greedy());
    assert_eq!(answer.text, "yes");
    assert_eq!(answer.tokens[..said.len()], said);
}

#[test]
fn cancelling_keeps_what_was_said() {
    let mut engine = engine(Fake::new(100, |_| only(300)));
    let cancel = Cancel::new();
    let answer = engine.generate(&tokens("Go"), &greedy(), &cancel, &mut cancel_after(3, &cancel)).unwrap();
    assert_eq!(answer.finish_reason, FinishReason::Cancelled);
    assert_eq!(answer.tokens, [300; 3]);
    // Cancelled before it began: nothing is computed.
    let steps = engine.decoder().steps.len();
    let answer = engine.generate(&tokens("Go"), &greedy(), &cancel, &mut ignore).unwrap();
    assert_eq!((answer.finish_reason, answer.tokens.len()), (FinishReason::Cancelled, 0));
    assert_eq!(engine.decoder().steps.len(), steps);
}

#[test]
fn an_interrupted_prefill_goes_on_where_it_was() {
    let mut fake = Fake::saying(100, []);
    fake.failure = Some((0, || DecoderError::Cancelled));
    let mut engine = engine(fake);
    let prompt = [300; 10];
    let mut reused = || {
        let answer = engine.generate(&prompt, &greedy(), &Cancel::new(), &mut ignore).unwrap();
        (answer.finish_reason, answer.timings.reused_tokens)
    };
    assert_eq!(reused(), (FinishReason::Cancelled, 0));
    assert_eq!(reused(), (FinishReason::Stop, 5));
}

#[test]
fn a_failed_step_leaves_no_state() {
    let mut fake = Fake::new(100, |_| only(300));
    fake.failure = Some((1, || DecoderError::Run { held: 2, source: "device lost".into() }));
    let mut engine = engine(fake);
    let error = engine.generate(&[300, 301], &greedy(), &Cancel::new(), &mut ignore).unwrap_err();
    assert!(error.to_string().contains("device lost"), "{error}");
    assert_eq!((engine.state_tokens(), engine.decoder().len()), (0, 0));
}

#[test]
fn the_state_is_used_again_only_by_prompts_that_continue_it() {
    let prompt = tokens("one two three");
    let limited = Generation { max_new_tokens: Some(3), ..greedy() };
    let mut engine = engine(Fake::new(200, |_| only(300)));
    let mut reused = |prompt: &[u32]| {
        let answer = engine.generate(prompt, &limited, &Cancel::new(), &mut ignore).unwrap();
        assert_eq!(answer.timings.reused_tokens + answer.timings.prefill_tokens, prompt.len());
        (answer.timings.reused_tokens, engine.decoder().resets)
    };
    assert_eq!(reused(&prompt), (0, 0));
    // Fed so far: the prompt and the first two of three tokens.
    let mut longer = [&prompt[..], &[300; 3]].concat();
    longer.extend(tokens(" more"));
    assert_eq!(reused(&longer), (prompt.len() + 2, 0));
    // A shorter prompt, an equal one and another one.
    assert_eq!(reused(&prompt), (0, 1));
    let equal = [&prompt[..], &[300; 2]].concat();
    assert_eq!(reused(&equal), (0, 2));
    assert_eq!(reused(&[301; 40]), (0, 3));
}

#[test]
fn turns_of_a_conversation_feed_only_what_is_new() {
    let mut script = [tokens("Hello there."), vec![END], tokens("Fine, thanks."), vec![END]].concat().into_iter();
    let mut engine = engine(Fake::new(500, move |_| only(script.next().unwrap_or(END))));
    let mut conversation = Conversation::new(Some("Be kind.".into()));
    let cancel = Cancel::new();
    let first = conversation.say("Hi!", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    let state = engine.state_tokens();
    let second = conversation.say("How are you?", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    assert_eq!((first.text.as_str(), second.text.as_str()), ("Hello there.", "Fine, thanks."));
    assert_eq!(second.timings.reused_tokens, state);
    assert_eq!(engine.decoder().resets, 0);
    // All that was fed is the history as the template writes it, without the end of the last answer.
    let fed: Vec<u32> = engine.decoder().steps.concat();
    let history = engine.render(conversation.messages(), None).unwrap();
    let expected = history.split_once("Fine, thanks.").unwrap().0.to_owned() + "Fine, thanks.";
    assert_eq!(fed, tokens(&expected));

    conversation.reset();
    assert_eq!(conversation.messages().len(), 1, "the system message stays");
    conversation.say("Hi!", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    assert_eq!(engine.decoder().resets, 1);
}

#[test]
fn sampled_tokens_are_kept_even_if_encoding_would_split_them_otherwise() {
    // "river" letter by letter is not how the tokenizer writes it.
    let letters: Vec<u32> = "river".chars().flat_map(|letter| tokens(&letter.to_string())).collect();
    assert_ne!(letters, tokens("river"));
    let mut script = [letters, vec![END]].concat().into_iter();
    let mut engine = engine(Fake::new(500, move |_| only(script.next().unwrap_or(END))));
    let mut conversation = Conversation::new(None);
    let cancel = Cancel::new();
    conversation.say("A word?", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    let second = conversation.say("Again?", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    assert!(second.timings.reused_tokens > 0);
    assert_eq!(engine.decoder().resets, 0);
}

#[test]
fn an_answer_cut_by_a_stop_string_is_encoded_anew() {
    let mut engine = engine(Fake::new(500, |history| only(300 + history.len() as u32 % 50)));
    let mut conversation = Conversation::new(None);
    let cancel = Cancel::new();
    let limited = Generation { max_new_tokens: Some(6), ..greedy() };
    let whole = conversation.say("Go", &mut engine, &limited, &cancel, &mut ignore).unwrap().text;
    let stop = whole.chars().skip(3).take(3).collect::<String>();
    conversation.reset();
    let generation = Generation { stop: vec![stop.clone()], ..limited };
    let cut = conversation.say("Go", &mut engine, &generation, &cancel, &mut ignore).unwrap();
    assert_eq!(cut.finish_reason, FinishReason::Stop);
    assert_eq!(cut.text, whole[..whole.find(&stop).unwrap()]);
    let resets = engine.decoder().resets;
    let next = conversation.say("On", &mut engine, &generation, &cancel, &mut ignore).unwrap();
    assert_eq!((next.timings.reused_tokens, engine.decoder().resets), (0, resets + 1));
}

#[test]
fn a_turn_that_fails_or_says_nothing_is_withdrawn() {
    let mut engine = engine(Fake::saying(20, []));
    let mut conversation = Conversation::new(None);
    let cancel = Cancel::new();
    let long = "word ".repeat(50);
    let error = conversation.say(&long, &mut engine, &greedy(), &cancel, &mut ignore).unwrap_err();
    assert!(matches!(error, EngineError::PromptTooLong { context: 20, .. }), "{error}");
    assert!(conversation.messages().is_empty());
    cancel.cancel();
    conversation.say("Hi", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    assert!(conversation.messages().is_empty());
    cancel.clear();
    conversation.say("Hi", &mut engine, &greedy(), &cancel, &mut ignore).unwrap();
    assert_eq!(conversation.messages().len(), 2, "an empty answer is an answer");
}

#[test]
fn without_a_template_there_is_no_chat() {
    let engine = Engine::new(Fake::saying(20, []), tokenizer(), None);
    let error = engine.render(&[Message::user("Hi")], None).unwrap_err();
    assert!(matches!(error, EngineError::NoTemplate), "{error}");
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let sampled = |seed| {
        let overrides =
            Overrides { temperature: Some(1.0), seed: Some(seed), max_new_tokens: Some(30), ..Overrides::default() };
        let overrides = Overrides { min_p: Some(0.0), ..overrides };
        let mut engine = engine(Fake::new(200, |_| vec![0.0; VOCAB]));
        let answer = run(&mut engine, &settings(&overrides)).0;
        assert_eq!(answer.seed, seed);
        answer.tokens
    };
    assert_eq!(sampled(5), sampled(5));
    assert_ne!(sampled(5), sampled(6));
}

#[test]
fn the_repetition_penalty_counts_the_prompt_and_the_answer() {
    // Token 400 is in the prompt and scores best by a little; after it 401, once said, is punished too.
    let fake = || {
        Fake::new(100, |_| {
            let mut logits = vec![-10.0; VOCAB];
            logits[400..403].copy_from_slice(&[1.2, 1.1, 1.05]);
            logits
        })
    };
    let prompt = [tokens("Say"), vec![400]].concat();
    let said = |penalty| {
        let overrides = Overrides { repetition_penalty: Some(penalty), temperature: Some(0.0), ..Overrides::default() };
        let generation = Generation { max_new_tokens: Some(3), ..settings(&overrides) };
        engine(fake()).generate(&prompt, &generation, &Cancel::new(), &mut ignore).unwrap().tokens
    };
    assert_eq!(said(1.0), [400, 400, 400]);
    assert_eq!(said(1.5), [401, 402, 400]);
}

#[test]
fn text_is_handed_out_before_the_next_step() {
    let events = Rc::new(RefCell::new(Vec::new()));
    let said = tokens("one two");
    let (log, mut script) = (events.clone(), said.clone().into_iter());
    let mut engine = engine(Fake::new(100, move |history| {
        log.borrow_mut().push(format!("step {}", history.len()));
        only(script.next().unwrap_or(END))
    }));
    let log = events.clone();
    engine
        .generate(&[300], &greedy(), &Cancel::new(), &mut |text| log.borrow_mut().push(format!("text {text}")))
        .unwrap();
    let events = events.borrow();
    assert_eq!(events.first().unwrap(), "step 1");
    let text = events.iter().position(|event| event.starts_with("text")).unwrap();
    assert_eq!(text, 1, "{events:?}");
}

proptest::proptest! {
    /// Whatever is said and wherever the limits lie: the pieces are the text, nothing is computed twice, and the reason is right.
    #[test]
    fn limits_hold_for_any_script(said in proptest::collection::vec(14u32..1024, 0..30), limit in 0usize..30, context in 5usize..40) {
        let mut engine = engine(Fake::saying(context, said.clone()));
        let mut pieces = String::new();
        let generation = Generation { max_new_tokens: Some(limit), ..greedy() };
        let prompt = [300, 301, 302];
        let answer = engine.generate(&prompt, &generation, &Cancel::new(), &mut |text| pieces.push_str(text)).unwrap();
        proptest::prop_assert_eq!(&pieces, &answer.text);
        let ending = [&said[..], &[END]].concat();
        proptest::prop_assert!(ending.starts_with(&answer.tokens));
        let room = context - prompt.len() + 1;
        let count = ending.len().min(limit).min(room);
        proptest::prop_assert_eq!(answer.tokens.len(), count);
        let expected = if count == ending.len() { FinishReason::Stop } else if count == limit { FinishReason::Length } else { FinishReason::Context };
        proptest::prop_assert_eq!(answer.finish_reason, expected);
    }
}
