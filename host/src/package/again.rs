//! The command that exports a package again with graphs for one provider more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lfm2_graphs::contract::{Contract, DType, Padding, Purpose, Target, prefill_name};

use super::{Package, contract_of, select};

impl Package {
    /// A command line for `lfm2-export` that writes this package as it is, with graphs for `target` beside those that are there. What
    /// follows from the package is filled in, so that the command works as it is printed but for `MODEL`, the checkpoint, for `FILE`, a
    /// recipe that is none of the program's own, and for `CALIBRATION`, where graphs of integers are there.
    pub(super) fn export_again(&self, target: Target) -> String {
        let general = &self.contract;
        let name = self.graph.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let there = |target: Target, purpose| {
            let path = self.graph.with_file_name(target.graph_name(&name, purpose)?);
            path.is_file().then(|| contract_of(&path).ok()).flatten()
        };
        let chunks = Target::ALL.into_iter().filter_map(|target| Some((target, there(target, Purpose::Chunk)?)));
        let chunks: Vec<_> = chunks.collect();
        let gpu = there(Target::Cuda, Purpose::General);

        let mut targets: BTreeSet<Target> = chunks.iter().map(|(target, _)| *target).collect();
        targets.extend([Target::Cpu, target].into_iter().chain(gpu.as_ref().map(|_| Target::Cuda)));
        let targets: Vec<_> = targets.into_iter().map(Target::name).collect();
        let mut words = vec!["lfm2-export MODEL --for".to_owned(), targets.join(",")];
        let mut flag = |flag: &str, value: String| words.push(format!("{flag} {value}"));
        if select::is_preset(&general.precision) {
            flag("--precision", general.precision.clone());
        } else {
            flag("--recipe", "FILE".to_owned());
        }
        if general.padding == Padding::Left {
            flag("--padding", "left".to_owned());
        }
        if self.graph.with_file_name(prefill_name(&name)).is_file() {
            flag("--prefill", "int8".to_owned());
        }
        if self.longest().is_some_and(|longest| longest > general.context_length as u64) {
            flag("--max-context", general.context_length.to_string());
        }
        if let Some(rows) = chunks.first().and_then(|(_, contract)| contract.rows().ok()) {
            flag("--chunk", rows.tokens.to_string());
            flag("--static-context", rows.past.to_string());
        }
        if let Some(contract) = self.integers() {
            flag("--qnn-precision", contract.precision);
            flag("--calibration", "CALIBRATION".to_owned());
        }
        if gpu.is_some_and(|contract| has_states_of(&contract, DType::Bfloat16)) {
            flag("--cuda-activations", "bf16".to_owned());
        }
        if general.states.iter().any(|state| state.columns.is_some()) {
            words.push("--rollback".to_owned());
        }
        words.push(format!("--out {}", word(&self.exported_to())));
        words.join(" ")
    }

    /// What there is to say about the command of [`Package::export_again`], behind semicolons; empty if nothing.
    pub(super) fn notes_on_again(&self) -> String {
        let contract = &self.contract;
        let notes = [
            (!select::is_preset(&contract.precision)).then(|| format!("FILE is the recipe {}", contract.precision)),
            self.integers().map(|_| "CALIBRATION is what `lfm2-host calibrate` wrote".to_owned()),
            has_states_of(contract, DType::Int8).then(|| {
                "keys and values of the general graph are then kept as they are, because --kv int8 excludes graphs for others"
                    .to_owned()
            }),
            (contract.dialect == "portable").then(|| {
                "the general graph then has ONNX Runtime's own operators, because --dialect portable excludes graphs for others"
                    .to_owned()
            }),
        ];
        notes.into_iter().flatten().map(|note| format!("; {note}")).collect()
    }

    /// The graph for chunks on Qualcomm's NPUs, if it is there and its activations are integers.
    fn integers(&self) -> Option<Contract> {
        let name = self.graph.file_name()?.to_str()?;
        let path = self.graph.with_file_name(Target::Qnn.graph_name(name, Purpose::Chunk)?);
        let contract = path.is_file().then(|| contract_of(&path).ok()).flatten()?;
        has_states_of(&contract, DType::Int16).then_some(contract)
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
