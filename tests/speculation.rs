//! Tier "provider": guessing ahead changes how often the model runs, and not what it says.
//!
//! Logits of one token and of several at once differ by rounding. Where two tokens are as good as equal, that decides; such
//! near ties are counted, and every difference has to be one.

use lfm2_export::package::DialectName;
use lfm2_export::recipe::Precision;
use lfm2_host::cancel::Cancel;
use lfm2_host::chat::ChatTemplate;
use lfm2_host::decoder::{Decoder, OrtDecoder};
use lfm2_host::engine::{Answer, DraftCost, Engine};
use lfm2_host::generation::{Generation, GenerationDefaults, Overrides};
use lfm2_host::text::Tokenizer;
use lfm2_tests::dialogues::{Dialogue, Task, dialogues};
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, portable, rollback};

/// Most tokens of a draft.
const LONGEST: usize = 16;

/// What a guessed token is taken to cost, as on processors with dot products of bytes, so that the runs do not depend on the
/// machine that counts them.
const COST: DraftCost = DraftCost::Fixed(0.3);

fn engine(exported: &Exported) -> Engine<OrtDecoder> {
    let folder = exported.package();
    Engine::new(exported.decoder(), Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap())
}

fn settings(exported: &Exported, overrides: Overrides) -> Generation {
    let overrides = Overrides { max_new_tokens: Some(80), ..overrides };
    GenerationDefaults::load(&exported.package()).unwrap().resolve(&overrides).unwrap()
}

fn greedy(exported: &Exported) -> Generation {
    settings(exported, Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), ..Overrides::default() })
}

fn ask(engine: &mut Engine<OrtDecoder>, dialogue: &Dialogue, generation: &Generation) -> (Vec<u32>, Answer) {
    let text = engine.render(&dialogue.messages, None).unwrap();
    let prompt = engine.tokenizer().encode_prompt(&text).unwrap();
    engine.reset();
    let answer = engine.generate(&prompt, generation, &Cancel::new(), &mut |_| {}).unwrap();
    (prompt, answer)
}

/// Difference of the two largest logits behind `prompt` and `answer`, each token of the answer in a run of its own.
fn distance(decoder: &mut OrtDecoder, prompt: &[u32], answer: &[u32]) -> f32 {
    decoder.reset();
    let mut logits = decoder.step(prompt).unwrap().to_vec();
    for token in answer {
        logits = decoder.step(&[*token]).unwrap().to_vec();
    }
    logits.sort_unstable_by(|a, b| b.total_cmp(a));
    logits[0] - logits[1]
}

/// Asks everything with and without guessing. Returns the number of answers that differ, and checks that each begins to differ
/// where the two best logits are at most `tie` apart, unless tokens are drawn.
fn differences(exported: &Exported, generation: &Generation, dialogues: &[Dialogue], tie: f32) -> usize {
    let (mut plain, mut guessing, mut decoder) = (engine(exported), engine(exported), exported.decoder());
    guessing.speculate(LONGEST).unwrap();
    guessing.set_draft_cost(COST).unwrap();
    let mut different = 0;
    let (mut runs, mut tokens) = (0, 0);
    for dialogue in dialogues {
        let (prompt, expected) = ask(&mut plain, dialogue, generation);
        let (_, found) = ask(&mut guessing, dialogue, generation);
        assert_eq!(expected.timings.decode_runs, expected.timings.decode_tokens);
        assert_eq!(found.timings.decode_runs + found.timings.accepted_tokens, found.timings.decode_tokens);
        assert_eq!(guessing.state_tokens(), guessing.decoder().len());
        runs += found.timings.decode_runs;
        tokens += found.timings.decode_tokens;
        if found.tokens == expected.tokens {
            let facts = |answer: &Answer| (answer.text.clone(), answer.finish_reason);
            assert_eq!(facts(&found), facts(&expected));
            assert_eq!(guessing.state_tokens(), plain.state_tokens());
            continue;
        }
        different += 1;
        let common = found.tokens.iter().zip(&expected.tokens).take_while(|(a, b)| a == b).count();
        if generation.sampling.is_greedy() {
            let distance = distance(&mut decoder, &prompt, &expected.tokens[..common]);
            assert!(distance <= tie, "{:?}: token {common} differs, {distance} apart", dialogue.messages);
        }
    }
    println!("{different} of {} answers differ; {runs} runs for {tokens} tokens", dialogues.len());
    different
}

#[test]
fn greedy_answers_are_the_same() {
    for options in [contrib(Precision::Fp32), portable(Precision::Fp32)] {
        let exported = Exported::new(TINY_CHAT, rollback(options.clone()));
        let count = if options.dialect == DialectName::Contrib { 200 } else { 50 };
        assert_eq!(differences(&exported, &greedy(&exported), &dialogues(count), 1e-3), 0, "{options:?}");
    }
    // Activations are rounded to 8 bits in the kernels, so that one last bit in front of them can become a whole step.
    for (precision, tie) in [(Precision::Q8, 1e-2), (Precision::Q4, 1e-1)] {
        let exported = Exported::new(TINY_CHAT, rollback(contrib(precision)));
        assert!(differences(&exported, &greedy(&exported), &dialogues(200), tie) <= 2, "{precision}");
    }
}

#[test]
fn sampled_answers_are_the_same_for_the_same_seed() {
    let exported = Exported::new(TINY_CHAT, rollback(contrib(Precision::Fp32)));
    let warm = Overrides { temperature: Some(1.0), min_p: Some(0.0), top_p: Some(0.95), ..Overrides::default() };
    for overrides in [Overrides::default(), warm] {
        let generation = settings(&exported, Overrides { seed: Some(7), repetition_penalty: Some(1.05), ..overrides });
        assert!(!generation.sampling.is_greedy());
        // A random number may fall between the two borders of a token that rounding makes of one: once in some ten thousand.
        assert!(differences(&exported, &generation, &dialogues(200), 0.0) <= 1);
    }
}

#[test]
fn text_that_repeats_itself_needs_half_of_the_runs() {
    let exported = Exported::new(TINY_CHAT, rollback(contrib(Precision::Q8)));
    let mut engine = engine(&exported);
    engine.speculate(LONGEST).unwrap();
    engine.set_draft_cost(COST).unwrap();
    let generation = greedy(&exported);
    for task in [Task::Repeat, Task::Json, Task::Fact] {
        let (mut runs, mut tokens, mut drafted, mut accepted) = (0, 0, 0, 0);
        for dialogue in dialogues(200).iter().filter(|dialogue| dialogue.task == task) {
            let (_, Answer { timings, .. }) = ask(&mut engine, dialogue, &generation);
            runs += timings.decode_runs;
            tokens += timings.decode_tokens;
            drafted += timings.drafted_tokens;
            accepted += timings.accepted_tokens;
        }
        println!("{task:?}: {runs} runs for {tokens} tokens, {accepted} of {drafted} guesses right");
        assert!(task == Task::Fact || 2 * runs <= tokens, "{task:?}: {runs} runs for {tokens} tokens");
    }
}
