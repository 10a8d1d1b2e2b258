//! A stable text form of graphs, for goldens and for reading.

use std::fmt::Write as _;

use super::graph::{Attribute, Content, ValueId};
use super::initializer::Source;
use crate::contract::Port;

/// Writes a graph as text: inputs, initializers, nodes and outputs, one line each, in order.
pub fn dump(content: &Content) -> String {
    let mut lines = String::new();
    for (_, port) in &content.inputs {
        line(&mut lines, format_args!("input  {}", describe(port)));
    }
    for (id, initializer) in &content.initializers {
        let shape = initializer.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let source = origin(&initializer.source);
        line(&mut lines, format_args!("const  {} {}[{shape}] = {source}", content.name(*id), initializer.dtype));
    }
    for node in &content.nodes {
        let outputs = names(content, &node.outputs);
        let inputs = names(content, &node.inputs);
        let mut attributes = String::new();
        for (name, value) in &node.attributes {
            let value = match value {
                Attribute::Int(n) => n.to_string(),
                Attribute::Float(n) => format!("{n:?}"),
                Attribute::Text(text) => format!("{text:?}"),
                Attribute::Ints(list) => format!("{list:?}"),
            };
            attributes.push_str(&format!(" {name}={value}"));
        }
        let op = if node.op.domain.is_empty() {
            node.op.name.to_owned()
        } else {
            format!("{}.{}", node.op.domain, node.op.name)
        };
        line(&mut lines, format_args!("{outputs} = {op}({inputs}){attributes}"));
    }
    for (_, port) in &content.outputs {
        line(&mut lines, format_args!("output {}", describe(port)));
    }
    lines
}

fn origin(source: &Source) -> String {
    match source {
        Source::Dense { weight } => format!("dense {}", weight.name),
        Source::Transposed { weight } => format!("transposed {}", weight.name),
        Source::Column { weight, column } => format!("column {column} of {}", weight.name),
        Source::Packed { weight } => format!("packed {} {:?}", weight.name, weight.format),
        Source::Scales { weight } => format!("scales {}", weight.name),
        Source::Channels { weight } => format!("channels {}", weight.name),
        Source::ChannelScales { weight } => format!("scales of channels {}", weight.name),
        Source::Rows { weight } => format!("rows {}", weight.name),
        Source::RowScales { weight } => format!("scales of rows {}", weight.name),
        Source::Encoded(numbers) => format!("encoded {}", origin(numbers)),
        Source::EncodedScale(numbers) => format!("scale of encoded {}", origin(numbers)),
        Source::ZeroPoints { weight } => format!("zero points {}", weight.name),
        Source::Rope { part, theta, head_dim } => format!("rope {part:?} theta {theta} head_dim {head_dim}"),
        Source::Ints(values) if values.len() > 8 && values.iter().all(|value| *value == 0) => {
            format!("{} zeros", values.len())
        }
        Source::Ints(values) => format!("{values:?}"),
        Source::Float(value) => format!("{value:e}"),
        Source::Floats(values) => format!("{} numbers", values.len()),
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail; the result only exists because the trait also serves files.
    if text.write_fmt(arguments).is_ok() {
        text.push('\n');
    }
}

fn names(content: &Content, ids: &[Option<ValueId>]) -> String {
    ids.iter().map(|id| id.map_or("_", |id| content.name(id))).collect::<Vec<_>>().join(", ")
}

fn describe(port: &Port) -> String {
    let shape = port.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{} {}[{shape}]", port.name, port.dtype)
}
