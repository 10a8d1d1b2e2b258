//! Which node of a graph runs where.

use std::collections::BTreeMap;
use std::fmt;

use ort::session::Session as OrtSession;

use crate::runtime::assignment;

/// ONNX Runtime's key for keeping a record of who takes which node. Without it there is none.
pub(super) const RECORD: (&str, &str) = ("session.record_ep_graph_assignment_info", "1");

/// Which node of a graph runs on which provider. The nodes are those that were left after the first simplifications, before each
/// provider has turned its part into something of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    nodes: BTreeMap<String, Vec<PlacedNode>>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedNode {
    /// Its name in the graph, which may be empty.
    pub name: String,
    /// Domain of its operator; empty for operators of ONNX itself.
    pub domain: String,
    /// Its operator.
    pub operator: String,
}

impl fmt::Display for PlacedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.domain.is_empty() {
            write!(f, "{}.", self.domain)?;
        }
        write!(f, "{} {}", self.operator, self.name)
    }
}

impl Placement {
    /// That of a session whose record was kept.
    pub(super) fn of(session: &OrtSession) -> ort::Result<Self> {
        let mut placement = Self::default();
        for node in assignment(session)? {
            placement.add(node.provider, PlacedNode { name: node.name, domain: node.domain, operator: node.operator });
        }
        Ok(placement)
    }

    fn add(&mut self, provider: String, node: PlacedNode) {
        self.nodes.entry(provider).or_default().push(node);
    }

    /// How many nodes run on each provider, by ONNX Runtime's names for them.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.nodes.iter().map(|(provider, nodes)| (provider.clone(), nodes.len())).collect()
    }

    /// The nodes that run on `provider`, by ONNX Runtime's name for it.
    pub fn on(&self, provider: &str) -> &[PlacedNode] {
        self.nodes.get(provider).map_or(&[], Vec::as_slice)
    }

    /// The nodes that run on other providers than `provider`, each with its own.
    pub fn elsewhere<'a>(&'a self, provider: &'a str) -> impl Iterator<Item = (&'a str, &'a PlacedNode)> {
        let others = self.nodes.iter().filter(move |(other, _)| *other != provider);
        others.flat_map(|(other, nodes)| nodes.iter().map(move |node| (other.as_str(), node)))
    }

    /// What runs elsewhere than on `provider`, in a few words: how many nodes of how many, and of which operators.
    pub fn summary_elsewhere(&self, provider: &str) -> String {
        let mut operators: BTreeMap<(&str, String), usize> = BTreeMap::new();
        for (other, node) in self.elsewhere(provider) {
            let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
            *operators.entry((other, format!("{domain}{}", node.operator))).or_default() += 1;
        }
        let all: usize = self.nodes.values().map(Vec::len).sum();
        let listed: Vec<_> = operators.iter().map(|((_, operator), count)| format!("{operator} {count}")).collect();
        let mut others: Vec<_> = operators.keys().map(|(other, _)| *other).collect();
        others.dedup();
        let count: usize = operators.values().sum();
        format!("{count} of {all} nodes run on {}: {}", others.join(" and "), listed.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement() -> Placement {
        let mut placement = Placement::default();
        for (provider, domain, operator, name) in [
            ("Npu", "", "MatMul", "a"),
            ("Npu", "", "Add", "b"),
            ("Cpu", "", "Gather", "c"),
            ("Cpu", "com.microsoft", "MatMulNBits", "d"),
            ("Cpu", "", "Gather", "e"),
        ] {
            let [name, domain, operator] = [name, domain, operator].map(str::to_owned);
            placement.add(provider.to_owned(), PlacedNode { name, domain, operator });
        }
        placement
    }

    #[test]
    fn nodes_are_counted_by_provider() {
        let counts: Vec<_> = placement().counts().into_iter().collect();
        assert_eq!(counts, [("Cpu".to_owned(), 3), ("Npu".to_owned(), 2)]);
        assert_eq!((placement().on("Npu").len(), placement().on("Gpu").len()), (2, 0));
    }

    #[test]
    fn what_runs_elsewhere_is_named() {
        let placement = placement();
        let names: Vec<_> = placement.elsewhere("Npu").map(|(on, node)| format!("{on}: {node}")).collect();
        assert_eq!(names, ["Cpu: Gather c", "Cpu: com.microsoft.MatMulNBits d", "Cpu: Gather e"]);
        let summary = placement.summary_elsewhere("Npu");
        assert_eq!(summary, "3 of 5 nodes run on Cpu: Gather 2, com.microsoft.MatMulNBits 1");
    }
}
