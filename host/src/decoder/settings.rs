//! How a decoder computes, for records of what was measured.

use lfm2_graphs::contract::StateKind;
use serde::{Deserialize, Serialize};

use super::OrtDecoder;

/// The choices that change how fast a decoder is, or what it computes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderSettings {
    /// Tokens of a prompt that are run at once.
    pub chunk: usize,
    /// Number formats that prompts are computed with: `int8` for a companion, or else a recipe's name, as in the contract.
    pub prefill: String,
    /// Most tokens that are drafted ahead and verified in one run; 0 if none are.
    pub speculate: usize,
    /// Element type of keys and values; `none` without attention.
    pub kv: String,
}

impl OrtDecoder {
    /// How this decoder computes, as far as it has run.
    pub fn settings(&self) -> DecoderSettings {
        let contract = self.contract();
        let keys = contract.states.iter().find(|state| state.kind == StateKind::Key);
        DecoderSettings {
            chunk: self.chunk(),
            prefill: match self.companion() {
                // Its weights and activations are bytes, whatever the recipe. One that was not worth loading has run nothing.
                Some(companion) if companion.is_loaded() => "int8".to_owned(),
                _ => contract.precision.clone(),
            },
            // Guesses are the engine's business; a decoder runs what it is given.
            speculate: 0,
            kv: keys.map_or("none", |state| state.past.dtype.name()).to_owned(),
        }
    }
}
