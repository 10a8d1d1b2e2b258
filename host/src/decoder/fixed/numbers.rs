//! Tensors of the types that static graphs are written in, filled with numbers.

use half::f16;
use half::slice::HalfFloatSliceExt;
use lfm2_graphs::contract::{DType, Port};
use ort::memory::Allocator;
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

use crate::state::StateError;

/// The element types of static graphs' inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Float32,
    Float16,
    /// States of graphs whose activations are integers.
    Int16,
}

/// A tensor of the port's shape, all of it zeros, and its shape.
pub(super) fn zeros(port: &Port) -> Result<(DynTensor, Vec<usize>), StateError> {
    let wrong = || StateError::Shape { name: port.name.clone() };
    let shape: Vec<usize> = port.shape.iter().map(|dim| dim.fixed()).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    if elements.is_none_or(|elements| elements == 0 || elements > isize::MAX as usize / 8) {
        return Err(wrong());
    }
    let dtype = match port.dtype {
        DType::Float32 => TensorElementType::Float32,
        DType::Float16 => TensorElementType::Float16,
        DType::Int16 => TensorElementType::Int16,
        dtype => return Err(StateError::Type { name: port.name.clone(), dtype }),
    };
    let mut tensor = DynTensor::new(&Allocator::default(), dtype, shape.clone())?;
    clear(&mut tensor)?;
    Ok((tensor, shape))
}

/// Fills a tensor with zeros: the runtime hands out memory as it is.
pub(super) fn clear(tensor: &mut DynTensor) -> Result<(), StateError> {
    match kind(tensor) {
        Kind::Float16 => values::<f16>(tensor)?.fill(f16::ZERO),
        Kind::Float32 => values::<f32>(tensor)?.fill(0.0),
        Kind::Int16 => values::<i16>(tensor)?.fill(0),
    }
    Ok(())
}

/// Writes `numbers` into the tensor of floats from its element `start` on, rounded to its type.
pub(super) fn write(tensor: &mut DynTensor, start: usize, numbers: &[f32]) -> Result<(), StateError> {
    if kind(tensor) == Kind::Float16 {
        values::<f16>(tensor)?[start..][..numbers.len()].convert_from_f32_slice(numbers);
    } else {
        values::<f32>(tensor)?[start..][..numbers.len()].copy_from_slice(numbers);
    }
    Ok(())
}

/// Writes `count` times `number` into the tensor of floats from its element `start` on.
pub(super) fn fill(tensor: &mut DynTensor, start: usize, count: usize, number: f32) -> Result<(), StateError> {
    if kind(tensor) == Kind::Float16 {
        values::<f16>(tensor)?[start..][..count].fill(f16::from_f32(number));
    } else {
        values::<f32>(tensor)?[start..][..count].fill(number);
    }
    Ok(())
}

/// Copies all elements between tensors of one shape and type.
pub(super) fn copy(from: &DynTensor, to: &mut DynTensor) -> Result<(), StateError> {
    match kind(to) {
        Kind::Float16 => values::<f16>(to)?.copy_from_slice(from.try_extract_tensor()?.1),
        Kind::Float32 => values::<f32>(to)?.copy_from_slice(from.try_extract_tensor()?.1),
        Kind::Int16 => values::<i16>(to)?.copy_from_slice(from.try_extract_tensor()?.1),
    }
    Ok(())
}

/// All elements as float32. Integers are multiples of `scale`.
pub(super) fn widened(tensor: &DynTensor, scale: f32) -> Result<Vec<f32>, StateError> {
    Ok(match kind(tensor) {
        Kind::Float16 => tensor.try_extract_tensor::<f16>()?.1.iter().map(|it| it.to_f32()).collect(),
        Kind::Float32 => tensor.try_extract_tensor()?.1.to_vec(),
        Kind::Int16 => tensor.try_extract_tensor::<i16>()?.1.iter().map(|it| f32::from(*it) * scale).collect(),
    })
}

/// The type of the elements, which is one of those that [`zeros`] makes.
pub(super) fn kind(tensor: &DynTensor) -> Kind {
    match tensor.data_type() {
        TensorElementType::Float16 => Kind::Float16,
        TensorElementType::Int16 => Kind::Int16,
        _ => Kind::Float32,
    }
}

/// All elements.
pub(super) fn values<T: PrimitiveTensorElementType>(tensor: &mut DynTensor) -> Result<&mut [T], StateError> {
    Ok(tensor.try_extract_tensor_mut::<T>()?.1)
}
