//! The layer loop: from token ids to logits.

use super::attention::attention;
use super::feed_forward::feed_forward;
use super::short_conv::short_conv;
use super::{Block, Config, Mixer, ports};
use crate::contract::{self, Contract, IdInputs, Inputs, Location, Port, Purpose, Table, TableFormat};
use crate::dialect::{AddNorm, Dialect, Tokens, Window};
use crate::ir::verify::{VerifyError, verify};
use crate::ir::{Content, DType, Encoding, Format, Graph, Role, Scope, Source, Value, Weight};
use crate::ops;

/// Builds the graph of a model into `graph` and returns the contract that describes it.
///
/// The contract's `precision` and the table's place in the data file are for the exporter to fill: neither shapes the graph.
pub fn build(
    config: &Config,
    dialect: &dyn Dialect,
    extras: Extras,
    graph: &Graph<'_>,
) -> Result<Contract, BuildError> {
    config.validate()?;
    let refusal = config.has_attention().then(|| dialect.refuse(&config.attention_heads())).flatten();
    if let Some(reason) = refusal {
        return Err(BuildError::Dialect { dialect: dialect.name(), reason });
    }
    let root = graph.root();
    let window = dialect.window();
    let inputs = match window {
        None => Inputs::Ids(ports::ids()),
        Some(window) => Inputs::Rows(ports::rows(config, graph.activations(), window)),
    };
    let mut outputs = ports::outputs(config, window);
    let block = Block { config, dialect, tokens: tokens(root, &inputs) };

    let (logits, states, table) = decoder(&block, extras, root, &inputs);
    if let Some(port) = &outputs.logits {
        root.output(logits, port.clone());
    }
    for Carried { present, state, .. } in &states {
        root.observe(&state.past.name, *present);
        root.output(*present, state.present.clone());
    }
    // Behind the states, so that these are where they are in graphs without columns.
    for Carried { columns, state, .. } in &states {
        if let (Some(value), Some(port)) = (columns, &state.columns) {
            root.output(*value, port.clone());
        }
    }
    if let Some((value, values)) = root.observations() {
        let shape = vec![(2 * values.len()).into()];
        let port = contract::Port { name: "ranges".to_owned(), dtype: DType::Float32, shape };
        root.output(value, port.clone());
        outputs.ranges = Some(contract::Ranges { port, values });
    }
    let names = graph.unknown_ranges();
    if !names.is_empty() {
        return Err(BuildError::Ranges { names });
    }
    if window.is_some() {
        // A graph without logits has no use for what follows the last state.
        graph.prune();
    }
    verify(&graph.content())?;
    Ok(Contract {
        version: contract::VERSION,
        family: "lfm2".to_owned(),
        dialect: dialect.name().to_owned(),
        purpose: match window {
            _ if outputs.ranges.is_some() => Purpose::Calibrate,
            None => Purpose::General,
            Some(Window { logits: true, .. }) => Purpose::Token,
            Some(_) => Purpose::Chunk,
        },
        preferred: true,
        precision: String::new(),
        opset: ops::OPSET,
        minimum_runtime_minor: dialect.minimum_runtime_minor(),
        padding: dialect.padding(),
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        layers: config.layers.len(),
        context_length: window.map_or(config.context_length, |window| window.past.min(config.context_length)),
        rope: config.has_attention().then_some(contract::Rope { theta: config.rope_theta, head_dim: config.head_dim }),
        table: describe(&table, window.is_some()),
        weight_bytes: weight_bytes(&graph.content(), config.tied),
        inputs,
        outputs,
        states: states.into_iter().map(|carried| carried.state).collect(),
    })
}

/// Why a graph cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The hyper-parameters contradict each other.
    #[error(transparent)]
    Config(#[from] super::ConfigError),
    /// The dialect's kernels cannot compute this model.
    #[error("the {dialect} dialect cannot compute this model: {reason}")]
    Dialect {
        /// Name of the dialect.
        dialect: &'static str,
        /// What its kernels do not take, and what to do.
        reason: String,
    },
    /// Values that are to be integers, without a range.
    #[error(
        "the calibration has no ranges of these values: {}; make it again with `lfm2-export --for calibrate` and `lfm2-host calibrate`",
        listed(names)
    )]
    Ranges {
        /// The values.
        names: Vec<String>,
    },
    /// The dialect cannot express the weights' formats, or a lowering is wrong.
    #[error(transparent)]
    Graph(#[from] VerifyError),
}

