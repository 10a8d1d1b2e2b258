//! The graphs of an export: the general one, and its companion for prompts.

use std::collections::BTreeMap;

use lfm2_graphs::contract::{Contract, ManifestGraph, Purpose};
use lfm2_graphs::dialect::{Dialect, Observed};
use lfm2_graphs::ir::{Content, Format, Graph, Role};
use lfm2_graphs::lfm2::{BuildError, Config, build};

use super::{Options, Output};
use crate::layout::{DataFiles, Layout};

/// A graph with its contract, and where its weights go.
pub(super) struct Part<'f> {
    pub(super) graph: Graph<'f>,
    pub(super) contract: Contract,
    pub(super) layout: Layout,
    /// The ONNX file, relative to the package's folder.
    pub(super) name: String,
    /// The file with the weights of its own, relative to the ONNX file.
    pub(super) data: String,
    /// The file with the weights that it shares with the general graph, relative to the ONNX file.
    shared: Option<String>,
}

impl<'f> Part<'f> {
    /// The graph for prompts and single tokens.
    pub(super) fn general(
        options: &'f Options,
        config: &Config,
        dialect: &dyn Dialect,
        caches: &'f BTreeMap<String, Vec<f32>>,
        output: &Output,
    ) -> Result<Self, BuildError> {
        let recipe = &options.recipe;
        let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role))
            .with_caches(|name| caches.get(name).cloned());
        let contract = build_for(options, config, dialect, &graph)?;
        let layout = Layout::new(&graph.content());
        let [name, data] = [output.graph_name(), output.data_name()].map(str::to_owned);
        Ok(Self { graph, contract, layout, name, data, shared: None }.described(options))
    }

    /// The companion of `general` whose projections multiply bytes. What is no projection is shared to the byte: table, head,
    /// norms, convolution kernels and rotary tables.
    pub(super) fn prefill(
        options: &'f Options,
        config: &Config,
        dialect: &dyn Dialect,
        caches: &'f BTreeMap<String, Vec<f32>>,
        output: &Output,
        general: &Part<'_>,
    ) -> Result<Self, BuildError> {
        let recipe = &options.recipe;
        let format = |name: &str, role, _: &[usize]| match role {
            Role::Matrix => Format::Channels,
            role => recipe.format(name, role),
        };
        let graph = Graph::new(recipe.activations, format).with_caches(|name| caches.get(name).cloned());
        let mut contract = build(config, dialect, options.extras(), &graph)?;
        contract.purpose = Purpose::Prefill;
        contract.preferred = is_coarser(&general.graph.content());
        let layout = Layout::companion(&graph.content(), &general.graph.content(), &general.layout);
        let (name, data) = (output.prefill_name(), output.prefill_data_name());
        Ok(Self { graph, contract, layout, name, data, shared: Some(general.data.clone()) }.described(options))
    }

    /// Fills in what the contract cannot know of itself.
    fn described(mut self, options: &Options) -> Self {
        let files = DataFiles { own: &self.data, shared: self.shared.as_deref().unwrap_or_default() };
        self.contract.precision.clone_from(&options.recipe.name);
        let content = self.graph.content();
        let table = &mut self.contract.table;
        for location in [&mut table.values].into_iter().chain(&mut table.scales).chain(&mut table.zero_points) {
            self.layout.locate(&content, files, location);
        }
        drop(content);
        self
    }

    /// Names of the data files.
    pub(super) fn files(&self) -> DataFiles<'_> {
        DataFiles { own: &self.data, shared: self.shared.as_deref().unwrap_or_default() }
    }

    /// The graph as the manifest lists it.
    pub(super) fn listed(&self, output: &Output) -> ManifestGraph {
        let data = self.shared.iter().chain([&self.data]).map(|name| output.relative(name)).collect();
        ManifestGraph {
            file: self.name.clone(),
            data,
            purpose: self.contract.purpose,
            precision: self.contract.precision.clone(),
            dialect: self.contract.dialect.clone(),
            minimum_runtime_minor: self.contract.minimum_runtime_minor,
        }
    }
}

/// Whether products of bytes are at least as exact as those of a graph: one whose matrices all have 4 bits.
fn is_coarser(content: &Content) -> bool {
    let weights = content.initializers.iter().filter_map(|(_, initializer)| initializer.source.weight());
    let mut matrices = weights.filter(|weight| weight.role == Role::Matrix);
    matrices.all(|weight| matches!(weight.format, Format::Blocks(blocks) if blocks.bits == 4))
}

/// Builds the graph, with statistics if it is for calibration.
fn build_for(
    options: &Options,
    config: &Config,
    dialect: &dyn Dialect,
    graph: &Graph<'_>,
) -> Result<Contract, BuildError> {
    if options.purpose != Purpose::Calibrate {
        return build(config, dialect, options.extras(), graph);
    }
    let observed = Observed::new(dialect);
    let mut contract = build(config, &observed, options.extras(), graph)?;
    observed.describe(&mut contract);
    Ok(contract)
}
