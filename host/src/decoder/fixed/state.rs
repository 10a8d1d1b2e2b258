//! The states of static graphs: the host keeps them, and adds what each run returns.

use half::f16;
use lfm2_graphs::contract::{self, StateKind, Update};
use ort::session::IoBinding;
use ort::value::{DynTensor, PrimitiveTensorElementType};

use super::numbers::{self, Kind};
use crate::state::{StateError, StateValues};

/// The states of one sequence, in tensors that both graphs of a pair take as they are.
///
/// Rows of keys and values lie in the order of the tokens, the first token's first, and are never moved. A ring would serve for
/// more tokens than there are rows, but the model has no window of attention: every token has to see all before it.
pub(super) struct FixedState {
    tensors: Vec<Kept>,
    len: usize,
    mark: Option<Mark>,
}

/// What is needed to go back to an earlier state of the sequence.
struct Mark {
    len: usize,
    /// Of the convolutions. Rows of keys and values up to `len` stay as they are until the reset.
    copies: Vec<DynTensor>,
}

/// One tensor of the state.
struct Kept {
    spec: contract::State,
    past: DynTensor,
    /// Product of the dimensions before the one that counts tokens.
    outer: usize,
    /// Places for tokens.
    rows: usize,
    /// Product of the dimensions behind it.
    inner: usize,
}

impl FixedState {
    /// The state before the first token.
    pub(super) fn new(states: &[contract::State]) -> Result<Self, StateError> {
        Ok(Self { tensors: states.iter().map(Kept::new).collect::<Result<_, _>>()?, len: 0, mark: None })
    }

    /// Binds the inputs, which stay the same tensors for good.
    pub(super) fn bind(&self, binding: &mut IoBinding) -> Result<(), StateError> {
        for tensor in &self.tensors {
            binding.bind_input(&*tensor.spec.past.name, &tensor.past)?;
        }
        Ok(())
    }

    /// Number of tokens seen.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds the first `tokens` tokens of what a run returned, one tensor for each state.
    pub(super) fn advance(&mut self, returned: &[DynTensor], tokens: usize) -> Result<(), StateError> {
        for (tensor, returned) in self.tensors.iter_mut().zip(returned) {
            match numbers::kind(&tensor.past) {
                Kind::Float16 => tensor.take::<f16>(returned, self.len, tokens)?,
                Kind::Float32 => tensor.take::<f32>(returned, self.len, tokens)?,
                Kind::Int16 => tensor.take::<i16>(returned, self.len, tokens)?,
            }
        }
        self.len += tokens;
        Ok(())
    }

    /// Forgets all tokens. Rows of keys and values are not looked at until they are written again.
    pub(super) fn reset(&mut self) -> Result<(), StateError> {
        self.len = 0;
        self.mark = None;
        self.convolutions().try_for_each(|tensor| numbers::clear(&mut tensor.past))
    }

    /// Marks the state as it is now.
    pub(super) fn mark(&mut self) -> Result<(), StateError> {
        let copy = |tensor: &mut Kept| {
            let mut copy = numbers::zeros(&tensor.spec.past)?.0;
            numbers::copy(&tensor.past, &mut copy)?;
            Ok(copy)
        };
        let copies = self.convolutions().map(copy).collect::<Result<_, StateError>>()?;
        self.mark = Some(Mark { len: self.len, copies });
        Ok(())
    }

    /// Goes back to the marked state, and tells whether there is one.
    pub(super) fn rewind(&mut self) -> Result<bool, StateError> {
        let Some(mark) = self.mark.take() else { return Ok(false) };
        self.convolutions().zip(&mark.copies).try_for_each(|(tensor, copy)| numbers::copy(copy, &mut tensor.past))?;
        self.len = mark.len;
        self.mark = Some(mark);
        Ok(true)
    }

    /// Name of the output, shape and values of every state. Rows without a token are left out.
    pub(super) fn values(&self) -> Result<Vec<StateValues>, StateError> {
        self.tensors.iter().map(|tensor| tensor.values(self.len)).collect()
    }

