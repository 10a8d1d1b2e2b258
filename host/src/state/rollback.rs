//! Cutting the state of a convolution after any token of the last run.
//!
//! The state is the last `conv_L_cache - 1` columns of B*x, and a run overwrites them. With the columns from before the run and
//! those of the run itself, the state after any of its tokens is a copy of some of them, exact to the bit.

use half::{bf16, f16};
use lfm2_graphs::contract::{self, DType, Port, StateKind};
use ort::memory::MemoryInfo;
use ort::session::{IoBinding, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType};

use super::StateError;

/// What is kept of one convolution for cutting its state.
pub(super) struct History {
    /// The output with every column of a run.
    port: Port,
    /// The state before the last run, `[1, hidden_size, conv_L_cache - 1]`.
    before: DynTensor,
    /// The columns of the last run, `[1, tokens, hidden_size]`, if they were asked for.
    columns: Option<DynTensor>,
}

impl History {
    /// Nothing yet, if the graph has columns for this state. `before` is a tensor of the state's shape.
    pub(super) fn new(state: &contract::State, before: DynTensor) -> Result<Option<Self>, StateError> {
        let Some(port) = &state.columns else { return Ok(None) };
        let channels = state.past.shape.get(1).and_then(|dim| dim.fixed());
        let fits = state.kind == StateKind::Conv
            && port.dtype == state.past.dtype
            && port.shape.len() == 3
            && port.shape[2].fixed() == channels;
        if !fits {
            return Err(StateError::Shape { name: port.name.clone() });
        }
        Ok(Some(Self { port: port.clone(), before, columns: None }))
    }

    /// Keeps `state` as it is before a run.
    pub(super) fn remember(&mut self, state: &DynTensor) -> Result<(), StateError> {
        self.columns = None;
        match self.port.dtype {
            DType::Float16 => copy::<f16>(state, &mut self.before),
            DType::Bfloat16 => copy::<bf16>(state, &mut self.before),
            _ => copy::<f32>(state, &mut self.before),
        }
    }

    /// Asks the next run for its columns. The runtime allocates them from its arena, because their number differs from run to
    /// run.
    pub(super) fn bind(&self, binding: &mut IoBinding, memory: &MemoryInfo) -> Result<(), StateError> {
        Ok(binding.bind_output_to_device(&*self.port.name, memory)?)
    }

    /// Takes the columns out of what the run returned.
    pub(super) fn take(&mut self, outputs: &mut SessionOutputs<'_>) -> Result<(), StateError> {
        let name = &self.port.name;
        let columns = outputs.remove(name).ok_or_else(|| StateError::Missing { name: name.clone() })?;
        self.columns = Some(columns.downcast()?);
        Ok(())
    }

    /// Makes `state` what it was after the first `tokens` tokens of the run.
    pub(super) fn cut(&self, state: &mut DynTensor, tokens: usize) -> Result<(), StateError> {
        let name = &self.port.name;
        let columns = self.columns.as_ref().ok_or_else(|| StateError::Missing { name: name.clone() })?;
        let wrong = || StateError::Shape { name: name.clone() };
        match self.port.dtype {
            DType::Float16 => cut::<f16>(&self.before, columns, state, tokens).ok_or_else(wrong),
            DType::Bfloat16 => cut::<bf16>(&self.before, columns, state, tokens).ok_or_else(wrong),
            _ => cut::<f32>(&self.before, columns, state, tokens).ok_or_else(wrong),
        }
    }
}

fn copy<T: PrimitiveTensorElementType + Copy>(from: &DynTensor, to: &mut DynTensor) -> Result<(), StateError> {
    to.try_extract_tensor_mut::<T>()?.1.copy_from_slice(from.try_extract_tensor::<T>()?.1);
    Ok(())
}

/// Takes the last columns of (`before`, the first `tokens` of `columns`). `None` if the sizes do not fit together.
fn cut<T: PrimitiveTensorElementType + Copy>(
    before: &DynTensor,
    columns: &DynTensor,
    state: &mut DynTensor,
    tokens: usize,
) -> Option<()> {
    let (shape, before) = before.try_extract_tensor::<T>().ok()?;
    let [channels, width] = [1, 2].map(|axis| usize::try_from(shape[axis]).unwrap_or_default());
    let columns = columns.try_extract_tensor::<T>().ok()?.1;
    let state = state.try_extract_tensor_mut::<T>().ok()?.1;
    if tokens * channels > columns.len() || state.len() != before.len() || channels * width != state.len() {
        return None;
    }
    for channel in 0..channels {
        for place in 0..width {
            let at = tokens + place;
            state[channel * width + place] = match at.checked_sub(width) {
                None => before[channel * width + at],
                Some(token) => columns[token * channels + channel],
            };
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use ort::memory::Allocator;
    use ort::value::TensorElementType;

    use super::*;
    use crate::runtime::Runtime;

    fn tensor(shape: Vec<usize>, values: &[f32]) -> DynTensor {
        let mut tensor = DynTensor::new(&Allocator::default(), TensorElementType::Float32, shape).unwrap();
        tensor.try_extract_tensor_mut::<f32>().unwrap().1.copy_from_slice(values);
        tensor
    }

    #[test]
    fn a_state_is_cut_after_any_token() {
        Runtime::load(None).unwrap();
        // Two channels, two columns before the run, three of the run; channels last there.
        let before = tensor(vec![1, 2, 2], &[1.0, 2.0, 10.0, 20.0]);
        let columns = tensor(vec![1, 3, 2], &[3.0, 30.0, 4.0, 40.0, 5.0, 50.0]);
        for (tokens, expected) in [
            (0, [1.0, 2.0, 10.0, 20.0]),
            (1, [2.0, 3.0, 20.0, 30.0]),
            (2, [3.0, 4.0, 30.0, 40.0]),
            (3, [4.0, 5.0, 40.0, 50.0]),
        ] {
            let mut state = tensor(vec![1, 2, 2], &[0.0; 4]);
            cut::<f32>(&before, &columns, &mut state, tokens).unwrap();
            assert_eq!(state.try_extract_tensor::<f32>().unwrap().1, expected, "after {tokens}");
        }
        let mut state = tensor(vec![1, 2, 2], &[0.0; 4]);
        assert!(cut::<f32>(&before, &columns, &mut state, 4).is_none(), "there are three");
    }
}
