//! What is carried from one run to the next: convolution columns, and key and value rows.

use half::f16;
use lfm2_graphs::contract::{self, DType, Update};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, SessionOutputs};
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

/// Axis of the tokens in the states that have one row per token.
const ROWS: usize = 2;

/// The states of one sequence.
///
/// Caches that are updated in place begin with room for one block of tokens and grow with the sequence; long contexts cost
/// nothing until they are used.
pub(crate) struct State {
    tensors: Vec<StateTensor>,
    len: usize,
    /// Rows that the caches updated in place have room for.
    capacity: usize,
    growth: Growth,
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
    /// Whether `value` is bound as both past and present, which lasts until it is replaced.
    bound: bool,
}

impl State {
    /// The state before the first token. Fails on a contract that describes no such state.
    pub(crate) fn new(states: &[contract::State], growth: Growth) -> Result<Self, StateError> {
        let capacity = growth.block.min(growth.limit);
        let tensors = states.iter().map(|spec| StateTensor::new(spec, capacity)).collect::<Result<_, _>>()?;
        Ok(Self { tensors, len: 0, capacity, growth })
    }

    /// Number of tokens seen.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `total` tokens. Rows that are in use are copied.
    pub(crate) fn reserve(&mut self, total: usize) -> Result<(), StateError> {
        if total <= self.capacity {
            return Ok(());
        }
        let capacity = self.growth.grown(self.capacity, total);
        for tensor in self.tensors.iter_mut().filter(|tensor| tensor.spec.kind.grows() && tensor.is_in_place()) {
            // One tensor after the other, so that only one is there twice.
            tensor.grow(self.len, capacity)?;
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Binds what is not bound yet, before a run. States updated in place stay bound.
    pub(crate) fn bind(&mut self, binding: &mut IoBinding) -> Result<(), StateError> {
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.bound) {
            binding.bind_input(&*tensor.spec.past.name, &tensor.value)?;
            if tensor.is_in_place() {
                binding.bind_output(&*tensor.spec.present.name, &mut tensor.value)?;
                tensor.bound = true;
            } else {
                // The runtime allocates, because only it knows the shape before the run.
                binding.bind_output_to_device(&*tensor.spec.present.name, &cpu()?)?;
            }
        }
        Ok(())
    }

    /// Takes over what a run of `tokens` tokens returned.
    pub(crate) fn advance(&mut self, outputs: &mut SessionOutputs<'_>, tokens: usize) -> Result<(), StateError> {
        self.len += tokens;
        for tensor in self.tensors.iter_mut().filter(|tensor| !tensor.is_in_place()) {
            let name = &tensor.spec.present.name;
            let value = outputs.remove(name).ok_or_else(|| StateError::Missing { name: name.clone() })?;
            tensor.value = value.downcast().map_err(StateError::Runtime)?;
        }
        Ok(())
    }

    /// Forgets all tokens. The buffers stay, and so do their bindings.
    pub(crate) fn reset(&mut self) -> Result<(), StateError> {
        self.len = 0;
        self.tensors.iter_mut().try_for_each(StateTensor::reset)
    }

    /// Name of the output, shape and values of every state. Rows without a token are left out.
    pub(crate) fn values(&self) -> Result<Vec<StateValues>, StateError> {
        self.tensors.iter().map(|tensor| tensor.values(self.len)).collect()
    }
}

/// Name, shape and values of a state.
pub type StateValues = (String, Vec<usize>, Vec<f32>);

/// Where the runtime is to allocate an output whose shape only it knows.
pub(crate) fn cpu() -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
}

impl Growth {
    /// The next capacity with room for `needed` rows. Each growth adds a quarter at least, so that copying is a small part of
    /// the work however long the sequence becomes, and at most a fifth of the room is unused.
    fn grown(self, capacity: usize, needed: usize) -> usize {
        let wanted = needed.max(capacity + capacity / 4);
        wanted.next_multiple_of(self.block).min(self.limit)
    }
}

