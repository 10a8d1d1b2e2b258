//! Which numbers the tensors of a graph hold: a packed weight is bytes to ONNX, and blocks to the operators that read it.

use std::collections::BTreeMap;

use crate::proto::{Model, Node};

/// Bits and block size by the name of a packed tensor.
pub(super) fn packed(model: &Model) -> BTreeMap<&str, (u64, u64)> {
    model
        .nodes
        .iter()
        .filter_map(|node| Some((packed_input(node)?, (number(node, "bits")?, number(node, "block_size")?))))
        .collect()
}

/// The input with packed numbers, for the operators that have one.
fn packed_input(node: &Node) -> Option<&str> {
    let place = match node.op.as_str() {
        "com.microsoft.MatMulNBits" => 1,
        "com.microsoft.GatherBlockQuantized" => 0,
        _ => return None,
    };
    node.inputs.get(place).map(String::as_str)
}

fn number(node: &Node, attribute: &str) -> Option<u64> {
    node.attributes.get(attribute)?.parse().ok().filter(|number| *number > 0)
}