/// The first of many names.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let rest = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if rest == 0 { shown } else { format!("{shown} and {rest} more") }
}

/// What a graph returns beside logits and states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// Of every convolution, all columns of the run, with which the state can be cut after any token of it.
    pub rollback: bool,
}

/// A state with the values that the graph returns for it.
struct Carried<'g> {
    present: Value<'g>,
    /// Of a convolution: every column of the run.
    columns: Option<Value<'g>>,
    state: contract::State,
}

/// Declares the inputs that the layers need.
fn tokens<'g>(root: Scope<'g>, inputs: &Inputs) -> Tokens<'g> {
    match inputs {
        Inputs::Ids(ids) => {
            let [given, mask] = [&ids.input_ids, &ids.attention_mask].map(|port| root.input(port.clone()));
            Tokens { given, mask, rotary: None }
        }
        Inputs::Rows(rows) => {
            let input = |port: &Port, range| root.activation_input(port.clone(), range);
            let given = input(&rows.embeddings, None);
            match &rows.attention {
                // Without attention layers nothing asks for a mask.
                None => Tokens { given, mask: given, rotary: None },
                Some(attention) => {
                    let rotary = [&attention.cosines, &attention.sines].map(|port| input(port, Some([-1.0, 1.0])));
                    let mask = input(&attention.bias, Some([attention.hidden as f32, 0.0]));
                    Tokens { given, mask, rotary: Some(rotary) }
                }
            }
        }
    }
}

fn decoder<'g>(
    block: &Block<'g, '_>,
    extras: Extras,
    root: Scope<'g>,
    inputs: &Inputs,
) -> (Value<'g>, Vec<Carried<'g>>, Weight) {
    let Block { config, dialect, tokens } = *block;
    let mut states = Vec::new();
    let (x, table) = root.within("model", |model| {
        let table_shape = [config.vocab_size, config.hidden_size];
        let (table, mut stream) = model.within("embed_tokens", |at| {
            let table = at.weight(Role::Table, &table_shape);
            let rows = dialect.embed(at, &table, tokens.given);
            (table, rows)
        });
        let mut update = None;
        for (i, &mixer) in config.layers.iter().enumerate() {
            let last = i + 1 == config.layers.len();
            let dtype = root.activations();
            let mut specifications = match dialect.window() {
                None => ports::states(config, i, mixer, dtype, dialect.update(), extras),
                Some(window) => ports::fixed_states(config, i, mixer, dtype, window),
            };
            let past: Vec<_> = specifications.iter_mut().map(|state| past(config, root, state)).collect();
            (stream, update) = model.within(format_args!("layers.{i}"), |layer| {
                let x;
                (stream, x) = enter(block, layer, "operator_norm", stream, update);
                let (mut mixed, returned) = match mixer {
                    Mixer::ShortConv => layer.within("conv", |at| {
                        let convolved = short_conv(block, at, x, past[0]);
                        (convolved.y, vec![(convolved.present, Some(convolved.columns))])
                    }),
                    Mixer::Attention => layer.within("self_attn", |at| {
                        let (y, present) = attention(block, at, x, [past[0], past[1]]);
                        (y, present.map(|present| (present, None)).to_vec())
                    }),
                };
                let returned = returned.into_iter().zip(specifications);
                states.extend(returned.map(|((present, columns), state)| Carried { present, columns, state }));
                if let (true, Inputs::Ids(IdInputs { num_logits_to_keep: keep, .. })) = (last, inputs) {
                    // What follows works on each position alone: only the positions that get logits go on.
                    let start = layer.once("logits_start", |at| kept_from(at, keep));
                    let end = layer.ints(&[i64::MAX]);
                    (stream, mixed) = (stream.slice(start, end, 1), mixed.slice(start, end, 1));
                }
                let (stream, x) = enter(block, layer, "ffn_norm", stream, Some(mixed));
                (stream, Some(layer.within("feed_forward", |at| feed_forward(block, at, x))))
            });
        }
        (enter(block, model, "embedding_norm", stream, update).1, table)
    });
    let logits = root.within("lm_head", |at| {
        let head =
            if config.tied { table.clone() } else { at.weight(Role::Head, &[config.vocab_size, config.hidden_size]) };
        let logits = dialect.linear(at, x, &head, None);
        if at.activations() == DType::Float32 { logits } else { logits.cast(DType::Float32) }
    });
    (logits, states, table)
}

