//! From logits to the next token: the processors of transformers' `generate()`, in its order.
//!
//! repetition penalty -> temperature -> top-k -> top-p -> min-p -> draw. Each processor has its file. They work on one
//! copy of the logits and on the short list of tokens that can still be drawn, because a vocabulary of 65,536 scores is
//! far too long to be sorted, or even to be put through `exp`, for every token.

mod candidates;
mod min_p;
mod repetition;
mod settings;
#[cfg(test)]
mod test;
mod top_k;
mod top_p;

use candidates::Candidate;
use ndarray::ArrayView1;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};
use repetition::Observed;
pub use settings::{SamplingError, SamplingSettings};

/// Chooses tokens. One sampler belongs to one sequence: it remembers the tokens of that sequence and its place in the
/// stream of random numbers.
///
/// The same seed and the same logits give the same tokens on every run: the generator is xoshiro256++, whose output
/// `rand` guarantees for every platform and every later version, unlike that of its `StdRng`. Between platforms the last
/// bit of `exp` may differ; it decides a token about once in ten million.
#[derive(Debug, Clone)]
pub struct Sampler {
    settings: SamplingSettings,
    observed: Observed,
    random: Xoshiro256PlusPlus,
    /// The scores of the current step, kept to save an allocation per token.
    scores: Vec<f32>,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for logits of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`SamplingError::Settings`] with everything that is wrong with `settings`;
    /// [`SamplingError::Vocabulary`].
    pub fn new(settings: SamplingSettings, vocab_size: usize) -> Result<Self, SamplingError> {
        settings.validate()?;
        if vocab_size == 0 || u32::try_from(vocab_size).is_err() {
            return Err(SamplingError::Vocabulary { vocab_size });
        }
        Ok(Self {
            settings,
            observed: Observed::new(vocab_size),
            random: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            scores: Vec::with_capacity(vocab_size),
            candidates: Vec::new(),
        })
    }

    /// What the sampler was made with.
    pub fn settings(&self) -> &SamplingSettings {
        &self.settings
    }

    /// Tells the sampler that `token` is part of the sequence, for the repetition penalty. As in transformers, the
    /// tokens of the prompt count too, and a token that occurs twice is penalised once.
    ///
    /// A token outside of the vocabulary is ignored: it has no score that could be penalised.
    pub fn observe(&mut self, token: u32) {
        self.observed.insert(token);
    }

    /// Draws the next token from `logits`, shape `[vocab_size]`, natural-log units. The token is not observed by that.
    ///
    /// # Errors
    /// If the length is not that of the vocabulary, or if there is nothing to draw from: a NaN, a positive infinity, or
    /// nothing but negative infinities.
    pub fn sample(&mut self, logits: ArrayView1<f32>) -> Result<u32, SamplingError> {
        let mut scores = std::mem::take(&mut self.scores);
        let mut candidates = std::mem::take(&mut self.candidates);
        let token = self.scores(logits, &mut scores).and_then(|max| {
            if self.settings.is_greedy() {
                return candidates::first_of(&scores, max).ok_or(SamplingError::NotANumber);
            }
            self.filter(&scores, max, &mut candidates);
            Ok(draw(&candidates, uniform(&mut self.random)))
        });
        self.scores = scores;
        self.candidates = candidates;
        token
    }

    /// The probability with which [`Sampler::sample`] would choose each token now, shape `[vocab_size]`, sum 1.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`].
    pub fn distribution(&self, logits: ArrayView1<f32>) -> Result<Vec<f32>, SamplingError> {
        let (mut scores, mut candidates) = (Vec::new(), Vec::new());
        let max = self.scores(logits, &mut scores)?;
        let mut distribution = vec![0.0; scores.len()];
        if self.settings.is_greedy() {
            let token = candidates::first_of(&scores, max).ok_or(SamplingError::NotANumber)?;
            distribution[token as usize] = 1.0;
            return Ok(distribution);
        }
        self.filter(&scores, max, &mut candidates);
        let total = candidates::mass(&candidates);
        for candidate in &candidates {
            distribution[candidate.token as usize] = (f64::from(candidate.weight) / total) as f32;
        }
        Ok(distribution)
    }

    /// Forgets the observed tokens and goes back to the start of the random numbers of the seed.
    pub fn reset(&mut self) {
        self.observed.clear();
        self.random = Xoshiro256PlusPlus::seed_from_u64(self.settings.seed);
    }

    /// Writes the scores after repetition penalty and temperature, and returns the largest.
    fn scores(&self, logits: ArrayView1<f32>, scores: &mut Vec<f32>) -> Result<f32, SamplingError> {
        if logits.len() != self.observed.vocab_size() {
            return Err(SamplingError::Length { found: logits.len(), vocab_size: self.observed.vocab_size() });
        }
        scores.clear();
        match logits.as_slice() {
            Some(slice) => scores.extend_from_slice(slice),
            None => scores.extend(logits.iter()),
        }
        self.observed.penalise(scores, self.settings.repetition_penalty);
        if !self.settings.is_greedy() && self.settings.temperature != 1.0 {
            scores.iter_mut().for_each(|score| *score /= self.settings.temperature);
        }
        candidates::maximum(scores)
    }

    /// Leaves in `candidates` the tokens that may be drawn, in ascending order of their ids.
    fn filter(&self, scores: &[f32], max: f32, candidates: &mut Vec<Candidate>) {
        let SamplingSettings { top_k, top_p, min_p, .. } = self.settings;
        // min-p compares with the largest probability, and neither top-k nor min-p changes the ratio of two
        // probabilities: the two can be applied in any order. Only top-p looks at the sum of what top-k has left, so with
        // it min-p has to wait.
        let floor = if top_p < 1.0 { f32::NEG_INFINITY } else { min_p::floor(max, min_p) };
        let floor = floor.max(top_k::floor(scores, top_k));
        candidates::collect(scores, max, floor, candidates);
        top_k::keep(candidates, top_k);
        top_p::keep(candidates, top_p);
        min_p::keep(candidates, min_p);
    }
}

/// The candidate in whose share of the total weight `at` (0 to 1) falls.
fn draw(candidates: &[Candidate], at: f64) -> u32 {
    let mut left = at * candidates::mass(candidates);
    let mut chosen = 0;
    for candidate in candidates.iter().filter(|candidate| candidate.weight > 0.0) {
        // Rounding may leave a rest after the last one, which is then the last one's.
        chosen = candidate.token;
        left -= f64::from(candidate.weight);
        if left < 0.0 {
            break;
        }
    }
    chosen
}

/// The next random number, in [0, 1), from the upper 53 bits. Written out, because which bits a library takes for a
/// float is not part of what it guarantees.
fn uniform(random: &mut Xoshiro256PlusPlus) -> f64 {
    (random.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}
