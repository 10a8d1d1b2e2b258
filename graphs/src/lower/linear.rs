//! Projections: x W^T + bias.

use crate::dialect::Window;
use crate::ir::algebra::concat;
use crate::ir::{Attribute, Blocks, DType, Format, Role, Scope, Source, Value, Weight};
use crate::ops;

/// A product with plain numbers.
///
/// Projections are stored transposed, as `MatMul` takes them. Table and head stay in row order, because the embedding reads
/// rows and because a transposed copy of the largest weight could not be streamed; `Gemm` reads them as they are.
pub fn dense<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
    let product = match weight.role {
        Role::Table | Role::Head => {
            let product = gemm(at, x.reshape(&[-1, weight.columns() as i64]), weight);
            let shape = concat(&[x.size(0), x.size(1), at.ints(&[weight.rows() as i64])], 0);
            at.op(&ops::RESHAPE, &[product, shape], &[])
        }
        Role::Matrix | Role::Kernel | Role::Vector => matmul(at, x, weight),
    };
    add_bias(at, product, bias)
}

/// As [`dense`], for one fixed number of rows.
pub fn fixed<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>, window: Window) -> Value<'g> {
    let product = match weight.role {
        Role::Table | Role::Head => {
            let [tokens, rows, columns] = [window.tokens, weight.rows(), weight.columns()].map(|size| size as i64);
            let x = if window.rank == 2 { x } else { x.reshape(&[tokens, columns]) };
            let product = gemm(at, x, weight);
            if window.rank == 2 { product } else { product.reshape(&window.matrix(tokens, rows)) }
        }
        Role::Matrix | Role::Kernel | Role::Vector => matmul(at, x, weight),
    };
    add_bias(at, product, bias)
}

/// A product of the matrix `x` with one whose rows have a scale each. Where the numbers are those of the checkpoint, they are stored as
/// the general graph has them, so that the two share them.
pub fn by_rows<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight, bias: Option<&Weight>) -> Value<'g> {
    let (matrix, is_row_order) = match (weight.format, weight.role) {
        (Format::Rows { bits }, _) => (at.rows(weight, bits), 1),
        (_, Role::Matrix) => (transposed(at, weight), 0),
        (_, Role::Table | Role::Head | Role::Kernel | Role::Vector) => (at.dense(weight), 1),
    };
    let product = at.op(&ops::GEMM, &[x, matrix], &[("transB", Attribute::Int(is_row_order))]);
    add_bias(at, product, bias)
}

/// A product with a matrix that is stored transposed.
fn matmul<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight) -> Value<'g> {
    at.op(&ops::MATMUL, &[x, widened(at, transposed(at, weight), weight)], &[])
}

fn transposed<'g>(at: Scope<'g>, weight: &Weight) -> Value<'g> {
    let name = format!("{}.transposed", weight.name);
    let source = Source::Transposed { weight: weight.clone() };
    at.initializer(&name, stored_type(at, weight), &[weight.columns(), weight.rows()], source)
}

/// A product of two matrices, the second in row order.
fn gemm<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight) -> Value<'g> {
    at.op(&ops::GEMM, &[x, widened(at, at.dense(weight), weight)], &[("transB", Attribute::Int(1))])
}

/// The element type that the weight has in the file.
fn stored_type(at: Scope<'_>, weight: &Weight) -> DType {
    match weight.format {
        Format::Dense(dtype) => dtype,
        Format::Blocks(_) | Format::Channels | Format::Rows { .. } => at.activations(),
    }
}

/// Plain numbers, or rows of them, in the type of the activations. Runtimes convert weights when they load them.
pub(super) fn widened<'g>(at: Scope<'g>, numbers: Value<'g>, weight: &Weight) -> Value<'g> {
    if stored_type(at, weight) == at.activations() { numbers } else { numbers.cast(at.activations()) }
}

/// A product with a matrix quantized in blocks. `accuracy_level` 4 lets the kernel quantize the activations to 8 bits as well,
/// which is what makes it fast on CPUs.
pub fn nbits<'g>(at: Scope<'g>, x: Value<'g>, weight: &Weight, blocks: Blocks, bias: Option<&Weight>) -> Value<'g> {
    let [rows, columns] = [weight.rows(), weight.columns()];
    let packed = at.initializer(
        &format!("{}.packed", weight.name),
        DType::Uint8,
        &[rows, columns / blocks.block_size, blocks.bytes_per_block()],
        Source::Packed { weight: weight.clone() },
    );
    let attributes = [
        ("K", Attribute::Int(columns as i64)),
        ("N", Attribute::Int(rows as i64)),
        ("bits", Attribute::Int(blocks.bits as i64)),
        ("block_size", Attribute::Int(blocks.block_size as i64)),
        ("accuracy_level", Attribute::Int(4)),
    ];
    // The kernel wants scales of the type of the activations. Where they are stored in another, so that graphs can share them,
    // runtimes convert them when they load them.
    let scales = scales(at, weight, blocks);
    let scales = if blocks.scales == at.activations() { scales } else { scales.cast(at.activations()) };
    let mut inputs = vec![x, packed, scales];
    inputs.extend(zero_points(at, weight, blocks));
    let product = at.op(&ops::MATMUL_NBITS, &inputs, &attributes);
    add_bias(at, product, bias)
}

/// One scale per block, `[rows, blocks]`.
pub(super) fn scales<'g>(at: Scope<'g>, weight: &Weight, blocks: Blocks) -> Value<'g> {
    let shape = [weight.rows(), weight.columns() / blocks.block_size];
    at.initializer(&format!("{}.scales", weight.name), blocks.scales, &shape, Source::Scales { weight: weight.clone() })
}

/// The packed zero points, `[rows, bytes]`, if the blocks have any.
pub(super) fn zero_points<'g>(at: Scope<'g>, weight: &Weight, blocks: Blocks) -> Option<Value<'g>> {
    let shape = [weight.rows(), blocks.zero_point_bytes(weight.columns())];
    let source = Source::ZeroPoints { weight: weight.clone() };
    let name = format!("{}.zero_points", weight.name);
    blocks.zero_points.then(|| at.initializer(&name, DType::Uint8, &shape, source))
}

/// Adds the bias, if there is one.
pub(super) fn add_bias<'g>(at: Scope<'g>, product: Value<'g>, bias: Option<&Weight>) -> Value<'g> {
    match bias {
        Some(bias) => product + at.dense(bias),
        None => product,
    }
}
