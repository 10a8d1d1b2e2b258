//! The graphs for other providers than the CPU: which, of what size, and what keeps them from being written.

use std::collections::BTreeSet;

use lfm2_graphs::contract::{Purpose, Target};
use lfm2_graphs::dialect::{Fixed, FixedFor};
use lfm2_graphs::ir::{Content, DType, Source};
use lfm2_graphs::lfm2::{BuildError, Config};

use crate::check::{Checked, check, rules};
use crate::problems::Problems;
use crate::proto::{Data, decode, encode};
use crate::report::size;

use super::integers::Integers;
use super::part::{Numbers, Part};
use super::{Caches, DialectName, ExportError, Options, OptionsError, Output, QnnPrecision, inside};

/// Tokens of a run of the graphs for chunks, if nothing else is asked for.
pub const CHUNK: usize = 128;

/// Rows of keys and values that static graphs are given, if nothing else is asked for and the model takes as many tokens.
pub const STATIC_CONTEXT: usize = 1024;

/// Tokens of a run of the graph that tells ranges, if nothing else is asked for. Texts for calibration are short, and whatever is left
/// of a run is computed for nothing.
const CALIBRATION_CHUNK: usize = 32;

/// Rows of keys and values of that graph, if nothing else is asked for: as many as `lfm2-host calibrate` runs tokens from one empty state,
/// if nothing else is asked for there either.
const CALIBRATION_CONTEXT: usize = 512;

/// The providers that a package gets graphs for. The general graph, which is the CPU's, is always written: it has the token table
/// and most of the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The providers.
    pub providers: BTreeSet<Target>,
    /// Whether somebody asked for them. What cannot be written is an error then, and a note if they are the default.
    pub asked: bool,
    /// Tokens of a run of the graphs for chunks; `None` takes [`CHUNK`], or the context if that is shorter.
    pub chunk: Option<usize>,
    /// Rows of keys and values that static graphs are given, which bound the number of tokens; `None` takes [`STATIC_CONTEXT`], or
    /// the model's context if that is shorter.
    pub static_context: Option<usize>,
    /// The numbers that graphs for Qualcomm's NPUs compute with.
    pub qnn: QnnPrecision,
    /// Whether graphs are written that the provider does not take as a whole.
    pub force: bool,
    /// Element type of activations and states in the graph for NVIDIA's GPUs; `None` takes float16.
    pub cuda_activations: Option<CudaActivations>,
}

/// Element types that the kernels of NVIDIA's GPUs compute with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CudaActivations {
    /// 11 bits of precision, up to 65504.
    #[default]
    Float16,
    /// 8 bits of precision and the range of float32, which is what models are mostly trained in. Weights of a checkpoint in bfloat16 stay
    /// what they are. Needs a GPU of compute capability 8.0 or newer.
    Bfloat16,
}

impl CudaActivations {
    /// The type.
    pub fn dtype(self) -> DType {
        match self {
            Self::Float16 => DType::Float16,
            Self::Bfloat16 => DType::Bfloat16,
        }
    }

    /// The name on command lines and in contracts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Float16 => "fp16",
            Self::Bfloat16 => "bf16",
        }
    }
}

impl Default for Targets {
    fn default() -> Self {
        let providers = BTreeSet::from([Target::Cpu, Target::Qnn]);
        Self {
            providers,
            asked: false,
            chunk: None,
            static_context: None,
            qnn: QnnPrecision::default(),
            force: false,
            cuda_activations: None,
        }
    }
}

impl Targets {
    /// The general graph alone.
    pub fn cpu() -> Self {
        Self { providers: BTreeSet::from([Target::Cpu]), ..Self::default() }
    }

    /// As if somebody had asked for graphs for `providers`.
    pub fn asked(providers: impl IntoIterator<Item = Target>) -> Self {
        Self { providers: providers.into_iter().collect(), asked: true, ..Self::default() }
    }

    /// Whether somebody asked for graphs for `target`, be it by saying which numbers they are to have.
    pub(super) fn is_asked(&self, target: Target) -> bool {
        self.asked || (target == Target::Qnn && self.qnn != QnnPrecision::Fp16)
    }

    /// The providers beside the CPU.
    pub(super) fn others(&self) -> impl Iterator<Item = Target> {
        self.providers.iter().copied().filter(|target| *target != Target::Cpu)
    }

