//! Every structural rule in one pass.

use std::collections::{HashMap, HashSet};

use super::graph::{Content, ValueId};
use super::initializer::Source;
use super::weight::Format;

/// Checks that names are unique, that every value is produced once and before it is used, that operators get as many inputs
/// and outputs as their schemas allow, and that constants have as many values as their shapes say. Returns all problems.
pub fn verify(content: &Content) -> Result<(), VerifyError> {
    let mut problems = Vec::new();
    let mut produced = HashSet::new();
    let mut named: HashMap<&str, ValueId> = HashMap::new();
    let mut produce = |id: ValueId, by: &str, problems: &mut Vec<String>| {
        if !produced.insert(id) {
            problems.push(format!("{by}: {} is produced twice", content.name(id)));
        }
        if let Some(other) = named.insert(content.name(id), id).filter(|other| *other != id) {
            problems.push(format!("{by}: the name {} is taken by value {}", content.name(id), other.0));
        }
    };
    for (id, _) in &content.inputs {
        produce(*id, "graph input", &mut problems);
    }
    let defaults: HashSet<_> = content.inputs.iter().map(|(id, _)| *id).collect();
    for (id, initializer) in &content.initializers {
        // An initializer with the name of an input is that input's default.
        if !defaults.contains(id) {
            produce(*id, "initializer", &mut problems);
        }
        let length: usize = initializer.shape.iter().product();
        match &initializer.source {
            Source::Dense { weight } | Source::Transposed { weight } | Source::Column { weight, .. }
                if !matches!(weight.format, Format::Dense(_)) =>
            {
                problems.push(format!("{}: the recipe quantizes it, the dialect stores plain numbers", weight.name));
            }
            Source::Ints(values) if values.len() != length => {
                problems.push(format!(
                    "initializer {}: {} values for {length} places",
                    content.name(*id),
                    values.len()
                ));
            }
            Source::Floats(values) if values.len() != length => {
                problems.push(format!(
                    "initializer {}: {} values for {length} places",
                    content.name(*id),
                    values.len()
                ));
            }
            Source::Float(_) if length != 1 => {
                problems.push(format!("initializer {}: not a scalar", content.name(*id)))
            }
            Source::Dense { weight } | Source::Transposed { weight } if weight.len() != length => {
                problems.push(format!(
                    "initializer {}: {} has {} values for {length} places",
                    content.name(*id),
                    weight.name,
                    weight.len()
                ));
            }
            Source::Column { weight, column } if weight.rows() != length || *column >= weight.columns() => {
                problems.push(format!(
                    "initializer {}: column {column} of {} for {length} places",
                    content.name(*id),
                    weight.name
                ));
            }
            _ => {}
        }
    }
    let mut nodes = HashSet::new();
    let mut available: HashSet<ValueId> =
        content.inputs.iter().map(|(id, _)| *id).chain(content.initializers.iter().map(|(id, _)| *id)).collect();
    for node in &content.nodes {
        if !nodes.insert(&node.name) {
            problems.push(format!("{}: the node name is taken", node.name));
        }
        let (fewest, most) = node.op.inputs;
        if node.inputs.len() < fewest || node.inputs.len() > most {
            problems.push(format!(
                "{}: {} inputs, {} takes {fewest} to {most}",
                node.name,
                node.inputs.len(),
                node.op.name
            ));
        }
        if node.outputs.len() > node.op.outputs {
            problems.push(format!(
                "{}: {} outputs, {} has {}",
                node.name,
                node.outputs.len(),
                node.op.name,
                node.op.outputs
            ));
        }
        for id in node.inputs.iter().flatten() {
            if !available.contains(id) {
                problems.push(format!("{}: {} is used before it is produced", node.name, content.name(*id)));
            }
        }
        for id in node.outputs.iter().flatten() {
            produce(*id, &node.name, &mut problems);
            available.insert(*id);
        }
    }
    for (id, port) in &content.outputs {
        if !available.contains(id) {
            problems.push(format!("graph output {}: nothing produces it", port.name));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(VerifyError { problems }) }
}

/// Every structural problem of a graph.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the graph is malformed: {}", problems.join("; "))]
pub struct VerifyError {
    /// One sentence per problem, beginning with the node.
    pub problems: Vec<String>,
}
