//! Graphs that carry their weights themselves, because their provider passes over weights in a file beside the graph.

use lfm2_graphs::contract::{Contract, Location, Target};
use lfm2_graphs::ir::Content;

use super::ExportError;
use crate::check::rules;
use crate::layout::is_apart;
use crate::proto::{Data, Frame, frame};

/// Most bytes of an ONNX file: protobuf counts them in 31 bits.
pub(super) const MOST_BYTES: u64 = i32::MAX as u64;

/// Whether the graphs for `target` carry their weights themselves.
pub(super) fn is_for(target: Target) -> bool {
    rules(target).is_some_and(|rules| !rules.external)
}

/// Says in `contract` where in the ONNX file called `file` the token table lies, if the graph has it, and returns how many bytes the
/// file will have.
pub(super) fn describe(content: &Content, file: &str, contract: &mut Contract) -> Result<u64, ExportError> {
    let places = outline(content, "");
    let values = &contract.table.values.name;
    let hole = places.holes.iter().find(|hole| content.name(content.initializers[hole.initializer].0) == *values);
    if let Some(hole) = hole {
        let Location { name, .. } = contract.table.values.clone();
        contract.table.values = Location { name, file: file.to_owned(), offset: hole.offset, length: hole.length };
    }
    Ok(outline(content, &contract.to_json()?).length())
}

/// The ONNX file with zeros in the place of its small initializers, and nothing in that of the others.
fn outline(content: &Content, contract: &str) -> Frame {
    let data = content.initializers.iter().map(|(_, initializer)| {
        let length = initializer.bytes();
        if is_apart(initializer) { Data::Later { length } } else { Data::Inline(vec![0; length as usize]) }
    });
    frame(content, contract, data.collect())
}
