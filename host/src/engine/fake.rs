//! A decoder that says what a test wants.

use std::{path::Path, time::Duration};

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::Engine;
use crate::{
    cancel::Cancel,
    chat::ChatTemplate,
    decoder::{Decoder, DecoderError},
    generation::{Generation, GenerationDefaults, Overrides},
    text::Tokenizer,
};

/// Logits as a function of all tokens fed.
type Logits = Box<dyn FnMut(&[u32]) -> Vec<f32>>;

/// A decoder whose logits come from a closure, and which writes down how it was called.
pub(crate) struct Fake {
    logits: Logits,
    current: Vec<f32>,
    rows: Array2<f32>,
    history: Vec<u32>,
    context: usize,
    /// Whether tokens can be taken back, and how many there were before the last verification.
    rollback: Option<usize>,
    /// The tokens of every step and verification.
    pub(crate) steps: Vec<Vec<u32>>,
    /// How often the state was reset while there was one.
    pub(crate) resets: usize,
    /// The step that fails, counted from zero, and how.
    pub(crate) failure: Option<(usize, fn() -> DecoderError)>,
    /// Time of a run of so many tokens.
    pace: fn(usize) -> Duration,
    run_time: Duration,
}

impl Fake {
    /// Room for `context` tokens.
    pub(crate) fn new(context: usize, logits: impl FnMut(&[u32]) -> Vec<f32> + 'static) -> Self {
        Self {
            logits: Box::new(logits),
            current: Vec::new(),
            rows: Array2::default((0, VOCAB)),
            history: Vec::new(),
            context,
            rollback: None,
            steps: Vec::new(),
            resets: 0,
            failure: None,
            pace: |_| Duration::ZERO,
            run_time: Duration::ZERO,
        }
    }

    /// Says these tokens one after the other, one for each step, and then the end token for ever.
    pub(crate) fn saying(context: usize, tokens: impl IntoIterator<Item = u32>) -> Self {
        let mut tokens = tokens.into_iter().collect::<Vec<_>>().into_iter();
        Self::new(context, move |_| only(tokens.next().unwrap_or(END)))
    }

    /// Forgets all but the first `len` tokens.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.history.truncate(len);
    }

    /// As [`Fake::saying`] after a prompt of `prompt` tokens, whatever was fed behind it; tokens can be taken back.
    pub(crate) fn repeating(context: usize, prompt: usize, tokens: impl IntoIterator<Item = u32>) -> Self {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let said = move |history: &[u32]| only(tokens.get(history.len() - prompt).copied().unwrap_or(END));
        Self::new(context, said).with_rollback()
    }

    /// Lets tokens be taken back.
    pub(crate) fn with_rollback(self) -> Self {
        Self { rollback: Some(0), ..self }
    }

    /// Lets a run of so many tokens take so long.
    pub(crate) fn with_pace(self, pace: fn(usize) -> Duration) -> Self {
        Self { pace, ..self }
    }

    /// What every step begins with: writes it down, and fails if it is to.
    fn begin(&mut self, tokens: &[u32]) -> Result<(), DecoderError> {
        assert!(!tokens.is_empty(), "a step without tokens");
        let index = self.steps.len();
        self.steps.push(tokens.to_vec());
        self.run_time += (self.pace)(tokens.len());
        if let Some((step, error)) = self.failure
            && step == index
        {
            let error = error();
            if matches!(error, DecoderError::Cancelled) {
                // As the real one: stopped between two chunks.
                self.history.extend(&tokens[..tokens.len() / 2]);
            }
            return Err(error);
        }
        if let Some(&id) = tokens.iter().find(|&&id| id as usize >= VOCAB) {
            return Err(DecoderError::UnknownToken { id, vocab_size: VOCAB });
        }
        if let Some(len) = &mut self.rollback {
            *len = self.history.len() + tokens.len();
        }
        self.history.extend(tokens);
        assert!(self.history.len() <= self.context, "fed more than the context holds");
        Ok(())
    }
}

impl Decoder for Fake {
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
        self.begin(tokens)?;
        self.current = (self.logits)(&self.history);
        Ok(ArrayView1::from(&self.current))
    }

    fn can_rollback(&self) -> bool {
        self.rollback.is_some()
    }

    fn verify(&mut self, tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
        self.begin(tokens)?;
        let before = self.history.len() - tokens.len();
        let len = self.rollback.as_mut().ok_or(DecoderError::NoRollback)?;
        *len = before;
        let rows = (before..self.history.len()).flat_map(|last| (self.logits)(&self.history[..=last]));
        self.rows = Array2::from_shape_vec((tokens.len(), VOCAB), rows.collect()).unwrap();
        Ok(self.rows.view())
    }

    fn truncate(&mut self, len: usize) -> Result<(), DecoderError> {
        assert!(self.rollback.is_some_and(|least| (least..=self.history.len()).contains(&len)), "{len} tokens");
        self.history.truncate(len);
        Ok(())
    }

    fn reset(&mut self) {
        self.resets += usize::from(!self.history.is_empty());
        self.history.clear();
    }

    fn len(&self) -> usize {
        self.history.len()
    }

    fn context_length(&self) -> usize {
        self.context
    }

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn run_time(&self) -> Duration {
        self.run_time
    }
}

/// Size of the vocabulary of the chat fixture.
pub(crate) const VOCAB: usize = 1024;

/// The end token of the chat fixture, `<|im_end|>`.
pub(crate) const END: u32 = 7;

/// Logits that leave one choice.
pub(crate) fn only(token: u32) -> Vec<f32> {
    let mut logits = vec![-10.0; VOCAB];
    logits[token as usize] = 10.0;
    logits
}

/// The folder of the chat fixture.
pub(crate) fn fixture() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny-chat"))
}

/// The tokenizer of the chat fixture.
pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::load(fixture()).unwrap()
}

/// The tokens of a text, without special tokens around it.
pub(crate) fn tokens(text: &str) -> Vec<u32> {
    tokenizer().encode(text, false).unwrap()
}

/// An engine over `fake`, with the text parts of the chat fixture.
pub(crate) fn engine(fake: Fake) -> Engine<Fake> {
    Engine::new(fake, tokenizer(), ChatTemplate::load(fixture()).unwrap())
}

/// Greedy settings for the chat fixture.
pub(crate) fn greedy() -> Generation {
    let overrides = Overrides { temperature: Some(0.0), repetition_penalty: Some(1.0), ..Overrides::default() };
    settings(&overrides)
}

/// The settings of the chat fixture with changes.
pub(crate) fn settings(overrides: &Overrides) -> Generation {
    GenerationDefaults::load(fixture()).unwrap().resolve(overrides).unwrap()
}

/// Cancels after the callback was called `calls` times.
pub(crate) fn cancel_after(calls: usize, cancel: &Cancel) -> impl FnMut(&str) {
    let (cancel, mut seen) = (cancel.clone(), 0);
    move |_| {
        seen += 1;
        if seen == calls {
            cancel.cancel();
        }
    }
}
