//! The graphs of an export: the general one, its companion for prompts, and those for other providers.

use std::collections::BTreeMap;

use lfm2_graphs::contract::{Contract, ManifestGraph, Purpose, TableFormat, Target};
use lfm2_graphs::dialect::{ContribGpu, Dialect, Fixed, FixedFor, Observed};
use lfm2_graphs::ir::{Content, DType, Format, Graph, Role};
use lfm2_graphs::lfm2::{BuildError, Config, Extras, build};

use super::integers::{self, Integers};
use super::{ExportError, Options, Output};
use crate::layout::{DataFiles, Layout, Span};
use crate::proto::Data;
use crate::recipe::{Precision, Recipe};

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
    /// Whether the file with the weights of its own is written for this graph, and not for another that has them too.
    pub(super) writes_data: bool,
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
        Ok(Self { graph, contract, layout, name, data, shared: None, writes_data: true }.described(options))
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
        let shared = Some(general.data.clone());
        Ok(Self { graph, contract, layout, name, data, shared, writes_data: true }.described(options))
    }

    /// The general graph for NVIDIA's GPUs, which shares packed numbers and scales with `general`. All else is float16.
    pub(super) fn cuda(
        options: &'f Options,
        config: &Config,
        output: &Output,
        general: &Part<'_>,
    ) -> Result<Self, ExportError> {
        let graph = gpu_graph(&options.recipe);
        let contract = build(config, &ContribGpu::new(options.padding), options.extras(), &graph)?;
        let layout = Layout::companion(&graph.content(), &general.graph.content(), &general.layout);
        let target = Target::Cuda;
        let name = output.target_name(target, Purpose::General).ok_or(ExportError::Unnamed { target })?;
        let data = output.target_data_name(target);
        let (shared, writes_data) = (Some(general.data.clone()), layout.length > 0);
        Ok(Self { graph, contract, layout, name, data, shared, writes_data }.described(options))
    }

    /// The static graph that tells the ranges of its values. It has the weights of `general`, the graph for calibration.
    pub(super) fn observed(
        config: &Config,
        dialect: &Fixed,
        output: &Output,
        general: &Part<'_>,
    ) -> Result<Self, ExportError> {
        let graph = integers::observed();
        let mut contract = build(config, dialect, Extras::default(), &graph)?;
        let layout = Layout::part_of(&graph.content(), &general.graph.content(), &general.layout);
        let target = Target::Qnn;
        let name = output.target_name(target, Purpose::Calibrate).ok_or(ExportError::Unnamed { target })?;
        let Some(layout) = layout else { return Err(ExportError::Unshared { graph: name }) };
        contract.precision.clone_from(&general.contract.precision);
        contract.table = general.contract.table.clone();
        // All of it is what the general graph has.
        let data = general.data.clone();
        Ok(Self { graph, contract, layout, name, data, shared: None, writes_data: false })
    }

    /// The graph of a static target for single tokens, which shares what it can with the general one.
    pub(super) fn token(
        numbers: Numbers<'f>,
        config: &Config,
        dialect: &Fixed,
        output: &Output,
        general: &Part<'_>,
    ) -> Result<Self, ExportError> {
        let Numbers { options, provider, .. } = numbers;
        let graph = numbers.graph();
        let contract = build(config, dialect, Extras::default(), &graph)?;
        let layout = Layout::companion(&graph.content(), &general.graph.content(), &general.layout);
        let (name, data) = names(output, provider, Purpose::Token)?;
        let (shared, writes_data) = (Some(general.data.clone()), layout.length > 0);
        let mut part = Self { graph, contract, layout, name, data, shared, writes_data }.described(options);
        part.contract.precision = numbers.precision();
        if part.contract.table.values.file.is_empty() {
            // Without a head that is the table, the graph does not have it.
            part.contract.table = general.contract.table.clone();
            if provider != FixedFor::Qnn && is_coarse(general.contract.table.format, part.graph.activations()) {
                part.contract.precision += &format!("{TABLE}{}", options.recipe.name);
            }
        }
        Ok(part)
    }

    /// The graph of a static target for chunks, whose weights are among those of the graph for single tokens.
    pub(super) fn chunk(
        numbers: Numbers<'f>,
        config: &Config,
        dialect: &Fixed,
        output: &Output,
        token: &Part<'_>,
    ) -> Result<Self, ExportError> {
        let provider = numbers.provider;
        let graph = numbers.graph();
        let mut contract = build(config, dialect, Extras::default(), &graph)?;
        let layout = Layout::part_of(&graph.content(), &token.graph.content(), &token.layout);
        let (name, data) = names(output, provider, Purpose::Chunk)?;
        let Some(layout) = layout else { return Err(ExportError::Unshared { graph: name }) };
        contract.precision.clone_from(&token.contract.precision);
        contract.table = token.contract.table.clone();
        Ok(Self { graph, contract, layout, name, data, shared: token.shared.clone(), writes_data: false })
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

    /// An initializer that lies at `span` of one of the data files.
    pub(super) fn external(&self, span: Span) -> Data {
        let files = DataFiles { own: &self.data, shared: self.shared.as_deref().unwrap_or_default() };
        Data::External { file: files.of(span).to_owned(), offset: span.offset, length: span.length }
    }

    /// What there is to say about a token table in fewer bits than the graph's own numbers.
    pub(super) fn table_note(&self, target: Target) -> Option<String> {
        let (_, table) = self.contract.precision.split_once(TABLE)?;
        Some(format!(
            "the graphs for {target} look tokens up in the table of the general graph, whose numbers are those of {table}: this model's head has weights of its own"
        ))
    }

    /// The graph as the manifest lists it.
    pub(super) fn listed(&self, output: &Output) -> ManifestGraph {
        let own = self.layout.spans.iter().flatten().any(|span| !span.shared).then_some(&self.data);
        let data = self.shared.iter().chain(own).map(|name| output.relative(name)).collect();
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

/// An empty graph with the number formats in which NVIDIA's GPUs get a model that the general graph has as `recipe` says: packed
/// numbers are those of the recipe, and all else is float16.
pub fn gpu_graph(recipe: &Recipe) -> Graph<'_> {
    Graph::new(DType::Float16, |name, role, _| match recipe.format(name, role) {
        Format::Dense(_) => Format::Dense(DType::Float16),
        format => format,
    })
}

/// An empty graph with the number formats in which `provider` gets a model that the general graph has as `recipe` says.
pub fn static_graph(recipe: &Recipe, provider: FixedFor) -> Graph<'_> {
    match provider {
        // In graphs of float16, some products with packed weights come out wrong. The NPU computes in float16 whatever the graph
        // says, and the runtime widens scales when it loads them, so that only norms are stored again.
        FixedFor::Qnn if recipe.is_quantized() && recipe.activations == DType::Float16 => {
            Graph::new(DType::Float32, |name, role, _| match role {
                Role::Kernel | Role::Vector => Format::Dense(DType::Float32),
                Role::Table | Role::Head | Role::Matrix => recipe.format(name, role),
            })
        }
        FixedFor::Qnn => Graph::new(recipe.activations, |name, role, _| recipe.format(name, role)),
        FixedFor::Coreml => Graph::new(DType::Float16, |_, _, _| Format::Dense(DType::Float16)),
        FixedFor::Nnapi => Graph::new(DType::Float32, |_, _, _| Format::Dense(DType::Float32)),
    }
}

