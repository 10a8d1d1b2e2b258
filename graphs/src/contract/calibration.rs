//! What a calibration run found out about a model: the host writes it, the exporter reads it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ContractError;

/// Version of this structure. Other versions are refused.
pub const CALIBRATION_VERSION: u32 = 3;

/// Statistics of a checkpoint's activations over a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// [`CALIBRATION_VERSION`] at the time of writing.
    pub version: u32,
    /// What tells the checkpoint from others, as in the manifest of its packages.
    pub model: String,
    /// Number of tokens that the statistics were taken over.
    pub tokens: u64,
    /// By name of a weight in the checkpoint: for each of its columns, the mean of the squares of the activations that it is
    /// multiplied with. Weights that share their input have equal entries. The token table has those of the head.
    pub weights: BTreeMap<String, Vec<f32>>,
    /// By name of a key or value output of the graph: the largest magnitude that each channel can have, `[kv_heads * head_dim]`. Of
    /// values it is the largest of the text. Of keys it is the largest length of the pair of channels that the rotary embedding
    /// turns together, because positions beyond the text turn it further.
    pub states: BTreeMap<String, Vec<f32>>,
    /// By name of a value of the static graphs whose activations are integers: the least and the largest number of the text. Empty if
    /// they were not asked for.
    pub ranges: BTreeMap<String, [f32; 2]>,
}

impl Calibration {
    /// The JSON form. Numbers are written so that reading gives the same bits back.
    pub fn to_json(&self) -> Result<String, ContractError> {
        serde_json::to_string(self).map_err(|source| ContractError::Json { source })
    }

    /// Reads the JSON form. The error says what is wrong and what to do.
    pub fn from_json(text: &str) -> Result<Self, ContractError> {
        super::versioned(text, CALIBRATION_VERSION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_to_the_bit() {
        let numbers = vec![0.1_f32, 1e-30, 16_777_217.0, f32::MIN_POSITIVE, f32::MAX];
        let entries = |name: &str| BTreeMap::from([(name.to_owned(), numbers.clone())]);
        let calibration = Calibration {
            version: CALIBRATION_VERSION,
            model: "ab".to_owned(),
            tokens: 7,
            weights: entries("w"),
            states: entries("present"),
            ranges: BTreeMap::from([("x".to_owned(), [-0.1, 1e-30])]),
        };
        assert_eq!(Calibration::from_json(&calibration.to_json().unwrap()).unwrap(), calibration);
    }
}
