//! What a graph of a package is written for, and how its file is called.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Purpose;

/// The execution providers that graphs are written for. Packages always have the graph of the CPU; the graphs of others lie
/// beside it, with names made from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The processor: the package's general graph.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// Apple's Core ML.
    Coreml,
    /// Android's Neural Networks API.
    Nnapi,
    /// Qualcomm's NPUs.
    Qnn,
}

impl Target {
    /// All targets, in the order in which they are listed for people.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::Coreml, Self::Nnapi, Self::Qnn];

    /// The name on command lines, which is that of the provider.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Coreml => "coreml",
            Self::Nnapi => "nnapi",
            Self::Qnn => "qnn",
        }
    }

    /// The target called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// Whether its graphs have fixed shapes: a pair, one for chunks of prompts and one for single tokens.
    pub fn is_static(self) -> bool {
        matches!(self, Self::Coreml | Self::Nnapi | Self::Qnn)
    }

    /// Name of this target's graph for `purpose` in the package of the general graph `graph`: `x.onnx` itself, `x.cuda.onnx`,
    /// `x.qnn-chunk.onnx` or `x.qnn-token.onnx`, and beside a graph for calibration `x.qnn-calibrate.onnx`. Static targets have no graph
    /// for other purposes.
    pub fn graph_name(self, graph: &str, purpose: Purpose) -> Option<String> {
        let ending = match (self, purpose) {
            (Self::Cpu, Purpose::General) => return Some(graph.to_owned()),
            (Self::Cuda, Purpose::General) => "cuda".to_owned(),
            (_, Purpose::Chunk) if self.is_static() => format!("{self}-chunk"),
            (_, Purpose::Token) if self.is_static() => format!("{self}-token"),
            // Only there are activations integers, whose ranges must be known.
            (Self::Qnn, Purpose::Calibrate) => format!("{self}-calibrate"),
            _ => return None,
        };
        Some(format!("{}.{ending}.onnx", graph.strip_suffix(".onnx").unwrap_or(graph)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_of_all_targets_lie_beside_the_general_one() {
        let names = |target: Target| {
            let purposes = [Purpose::General, Purpose::Chunk, Purpose::Token];
            purposes.into_iter().filter_map(|it| target.graph_name("onnx/model_q4.onnx", it)).collect::<Vec<_>>()
        };
        assert_eq!(names(Target::Cpu), ["onnx/model_q4.onnx"]);
        assert_eq!(names(Target::Cuda), ["onnx/model_q4.cuda.onnx"]);
        assert_eq!(names(Target::Qnn), ["onnx/model_q4.qnn-chunk.onnx", "onnx/model_q4.qnn-token.onnx"]);
        for target in Target::ALL {
            assert_eq!(Target::named(target.name()), Some(target));
            assert_eq!(names(target).len(), if target.is_static() { 2 } else { 1 });
        }
        assert_eq!(Target::named("tpu"), None);
    }
}
