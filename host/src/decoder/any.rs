//! The decoder that fits the graphs at hand.

use std::collections::BTreeMap;
use std::time::Duration;

use lfm2_graphs::contract::Contract;
use ndarray::{Array2, ArrayView1, ArrayView2};

use super::{Decoder, DecoderError, DecoderSettings, FixedDecoder, OrtDecoder, Rewind};
use crate::cancel::Cancel;
use crate::package::UsedFile;
use crate::session::Session;

/// A decoder of either kind, known when the package is opened.
#[allow(clippy::large_enum_variant, reason = "there are one or two in a process")]
pub enum AnyDecoder {
    /// A graph that takes any number of tokens.
    Dynamic(OrtDecoder),
    /// A pair of static graphs.
    Fixed(FixedDecoder),
}

/// Calls the same method of whichever decoder it is.
macro_rules! either {
    ($decoder:expr, $inner:ident => $call:expr) => {
        match $decoder {
            AnyDecoder::Dynamic($inner) => $call,
            AnyDecoder::Fixed($inner) => $call,
        }
    };
}

impl AnyDecoder {
    /// Lets `cancel` stop long prompts.
    pub fn set_cancel(&mut self, cancel: Cancel) {
        either!(self, decoder => decoder.set_cancel(cancel));
    }

    /// Description of the graph that computes single tokens.
    pub fn contract(&self) -> &Contract {
        either!(self, decoder => decoder.contract())
    }

    /// How many nodes run on each provider, by ONNX Runtime's names for them: those of both graphs of a pair, and those of a companion
    /// if it is loaded.
    pub fn placed(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for (provider, count) in self.sessions().into_iter().flat_map(|session| session.placement().counts()) {
            *counts.entry(provider).or_default() += count;
        }
        counts
    }

    /// The files that all graphs which are loaded by now were loaded from, each once and graphs first; nothing if no manifest lists some
    /// of them. A companion is loaded by the first run that goes through it.
    pub fn files(&self) -> Option<Vec<UsedFile>> {
        let files: Option<Vec<_>> = self.sessions().into_iter().map(Session::files).collect();
        Some(UsedFile::distinct(files?.into_iter().flatten().cloned()))
    }

    /// How long the runtime took to create the sessions of the graphs that are loaded by now.
    pub fn creation(&self) -> Duration {
        self.sessions().into_iter().map(Session::creation).sum()
    }

    /// The sessions of all graphs that are loaded by now.
    fn sessions(&self) -> Vec<&Session> {
        match self {
            Self::Dynamic(decoder) => decoder.sessions(),
            Self::Fixed(decoder) => decoder.sessions().into(),
        }
    }

    /// The decoder of a graph that takes any number of tokens, if it is one.
    pub fn into_dynamic(self) -> Option<OrtDecoder> {
        match self {
            Self::Dynamic(decoder) => Some(decoder),
            Self::Fixed(_) => None,
        }
    }

    /// How this decoder computes, as far as it has run.
    pub fn settings(&self) -> DecoderSettings {
        either!(self, decoder => decoder.settings())
    }
}

impl Decoder for AnyDecoder {
    fn step(&mut self, tokens: &[u32]) -> Result<ArrayView1<'_, f32>, DecoderError> {
        either!(self, decoder => decoder.step(tokens))
    }

    fn step_all(&mut self, tokens: &[u32]) -> Result<Array2<f32>, DecoderError> {
        either!(self, decoder => decoder.step_all(tokens))
    }

    fn steps_all_at_once(&self) -> bool {
        either!(self, decoder => decoder.steps_all_at_once())
    }

    fn can_rollback(&self) -> bool {
        either!(self, decoder => decoder.can_rollback())
    }

    fn verify(&mut self, tokens: &[u32]) -> Result<ArrayView2<'_, f32>, DecoderError> {
        either!(self, decoder => decoder.verify(tokens))
    }

    fn truncate(&mut self, len: usize) -> Result<(), DecoderError> {
        either!(self, decoder => decoder.truncate(len))
    }

    fn reset(&mut self) {
        either!(self, decoder => decoder.reset());
    }

    fn len(&self) -> usize {
        either!(self, decoder => decoder.len())
    }

    fn context_length(&self) -> usize {
        either!(self, decoder => decoder.context_length())
    }

    fn vocab_size(&self) -> usize {
        either!(self, decoder => decoder.vocab_size())
    }

    fn run_time(&self) -> Duration {
        either!(self, decoder => decoder.run_time())
    }
}

impl Rewind for AnyDecoder {
    fn mark(&mut self) -> Result<(), DecoderError> {
        either!(self, decoder => decoder.mark())
    }

    fn rewind(&mut self) -> Result<(), DecoderError> {
        either!(self, decoder => decoder.rewind())
    }
}
