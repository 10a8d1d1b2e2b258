//! One test on a decoder, repeated.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MeasureError, Test, tokens};
use crate::decoder::{Decoder, DecoderError, Rewind};
use crate::engine::{DraftCost, Drafter, RunCosts};
use crate::sampler::{Sampler, SamplingSettings};

/// Times of the repetitions of one test, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Of each repetition, all that is measured.
    pub windows: Vec<u64>,
    /// Of each repetition, what of it was spent inside the runtime.
    pub runs: Vec<u64>,
    /// Of each repetition, what of it was spent choosing tokens.
    pub sampling: Vec<u64>,
    /// Of each repetition with a prompt, the time until its first token is chosen.
    pub first_tokens: Vec<u64>,
    /// Of each token of an answer, the time since the token before; all repetitions, one after the other. Tokens of one run come
    /// together: the first has its time, and the others none.
    pub tokens: Vec<u64>,
    /// Of each repetition with an answer, in how many runs it came: as many as tokens, or fewer with guesses.
    pub answer_runs: Vec<usize>,
}

/// How a test is run.
#[derive(Clone, Copy, Debug)]
pub struct Procedure {
    /// The test.
    pub test: Test,
    /// How often it is measured, after once for warming up.
    pub repetitions: usize,
    /// Seed of the tokens.
    pub seed: u64,
    /// Most tokens that are guessed for one run; 0 for none.
    pub speculate: usize,
    /// What a guessed token is taken to cost.
    pub draft_cost: DraftCost,
}

/// Runs the test once without measuring and then `repetitions` times, each from the same state, and calls `on_repetition` after
/// each of all these, which may stop it. `clock` tells the time since any moment.
///
/// - A prompt's window is the run of its tokens, without choosing the next one. Its time to the first token is that with
///   choosing it.
/// - An answer's window has `test.generate` tokens. Without guesses each is a step, which runs the token chosen before and chooses
///   the best next one; with guesses a step verifies some more. The first token, from the prompt or from one more token, comes
///   before the window.
/// - With both, the window is all from the prompt's first token to the answer's last.
///
/// Tokens of prompts and of the depth are random numbers, the same for the same seed; with guesses, a short text of them again
/// and again. End tokens end nothing.
///
/// # Errors
/// [`DecoderError::NoRollback`] if guesses are wanted and the decoder cannot take them back; what the decoder refuses.
pub fn run<D: Rewind>(
    decoder: &mut D,
    procedure: Procedure,
    clock: &mut dyn FnMut() -> Duration,
    on_repetition: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Samples, MeasureError> {
    let Procedure { test, repetitions, seed, speculate, draft_cost } = procedure;
    if speculate > 0 && !decoder.can_rollback() {
        return Err(DecoderError::NoRollback.into());
    }
    let text = if speculate > 0 { tokens::repeating } else { tokens::random };
    let tokens = text(test.depth + test.prompt.max(1), decoder.vocab_size(), seed);
    let (depth, prompt) = tokens.split_at(test.depth);
    decoder.reset();
    if !depth.is_empty() {
        decoder.step(depth)?;
        decoder.mark()?;
    }
    let mut sampler = Sampler::new(SamplingSettings::GREEDY, decoder.vocab_size())?;
    let mut samples = Samples::default();
    // What runs cost is a fact about the machine, which the repetition for warming up finds out for the others.
    let mut costs = RunCosts::new(draft_cost);
    for repetition in 0..=repetitions {
        if depth.is_empty() {
            decoder.reset();
        } else {
            decoder.rewind()?;
        }
        // What earlier repetitions have taught it about the text would make the later ones faster.
        let drafts = (speculate > 0)
            .then(|| Drafts { drafter: Drafter::new(speculate, Arc::default()), history: tokens.clone() });
        let mut once =
            Once { decoder: &mut *decoder, sampler: &mut sampler, clock: &mut *clock, drafts, costs: &mut costs };
        // The first time is for warming up.
        let mut unmeasured = Samples::default();
        once.run(test, prompt, if repetition == 0 { &mut unmeasured } else { &mut samples })?;
        if on_repetition().is_break() {
            return Err(MeasureError::Stopped);
        }
    }
    Ok(samples)
}

/// What a repetition works with.
struct Once<'a, D> {
    decoder: &'a mut D,
    sampler: &'a mut Sampler,
    clock: &'a mut dyn FnMut() -> Duration,
    /// What guesses come from, if there are guesses.
    drafts: Option<Drafts>,
    costs: &'a mut RunCosts,
}