/// Declares the input of a state. A cache that is to be quantized becomes one of int8, with its scales; where activations are integers,
/// so is every state.
fn past<'g>(config: &Config, root: Scope<'g>, state: &mut contract::State) -> Value<'g> {
    if root.graph().is_encoded() {
        let Some(range) = root.graph().range_of(&state.past.name) else { return root.input(state.past.clone()) };
        let encoding = Encoding::symmetric(range);
        state.past.dtype = encoding.dtype;
        state.present.dtype = encoding.dtype;
        state.scale = Some(encoding.scale);
        return root.integer_input(state.past.clone(), encoding);
    }
    match root.graph().cache_scales(&state.present.name).filter(|_| state.kind.grows()) {
        None => root.input(state.past.clone()),
        Some(scales) => {
            state.past.dtype = DType::Int8;
            state.present.dtype = DType::Int8;
            root.quantized_input(state.past.clone(), scales, &[1, config.kv_heads, 1, config.head_dim])
        }
    }
}

/// Adds the previous block's update to the residual stream and normalises it, in one step, because some providers fuse the two.
fn enter<'g>(
    block: &Block<'g, '_>,
    at: Scope<'g>,
    norm: &str,
    stream: Value<'g>,
    update: Option<Value<'g>>,
) -> (Value<'g>, Value<'g>) {
    at.within(norm, |at| {
        let scale = &at.weight(Role::Vector, &[block.config.hidden_size]);
        let epsilon = block.config.norm_epsilon;
        match update {
            Some(update) => block.dialect.add_norm(at, AddNorm { stream, update, scale, epsilon }),
            None => (stream, block.dialect.norm(at, stream, scale, epsilon)),
        }
    })
}

/// Start of the slice that keeps the last `num_logits_to_keep` positions: -n, which for 0 is the beginning.
fn kept_from<'g>(at: Scope<'g>, keep: &Port) -> Value<'g> {
    let keep = at.default_input(keep.clone(), 1);
    at.op(&ops::NEG, &[keep.reshape(&[1])], &[])
}

/// Bytes of the weights that a run reads whole. A table that is the head too is read by the head.
fn weight_bytes(content: &Content, tied: bool) -> u64 {
    let mut sources: Vec<(&Source, DType)> = Vec::new();
    let mut total = 0;
    for (_, initializer) in &content.initializers {
        let Some(weight) = initializer.source.weight() else { continue };
        let known = (&initializer.source, initializer.dtype);
        if (weight.role == Role::Table && !tied) || sources.contains(&known) {
            continue;
        }
        sources.push(known);
        total += initializer.bytes();
    }
    total
}

/// `packed` says that the graph looks no rows up, so that there is only the table that the head multiplies with.
fn describe(table: &Weight, packed: bool) -> Table {
    let location = |name: String| Location { name, file: String::new(), offset: 0, length: 0 };
    let (format, values, scales, zero_points) = match table.format {
        Format::Dense(dtype) => (TableFormat::Dense { dtype }, table.name.clone(), None, None),
        // Refused before this is asked for: no lowering looks up rows in such a table.
        Format::Channels | Format::Rows { .. } => {
            (TableFormat::Dense { dtype: DType::Float32 }, table.name.clone(), None, None)
        }
        Format::Blocks(blocks) => (
            TableFormat::Blocks { bits: blocks.bits, block_size: blocks.block_size, scales: blocks.scales },
            format!("{}.{}", table.name, if packed { "packed" } else { "rows" }),
            Some(location(format!("{}.scales", table.name))),
            blocks.zero_points.then(|| location(format!("{}.zero_points", table.name))),
        ),
    };
    let values = location(values);
    Table { rows: table.rows(), columns: table.columns(), format, values, scales, zero_points, precision: None }
}