impl StateTensor {
    fn new(spec: &contract::State, capacity: usize) -> Result<Self, StateError> {
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
        let rows = if spec.update == Update::InPlace { capacity } else { 0 };
        let value = allocate(spec, &with_rows(spec, &empty, rows))?;
        Ok(Self { spec: spec.clone(), empty, value, bound: false })
    }

    fn is_in_place(&self) -> bool {
        self.spec.update == Update::InPlace
    }

    fn grow(&mut self, len: usize, capacity: usize) -> Result<(), StateError> {
        let mut grown = allocate(&self.spec, &with_rows(&self.spec, &self.empty, capacity))?;
        match self.spec.past.dtype {
            DType::Float16 => copy_rows::<f16>(&self.value, &mut grown, len)?,
            _ => copy_rows::<f32>(&self.value, &mut grown, len)?,
        }
        self.value = grown;
        self.bound = false;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), StateError> {
        if !self.is_in_place() {
            self.value = allocate(&self.spec, &with_rows(&self.spec, &self.empty, 0))?;
        } else if !self.spec.kind.grows() {
            // Rows of a cache need no clearing: those behind the last token are never read.
            match self.spec.past.dtype {
                DType::Float16 => self.value.try_extract_tensor_mut::<f16>()?.1.fill(f16::ZERO),
                _ => self.value.try_extract_tensor_mut::<f32>()?.1.fill(0.0),
            }
        }
        Ok(())
    }

    fn values(&self, len: usize) -> Result<StateValues, StateError> {
        let rows = if self.spec.kind.grows() { Some(len) } else { None };
        let values = match self.spec.past.dtype {
            DType::Float16 => used::<f16>(&self.value, rows)?.into_iter().map(f16::to_f32).collect(),
            _ => used::<f32>(&self.value, rows)?,
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

/// A tensor of zeros.
fn allocate(spec: &contract::State, shape: &[usize]) -> Result<DynTensor, StateError> {
    let dtype = match spec.past.dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float16 => TensorElementType::Float16,
        dtype => return Err(StateError::Type { name: spec.past.name.clone(), dtype }),
    };
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if elements.is_none_or(|elements| elements > isize::MAX as usize / 8) {
        return Err(StateError::Shape { name: spec.past.name.clone() });
    }
    Ok(DynTensor::new(&Allocator::default(), dtype, shape.to_vec())?)
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
    #[error("the state {name} has elements of type {dtype}, and this program knows float32 and float16")]
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
        contract::State { layer: 0, kind, update: Update::InPlace, past: port("past"), present: port("present") }
    }

    fn cache(dtype: DType) -> contract::State {
        spec(StateKind::Key, dtype, vec!["batch".into(), 2.into(), "rows".into(), 3.into()])
    }

    #[test]
    fn growing_keeps_the_rows_of_every_head() {
        Runtime::load(None).unwrap();
        for dtype in [DType::Float32, DType::Float16] {
            let mut state = State::new(&[cache(dtype)], GROWTH).unwrap();
            let value = |head: usize, row: usize, column: usize| (head * 100 + row * 10 + column) as f32;
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
                    _ => state.tensors[0].value.try_extract_tensor_mut::<f32>().unwrap().1[index] = number,
                }
            }
            state.len = 3;
            for (total, capacity) in [(4, 4), (5, 8), (9, 12), (13, 16), (17, 18), (18, 18)] {
                state.reserve(total).unwrap();
                assert_eq!(state.capacity, capacity, "for {total}");
                assert_eq!(state.tensors[0].value.shape()[ROWS], capacity as i64);
                assert_eq!(state.values().unwrap(), [("present".to_owned(), vec![1, 2, 3, 3], rows(3))]);
            }
            state.reset().unwrap();
            assert_eq!(state.values().unwrap(), [("present".to_owned(), vec![1, 2, 0, 3], vec![])]);
            assert_eq!(state.capacity, 18, "buffers are kept");
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
            let message = State::new(&[spec], GROWTH).err().unwrap().to_string();
            assert!(message.contains(part) && message.contains("past"), "{message}");
        }
    }
}
