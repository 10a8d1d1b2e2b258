//! The limit that memory sets to decoding.

use lfm2_graphs::contract::{Contract, Dim};

/// Bytes that a run of one token has to read: all weights once, and of the state the convolution columns and the `rows`
/// rows of keys and values that are in use with this token.
pub fn step_bytes(contract: &Contract, rows: f64) -> f64 {
    contract.weight_bytes as f64 + state_bytes(contract, rows)
}

/// Bytes of the state with `rows` tokens in it, as far as it is in use.
pub fn state_bytes(contract: &Contract, rows: f64) -> f64 {
    let bytes = |state: &lfm2_graphs::contract::State| {
        // What is no number is one sequence, or the rows.
        let fixed: usize = state.past.shape.iter().filter_map(Dim::fixed).product();
        let rows = if state.kind.grows() { rows } else { 1.0 };
        (fixed * state.past.dtype.size()) as f64 * rows
    };
    contract.states.iter().map(bytes).sum()
}

/// Rows that a step of decoding reads on average: the first of `steps` steps finds `held` rows, each adds one and reads it.
pub fn mean_rows(held: usize, steps: usize) -> f64 {
    held as f64 + 1.0 + steps.saturating_sub(1) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::contract;

    #[test]
    fn bytes_by_hand() {
        let contract = contract(1000);
        // 4 x 2 columns of 4 bytes, and twice 2 x 8 elements of 2 bytes a row.
        assert_eq!(state_bytes(&contract, 0.0), 32.0);
        assert_eq!(state_bytes(&contract, 10.0), 32.0 + 640.0);
        assert_eq!(step_bytes(&contract, 10.0), 1672.0);
    }

    #[test]
    fn rows_by_hand() {
        // Four steps behind 10 rows read 11, 12, 13 and 14.
        assert_eq!(mean_rows(10, 4), 12.5);
        assert_eq!(mean_rows(0, 1), 1.0);
    }
}