/// Guesses, and the text that they come from.
struct Drafts {
    drafter: Drafter,
    /// All tokens up to the one chosen last.
    history: Vec<u32>,
}

/// A token that was chosen, and when.
struct Chosen {
    token: u32,
    /// When the runtime had the logits.
    computed: Duration,
    /// When the token was chosen.
    at: Duration,
}

impl<D: Decoder> Once<'_, D> {
    fn run(&mut self, test: Test, prompt: &[u32], samples: &mut Samples) -> Result<(), MeasureError> {
        let mut run_before = self.decoder.run_time();
        let mut start = (self.clock)();
        let first = self.step(prompt)?;
        let mut sampling = Duration::ZERO;
        let mut end = first.computed;
        let mut run = self.decoder.run_time();
        if test.prompt > 0 {
            samples.first_tokens.push(nanoseconds(first.at.saturating_sub(start)));
            if test.generate > 0 {
                sampling = first.at.saturating_sub(first.computed);
            }
        } else {
            (start, run_before) = (first.at, run);
        }
        let mut last = first;
        let (mut left, mut runs) = (test.generate, 0);
        while left > 0 {
            let (next, taken) = self.next(last.token, left)?;
            samples.tokens.push(nanoseconds(next.at.saturating_sub(last.at)));
            samples.tokens.extend(std::iter::repeat_n(0, taken - 1));
            sampling += next.at.saturating_sub(next.computed);
            end = next.at;
            last = next;
            (left, runs) = (left - taken, runs + 1);
        }
        if test.generate > 0 {
            run = self.decoder.run_time();
            samples.answer_runs.push(runs);
        }
        samples.windows.push(nanoseconds(end.saturating_sub(start)));
        samples.runs.push(nanoseconds(run.saturating_sub(run_before)));
        samples.sampling.push(nanoseconds(sampling));
        Ok(())
    }

    /// Runs the token chosen last, with guesses if there are some. Returns the last token that was chosen and how many were, of
    /// `left` that are wanted.
    fn next(&mut self, last: u32, left: usize) -> Result<(Chosen, usize), MeasureError> {
        let room = self.decoder.context_length().saturating_sub(self.decoder.len() + 1);
        let draft = self.drafts.as_mut().map(|drafts| {
            drafts.history.push(last);
            // A run gives one token more than it verifies.
            drafts.drafter.draft(&drafts.history, room.min(left - 1), &[], self.costs)
        });
        let draft = draft.unwrap_or_default();
        let run_before = self.decoder.run_time();
        if draft.is_empty() {
            let chosen = self.step(&[last])?;
            self.costs.learn(1, self.decoder.run_time().saturating_sub(run_before));
            return Ok((chosen, 1));
        }
        let held = self.decoder.len();
        let rows = self.decoder.verify(&[&[last], &draft[..]].concat())?;
        let computed = (self.clock)();
        let mut chosen = Vec::with_capacity(rows.nrows());
        for row in rows.outer_iter() {
            let token = self.sampler.sample(row)?;
            chosen.push(token);
            if draft.get(chosen.len() - 1) != Some(&token) {
                break;
            }
        }
        let accepted = chosen.len().saturating_sub(1);
        self.decoder.truncate(held + chosen.len())?;
        self.costs.learn(1 + draft.len(), self.decoder.run_time().saturating_sub(run_before));
        let token = chosen.pop().unwrap_or(last);
        if let Some(drafts) = &mut self.drafts {
            drafts.drafter.learn(accepted, accepted < draft.len());
            drafts.history.extend(chosen);
        }
        Ok((Chosen { token, computed, at: (self.clock)() }, accepted + 1))
    }

    fn step(&mut self, tokens: &[u32]) -> Result<Chosen, MeasureError> {
        let logits = self.decoder.step(tokens)?;
        let computed = (self.clock)();
        let token = self.sampler.sample(logits)?;
        Ok(Chosen { token, computed, at: (self.clock)() })
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayView1, ArrayView2};

    use super::*;
    use crate::engine::fake::{END, Fake, VOCAB, only};

    /// A fake with a mark, for which every step takes as many milliseconds as it has tokens, and a clock that everybody reads
    /// one millisecond late.
    struct Timed {
        fake: Fake,
        mark: Option<usize>,
        rewinds: usize,
        run_time: Duration,
    }

    impl Decoder for Timed {
        fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
            self.run_time += Duration::from_millis(tokens.len() as u64);
            self.fake.step(tokens)
        }
        fn reset(&mut self) {
            self.fake.reset();
            self.mark = None;
        }
        fn len(&self) -> usize {
            self.fake.len()
        }
        fn context_length(&self) -> usize {
            self.fake.context_length()
        }
        fn vocab_size(&self) -> usize {
            VOCAB
        }
        fn run_time(&self) -> Duration {
            self.run_time
        }
        fn can_rollback(&self) -> bool {
            self.fake.can_rollback()
        }
        fn verify(&mut self, tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
            self.run_time += Duration::from_millis(tokens.len() as u64);
            self.fake.verify(tokens)
        }
        fn truncate(&mut self, len: usize) -> Result<(), DecoderError> {
            Decoder::truncate(&mut self.fake, len)
        }
    }

    impl Rewind for Timed {
        fn mark(&mut self) -> Result<(), DecoderError> {
            self.mark = Some(self.len());
            Ok(())
        }
        fn rewind(&mut self) -> Result<(), DecoderError> {
            self.rewinds += 1;
            self.fake.truncate(self.mark.ok_or(DecoderError::NotMarked)?);
            Ok(())
        }
    }

    fn measured(test: Test, repetitions: usize) -> (Samples, Timed, usize) {
        measured_on(Fake::saying(test.context(), [5, END, 6, END]), test, repetitions, 0)
    }

    fn measured_on(fake: Fake, test: Test, repetitions: usize, speculate: usize) -> (Samples, Timed, usize) {
        let mut timed = Timed { fake, mark: None, rewinds: 0, run_time: Duration::ZERO };
        // One millisecond passes between any two looks at the clock, whatever happens there.
        let (mut now, mut seen) = (Duration::ZERO, 0);
        let mut clock = || {
            now += Duration::from_millis(1);
            now
        };
        let mut count = || {
            seen += 1;
            ControlFlow::Continue(())
        };
        let procedure = Procedure { test, repetitions, seed: 1, speculate, draft_cost: DraftCost::Fixed(0.3) };
        let samples = run(&mut timed, procedure, &mut clock, &mut count).unwrap();
        (samples, timed, seen)
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn a_prompt_is_measured_without_choosing_a_token() {
        let (samples, timed, seen) = measured(Test { prompt: 7, generate: 0, depth: 0 }, 3);
        assert_eq!(samples.windows, [MS; 3]);
        assert_eq!(samples.first_tokens, [2 * MS; 3]);
        assert_eq!((samples.runs, samples.sampling, samples.tokens), (vec![7 * MS; 3], vec![0; 3], vec![]));
        assert_eq!(
            (timed.fake.steps.len(), timed.fake.resets, seen),
            (4, 3, 4),
            "with warming up, each from the start"
        );
        assert!(timed.fake.steps.iter().all(|step| step.len() == 7 && *step == timed.fake.steps[0]));
    }

    #[test]
    fn an_answer_is_measured_after_its_first_token() {
        let (samples, timed, _) = measured(Test { prompt: 0, generate: 3, depth: 4 }, 2);
        assert_eq!(samples.tokens, [2 * MS; 6]);
        assert_eq!(samples.windows, [6 * MS; 2]);
        assert_eq!((samples.runs, samples.sampling), (vec![3 * MS; 2], vec![3 * MS; 2]));
        assert!(samples.first_tokens.is_empty());
        // The depth once, then for each repetition one token and three more; end tokens end nothing.
        let lengths: Vec<_> = timed.fake.steps.iter().map(Vec::len).collect();
        assert_eq!(lengths, [&[4][..], &[1; 12]].concat());
        assert_eq!(timed.fake.steps[2..5], [[END], [6], [END]].map(|step| step.to_vec()));
        assert_eq!((timed.rewinds, timed.fake.resets), (3, 0));
    }

    #[test]
    fn both_are_one_window() {
        let (samples, timed, _) = measured(Test { prompt: 5, generate: 2, depth: 1 }, 1);
        assert_eq!((samples.windows, samples.first_tokens), (vec![6 * MS], vec![2 * MS]));
        assert_eq!((samples.tokens, samples.runs, samples.sampling), (vec![2 * MS; 2], vec![7 * MS], vec![3 * MS]));
        assert_eq!(timed.fake.len(), 8);
    }

    #[test]
    fn text_that_repeats_comes_in_few_runs() {
        let test = Test { prompt: 0, generate: 40, depth: 60 };
        // What it says is what the text goes on with.
        let text = tokens::repeating(200, VOCAB, 1);
        let fake = Fake::new(test.context(), move |history| only(text[history.len()])).with_rollback();
        let (samples, timed, _) = measured_on(fake, test, 2, 8);
        assert_eq!(samples.tokens.len(), 80);
        let runs = samples.answer_runs[0];
        assert_eq!(samples.answer_runs, [runs; 2], "every repetition learns anew");
        assert!(2 * runs < 40, "{runs} runs");
        // Every run but the first token's is counted, and no more tokens are run than asked for.
        assert_eq!(timed.fake.steps.len(), 1 + 3 * (1 + runs));
        assert_eq!(timed.fake.len(), test.context());
        assert_eq!(samples.tokens.iter().filter(|&&time| time > 0).count(), 2 * runs);
    }

    #[test]
    fn wrong_guesses_are_taken_back() {
        let test = Test { prompt: 60, generate: 30, depth: 0 };
        let mut next = 0;
        let never = move |_: &[u32]| {
            next = (next + 7) % 200;
            only(next)
        };
        let (samples, timed, _) = measured_on(Fake::new(test.context(), never).with_rollback(), test, 1, 8);
        assert_eq!((samples.tokens.len(), timed.fake.len()), (30, test.context()));
        assert!(samples.answer_runs[0] > 20, "{samples:?}");
    }

    #[test]
    fn guesses_need_a_state_that_can_be_cut() {
        let mut timed = Timed { fake: Fake::new(64, |_| only(1)), mark: None, rewinds: 0, run_time: Duration::ZERO };
        let test = Test { prompt: 4, generate: 4, depth: 0 };
        let procedure = Procedure { test, repetitions: 1, seed: 0, speculate: 2, draft_cost: DraftCost::Learnt };
        let failed = run(&mut timed, procedure, &mut || Duration::ZERO, &mut || ControlFlow::Continue(()));
        assert!(matches!(failed, Err(MeasureError::Decoder(DecoderError::NoRollback))), "{failed:?}");
    }

    #[test]
    fn what_the_decoder_refuses_is_an_error() {
        let mut fake = Fake::new(64, |_| only(1));
        fake.failure = Some((0, || DecoderError::NoTokens));
        let mut timed = Timed { fake, mark: None, rewinds: 0, run_time: Duration::ZERO };
        let test = Test { prompt: 4, generate: 0, depth: 0 };
        let procedure = Procedure { test, repetitions: 1, seed: 0, speculate: 0, draft_cost: DraftCost::Learnt };
        let failed = run(&mut timed, procedure, &mut || Duration::ZERO, &mut || ControlFlow::Continue(()));
        assert!(matches!(failed, Err(MeasureError::Decoder(DecoderError::NoTokens))), "{failed:?}");
    }
    #[test]
    fn whoever_watches_may_stop_it() {
        let mut timed = Timed { fake: Fake::new(64, |_| only(1)), mark: None, rewinds: 0, run_time: Duration::ZERO };
        let test = Test { prompt: 4, generate: 0, depth: 0 };
        let procedure = Procedure { test, repetitions: 9, seed: 0, speculate: 0, draft_cost: DraftCost::Learnt };
        let stopped = run(&mut timed, procedure, &mut || Duration::ZERO, &mut || ControlFlow::Break(()));
        assert!(matches!(stopped, Err(MeasureError::Stopped)), "{stopped:?}");
        assert_eq!(timed.fake.steps.len(), 1);
    }
}
