//! What is carried from one run to the next: convolution columns, and key and value rows.

mod rollback;

use half::{bf16, f16};
use lfm2_graphs::contract::{self, ContractError, DType, Update};
use ort::memory::{AllocationDevice, Allocator};
use ort::session::{IoBinding, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

use rollback::History;

use crate::session::Memory;

/// Axis of the tokens in the states that have one row per token.
const ROWS: usize = 2;

/// The states of one sequence.
///
/// Caches that are updated in place begin with room for one block of tokens and grow with the sequence; long contexts cost
/// nothing until they are used.
pub(crate) struct State {
    tensors: Vec<StateTensor>,
    len: usize,
    /// Number of tokens before the last run, if the state can be cut after any token of it.
    cuttable_from: Option<usize>,
    growth: Growth,
    mark: Option<Mark>,
    memory: Memory,
}

/// What is needed to go back to an earlier state of the sequence.
struct Mark {
    len: usize,
    /// A copy of every tensor but caches that are updated in place: their rows up to `len` stay as they are until the reset.
    copies: Vec<Option<DynTensor>>,
}

/// How caches grow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// Rows are added in multiples of this.
    pub(crate) block: usize,
    /// Most rows there can be.
    pub(crate) limit: usize,
}

/// One tensor of the state.
struct StateTensor {
    spec: contract::State,
    /// Shape with batch 1 and no rows.
    empty: Vec<usize>,
    value: DynTensor,
    /// Where `value` is, but for the first one.
    memory: Memory,
    /// Of a convolution in a graph that returns its columns.
    history: Option<History>,
    /// For each binding, whether `value` is bound there as both past and present, which lasts until it is replaced.
    bound: [bool; BINDINGS],
}

/// Most graphs that may work on one state.
pub(crate) const BINDINGS: usize = 2;

impl State {
    /// The state before the first token, for graphs that work in `memory`. Fails on a contract that describes no such state.
    pub(crate) fn new(states: &[contract::State], growth: Growth, memory: Memory) -> Result<Self, StateError> {
        let capacity = growth.block.min(growth.limit);
        let tensors = states.iter().map(|spec| StateTensor::new(spec, capacity, memory)).collect::<Result<_, _>>()?;
        Ok(Self { tensors, len: 0, cuttable_from: None, growth, mark: None, memory })
    }

    /// Whether [`State::remember`] and [`State::cut`] work: caches can always be shortened, convolutions only if the graph
    /// returns their columns.
    /// The processor has to reach the states for that.
    pub(crate) fn can_cut(&self) -> bool {
        self.memory == Memory::Shared
            && self.tensors.iter().all(|tensor| tensor.spec.kind.grows() || tensor.history.is_some())
    }

    /// Number of tokens that the state can be cut after, at least.
    pub(crate) fn cuttable_from(&self) -> usize {
        self.cuttable_from.unwrap_or(self.len)
    }

    /// Number of tokens seen.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `total` tokens. Rows that are in use are copied. If this fails half way, only [`State::reset`] makes the
    /// state usable again. `bindings` are all there are, each in its own place.
    pub(crate) fn reserve(
        &mut self,
        total: usize,
        mut bindings: [Option<&mut IoBinding>; BINDINGS],
    ) -> Result<(), StateError> {
        self.grow(total, |tensor| {
            let mut places = bindings.iter_mut().enumerate();
            places.try_for_each(|(index, binding)| binding.as_mut().map_or(Ok(()), |it| tensor.bind(index, it)))
        })
    }

    /// As [`State::reserve`], with something that binds.
    fn grow(
        &mut self,
        total: usize,
        mut bind: impl FnMut(&mut StateTensor) -> Result<(), StateError>,
    ) -> Result<(), StateError> {
        let growth = self.growth;
        for tensor in &mut self.tensors {
            let Some(capacity) = tensor.capacity().filter(|&capacity| capacity < total) else { continue };
            // One tensor after the other, and each bound at once: the binding keeps the old buffer alive until then, so that
            // only one is there twice.
            tensor.resize(self.len, growth.grown(capacity, total))?;
            bind(tensor)?;
        }
        Ok(())
    }

