//! The limit that memory sets to decoding.

use lfm2_graphs::contract::Contract;

/// Bytes that a run of one token has to read: all weights once, and of the state the convolution columns and the `rows`
/// rows of keys and values that are in use with this token.
pub fn step_bytes(contract: &Contract, rows: f64) -> f64 {
    contract.weight_bytes as f64 + state_bytes(contract, rows)
}

/// Bytes of the state with `rows` tokens in it, as far as it is in use.
pub fn state_bytes(contract: &Contract, rows: f64) -> f64 {
    let bytes = |state: &lfm2_graphs::contract::State| {
        // What is no number is one sequence, or the rows.
        let grows = state.kind.grows();
        let others = state.past.shape.iter().enumerate().filter(|(axis, _)| !grows || *axis != state.axis);
        let fixed: usize = others.filter_map(|(_, dim)| dim.fixed()).product();
        let rows = if grows { rows } else { 1.0 };
        (fixed * state.past.dtype.size()) as f64 * rows
    };
    contract.states.iter().map(bytes).sum()
}

/// Rows that a step of decoding reads on average: the first of `steps` steps finds `held` rows, each adds one and reads it. Graphs of fixed
/// shapes read all rows that they have room for.
pub fn mean_rows(contract: &Contract, held: usize, steps: usize) -> f64 {
    match contract.rows() {
        Ok(inputs) => inputs.past as f64,
        Err(_) => held as f64 + 1.0 + steps.saturating_sub(1) as f64 / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::contract::{Dim, Inputs, RowInputs};

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
        let contract = contract(1000);
        // Four steps behind 10 rows read 11, 12, 13 and 14.
        assert_eq!(mean_rows(&contract, 10, 4), 12.5);
        assert_eq!(mean_rows(&contract, 0, 1), 1.0);
    }

    #[test]
    fn rows_of_fixed_shapes_are_read_whole_and_counted_once() {
        let mut fixed = contract(1000);
        for state in fixed.states.iter_mut().filter(|state| state.kind.grows()) {
            state.past.shape[state.axis] = Dim::Fixed(64);
        }
        assert_eq!(state_bytes(&fixed, 10.0), state_bytes(&contract(1000), 10.0));
        let port = fixed.states[0].past.clone();
        fixed.inputs = Inputs::Rows(RowInputs { tokens: 1, past: 64, embeddings: port, attention: None });
        assert_eq!(mean_rows(&fixed, 10, 4), 64.0);
    }
}