    /// Fails if the sizes are none, or are given without graphs that have them.
    pub(super) fn check(&self) -> Result<(), OptionsError> {
        for (flag, size) in [("chunk", self.chunk), ("static-context", self.static_context)] {
            if size.is_some() && !self.has_static() {
                return Err(OptionsError::IdleSize { flag });
            }
            if size == Some(0) {
                return Err(OptionsError::NoSize { flag });
            }
        }
        if self.qnn != QnnPrecision::Fp16 && !self.providers.contains(&Target::Qnn) {
            return Err(OptionsError::IdleQnnPrecision { precision: self.qnn });
        }
        if self.cuda_activations.is_some() && !self.providers.contains(&Target::Cuda) {
            return Err(OptionsError::IdleActivations);
        }
        // Only static targets have rules that can be broken.
        if self.force && !self.has_static() {
            return Err(OptionsError::IdleForce);
        }
        // A model with a shorter context may take less than the default; that shows when it is read.
        let context = self.static_context.unwrap_or(STATIC_CONTEXT);
        match self.chunk {
            Some(chunk) if chunk > context => Err(OptionsError::Chunk { chunk, context }),
            _ => Ok(()),
        }
    }

    fn has_static(&self) -> bool {
        self.others().any(Target::is_static)
    }

    /// The providers as they are asked for.
    fn list(&self) -> String {
        self.providers.iter().map(|target| target.name()).collect::<Vec<_>>().join(",")
    }

    /// Tokens of a chunk, and rows before it, of graphs for `purpose`.
    fn sizes(&self, config: &Config, purpose: Purpose) -> Result<[usize; 2], OptionsError> {
        let limit = config.context_length;
        let [usual_chunk, usual_past] = match purpose {
            Purpose::Calibrate => [CALIBRATION_CHUNK, CALIBRATION_CONTEXT],
            Purpose::General | Purpose::Prefill | Purpose::Chunk | Purpose::Token => [CHUNK, STATIC_CONTEXT],
        };
        let past = match self.static_context {
            None => usual_past.min(limit),
            Some(asked) if asked <= limit => asked,
            Some(asked) => return Err(OptionsError::StaticContext { asked, limit }),
        };
        match self.chunk {
            None => Ok([usual_chunk.min(past), past]),
            Some(chunk) if chunk <= past => Ok([chunk, past]),
            Some(chunk) => Err(OptionsError::Chunk { chunk, context: past }),
        }
    }
}

impl Options {
    /// What in these options keeps a graph for another provider from being written, if anything does.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        if self.dialect == DialectName::Portable {
            return Some("they are written with operators of their own, and --dialect portable asks for others");
        }
        let int8 = self.caches == Caches::Int8;
        int8.then_some("they keep keys and values in the type of the activations, and --kv int8 asks for another")
    }
}

/// The graphs of one provider. Those of static ones come in pairs that share one data file: the graph for single tokens has every
/// weight, that for chunks some of them.
pub(super) struct TargetParts<'f> {
    pub(super) target: Target,
    pub(super) parts: Vec<Part<'f>>,
}

