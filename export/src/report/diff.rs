//! Two packages: what differs in structure. Weights are compared by type and shape, never by value.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::OpenedGraph;
use crate::proto::{Model, Node, Port};

/// Differences between two graphs, one line each: `-` only in the first, `+` only in the second, `~` in both but changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Fields of the contract, by their path.
    pub contract: Vec<String>,
    /// Operator sets, inputs and outputs.
    pub interface: Vec<String>,
    /// How often each operator is called.
    pub operators: Vec<String>,
    /// Nodes, by name.
    pub nodes: Vec<String>,
    /// Initializers, by name.
    pub tensors: Vec<String>,
}

impl Diff {
    /// Whether the graphs have the same structure.
    pub fn is_empty(&self) -> bool {
        self.sections().iter().all(|(_, lines)| lines.is_empty())
    }

    fn sections(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("contract", &self.contract),
            ("interface", &self.interface),
            ("operators", &self.operators),
            ("nodes", &self.nodes),
            ("tensors", &self.tensors),
        ]
    }
}

/// Compares the structure of two graphs.
pub fn diff(a: &OpenedGraph, b: &OpenedGraph) -> Diff {
    let both = |facts: fn(&OpenedGraph) -> BTreeMap<String, String>| compare(&facts(a), &facts(b));
    Diff {
        contract: both(contract),
        interface: both(|opened| interface(&opened.model)),
        operators: both(|opened| operators(&opened.model)),
        nodes: both(|opened| nodes(&opened.model)),
        tensors: both(|opened| tensors(&opened.model)),
    }
}

fn compare(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let mut lines: Vec<(&String, String)> = Vec::new();
    for (key, before) in a {
        match b.get(key) {
            None => lines.push((key, format!("- {key}: {before}"))),
            Some(after) if after != before => lines.push((key, format!("~ {key}: {before} -> {after}"))),
            Some(_) => {}
        }
    }
    lines.extend(
        b.iter().filter(|(key, _)| !a.contains_key(*key)).map(|(key, value)| (key, format!("+ {key}: {value}"))),
    );
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect()
}

fn contract(opened: &OpenedGraph) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    if let Some(Ok(Value::Object(mut fields))) = opened.contract.as_ref().map(serde_json::to_value) {
        // Ports are compared as the graph states them.
        for part in ["inputs", "outputs", "states"] {
            fields.remove(part);
        }
        flatten("", &Value::Object(fields), &mut facts);
        // Packages of other names are not other packages.
        facts.retain(|path, _| !path.ends_with(".file"));
        let states = opened.contract.iter().flat_map(|contract| &contract.states);
        facts.extend(states.map(|state| {
            let (kind, update) = (state.kind, state.update);
            (format!("states.{}", state.past.name), format!("{kind:?} {update:?} {}", state.present.name))
        }));
    }
    facts
}

fn flatten(path: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, facts);
            }
        }
        other => {
            facts.insert(path.to_owned(), other.to_string());
        }
    }
}

fn interface(model: &Model) -> BTreeMap<String, String> {
    let ports = |title: &'static str, ports: &[Port]| -> Vec<(String, String)> {
        ports.iter().map(|port| (format!("{title} {}", port.name), port.kind())).collect()
    };
    let opsets = model.opsets.iter().map(|(domain, version)| (format!("operator set {domain:?}"), version.to_string()));
    opsets.chain(ports("input", &model.inputs)).chain(ports("output", &model.outputs)).collect()
}

fn operators(model: &Model) -> BTreeMap<String, String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for node in &model.nodes {
        *counts.entry(&node.op).or_default() += 1;
    }
    counts.into_iter().map(|(op, count)| (op.to_owned(), count.to_string())).collect()
}

/// Nodes by name. ONNX does not ask for names, and not for different ones: what has none goes by its first output, and equal
/// names are counted.
fn nodes(model: &Model) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    let mut uses = BTreeMap::<&str, usize>::new();
    for node in &model.nodes {
        let unnamed = node.outputs.first().map_or("", String::as_str);
        let name = if node.name.is_empty() { unnamed } else { &node.name };
        let uses = uses.entry(name).or_default();
        *uses += 1;
        let key = if *uses == 1 { name.to_owned() } else { format!("{name} ({uses})") };
        facts.insert(key, call(node));
    }
    facts
}

fn call(node: &Node) -> String {
    let attributes: Vec<_> = node.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let [inputs, outputs] = [&node.inputs, &node.outputs].map(|names| names.join(", "));
    format!("{}({inputs}) [{}] -> {outputs}", node.op, attributes.join(", "))
}

fn tensors(model: &Model) -> BTreeMap<String, String> {
    model.tensors.iter().map(|tensor| (tensor.name.clone(), format!("{}{:?}", tensor.dtype, tensor.shape))).collect()
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, lines) in self.sections() {
            if !lines.is_empty() {
                writeln!(f, "{title}:")?;
                lines.iter().try_for_each(|line| writeln!(f, "  {line}"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_has_its_sign() {
        let facts = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let lines =
            compare(&facts(&[("a", "1"), ("b", "2"), ("d", "4")]), &facts(&[("b", "3"), ("c", "0"), ("d", "4")]));
        assert_eq!(lines, ["- a: 1", "~ b: 2 -> 3", "+ c: 0"]);
    }

    #[test]
    fn nodes_without_names_are_told_apart() {
        let node = |input: &str, output: &str| Node {
            name: String::new(),
            op: "Relu".into(),
            inputs: vec![input.into()],
            outputs: vec![output.into()],
            attributes: BTreeMap::new(),
        };
        let opened = |nodes: Vec<Node>| OpenedGraph {
            path: "x.onnx".into(),
            model: Model { nodes, ..Model::default() },
            contract: None,
        };
        let a = opened(vec![node("x", "y"), node("y", "z")]);
        assert!(diff(&a, &a).is_empty());
        let b = opened(vec![node("x", "y"), node("x", "z")]);
        assert_eq!(diff(&a, &b).nodes, ["~ z: Relu(y) [] -> z -> Relu(x) [] -> z"]);
    }
}
