//! Tensors of the two types that static graphs are written in, filled with numbers.

use half::f16;
use half::slice::HalfFloatSliceExt;
use lfm2_graphs::contract::{DType, Port};
use ort::memory::Allocator;
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

use crate::state::StateError;

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
        dtype => return Err(StateError::Type { name: port.name.clone(), dtype }),
    };
    let mut tensor = DynTensor::new(&Allocator::default(), dtype, shape.clone())?;
    clear(&mut tensor)?;
    Ok((tensor, shape))
}

/// Fills a tensor with zeros: the runtime hands out memory as it is.
pub(super) fn clear(tensor: &mut DynTensor) -> Result<(), StateError> {
    match half_of(tensor) {
        true => values::<f16>(tensor)?.fill(f16::ZERO),
        false => values::<f32>(tensor)?.fill(0.0),
    }
    Ok(())
}

/// Writes `numbers` into the tensor from its element `start` on, rounded to its type.
pub(super) fn write(tensor: &mut DynTensor, start: usize, numbers: &[f32]) -> Result<(), StateError> {
    match half_of(tensor) {
        true => values::<f16>(tensor)?[start..][..numbers.len()].convert_from_f32_slice(numbers),
        false => values::<f32>(tensor)?[start..][..numbers.len()].copy_from_slice(numbers),
    }
    Ok(())
}

/// Writes `count` times `number` into the tensor from its element `start` on.
pub(super) fn fill(tensor: &mut DynTensor, start: usize, count: usize, number: f32) -> Result<(), StateError> {
    match half_of(tensor) {
        true => values::<f16>(tensor)?[start..][..count].fill(f16::from_f32(number)),
        false => values::<f32>(tensor)?[start..][..count].fill(number),
    }
    Ok(())
}

/// Copies all elements between tensors of one shape and type.
pub(super) fn copy(from: &DynTensor, to: &mut DynTensor) -> Result<(), StateError> {
    match half_of(to) {
        true => values::<f16>(to)?.copy_from_slice(from.try_extract_tensor()?.1),
        false => values::<f32>(to)?.copy_from_slice(from.try_extract_tensor()?.1),
    }
    Ok(())
}

/// Whether the elements are those of float16; otherwise they are those of float32.
pub(super) fn half_of(tensor: &DynTensor) -> bool {
    *tensor.data_type() == TensorElementType::Float16
}

/// All elements.
pub(super) fn values<T: PrimitiveTensorElementType>(tensor: &mut DynTensor) -> Result<&mut [T], StateError> {
    Ok(tensor.try_extract_tensor_mut::<T>()?.1)
}