/// The number formats of a static target's graphs.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'f> {
    pub(super) options: &'f Options,
    pub(super) provider: FixedFor,
    pub(super) integers: Option<&'f Integers>,
}

impl<'f> Numbers<'f> {
    /// An empty graph with them.
    fn graph(self) -> Graph<'f> {
        match self.integers {
            Some(integers) => integers.graph(),
            None => static_graph(&self.options.recipe, self.provider),
        }
    }

    /// What contracts call them.
    fn precision(self) -> String {
        match (self.provider, self.integers) {
            (_, Some(integers)) => integers.precision.as_str().to_owned(),
            (FixedFor::Qnn, None) => self.options.recipe.name.clone(),
            (FixedFor::Coreml, None) => Precision::Fp16.as_str().to_owned(),
            (FixedFor::Nnapi, None) => Precision::Fp32.as_str().to_owned(),
        }
    }
}

/// What stands in the names of number formats before that of the token table, if that has fewer bits.
const TABLE: &str = ", table ";

/// Whether rows of a table have fewer bits than the numbers that a graph computes with.
fn is_coarse(table: TableFormat, activations: DType) -> bool {
    match table {
        TableFormat::Blocks { .. } => true,
        TableFormat::Dense { dtype } => dtype.size() < activations.size(),
    }
}

/// The names of a static target's graph for `purpose` and of the data file of the target.
fn names(output: &Output, provider: FixedFor, purpose: Purpose) -> Result<(String, String), ExportError> {
    let target = provider.target();
    let name = output.target_name(target, purpose).ok_or(ExportError::Unnamed { target })?;
    Ok((name, output.target_data_name(target)))
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
