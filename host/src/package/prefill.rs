//! The graph for prompts beside a general one.

use lfm2_graphs::contract::{Purpose, prefill_name};
use serde::{Deserialize, Serialize};

use super::{Lacking, Package, PackageError, contract_of, files};

/// What runs prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefill {
    /// The graph for prompts if there is one, it is as exact as the general one, and the prompt is long.
    #[default]
    Auto,
    /// The graph for prompts, always.
    Int8,
    /// The graph that decodes.
    Same,
}

impl Prefill {
    /// The choice called `name` on the command line.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "int8" => Some(Self::Int8),
            "same" => Some(Self::Same),
            _ => None,
        }
    }
}

impl Package {
    /// The companion that runs prompts faster than the graph itself, as far as it is wanted and there is one.
    ///
    /// # Errors
    /// If it is listed and not complete, or not the companion of this graph, or insisted on and not there.
    pub fn prefill(&self, wanted: Prefill) -> Result<Option<Self>, PackageError> {
        match wanted {
            Prefill::Same => Ok(None),
            Prefill::Auto => Ok(self.companion()?.filter(|companion| companion.contract.preferred)),
            Prefill::Int8 => {
                let missing = || PackageError::NoPrefill { graph: self.graph.clone(), remedy: self.prefill_remedy() };
                self.companion()?.ok_or_else(missing).map(Some)
            }
        }
    }

    fn companion(&self) -> Result<Option<Self>, PackageError> {
        let Some(name) = self.graph.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
        let graph = self.graph.with_file_name(prefill_name(name));
        if let Some((manifest, name)) = self.listed() {
            let name = prefill_name(&name);
            if !manifest.graphs.iter().any(|graph| graph.file == name && graph.purpose == Purpose::Prefill) {
                return Ok(None);
            }
            files::check_sizes(&self.folder, manifest, &name).map_err(unusable)?;
        } else if !graph.is_file() {
            return Ok(None);
        }
        let contract = contract_of(&graph).map_err(unusable)?;
        let own = &self.contract;
        let fits = contract.purpose == Purpose::Prefill
            && (&contract.states, &contract.inputs, &contract.outputs.logits)
                == (&own.states, &own.inputs, &own.outputs.logits)
            && (&contract.precision, contract.context_length) == (&own.precision, own.context_length);
        if !fits {
            let again = self.again(Lacking::Prefill).to_string();
            return Err(PackageError::Companion { again, graph: self.graph.clone(), companion: graph });
        }
        Ok(Some(Self { graph, contract, ..self.clone() }))
    }

    /// How there comes to be a graph for prompts.
    fn prefill_remedy(&self) -> String {
        // There are no kernels for products of bytes and these.
        match self.contract.states.iter().map(|state| state.past.dtype).find(|it| it.size() == 2) {
            Some(dtype) => format!(
                "there is none for activations in {dtype}: export a precision with float32 activations, such as q4 or q8"
            ),
            None => format!("write one with {}", self.again(Lacking::Prefill)),
        }
    }
}

fn unusable(source: PackageError) -> PackageError {
    PackageError::Prefill { source: Box::new(source) }
}