    fn convolutions(&mut self) -> impl Iterator<Item = &mut Kept> {
        self.tensors.iter_mut().filter(|tensor| !tensor.spec.kind.grows())
    }
}

impl Kept {
    fn new(spec: &contract::State) -> Result<Self, StateError> {
        let (past, shape) = numbers::zeros(&spec.past)?;
        let has_scale = numbers::kind(&past) == Kind::Int16;
        if spec.axis >= shape.len() || spec.update != Update::ByHost || has_scale != spec.scale.is_some() {
            return Err(StateError::Shape { name: spec.past.name.clone() });
        }
        let (outer, inner) = (shape[..spec.axis].iter().product(), shape[spec.axis + 1..].iter().product());
        Ok(Self { rows: shape[spec.axis], spec: spec.clone(), past, outer, inner })
    }

    /// Takes the first `tokens` tokens out of `returned`, behind the `len` tokens before.
    fn take<T: PrimitiveTensorElementType + Copy>(
        &mut self,
        returned: &DynTensor,
        len: usize,
        tokens: usize,
    ) -> Result<(), StateError> {
        let Self { rows, inner, outer, .. } = *self;
        let (_, returned) = returned.try_extract_tensor::<T>()?;
        let run = returned.len() / (outer * inner);
        // Of a convolution only the last columns stay.
        let (place, taken) = match self.spec.kind {
            StateKind::Conv => (rows - tokens.min(rows), tokens - tokens.min(rows)..tokens),
            StateKind::Key | StateKind::Value => (len, 0..tokens),
        };
        if tokens > run || place + taken.len() > rows {
            return Err(StateError::Shape { name: self.spec.present.name.clone() });
        }
        let shifted = if self.spec.kind == StateKind::Conv { taken.len() } else { 0 };
        let past = numbers::values::<T>(&mut self.past)?;
        for (past, returned) in past.chunks_exact_mut(rows * inner).zip(returned.chunks_exact(run * inner)) {
            if shifted > 0 {
                past.copy_within(shifted * inner.., 0);
            }
            let returned = &returned[taken.start * inner..taken.end * inner];
            past[place * inner..][..returned.len()].copy_from_slice(returned);
        }
        Ok(())
    }

    fn values(&self, len: usize) -> Result<StateValues, StateError> {
        let rows = if self.spec.kind.grows() { len } else { self.rows };
        let used = |values: &[f32]| -> Vec<f32> {
            values.chunks_exact(self.rows * self.inner).flat_map(|part| &part[..rows * self.inner]).copied().collect()
        };
        let values = used(&numbers::widened(&self.past, self.spec.scale.unwrap_or(1.0))?);
        let mut shape: Vec<usize> = self.past.shape().iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        shape[self.spec.axis] = rows;
        Ok((self.spec.present.name.clone(), shape, values))
    }
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::contract::{DType, Port};

    use super::*;
    use crate::runtime::Runtime;

    fn spec(kind: StateKind, axis: usize, shape: [usize; 3], dtype: DType) -> contract::State {
        let port = |name: &str| Port { name: name.to_owned(), dtype, shape: shape.map(Into::into).to_vec() };
        let (past, present) = (port("past"), port("new"));
        let scale = (dtype == DType::Int16).then_some(0.5);
        contract::State { layer: 0, kind, update: Update::ByHost, past, present, scale, axis, columns: None }
    }

    fn returned(dtype: DType, shape: [usize; 3], values: &[f32]) -> DynTensor {
        let port = Port { name: "new".to_owned(), dtype, shape: shape.map(Into::into).to_vec() };
        let mut tensor = numbers::zeros(&port).unwrap().0;
        if !values.is_empty() {
            numbers::write(&mut tensor, 0, values).unwrap();
        }
        tensor
    }

