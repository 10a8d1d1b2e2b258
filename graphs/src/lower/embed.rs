//! Token embedding: rows of a table.

use crate::ir::{Attribute, Blocks, DType, Scope, Source, Value, Weight};
use crate::ops;

/// Rows of a table of plain numbers.
pub fn gather<'g>(at: Scope<'g>, table: &Weight, ids: Value<'g>) -> Value<'g> {
    let rows = at.op(&ops::GATHER, &[at.dense(table), ids], &[("axis", Attribute::Int(0))]);
    super::linear::widened(at, rows, table)
}

/// Rows of a quantized table, multiplied out as they are looked up.
///
/// The packed table is an initializer of its own shape over the bytes that the head uses: a `Reshape` of one initializer would
/// be folded into a second copy when the session is created.
pub fn gather_quantized<'g>(at: Scope<'g>, table: &Weight, blocks: Blocks, ids: Value<'g>) -> Value<'g> {
    let columns = table.columns();
    let packed = at.initializer(
        &format!("{}.rows", table.name),
        DType::Uint8,
        &[table.rows(), columns * blocks.bits / 8],
        Source::Packed { weight: table.clone() },
    );
    let scales = super::linear::scales(at, table, blocks);
    let mut inputs = vec![packed, ids, scales];
    inputs.extend(super::linear::zero_points(at, table, blocks));
    let attributes = [
        ("bits", Attribute::Int(blocks.bits as i64)),
        ("block_size", Attribute::Int(blocks.block_size as i64)),
        ("gather_axis", Attribute::Int(0)),
        ("quantize_axis", Attribute::Int(1)),
    ];
    let rows = at.op(&ops::GATHER_BLOCK_QUANTIZED, &inputs, &attributes);
    if blocks.scales == at.activations() { rows } else { rows.cast(at.activations()) }
}