    /// Binds what is not bound yet to the binding in place `index`, before a run. States updated in place stay bound.
    pub(crate) fn bind(&mut self, index: usize, binding: &mut IoBinding) -> Result<(), StateError> {
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.bound[index]) {
            tensor.bind(index, binding)?;
        }
        Ok(())
    }

    /// Binds everything to the binding in place `index` before the next run, because its outputs were cleared.
    pub(crate) fn unbind(&mut self, index: usize) {
        self.tensors.iter_mut().for_each(|tensor| tensor.bound[index] = false);
    }

    /// Keeps what is needed to cut the state after any token of the next run, and asks that run for its columns.
    pub(crate) fn remember(&mut self, binding: &mut IoBinding) -> Result<(), StateError> {
        let memory = self.memory.info()?;
        for tensor in &mut self.tensors {
            if let Some(history) = &mut tensor.history {
                history.remember(&tensor.value)?;
                history.bind(binding, &memory)?;
            }
        }
        Ok(())
    }

    /// Forgets all tokens after the first `len`, which is at least [`State::cuttable_from`].
    pub(crate) fn cut(&mut self, len: usize) -> Result<(), StateError> {
        let from = self.cuttable_from();
        for tensor in &mut self.tensors {
            if let Some(history) = &tensor.history {
                history.cut(&mut tensor.value, len - from)?;
            } else if !tensor.is_in_place() {
                tensor.resize(len, len)?;
            }
        }
        // Rows behind the last token are never read, so that in-place caches are only counted shorter.
        self.len = len;
        // Rows up to the mark are no longer kept from being overwritten.
        self.mark.take_if(|mark| mark.len > len);
        Ok(())
    }

    /// Takes over what a run of `tokens` tokens returned; `cuttable` says whether it was told to [`State::remember`].
    pub(crate) fn advance(
        &mut self,
        outputs: &mut SessionOutputs<'_>,
        tokens: usize,
        cuttable: bool,
    ) -> Result<(), StateError> {
        self.cuttable_from = cuttable.then_some(self.len);
        self.len += tokens;
        if cuttable {
            self.tensors.iter_mut().filter_map(|tensor| tensor.history.as_mut()).try_for_each(|it| it.take(outputs))?;
        }
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.is_in_place()) {
            let name = &tensor.spec.present.name;
            let value = outputs.remove(name).ok_or_else(|| StateError::Missing { name: name.clone() })?;
            tensor.value = value.downcast().map_err(StateError::Runtime)?;
        }
        Ok(())
    }

    /// Forgets all tokens. The buffers stay, and so do their bindings, unless a failure left them with different capacities.
    pub(crate) fn reset(&mut self) -> Result<(), StateError> {
        self.len = 0;
        self.mark = None;
        self.cuttable_from = None;
        let capacities = || self.tensors.iter().filter_map(StateTensor::capacity);
        if capacities().min() != capacities().max() {
            let capacity = self.growth.block.min(self.growth.limit);
            self.tensors.iter_mut().try_for_each(|tensor| tensor.start_over(capacity))?;
        }
        self.tensors.iter_mut().try_for_each(StateTensor::reset)
    }

    /// Marks the state as it is now.
    pub(crate) fn mark(&mut self) -> Result<(), StateError> {
        let copy = |tensor: &StateTensor| match tensor.capacity() {
            Some(_) => Ok(None),
            None => tensor.copied(&tensor.value).map(Some),
        };
        let copies = self.tensors.iter().map(copy).collect::<Result<_, _>>()?;
        self.mark = Some(Mark { len: self.len, copies });
        Ok(())
    }

    /// Goes back to the marked state, and tells whether there is one.
    pub(crate) fn rewind(&mut self) -> Result<bool, StateError> {
        let Some(mark) = &self.mark else { return Ok(false) };
        for (tensor, copy) in self.tensors.iter_mut().zip(&mark.copies) {
            match copy {
                Some(copy) if tensor.is_in_place() => copy_elements(&tensor.spec, copy, &mut tensor.value)?,
                Some(copy) => tensor.value = tensor.copied(copy)?,
                None => {}
            }
        }
        self.len = mark.len;
        self.cuttable_from = None;
        Ok(true)
    }

    /// Name of the output, shape and values of every state. Rows without a token are left out.
    pub(crate) fn values(&self) -> Result<Vec<StateValues>, StateError> {
        self.tensors.iter().map(|tensor| tensor.values(self.len)).collect()
    }
}

