//! The generation loop: runs of the decoder, the tokens that the sampler takes from them, and when to end.

use std::time::{Duration, Instant};

use ndarray::{ArrayView2, Axis};

use super::{Answer, Engine, EngineError, FinishReason, Timings, draft::Drafter, output::Output};
use crate::{
    cancel::Cancel,
    decoder::{Decoder, DecoderError},
    generation::Generation,
    sampler::Sampler,
};

impl<D: Decoder> Engine<D> {
    /// Answers `prompt`, which is the whole text as tokens, including what earlier generations were given: the state of a
    /// common beginning is used again. Calls `on_text` with every piece of text as it becomes final.
    ///
    /// `cancel` is looked at before every step. A decoder that knows the same request stops within a long prompt too.
    ///
    /// Fails if the prompt is empty, does not fit into the context or is not of this vocabulary, if a setting is out of
    /// range, and if the runtime fails. Filling the context later on is no failure, but [`FinishReason::Context`].
    pub fn generate(
        &mut self,
        prompt: &[u32],
        generation: &Generation,
        cancel: &Cancel,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<Answer, EngineError> {
        let start = Instant::now();
        self.check(prompt)?;
        let mut sampler = Sampler::new(generation.sampling, self.decoder.vocab_size())?;
        prompt.iter().for_each(|&token| sampler.observe(token));
        let reused_tokens = self.reuse(prompt);
        let mut timings = Timings { reused_tokens, prefill_tokens: prompt.len() - reused_tokens, ..Timings::default() };

        let output = Output::new(&self.tokenizer, &generation.stop, on_text);
        let mut said = Said { history: prompt.to_vec(), prompt: prompt.len(), sampler, output, generation, cancel };
        let mut drafter = Drafter::new(self.longest_draft, self.unspaced.clone());
        let mut decode_start = None;
        let limit = generation.max_new_tokens.unwrap_or(usize::MAX);
        // The tokens to be fed next: the rest of the prompt, then each sampled token, and a draft of those behind it.
        let mut next = prompt[reused_tokens..].to_vec();
        let finish_reason = loop {
            if cancel.is_cancelled() {
                break FinishReason::Cancelled;
            }
            let (tokens, context) = (said.tokens().len(), self.decoder.context_length());
            if tokens >= limit {
                break FinishReason::Length;
            }
            if self.fed.len() + next.len() > context {
                break FinishReason::Context;
            }
            let certain = next.len();
            if tokens > 0 {
                // A run gives one token more than it verifies.
                let room = (limit - tokens - 1).min(context - self.fed.len() - certain);
                next.extend(drafter.draft(&said.history, room, &generation.eos, &mut self.costs));
            }
            let step_start = Instant::now();
            let run_before = self.decoder.run_time();
            let rows = match run(&mut self.decoder, &next, certain) {
                Ok(rows) => rows,
                Err(DecoderError::Cancelled) => {
                    // Less than before if the state was lost: then all of it is forgotten.
                    let run = match self.decoder.len().checked_sub(self.fed.len()) {
                        Some(run) => run,
                        None => {
                            self.reset();
                            0
                        }
                    };
                    self.fed.extend(next.drain(..run));
                    if tokens == 0 {
                        (timings.prefill_tokens, timings.prefill) = (run, step_start.elapsed());
                    }
                    break FinishReason::Cancelled;
                }
                Err(DecoderError::ContextFull { .. }) if tokens > 0 => break FinishReason::Context,
                Err(error) => {
                    self.reset();
                    return Err(error.into());
                }
            };
            let sampling_start = Instant::now();
            let drafted = &next[certain..];
            let (taken, sampling) = said.take(rows, drafted);
            if decode_start.is_none() {
                timings.prefill = sampling_start - step_start;
                timings.first_token = sampling_start + sampling - start;
                decode_start = Some(sampling_start + sampling);
            } else {
                timings.decode_runs += 1;
                let run_time = self.decoder.run_time().saturating_sub(run_before);
                timings.run += run_time;
                self.costs.learn(next.len(), run_time);
                timings.sampling += sampling;
            }
            if !drafted.is_empty() {
                timings.drafted_tokens += drafted.len();
                timings.accepted_tokens += taken.accepted;
                drafter.learn(taken.accepted, taken.refused);
            }
            next.truncate(certain + taken.accepted);
            self.fed.append(&mut next);
            if let Err(error) = take_back(&mut self.decoder, self.fed.len()) {
                self.reset();
                return Err(error.into());
            }
            if let Some(reason) = taken.end? {
                break reason;
            }
            next.extend(said.history.last());
        };
        let tokens = said.tokens().to_vec();
        let (text, output_time) = said.output.finish()?;
        timings.output = output_time;
        timings.decode_tokens = tokens.len().saturating_sub(1);
        timings.decode = decode_start.map_or(Duration::ZERO, |start: Instant| start.elapsed());
        let seed = generation.sampling.seed;
        Ok(Answer { text, prompt_tokens: prompt.len(), tokens, finish_reason, timings, seed })
    }
}

/// Runs `next`, of which the first `certain` tokens are no guesses. Returns the logits of the last certain one and of all guesses.
fn run<'d, D: Decoder>(decoder: &'d mut D, next: &[u32], certain: usize) -> Result<ArrayView2<'d, f32>, DecoderError> {
    if next.len() == certain {
        return Ok(decoder.step(next)?.insert_axis(Axis(0)));
    }
    let mut rows = decoder.verify(next)?;
    rows.slice_axis_inplace(Axis(0), (certain - 1..).into());
    Ok(rows)
}

