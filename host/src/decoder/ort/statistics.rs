//! What graphs for calibration tell about each run.

use ort::memory::Allocator;
use ort::value::Tensor;

use super::{Graph, Logits, OrtDecoder};
use crate::decoder::DecoderError;
use crate::state::StateError;

/// Tokens of a run: each of them has logits here, which nobody looks at.
const RUN: usize = 64;

/// The outputs with statistics, each bound once. Other graphs have none.
pub(super) struct Statistics(Vec<Tensor<f32>>);

impl Statistics {
    /// Makes room for the statistics of the graph, and binds it.
    pub(super) fn new(graph: &mut Graph) -> Result<Self, StateError> {
        let mut tensors = Vec::new();
        for statistic in graph.contract().outputs.statistics.clone() {
            let port = statistic.port;
            let [Some(columns)] = port.shape.iter().map(|dim| dim.fixed()).collect::<Vec<_>>()[..] else {
                return Err(StateError::Shape { name: port.name });
            };
            let mut tensor = Tensor::new(&Allocator::default(), [columns])?;
            graph.binding().bind_output(&*port.name, &mut tensor)?;
            tensors.push(tensor);
        }
        Ok(Self(tensors))
    }
}

impl OrtDecoder {
    /// Runs `tokens` for the sake of the graph's statistics. Calls `on_values` for each run and each statistic, with its place in
    /// the contract and the sums of the run, `[inputs]`.
    ///
    /// # Errors
    /// Those of [`Decoder::step`](crate::decoder::Decoder::step).
    pub fn observe(&mut self, tokens: &[u32], on_values: &mut dyn FnMut(usize, &[f32])) -> Result<(), DecoderError> {
        // Nothing is run unless all of it fits.
        self.check(tokens)?;
        for part in tokens.chunks(RUN.min(self.chunk)) {
            self.run(part, Logits::All)?;
            let values = self.statistics.0.iter().map(|tensor| tensor.extract_tensor().1);
            values.enumerate().for_each(|(place, values)| on_values(place, values));
        }
        Ok(())
    }
}