/// Name, shape and values of a state. Of one that is kept as int8 they are the numbers as stored, without their scales.
pub type StateValues = (String, Vec<usize>, Vec<f32>);

impl Growth {
    /// The next capacity with room for `needed` rows. Each growth adds a quarter at least, so that copying is a small part of
    /// the work however long the sequence becomes, and at most a fifth of the room is unused.
    fn grown(self, capacity: usize, needed: usize) -> usize {
        let wanted = needed.max(capacity + capacity / 4);
        wanted.next_multiple_of(self.block).min(self.limit)
    }
}

impl StateTensor {
    fn new(spec: &contract::State, capacity: usize, memory: Memory) -> Result<Self, StateError> {
        let wrong = || StateError::Shape { name: spec.past.name.clone() };
        let dims = spec.past.shape.iter().enumerate();
        let empty: Vec<usize> = dims
            .map(|(axis, dim)| match (axis, dim.fixed()) {
                (0, _) => Ok(1),
                (ROWS, None) if spec.kind.grows() => Ok(0),
                (ROWS, Some(_)) if spec.kind.grows() => Err(wrong()),
                (_, fixed) => fixed.ok_or_else(wrong),
            })
            .collect::<Result<_, _>>()?;
        let rank = if spec.kind.grows() { 4 } else { 3 };
        if empty.len() != rank {
            return Err(wrong());
        }
        let shared = memory == Memory::Shared;
        let rows = if spec.update == Update::InPlace && shared { capacity } else { 0 };
        let value = allocate(spec, &with_rows(spec, &empty, rows))?;
        let history = match spec.columns {
            Some(_) if shared => History::new(spec, allocate(spec, &empty)?)?,
            _ => None,
        };
        Ok(Self { spec: spec.clone(), empty, value, memory, history, bound: [false; BINDINGS] })
    }

    /// Whether runs write into `value`. In other memory than the processor's they return a new tensor each time, which any graph
    /// does that is not given the old one for it.
    fn is_in_place(&self) -> bool {
        self.spec.update == Update::InPlace && self.memory == Memory::Shared
    }

    /// Rows that there is room for, if it is a cache that is updated in place.
    fn capacity(&self) -> Option<usize> {
        let cache = self.spec.kind.grows() && self.is_in_place();
        cache.then(|| usize::try_from(self.value.shape()[ROWS]).unwrap_or_default())
    }

    fn bind(&mut self, index: usize, binding: &mut IoBinding) -> Result<(), StateError> {
        binding.bind_input(&*self.spec.past.name, &self.value)?;
        if self.is_in_place() {
            binding.bind_output(&*self.spec.present.name, &mut self.value)?;
            self.bound[index] = true;
        } else {
            // The runtime allocates, because only it knows the shape before the run.
            binding.bind_output_to_device(&*self.spec.present.name, &self.memory.info()?)?;
        }
        Ok(())
    }

    /// Replaces a cache that is updated in place by one with this capacity and no rows in use.
    fn start_over(&mut self, capacity: usize) -> Result<(), StateError> {
        if self.capacity().is_some_and(|old| old != capacity) {
            self.value = allocate(&self.spec, &with_rows(&self.spec, &self.empty, capacity))?;
            self.bound = [false; BINDINGS];
        }
        Ok(())
    }

    /// Replaces a cache by one with this capacity and the first `len` rows.
    fn resize(&mut self, len: usize, capacity: usize) -> Result<(), StateError> {
        let mut resized = allocate(&self.spec, &with_rows(&self.spec, &self.empty, capacity))?;
        match self.spec.past.dtype {
            DType::Float16 => copy_rows::<f16>(&self.value, &mut resized, len)?,
            DType::Bfloat16 => copy_rows::<bf16>(&self.value, &mut resized, len)?,
            DType::Int8 => copy_rows::<i8>(&self.value, &mut resized, len)?,
            _ => copy_rows::<f32>(&self.value, &mut resized, len)?,
        }
        self.value = resized;
        self.bound = [false; BINDINGS];
        Ok(())
    }