    #[test]
    fn rows_of_a_padded_run_go_behind_those_before() {
        Runtime::load(None).unwrap();
        for dtype in [DType::Float32, DType::Float16] {
            // One head of two elements, four places. Keys have the tokens last.
            let specs = [spec(StateKind::Key, 2, [1, 2, 4], dtype), spec(StateKind::Value, 1, [1, 4, 2], dtype)];
            let mut state = FixedState::new(&specs).unwrap();
            // Runs of three tokens, of which two and then one are real.
            for (values, tokens) in [([1.0, 2.0, 9.0, 10.0, 20.0, 90.0], 2), ([3.0, 9.0, 9.0, 30.0, 90.0, 90.0], 1)] {
                let by_token = [0, 3, 1, 4, 2, 5].map(|place: usize| values[place]);
                let run = [returned(dtype, [1, 2, 3], &values), returned(dtype, [1, 3, 2], &by_token)];
                state.advance(&run, tokens).unwrap();
            }
            let values = state.values().unwrap();
            assert_eq!(values[0].1, [1, 2, 3]);
            assert_eq!(values[0].2, [1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
            assert_eq!((&values[1].1, &values[1].2), (&vec![1, 3, 2], &vec![1.0, 10.0, 2.0, 20.0, 3.0, 30.0]));
            // There are four places.
            let run = [returned(dtype, [1, 2, 3], &[0.0; 6]), returned(dtype, [1, 3, 2], &[0.0; 6])];
            assert!(matches!(state.advance(&run, 2), Err(StateError::Shape { .. })));
        }
    }

    #[test]
    fn convolutions_keep_their_last_real_columns() {
        Runtime::load(None).unwrap();
        let mut state = FixedState::new(&[spec(StateKind::Conv, 1, [1, 2, 2], DType::Float32)]).unwrap();
        let run = [returned(DType::Float32, [1, 3, 2], &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0])];
        let columns = |state: &FixedState| state.values().unwrap()[0].2.clone();
        state.advance(&run, 1).unwrap();
        assert_eq!(columns(&state), [0.0, 0.0, 1.0, 10.0]);
        state.mark().unwrap();
        state.advance(&run, 1).unwrap();
        assert_eq!(columns(&state), [1.0, 10.0, 1.0, 10.0]);
        state.advance(&run, 2).unwrap();
        assert_eq!(columns(&state), [1.0, 10.0, 2.0, 20.0]);
        state.advance(&run, 3).unwrap();
        assert_eq!(columns(&state), [2.0, 20.0, 3.0, 30.0]);
        for _ in 0..2 {
            assert!(state.rewind().unwrap());
            assert_eq!((columns(&state), state.len()), (vec![0.0, 0.0, 1.0, 10.0], 1));
            state.advance(&run, 3).unwrap();
        }
        state.reset().unwrap();
        assert_eq!((columns(&state), state.len(), state.rewind().unwrap()), (vec![0.0; 4], 0, false));
    }

    #[test]
    fn integers_are_kept_as_they_are_and_told_as_numbers() {
        Runtime::load(None).unwrap();
        let mut state = FixedState::new(&[spec(StateKind::Value, 1, [1, 4, 2], DType::Int16)]).unwrap();
        let mut run = returned(DType::Int16, [1, 3, 2], &[]);
        numbers::values::<i16>(&mut run).unwrap().copy_from_slice(&[1, -2, 3, i16::MAX, 9, 9]);
        state.advance(&[run], 2).unwrap();
        assert_eq!(state.values().unwrap()[0].2, [0.5, -1.0, 1.5, 16_383.5]);
        let unscaled = contract::State { scale: None, ..spec(StateKind::Value, 1, [1, 4, 2], DType::Int16) };
        assert!(FixedState::new(&[unscaled]).is_err());
    }

    #[test]
    fn states_that_are_none_are_refused() {
        Runtime::load(None).unwrap();
        let huge = usize::MAX / 2;
        let appended =
            contract::State { update: Update::Appended, ..spec(StateKind::Key, 2, [1, 2, 4], DType::Float32) };
        for spec in [
            spec(StateKind::Key, 3, [1, 2, 4], DType::Float32),
            spec(StateKind::Key, 2, [1, huge, huge], DType::Float32),
            spec(StateKind::Key, 2, [1, 0, 4], DType::Float32),
            spec(StateKind::Key, 2, [1, 2, 4], DType::Int64),
            appended,
        ] {
            assert!(FixedState::new(&[spec]).is_err());
        }
    }
}