/// Leaves the first `len` tokens in the state.
fn take_back<D: Decoder>(decoder: &mut D, len: usize) -> Result<(), DecoderError> {
    if decoder.len() == len { Ok(()) } else { decoder.truncate(len) }
}

/// The answer so far, with what makes and shows it.
struct Said<'a> {
    /// The prompt and the sampled tokens.
    history: Vec<u32>,
    /// Number of tokens in the prompt.
    prompt: usize,
    sampler: Sampler,
    output: Output<'a>,
    generation: &'a Generation,
    cancel: &'a Cancel,
}

/// What was taken from the logits of one run.
struct Taken {
    /// Guesses that were right and whose logits were used.
    accepted: usize,
    /// Whether another token was sampled where a guess was.
    refused: bool,
    /// Whether the answer ends with the last token that was taken.
    end: Result<Option<FinishReason>, EngineError>,
}

impl Said<'_> {
    /// The sampled tokens.
    fn tokens(&self) -> &[u32] {
        &self.history[self.prompt..]
    }

    /// Samples a token from each row of logits, as long as the guesses before it were right, and returns how long the sampling
    /// took. A guess is right if the sampler chooses it: tokens and random numbers are those of a run for each token.
    fn take(&mut self, rows: ArrayView2<'_, f32>, drafted: &[u32]) -> (Taken, Duration) {
        let mut sampling = Duration::ZERO;
        let mut taken = Taken { accepted: 0, refused: false, end: Ok(None) };
        for (index, row) in rows.outer_iter().enumerate() {
            taken.accepted = index;
            let start = Instant::now();
            let sampled = self.sampler.sample(row);
            sampling += start.elapsed();
            taken.end = sampled.map_err(EngineError::from).and_then(|token| self.push(token));
            if !matches!(taken.end, Ok(None)) || self.cancel.is_cancelled() {
                break;
            }
            if drafted.get(index) != self.history.last() {
                taken.refused = index < drafted.len();
                break;
            }
        }
        (taken, sampling)
    }

    /// Takes a token, and says whether the answer ends with it.
    fn push(&mut self, token: u32) -> Result<Option<FinishReason>, EngineError> {
        self.sampler.observe(token);
        self.history.push(token);
        let ends = self.generation.eos.contains(&token) || self.output.push(token)?;
        Ok(ends.then_some(FinishReason::Stop))
    }
}