    /// A tensor with the elements of `from`, which is one of this state.
    fn copied(&self, from: &DynTensor) -> Result<DynTensor, StateError> {
        if let Memory::Cuda { device } = self.memory {
            return Ok(from.to(AllocationDevice::CUDA, device)?);
        }
        let shape: Vec<usize> = from.shape().iter().map(|&size| usize::try_from(size).unwrap_or_default()).collect();
        let mut to = allocate(&self.spec, &shape)?;
        copy_elements(&self.spec, from, &mut to)?;
        Ok(to)
    }

    fn reset(&mut self) -> Result<(), StateError> {
        if !self.is_in_place() {
            self.value = allocate(&self.spec, &with_rows(&self.spec, &self.empty, 0))?;
        } else if !self.spec.kind.grows() {
            clear(&self.spec, &mut self.value)?;
        }
        Ok(())
    }

    fn values(&self, len: usize) -> Result<StateValues, StateError> {
        let rows = if self.spec.kind.grows() { Some(len) } else { None };
        let moved;
        let value = match self.memory {
            Memory::Cuda { .. } => {
                moved = self.value.to(AllocationDevice::CPU, 0)?;
                &moved
            }
            Memory::Shared | Memory::Apart => &self.value,
        };
        let values = match self.spec.past.dtype {
            DType::Float16 => used::<f16>(value, rows)?.into_iter().map(f16::to_f32).collect(),
            DType::Bfloat16 => used::<bf16>(value, rows)?.into_iter().map(bf16::to_f32).collect(),
            DType::Int8 => used::<i8>(value, rows)?.into_iter().map(f32::from).collect(),
            _ => used::<f32>(value, rows)?,
        };
        Ok((self.spec.present.name.clone(), with_rows(&self.spec, &self.empty, len), values))
    }
}

/// `empty` with `rows` rows, if the state has rows.
fn with_rows(spec: &contract::State, empty: &[usize], rows: usize) -> Vec<usize> {
    let mut shape = empty.to_owned();
    if spec.kind.grows() {
        shape[ROWS] = rows;
    }
    shape
}

/// A tensor of zeros; what the rows of a cache hold is left open, because those behind the last token are never read.
fn allocate(spec: &contract::State, shape: &[usize]) -> Result<DynTensor, StateError> {
    let dtype = match spec.past.dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float16 => TensorElementType::Float16,
        DType::Bfloat16 => TensorElementType::Bfloat16,
        DType::Int8 => TensorElementType::Int8,
        dtype => return Err(StateError::Type { name: spec.past.name.clone(), dtype }),
    };
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if elements.is_none_or(|elements| elements > isize::MAX as usize / 8) {
        return Err(StateError::Shape { name: spec.past.name.clone() });
    }
    let mut tensor = DynTensor::new(&Allocator::default(), dtype, shape.to_vec())?;
    if !spec.kind.grows() {
        clear(spec, &mut tensor)?;
    }
    Ok(tensor)
}

/// Fills a tensor with zeros: the runtime hands out memory as it is.
fn clear(spec: &contract::State, tensor: &mut DynTensor) -> Result<(), StateError> {
    match spec.past.dtype {
        DType::Float16 => tensor.try_extract_tensor_mut::<f16>()?.1.fill(f16::ZERO),
        DType::Bfloat16 => tensor.try_extract_tensor_mut::<bf16>()?.1.fill(bf16::ZERO),
        DType::Int8 => tensor.try_extract_tensor_mut::<i8>()?.1.fill(0),
        _ => tensor.try_extract_tensor_mut::<f32>()?.1.fill(0.0),
    }
    Ok(())
}

/// Copies all elements between tensors of one shape.
fn copy_elements(spec: &contract::State, from: &DynTensor, to: &mut DynTensor) -> Result<(), StateError> {
    match spec.past.dtype {
        DType::Float16 => to.try_extract_tensor_mut::<f16>()?.1.copy_from_slice(from.try_extract_tensor()?.1),
        DType::Bfloat16 => to.try_extract_tensor_mut::<bf16>()?.1.copy_from_slice(from.try_extract_tensor()?.1),
        DType::Int8 => to.try_extract_tensor_mut::<i8>()?.1.copy_from_slice(from.try_extract_tensor()?.1),
        _ => to.try_extract_tensor_mut::<f32>()?.1.copy_from_slice(from.try_extract_tensor()?.1),
    }
    Ok(())
}

