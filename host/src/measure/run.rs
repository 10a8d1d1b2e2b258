//! One test on a decoder, repeated.

use std::ops::ControlFlow;
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::{MeasureError, Test};
use crate::decoder::{Decoder, Rewind};
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
    /// Of each token of an answer, the time since the token before; all repetitions, one after the other.
    pub tokens: Vec<u64>,
}

/// Runs `test` once without measuring and then `repetitions` times, each from the same state, and calls `on_repetition` after
/// each of all these, which may stop it. `clock` tells the time since any moment.
///
/// - A prompt's window is the run of its tokens, without choosing the next one. Its time to the first token is that with
///   choosing it.
/// - An answer's window has `test.generate` steps, each of which runs the token chosen before and chooses the best next one. The
///   first token, from the prompt or from one more token, comes before the window.
/// - With both, the window is all from the prompt's first token to the answer's last.
///
/// Tokens of prompts and of the depth are random numbers, the same for the same `seed`. End tokens end nothing.
pub fn run<D: Rewind>(
    decoder: &mut D,
    test: Test,
    repetitions: usize,
    seed: u64,
    clock: &mut dyn FnMut() -> Duration,
    on_repetition: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Samples, MeasureError> {
    let tokens = tokens(test.depth + test.prompt.max(1), decoder.vocab_size(), seed);
    let (depth, prompt) = tokens.split_at(test.depth);
    decoder.reset();
    if !depth.is_empty() {
        decoder.step(depth)?;
        decoder.mark()?;
    }
    let mut sampler = Sampler::new(SamplingSettings::GREEDY, decoder.vocab_size())?;
    let mut samples = Samples::default();
    for repetition in 0..=repetitions {
        if depth.is_empty() {
            decoder.reset();
        } else {
            decoder.rewind()?;
        }
        let mut once = Once { decoder: &mut *decoder, sampler: &mut sampler, clock: &mut *clock };
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
        for _ in 0..test.generate {
            let next = self.step(&[last.token])?;
            samples.tokens.push(nanoseconds(next.at.saturating_sub(last.at)));
            sampling += next.at.saturating_sub(next.computed);
            end = next.at;
            last = next;
        }
        if test.generate > 0 {
            run = self.decoder.run_time();
        }
        samples.windows.push(nanoseconds(end.saturating_sub(start)));
        samples.runs.push(nanoseconds(run.saturating_sub(run_before)));
        samples.sampling.push(nanoseconds(sampling));
        Ok(())
    }

    fn step(&mut self, tokens: &[u32]) -> Result<Chosen, MeasureError> {
        let logits = self.decoder.step(tokens)?;
        let computed = (self.clock)();
        let token = self.sampler.sample(logits)?;
        Ok(Chosen { token, computed, at: (self.clock)() })
    }
}

/// `count` random tokens of a vocabulary; those of a smaller count are their beginning.
fn tokens(count: usize, vocab_size: usize, seed: u64) -> Vec<u32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    // The upper half of a product of 64 bits each is below the vocabulary's size.
    let mut token = || ((u128::from(random.next_u64()) * vocab_size as u128) >> 64) as u32;
    (0..count).map(|_| token()).collect()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayView1;

    use super::*;
    use crate::decoder::DecoderError;
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
        let fake = Fake::saying(test.context(), [5, END, 6, END]);
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
        let samples = run(&mut timed, test, repetitions, 1, &mut clock, &mut count).unwrap();
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
    fn tokens_are_of_the_vocabulary_and_the_same_again() {
        let many = tokens(10_000, 96, 3);
        assert!(many.iter().all(|&token| token < 96));
        assert!((0..96).all(|token| many.contains(&token)));
        assert_eq!(tokens(10, 96, 3), many[..10]);
        assert_ne!(tokens(10, 96, 4), many[..10]);
    }

    #[test]
    fn what_the_decoder_refuses_is_an_error() {
        let mut fake = Fake::new(64, |_| only(1));
        fake.failure = Some((0, || DecoderError::NoTokens));
        let mut timed = Timed { fake, mark: None, rewinds: 0, run_time: Duration::ZERO };
        let test = Test { prompt: 4, generate: 0, depth: 0 };
        let failed = run(&mut timed, test, 1, 0, &mut || Duration::ZERO, &mut || ControlFlow::Continue(()));
        assert!(matches!(failed, Err(MeasureError::Decoder(DecoderError::NoTokens))), "{failed:?}");
    }
    #[test]
    fn whoever_watches_may_stop_it() {
        let mut timed = Timed { fake: Fake::new(64, |_| only(1)), mark: None, rewinds: 0, run_time: Duration::ZERO };
        let test = Test { prompt: 4, generate: 0, depth: 0 };
        let stopped = run(&mut timed, test, 9, 0, &mut || Duration::ZERO, &mut || ControlFlow::Break(()));
        assert!(matches!(stopped, Err(MeasureError::Stopped)), "{stopped:?}");
        assert_eq!(timed.fake.steps.len(), 1);
    }
}
