//! The command that exports a package again with something more.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, DType, Padding, Purpose, Target, general_name, prefill_name};

use super::{Package, contract_of, select};

/// What a package lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// Graphs for a provider.
    Graphs(Target),
    /// The graph for prompts.
    Prefill,
    /// Outputs with which tokens can be taken back.
    Rollback,
}

/// A command line for `lfm2-export`, and what there is to say about it.
#[derive(Clone, Debug)]
pub(crate) struct Again {
    pub(super) command: String,
    /// Behind semicolons; empty if nothing.
    pub(super) notes: String,
}

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`, which exports the checkpoint MODEL again{}", self.command, self.notes)
    }
}

impl Package {
    /// A command line for `lfm2-export` that writes this package as it is, with what is `lacking`. What follows from the package is filled in, so
    /// that the command works as it is printed but for `MODEL`, the checkpoint, for `FILE`, a recipe that is none of the program's own, and for
    /// `CALIBRATION`, where numbers depend on one.
    pub(crate) fn again(&self, lacking: Lacking) -> Again {
        let package = self.general();
        let command = package.export_again(lacking);
        Again { command, notes: package.notes_on_again(lacking) }
    }

    fn export_again(&self, lacking: Lacking) -> String {
        let general = &self.contract;
        let name = self.graph.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let there = |target: Target, purpose| {
            let path = self.graph.with_file_name(target.graph_name(&name, purpose)?);
            path.is_file().then(|| contract_of(&path).ok()).flatten()
        };
        let chunks = Target::ALL.into_iter().filter_map(|target| Some((target, there(target, Purpose::Chunk)?)));
        let chunks: Vec<_> = chunks.collect();
        let gpu = there(Target::Cuda, Purpose::General);
        let integers = chunks.iter().find_map(|(target, contract)| self.integers(*target, contract));

        let mut targets: BTreeSet<Target> = chunks.iter().map(|(target, _)| *target).collect();
        targets.extend([Target::Cpu].into_iter().chain(gpu.as_ref().map(|_| Target::Cuda)));
        if let Lacking::Graphs(target) = lacking {
            targets.insert(target);
        }
        let targets: Vec<_> = targets.into_iter().map(Target::name).collect();
        let mut words = vec!["lfm2-export MODEL --for".to_owned(), targets.join(",")];
        let mut flag = |flag: &str, value: String| words.push(format!("{flag} {value}"));
        if select::is_preset(&general.precision) {
            flag("--precision", general.precision.clone());
        } else {
            flag("--recipe", "FILE".to_owned());
        }
        if is_portable(general) && lacking == Lacking::Rollback {
            flag("--dialect", "portable".to_owned());
        }
        if general.padding == Padding::Left {
            flag("--padding", "left".to_owned());
        }
        if lacking == Lacking::Prefill || self.graph.with_file_name(prefill_name(&name)).is_file() {
            flag("--prefill", "int8".to_owned());
        }
        if self.longest().is_some_and(|longest| longest > general.context_length as u64) {
            flag("--max-context", general.context_length.to_string());
        }
        if let Some(rows) = chunks.first().and_then(|(_, contract)| contract.rows().ok()) {
            flag("--chunk", rows.tokens.to_string());
            flag("--static-context", rows.past.to_string());
        }
        if gpu.is_some_and(|contract| has_states_of(&contract, DType::Bfloat16)) {
            flag("--cuda-activations", "bf16".to_owned());
        }
        if let Some(precision) = &integers {
            flag("--qnn-precision", precision.clone());
        }
        if self.keeps_bytes(lacking) {
            flag("--kv", "int8".to_owned());
        }
        if integers.is_some() || self.keeps_bytes(lacking) {
            flag("--calibration", "CALIBRATION".to_owned());
        }
        if lacking == Lacking::Rollback || general.states.iter().any(|state| state.columns.is_some()) {
            words.push("--rollback".to_owned());
        }
        words.push(format!("--out {}", word(&self.exported_to())));
        words.join(" ")
    }

    fn notes_on_again(&self, lacking: Lacking) -> String {
        let contract = &self.contract;
        let drops_bytes = has_states_of(contract, DType::Int8) && !self.keeps_bytes(lacking);
        let notes = [
            (!select::is_preset(&contract.precision)).then(|| format!("FILE is the recipe {}", contract.precision)),
            self.export_again(lacking).contains(" CALIBRATION").then(|| {
                "CALIBRATION is the file of `lfm2-host calibrate` that the package was exported with".to_owned()
            }),
            drops_bytes.then(|| {
                "keys and values of the general graph are then kept as they are, because --kv int8 excludes graphs for others"
                    .to_owned()
            }),
            (is_portable(contract) && lacking != Lacking::Rollback).then(|| {
                "the general graph then has ONNX Runtime's own operators, because --dialect portable excludes graphs beside it"
                    .to_owned()
            }),
        ];
        notes.into_iter().flatten().map(|note| format!("; {note}")).collect()
    }

    /// The general graph beside which this one was written, or this one if it is none of a companion. Without the file of the general graph, only its
    /// name is known.
    fn general(&self) -> Self {
        let name = self.graph.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(name) = general_name(&name, self.contract.purpose, &self.contract.dialect) else {
            return self.clone();
        };
        let graph = self.graph.with_file_name(name);
        let contract = contract_of(&graph).unwrap_or_else(|_| self.contract.clone());
        Self { graph, contract, ..self.clone() }
    }

    /// Whether keys and values in bytes stay so. Graphs for other providers exclude them.
    fn keeps_bytes(&self, lacking: Lacking) -> bool {
        has_states_of(&self.contract, DType::Int8) && !matches!(lacking, Lacking::Graphs(_))
    }

    /// The numbers of a pair of graphs that computes with integers, which is then not called as the general graph is.
    fn integers(&self, target: Target, chunk: &Contract) -> Option<String> {
        (target == Target::Qnn && chunk.precision != self.contract.precision).then(|| chunk.precision.clone())
    }

    /// Tokens that the model takes, by its config.
    fn longest(&self) -> Option<u64> {
        let text = fs::read_to_string(self.folder.join("config.json")).ok()?;
        let config: serde_json::Value = serde_json::from_str(&text).ok()?;
        config.get("max_position_embeddings")?.as_u64()
    }

    /// What `--out` was when the package was exported: the folder of the layout of the hub, or the ONNX file.
    fn exported_to(&self) -> PathBuf {
        if self.graph.parent() == Some(&*self.folder) { self.graph.clone() } else { self.folder.join("") }
    }
}

fn is_portable(contract: &Contract) -> bool {
    contract.dialect == "portable"
}

fn has_states_of(contract: &Contract, dtype: DType) -> bool {
    contract.states.iter().any(|state| state.past.dtype == dtype)
}

/// A path as one word for a shell.
fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "/\\:._-+,".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_one_word() {
        assert_eq!(word(Path::new("/a/lfm2-350m.q4_x/model.onnx")), "/a/lfm2-350m.q4_x/model.onnx");
        assert_eq!(word(Path::new("/my models/it's/x.onnx")), r"'/my models/it'\''s/x.onnx'");
        assert_eq!(word(Path::new("/a/$x;y/")), "'/a/$x;y/'");
    }
}