/// Copies the first `len` rows of every head.
fn copy_rows<T: PrimitiveTensorElementType + Copy>(
    from: &DynTensor,
    to: &mut DynTensor,
    len: usize,
) -> Result<(), StateError> {
    let (shape, from) = from.try_extract_tensor::<T>()?;
    let [from_rows, width] = [ROWS, ROWS + 1].map(|axis| shape[axis] as usize);
    let (shape, to) = to.try_extract_tensor_mut::<T>()?;
    let to_rows = shape[ROWS] as usize;
    if len * width == 0 {
        return Ok(());
    }
    for (from, to) in from.chunks_exact(from_rows * width).zip(to.chunks_exact_mut(to_rows * width)) {
        to[..len * width].copy_from_slice(&from[..len * width]);
    }
    Ok(())
}

/// The values, of the first `rows` rows of every head if it has rows.
fn used<T: PrimitiveTensorElementType + Copy>(tensor: &DynTensor, rows: Option<usize>) -> Result<Vec<T>, StateError> {
    let (shape, values) = tensor.try_extract_tensor::<T>()?;
    let Some(rows) = rows else { return Ok(values.to_vec()) };
    let [capacity, width] = [ROWS, ROWS + 1].map(|axis| shape[axis] as usize);
    if rows * width == 0 {
        return Ok(Vec::new());
    }
    Ok(values.chunks_exact(capacity * width).flat_map(|head| &head[..rows * width]).copied().collect())
}