/// Builds the graphs of all providers but the CPU, and says which of the default ones are left out, and why.
pub(super) fn build<'f>(
    options: &'f Options,
    config: &Config,
    output: &Output,
    general: &Part<'_>,
    integers: Option<&'f Integers>,
) -> Result<(Vec<TargetParts<'f>>, Vec<String>), ExportError> {
    let targets = &options.targets;
    let (mut built, mut notes) = (Vec::new(), Vec::new());
    let [chunk, past] = targets.sizes(config, options.purpose)?;
    if options.purpose == Purpose::Calibrate {
        // Integers are for graphs that are written beside those with operators of the runtime's own.
        match options.refusal() {
            _ if !targets.providers.contains(&Target::Qnn) => {}
            Some(reason) => notes.push(format!(
                "the calibration will have no ranges of activations, which --qnn-precision w8a16 and w4a16 need: there is no graph that tells them, because {reason}"
            )),
            None => {
                let observed = Part::observed(config, &Fixed::integers(chunk, past, true, None), output, general)?;
                built.push(TargetParts { target: Target::Qnn, parts: vec![observed] });
            }
        }
        return Ok((built, notes));
    }
    for target in targets.others() {
        let left_out = |reason: &str| format!("there will be no graphs for {target}: {reason}");
        if let Some(reason) = options.refusal() {
            notes.push(left_out(reason));
            continue;
        }
        let parts = match target {
            Target::Cpu => continue,
            Target::Cuda => Part::cuda(options, config, output, general).map(|part| vec![part]),
            Target::Coreml => pair(options, FixedFor::Coreml, [chunk, past], config, output, general, None),
            Target::Nnapi => pair(options, FixedFor::Nnapi, [chunk, past], config, output, general, None),
            Target::Qnn => pair(options, FixedFor::Qnn, [chunk, past], config, output, general, integers),
        };
        let mut checked = Vec::new();
        for part in parts.iter().flatten() {
            checked.extend(broken(part, target)?);
        }
        let broken = checked;
        match parts {
            Ok(parts) if !broken.is_empty() && !targets.force => {
                if targets.is_asked(target) {
                    let mut problems = Problems::default();
                    problems.extend(parts.iter().filter_map(too_large));
                    broken.iter().for_each(|it| problems.extend(it.lines()));
                    return Err(ExportError::Split { target, problems: problems.into_list() });
                }
                let first = broken.first().map(Checked::summary).unwrap_or_default();
                notes.push(left_out(&format!(
                    "it would not take them as a whole: {first}; --for {} lists all",
                    targets.list()
                )));
            }
            Ok(parts) => {
                notes.extend(parts.first().and_then(|part| part.table_note(target)));
                notes.extend(whole_note(target, &parts));
                notes.extend(parts.iter().filter_map(too_large));
                notes.extend(
                    broken.iter().map(|it| format!("written all the same, because of --force: {}", it.summary())),
                );
                built.push(TargetParts { target, parts });
            }
            Err(ExportError::Build(error @ (BuildError::Graph(_) | BuildError::Dialect { .. })))
                if !targets.is_asked(target) =>
            {
                notes.push(left_out(&error.to_string()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((built, notes))
}

/// Why the weights of a graph lie beside it although the provider does not look there, if they do.
fn too_large(part: &Part<'_>) -> Option<String> {
    let bytes = part.whole_size.filter(|_| !part.is_whole())?;
    Some(format!(
        "{}: the weights have to be in the ONNX file itself, because the provider reads no other; it would have {} ({bytes} bytes), and protobuf allows {} (2 GiB)",
        part.name,
        size(bytes),
        inside::MOST_BYTES
    ))
}

/// What graphs with their weights in them cost.
fn whole_note(target: Target, parts: &[Part<'_>]) -> Option<String> {
    let whole = parts.iter().filter(|part| part.is_whole());
    let sizes: Vec<_> =
        whole.filter_map(|part| Some(format!("{} has {}", part.name, size(part.whole_size?)))).collect();
    let reason = "the provider reads no file beside the graph, so that each graph carries its weights itself";
    (!sizes.is_empty()).then(|| format!("graphs for {target}: {reason}: {}", sizes.join(", ")))
}

/// What the rules of the provider say about a graph, if it would not take it as a whole.
fn broken(part: &Part<'_>, target: Target) -> Result<Option<Checked>, ExportError> {
    let Some(rules) = rules(target) else { return Ok(None) };
    let content = part.graph.content();
    let model = decode(&encode(&content, "{}", outlined(part, &content)));
    let model = model.map_err(|source| ExportError::Unreadable { graph: part.name.clone(), source })?;
    Ok(Some(check(&part.name, &model, rules)).filter(|checked| !checked.is_whole()))
}

/// Every initializer where it will lie. Of those in the ONNX file, integers are as they will be, because shapes follow from them;
/// nothing is said of the rest, whose values no rule asks for.
fn outlined(part: &Part<'_>, content: &Content) -> Vec<Data> {
    let bytes = |source: &Source| match source {
        Source::Ints(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        _ => Vec::new(),
    };
    let initializers = part.layout.spans.iter().zip(&content.initializers);
    initializers
        .map(|(span, (_, it))| span.map_or_else(|| Data::Inline(bytes(&it.source)), |span| part.external(span)))
        .collect()
}

/// The graph for single tokens, and that for chunks.
fn pair<'f>(
    options: &'f Options,
    provider: FixedFor,
    [chunk, past]: [usize; 2],
    config: &Config,
    output: &Output,
    general: &Part<'_>,
    integers: Option<&'f Integers>,
) -> Result<Vec<Part<'f>>, ExportError> {
    let fixed = |tokens, logits| match integers {
        Some(integers) => Fixed::integers(tokens, past, logits, Some(integers.hidden())),
        None => Fixed::new(provider, tokens, past, logits),
    };
    let numbers = Numbers { options, provider, integers };
    let token = Part::token(numbers, config, &fixed(1, true), output, general)?;
    let chunk = Part::chunk(numbers, config, &fixed(chunk, false), output, &token)?;
    Ok(vec![token, chunk])
}
