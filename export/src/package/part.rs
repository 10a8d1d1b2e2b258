//! The graphs of an export: the general one, its companion for prompts, and those for other providers.

use std::collections::{BTreeMap, BTreeSet};

use lfm2_graphs::contract::{Contract, ManifestGraph, Purpose, Table, TableFormat, Target};
use lfm2_graphs::dialect::{ContribGpu, Dialect, Fixed, FixedFor, Observed};
use lfm2_graphs::ir::{Content, DType, Format, Graph, Role};
use lfm2_graphs::lfm2::{BuildError, Config, Extras, build};

use super::integers::{self, Integers};
use super::output::base;
use super::{CudaActivations, ExportError, Options, Output, inside};
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
    /// Of a graph for a provider that looks into no other file: how many bytes the ONNX file has with all weights in it, which is
    /// how it is written unless they are more than such a file may have.
    pub(super) whole_size: Option<u64>,
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
        Ok(Self { graph, contract, layout, name, data, shared: None, writes_data: true, whole_size: None }
            .described(options))
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
        let part = Self { graph, contract, layout, name, data, shared, writes_data: true, whole_size: None };
        Ok(part.described(options))
    }

    /// The general graph for NVIDIA's GPUs, which shares packed numbers and scales with `general`. All else is float16 or bfloat16.
    pub(super) fn cuda(
        options: &'f Options,
        config: &Config,
        output: &Output,
        general: &Part<'_>,
    ) -> Result<Self, ExportError> {
        let activations = options.targets.cuda_activations.unwrap_or_default();
        let graph = gpu_graph(&options.recipe, activations);
        let dialect = ContribGpu::new(options.padding, activations.dtype());
        let contract = build(config, &dialect, options.extras(), &graph)?;
        let layout = Layout::companion(&graph.content(), &general.graph.content(), &general.layout);
        let target = Target::Cuda;
        let name = output.target_name(target, Purpose::General).ok_or(ExportError::Unnamed { target })?;
        let data = output.target_data_name(target);
        let (shared, writes_data) = (Some(general.data.clone()), layout.length > 0);
        let part = Self { graph, contract, layout, name, data, shared, writes_data, whole_size: None };
        let mut part = part.described(options);
        if !options.recipe.is_quantized() {
            // Of what the recipe says, nothing is left.
            part.contract.precision = activations.as_str().to_owned();
        }
        Ok(part)
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
        Ok(Self { graph, contract, layout, name, data, shared: None, writes_data: false, whole_size: None })
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
        let part = Self { graph, contract, layout, name, data, shared, writes_data, whole_size: None };
        let mut part = part.described(options).whole(provider)?;
        part.contract.precision = numbers.precision();
        if part.contract.table.values.file.is_empty() {
            // Without a head that is the table, the graph does not have it.
            part.contract.table = general.contract.table.clone();
            if numbers.are_better_than(general.contract.table.format) {
                part.contract.table.precision = Some(options.recipe.name.clone());
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
        let contract = build(config, dialect, Extras::default(), &graph)?;
        let (name, data) = names(output, provider, Purpose::Chunk)?;
        let shared = token.shared.clone();
        let layout = Layout::part_of(&graph.content(), &token.graph.content(), &token.layout);
        let layout = match layout {
            _ if token.is_whole() => Layout::inside(&graph.content()),
            Some(layout) => layout,
            None => return Err(ExportError::Unshared { graph: name }),
        };
        let part = Self { graph, contract, layout, name, data, shared, writes_data: false, whole_size: None };
        let mut part = if token.is_whole() { part.whole(provider)? } else { part };
        if token.is_whole() && !part.is_whole() {
            return Err(ExportError::Unshared { graph: part.name });
        }
        part.contract.precision.clone_from(&token.contract.precision);
        part.contract.table = token.contract.table.clone();
        Ok(part)
    }

    /// Puts the weights into the ONNX file, if the provider looks into no other and they are not too many.
    fn whole(mut self, provider: FixedFor) -> Result<Self, ExportError> {
        if !inside::is_for(provider.target()) {
            return Ok(self);
        }
        let content = self.graph.content();
        let mut contract = self.contract.clone();
        let size = inside::describe(&content, base(&self.name), &mut contract)?;
        self.whole_size = Some(size);
        if size <= inside::MOST_BYTES {
            self.layout = Layout::inside(&content);
            self.writes_data = false;
            self.contract = contract;
        }
        drop(content);
        Ok(self)
    }

    /// Whether the ONNX file has all weights.
    pub(super) fn is_whole(&self) -> bool {
        self.whole_size.is_some_and(|size| size <= inside::MOST_BYTES)
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
        Data::External { file: self.files().of(span).to_owned(), offset: span.offset, length: span.length }
    }

    /// What there is to say about a token table in fewer bits than the graph's own numbers.
    pub(super) fn table_note(&self, target: Target) -> Option<String> {
        let table = self.contract.table.precision.as_ref()?;
        let reason = match target {
            Target::Qnn => {
                "choose --precision q8 or fp16 if answers should come as close to the checkpoint as they can"
            }
            Target::Cpu | Target::Cuda | Target::Coreml | Target::Nnapi => "this model's head has weights of its own",
        };
        Some(format!(
            "the graphs for {target} look tokens up in the table of the general graph, whose numbers are those of {table}: {reason}"
        ))
    }

    /// The graph as the manifest lists it, with exactly the files that it or its token table lies in.
    pub(super) fn listed(&self, output: &Output) -> ManifestGraph {
        let files = self.files();
        let Table { values, scales, zero_points, .. } = &self.contract.table;
        let table = [Some(values), scales.as_ref(), zero_points.as_ref()].into_iter().flatten();
        let of_table = table.map(|location| location.file.as_str()).filter(|file| *file != base(&self.name));
        let read: BTreeSet<&str> =
            self.layout.spans.iter().flatten().map(|span| files.of(*span)).chain(of_table).collect();
        // What is shared comes first, as its part of the weights mostly does.
        let (shared, own): (Vec<_>, Vec<_>) = read.into_iter().partition(|file| *file == files.shared);
        ManifestGraph {
            file: self.name.clone(),
            data: shared.into_iter().chain(own).map(|name| output.relative(name)).collect(),
            purpose: self.contract.purpose,
            precision: self.contract.precision.clone(),
            dialect: self.contract.dialect.clone(),
            minimum_runtime_minor: self.contract.minimum_runtime_minor,
        }
    }

    fn files(&self) -> DataFiles<'_> {
        DataFiles { own: &self.data, shared: self.shared.as_deref().unwrap_or_default() }
    }
}

/// An empty graph with the number formats in which NVIDIA's GPUs get a model that the general graph has as `recipe` says: packed
/// numbers are those of the recipe, and all else has the type of the activations.
pub fn gpu_graph(recipe: &Recipe, activations: CudaActivations) -> Graph<'_> {
    let activations = activations.dtype();
    Graph::new(activations, move |name, role, _| match recipe.format(name, role) {
        Format::Dense(_) => Format::Dense(activations),
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

    /// Whether the graphs' own numbers are better than rows of the token table that the general graph has.
    fn are_better_than(self, table: TableFormat) -> bool {
        match (self.provider, self.integers) {
            // Their head has 8 bits, too.
            (_, Some(_)) => matches!(table, TableFormat::Blocks { bits, .. } if bits < 8),
            (FixedFor::Coreml, None) => is_coarse(table, DType::Float16),
            (FixedFor::Nnapi, None) => is_coarse(table, DType::Float32),
            // Their numbers are those of the general graph.
            (FixedFor::Qnn, None) => false,
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