/// Why a state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// A shape that is not that of a state.
    #[error("the description of the state {name} has a shape that this program does not know; export the model again")]
    Shape {
        /// The input.
        name: String,
    },
    /// An element type that is not that of a state.
    #[error("the state {name} has elements of type {dtype}, and this program knows float32, float16 and int8")]
    Type {
        /// The input.
        name: String,
        /// Its type.
        dtype: DType,
    },
    /// A run without one of the outputs.
    #[error("the run returned no {name}")]
    Missing {
        /// The output.
        name: String,
    },
    /// A graph of another kind.
    #[error(transparent)]
    Contract(#[from] ContractError),
    /// The runtime failed.
    #[error(transparent)]
    Runtime(#[from] ort::Error),
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::contract::{Dim, Port, StateKind};

    use super::*;
    use crate::runtime::Runtime;

    const GROWTH: Growth = Growth { block: 4, limit: 18 };

    fn spec(kind: StateKind, dtype: DType, shape: Vec<Dim>) -> contract::State {
        let port = |name: &str| Port { name: name.into(), dtype, shape: shape.clone() };
        contract::State {
            layer: 0,
            kind,
            update: Update::InPlace,
            past: port("past"),
            present: port("present"),
            scale: None,
            axis: 2,
            columns: None,
        }
    }

    fn cache(dtype: DType) -> contract::State {
        spec(StateKind::Key, dtype, vec!["batch".into(), 2.into(), "rows".into(), 3.into()])
    }

    #[test]
    fn growing_keeps_the_rows_of_every_head() {
        Runtime::load(None).unwrap();
        for dtype in [DType::Float32, DType::Float16, DType::Bfloat16, DType::Int8] {
            let mut state = State::new(&[cache(dtype)], GROWTH, Memory::Shared).unwrap();
            let value = |head: usize, row: usize, column: usize| (head * 50 + row * 10 + column) as f32;
            let rows = |len: usize| -> Vec<f32> {
                let all = (0..2).flat_map(|head| (0..len).map(move |row| (head, row)));
                all.flat_map(|(head, row)| (0..3).map(move |column| value(head, row, column))).collect()
            };
            for index in 0..24 {
                let number = value(index / 12, index / 3 % 4, index % 3);
                match dtype {
                    DType::Float16 => {
                        state.tensors[0].value.try_extract_tensor_mut::<f16>().unwrap().1[index] =
                            f16::from_f32(number);
                    }
                    DType::Bfloat16 => {
                        state.tensors[0].value.try_extract_tensor_mut::<bf16>().unwrap().1[index] =
                            bf16::from_f32(number);
                    }
                    DType::Int8 => {
                        state.tensors[0].value.try_extract_tensor_mut::<i8>().unwrap().1[index] = number as i8;
                    }
                    _ => state.tensors[0].value.try_extract_tensor_mut::<f32>().unwrap().1[index] = number,
                }
            }
            state.len = 3;
            for (total, capacity) in [(4, 4), (5, 8), (9, 12), (13, 16), (17, 18), (18, 18)] {
                state.grow(total, |_| Ok(())).unwrap();
                assert_eq!(state.tensors[0].value.shape()[ROWS], capacity as i64, "for {total}");
                assert_eq!(state.values().unwrap(), [("present".to_owned(), vec![1, 2, 3, 3], rows(3))]);
            }
            state.reset().unwrap();
            assert_eq!(state.values().unwrap(), [("present".to_owned(), vec![1, 2, 0, 3], vec![])]);
            assert_eq!(state.tensors[0].capacity(), Some(18), "buffers are kept");
        }
    }

    #[test]
    fn every_cache_is_bound_before_the_next_one_grows() {
        Runtime::load(None).unwrap();
        let mut state = State::new(&[cache(DType::Float32), cache(DType::Float16)], GROWTH, Memory::Shared).unwrap();
        // Too large for any memory, so that growing fails half way.
        let width = std::mem::replace(&mut state.tensors[1].empty[ROWS + 1], usize::MAX);
        let mut bound = Vec::new();
        let mut bind = |tensor: &mut StateTensor| {
            bound.push(tensor.spec.past.dtype);
            Ok(())
        };
        state.grow(7, &mut bind).unwrap_err();
        assert_eq!(bound, [DType::Float32], "the old buffer of the first cache is not waited with");

        let capacities = |state: &State| state.tensors.iter().filter_map(StateTensor::capacity).collect::<Vec<_>>();
        assert_eq!(capacities(&state), [8, 4]);
        state.tensors[1].empty[ROWS + 1] = width;
        state.reset().unwrap();
        assert_eq!(capacities(&state), [4, 4]);
        assert_eq!(state.tensors[0].bound, [false; BINDINGS], "the bindings have another buffer");
        state.grow(7, |_| Ok(())).unwrap();
        assert_eq!(capacities(&state), [8, 8]);
    }

    #[test]
    fn convolution_states_begin_with_zeros() {
        Runtime::load(None).unwrap();
        let conv = spec(StateKind::Conv, DType::Float32, vec!["batch".into(), 2048.into(), 3.into()]);
        let states: Vec<_> =
            (0..8).map(|_| State::new(std::slice::from_ref(&conv), GROWTH, Memory::Shared).unwrap()).collect();
        for mut state in states {
            assert!(state.values().unwrap()[0].2.iter().all(|&value| value == 0.0));
            // Freed memory is handed out again.
            state.tensors[0].value.try_extract_tensor_mut::<f32>().unwrap().1.fill(1.0);
            drop(state);
            let next = State::new(std::slice::from_ref(&conv), GROWTH, Memory::Shared).unwrap();
            assert!(next.values().unwrap()[0].2.iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn long_sequences_grow_by_a_quarter() {
        let growth = Growth { block: 512, limit: 128_000 };
        assert_eq!(growth.grown(512, 513), 1024);
        assert_eq!(growth.grown(512, 5000), 5120);
        assert_eq!(growth.grown(40_960, 40_961), 51_200);
        assert_eq!(growth.grown(120_000, 120_001), 128_000);
    }

    #[test]
    fn states_that_are_none_are_refused() {
        Runtime::load(None).unwrap();
        let conv = |shape: Vec<Dim>| spec(StateKind::Conv, DType::Float32, shape);
        let huge = usize::MAX / 2;
        for (spec, part) in [
            (cache(DType::Int64), "int64"),
            (conv(vec!["batch".into(), 4.into()]), "shape"),
            (conv(vec!["batch".into(), "hidden".into(), 2.into()]), "shape"),
            (conv(vec!["batch".into(), huge.into(), huge.into()]), "shape"),
            (spec(StateKind::Key, DType::Float32, vec![1.into(), 2.into(), 7.into(), 3.into()]), "shape"),
        ] {
            let message = State::new(&[spec], GROWTH, Memory::Shared).err().unwrap().to_string();
            assert!(message.contains(part) && message.contains("past"), "{message}");
        }
    }
}
