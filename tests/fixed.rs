//! Tier "lowerings": pairs of static graphs, for chunks and for single tokens, against the portable graph in float32.
//!
//! The pair is run as a host runs it: a prompt in chunks of which the last is padded, then token by token, with the states kept
//! outside. The portable graph takes all tokens at once. Both compute with the same numbers.

use std::collections::BTreeMap;

use lfm2_export::check;
use lfm2_export::package::static_graph;
use lfm2_export::proto::{Data, decode, encode};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Contract, Purpose, State, StateKind, Update};
use lfm2_graphs::dialect::{Dialect, Fixed, FixedFor, Portable};
use lfm2_graphs::ir::{Blocks, DType, Graph, Source};
use lfm2_graphs::lfm2::{Config, Extras, Mixer, build};
use lfm2_tests::compare::{Agreement, agreement};
use lfm2_tests::graphs::{Loaded, Tensor, run};
use lfm2_tests::models;
use lfm2_tests::weights::Weights;
use ndarray::{Array1, ArrayD, Axis, IxDyn, Slice, s};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const PROVIDERS: [FixedFor; 3] = [FixedFor::Coreml, FixedFor::Nnapi, FixedFor::Qnn];

/// What lies in rows that hold no token yet. It must never be seen; a host has old rows there.
const GARBAGE: f32 = 9.0;

/// Number formats, and how far logits and states may be apart.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    activations: DType,
    blocks: Option<Blocks>,
    /// Largest difference, relative to the largest magnitude expected.
    error: f64,
}

/// Up to six layers of sums in another order.
const FLOAT32: Numbers = Numbers { activations: DType::Float32, blocks: None, error: 1e-5 };

/// Every result of up to six layers, and the states between runs, rounded to 11 bits.
const FLOAT16: Numbers = Numbers { activations: DType::Float16, blocks: None, error: 2e-2 };

/// The kernel of the CPU rounds activations to 8 bits in front of every product; a wrong row or order costs far more.
const BLOCKS: Numbers = Numbers {
    blocks: Some(Blocks { bits: 8, block_size: 16, zero_points: true, scales: DType::Float32 }),
    error: 5e-2,
    ..FLOAT32
};

#[test]
fn pairs_compute_what_the_portable_graph_does() {
    for seed in 0..24 {
        for provider in PROVIDERS {
            check(provider, &random_config(seed), FLOAT32, seed);
        }
    }
}

#[test]
fn pairs_of_float16_compute_what_the_portable_graph_does() {
    for seed in 0..8 {
        for provider in [FixedFor::Coreml, FixedFor::Qnn] {
            check(provider, &random_config(seed), FLOAT16, seed);
        }
    }
}

#[test]
fn pairs_with_weights_in_blocks_compute_what_the_portable_graph_does() {
    for seed in 0..4 {
        check(FixedFor::Qnn, &random_config(seed), BLOCKS, seed);
    }
}

#[test]
fn models_at_the_edge_are_computed() {
    use Mixer::{Attention, ShortConv};
    let config = random_config(0);
    for (i, layers) in
        [vec![ShortConv], vec![Attention], vec![ShortConv; 3], vec![Attention; 2], vec![ShortConv, Attention]]
            .into_iter()
            .enumerate()
    {
        for (conv_bias, tied, conv_width) in [(false, true, 2), (true, false, 7)] {
            let config = Config { layers: layers.clone(), conv_bias, tied, conv_width, ..config.clone() };
            for provider in PROVIDERS {
                check(provider, &config, FLOAT32, i as u64);
            }
        }
    }
}

/// A small model of layers and sizes that follow from a seed.
fn random_config(seed: u64) -> Config {
    let mut random = StdRng::seed_from_u64(seed);
    let mut one_of = |choices: &[usize]| *choices.choose(&mut random).unwrap();
    let (kv_heads, group, head_dim) = (one_of(&[1, 2, 3]), one_of(&[1, 2, 3]), one_of(&[2, 8, 16]));
    let layers = one_of(&[1, 2, 3, 4, 6]);
    Config {
        vocab_size: 40,
        hidden_size: one_of(&[32, 48]),
        feed_forward_size: one_of(&[16, 64]),
        heads: kv_heads * group,
        kv_heads,
        head_dim: if seed == 3 { 24 } else { head_dim.max(16) },
        conv_width: one_of(&[2, 3, 4, 5, 7]),
        conv_bias: one_of(&[0, 1]) == 1,
        tied: one_of(&[0, 1]) == 1,
        layers: (0..layers).map(|_| if one_of(&[0, 1]) == 1 { Mixer::Attention } else { Mixer::ShortConv }).collect(),
        context_length: 32,
        rope_theta: 1e4,
        ..models::config()
    }
}

/// Runs a prompt and some tokens through both, and compares the logits of every token from the last of the prompt on, and the
/// states at the end.
fn check(provider: FixedFor, config: &Config, numbers: Numbers, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed ^ 0xa5);
    let weights = Weights { seed, activations: numbers.activations, blocks: numbers.blocks, channels: false };
    let chunk = random.random_range(2..7);
    let prompt = random.random_range(1..17);
    let ids: Vec<i64> = (0..prompt + 5).map(|_| random.random_range(0..config.vocab_size as i64)).collect();
    let what = format!("{provider:?}, seed {seed}, prompt of {prompt} in chunks of {chunk}, {numbers:?}, {config:?}");

    let (expected_logits, expected_states) = expected(config, weights, &ids);
    let mut pair = Pair::new(provider, config, weights, chunk, 24);
    pair.prefill(&ids[..prompt - 1]);
    let mut logits = Vec::new();
    for id in &ids[prompt - 1..] {
        logits.extend(pair.token(*id));
    }
    let width = config.vocab_size;
    compare(&format!("logits of {what}"), numbers, &logits, &expected_logits[(prompt - 1) * width..], width);
    for (state, (name, expected)) in pair.states().into_iter().zip(expected_states) {
        let (state, width) = (state.iter().copied().collect::<Vec<_>>(), *expected.shape().last().unwrap());
        let expected: Vec<f32> = expected.iter().copied().collect();
        compare(&format!("{name} of {what}"), numbers, &state, &expected, width);
    }
}

fn compare(what: &str, numbers: Numbers, found: &[f32], expected: &[f32], width: usize) {
    let Agreement { error, .. } = agreement(found, expected, width);
    assert!(error <= numbers.error, "error {error:e}: {what}");
}

/// The logits of all tokens, and the states at the end with their names.
fn expected(config: &Config, weights: Weights, ids: &[i64]) -> (Vec<f32>, Vec<(String, ArrayD<f32>)>) {
    let graph = weights.reference_graph();
    let contract = build(config, &Portable, Extras::default(), &graph).unwrap();
    let inputs = contract.ids().unwrap();
    let integers =
        |values: Vec<i64>, shape: &[usize]| Tensor::Integers(ArrayD::from_shape_vec(IxDyn(shape), values).unwrap());
    let mut feeds = BTreeMap::from([
        (inputs.input_ids.name.as_str(), integers(ids.to_vec(), &[1, ids.len()])),
        (inputs.attention_mask.name.as_str(), integers(vec![1; ids.len()], &[1, ids.len()])),
        (inputs.num_logits_to_keep.name.as_str(), integers(vec![0], &[])),
    ]);
    for state in &contract.states {
        let shape: Vec<_> =
            state.past.shape.iter().enumerate().map(|(i, dim)| dim.fixed().unwrap_or(usize::from(i == 0))).collect();
        feeds.insert(&state.past.name, Tensor::Floats(ArrayD::zeros(shape)));
    }
    let mut found = run(&graph.content(), weights, &feeds);
    let logits = found.remove(&contract.logits().unwrap().name).unwrap();
    let name = |state: &State| state.present.name.clone();
    let states = contract.states.iter().map(|state| (name(state), found.remove(&name(state)).unwrap())).collect();
    (logits.into_iter().collect(), states)
}

/// A pair of static graphs, and what a host keeps for it.
struct Pair {
    token: Loaded,
    chunk: Loaded,
    contracts: [Contract; 2],
    table: Vec<f32>,
    rope: [Vec<f32>; 2],
    states: Vec<ArrayD<f32>>,
    length: usize,
}

impl Pair {
    fn new(provider: FixedFor, config: &Config, weights: Weights, chunk: usize, past: usize) -> Self {
        let load = |tokens, logits| {
            let dialect = Fixed::new(provider, tokens, past, logits);
            let graph = weights.graph();
            let contract = build(config, &dialect, Extras::default(), &graph).unwrap();
            assert_eq!(contract.dialect, dialect.name());
            assert_eq!(contract.purpose, if logits { Purpose::Token } else { Purpose::Chunk });
            assert!(contract.states.iter().all(|state| state.update == Update::ByHost));
            let loaded = Loaded::new(&graph.content(), weights);
            (loaded, contract)
        };
        let ((token, first), (chunk, second)) = (load(1, true), load(chunk, false));
        let states = first.states.iter().map(|state| {
            let shape: Vec<_> = state.past.shape.iter().map(|dim| dim.fixed().unwrap()).collect();
            let start = if state.kind.grows() { GARBAGE } else { 0.0 };
            ArrayD::from_elem(shape, start)
        });
        let rope = [lfm2_graphs::ir::RopePart::Cos, lfm2_graphs::ir::RopePart::Sin];
        Self {
            token,
            chunk,
            table: weights.table(config.vocab_size, config.hidden_size),
            rope: rope.map(|part| lfm2_graphs::format::rope_rows(part, config.rope_theta, config.head_dim, 0, 64)),
            states: states.collect(),
            contracts: [first, second],
            length: 0,
        }
    }

    /// A prompt, in chunks of which the last may be padded.
    fn prefill(&mut self, ids: &[i64]) {
        let size = self.contracts[1].rows().unwrap().tokens;
        for ids in ids.chunks(size) {
            self.step(ids, false);
        }
    }

    /// One token; returns its logits.
    fn token(&mut self, id: i64) -> Vec<f32> {
        self.step(&[id], true)
    }

    fn step(&mut self, ids: &[i64], token: bool) -> Vec<f32> {
        let contract = &self.contracts[usize::from(!token)];
        let inputs = contract.rows().unwrap();
        let (size, width) = (inputs.tokens, contract.hidden_size);
        let mut rows = vec![0.0; size * width];
        for (row, id) in rows.chunks_mut(width).zip(ids) {
            row.copy_from_slice(&self.table[*id as usize * width..][..width]);
        }
        let floats = |port: &lfm2_graphs::contract::Port, values: Vec<f32>| {
            let shape: Vec<_> = port.shape.iter().map(|dim| dim.fixed().unwrap()).collect();
            Tensor::Floats(ArrayD::from_shape_vec(shape, values).unwrap())
        };
        let mut feeds = BTreeMap::from([(inputs.embeddings.name.as_str(), floats(&inputs.embeddings, rows))]);
        if let Some(attention) = &inputs.attention {
            let half = contract.rope.as_ref().unwrap().head_dim / 2;
            for (port, table) in [&attention.cosines, &attention.sines].into_iter().zip(&self.rope) {
                feeds.insert(&port.name, floats(port, table[self.length * half..][..size * half].to_vec()));
            }
            let hidden = attention.hidden as f32;
            let bias = (0..size).flat_map(|row| {
                let past = (0..inputs.past).map(|column| column < self.length);
                let run = (0..size).map(move |column| column <= row && row < ids.len());
                past.chain(run).map(move |sees| if sees { 0.0 } else { hidden }).collect::<Vec<_>>()
            });
            feeds.insert(&attention.bias.name, floats(&attention.bias, bias.collect()));
        }
        for (state, value) in contract.states.iter().zip(&self.states) {
            feeds.insert(&state.past.name, Tensor::Floats(value.clone()));
        }
        let graph = if token { &mut self.token } else { &mut self.chunk };
        let mut found = graph.run(&feeds);
        for (state, kept) in contract.states.iter().zip(&mut self.states) {
            let new = &found[&state.present.name];
            keep(state, kept, new, self.length, ids.len());
        }
        self.length += ids.len();
        contract
            .outputs
            .logits
            .as_ref()
            .map_or(Vec::new(), |port| found.remove(&port.name).unwrap().into_iter().collect())
    }

    /// The states in the form of dynamic graphs: `[1, hidden, columns]` and `[1, heads, tokens, head_dim]`.
    fn states(&self) -> Vec<ArrayD<f32>> {
        let states = self.contracts[0].states.iter().zip(&self.states);
        states
            .map(|(state, value)| match state.kind {
                StateKind::Conv if state.axis == 0 => value.clone().reversed_axes().insert_axis(Axis(0)),
                StateKind::Conv => {
                    value.slice(s![0, .., ..]).reversed_axes().insert_axis(Axis(0)).to_owned().into_dyn()
                }
                StateKind::Key => {
                    let rows = value.slice_axis(Axis(2), Slice::from(..self.length));
                    rows.permuted_axes(IxDyn(&[0, 2, 1])).insert_axis(Axis(0)).to_owned()
                }
                StateKind::Value => {
                    value.slice_axis(Axis(1), Slice::from(..self.length)).insert_axis(Axis(0)).to_owned()
                }
            })
            .collect()
    }
}

/// What a host does with what a run returns, of which the first `count` entries are of real tokens.
fn keep(state: &State, kept: &mut ArrayD<f32>, new: &ArrayD<f32>, length: usize, count: usize) {
    let axis = Axis(state.axis);
    let new = new.slice_axis(axis, Slice::from(..count));
    if state.kind.grows() {
        kept.slice_axis_mut(axis, Slice::from(length..length + count)).assign(&new);
        return;
    }
    let all = ndarray::concatenate(axis, &[kept.view(), new]).unwrap();
    let last = all.len_of(axis) - kept.len_of(axis);
    kept.assign(&all.slice_axis(axis, Slice::from(last..)));
}

/// Without attention nothing depends on positions, so that there is nothing to feed for them.
#[test]
fn models_without_attention_take_rows_alone() {
    let config = Config { layers: vec![Mixer::ShortConv; 2], ..random_config(1) };
    let weights = Weights { seed: 1, activations: DType::Float32, blocks: None, channels: false };
    let graph = weights.graph();
    let contract = build(&config, &Fixed::new(FixedFor::Qnn, 4, 8, false), Extras::default(), &graph).unwrap();
    assert_eq!(contract.rows().unwrap().attention, None);
    let names: Vec<_> = contract.input_ports().into_iter().map(|port| port.name.clone()).collect();
    assert_eq!(names, ["inputs_embeds", "past_conv.0", "past_conv.1"]);
    assert_eq!(Array1::from_iter(graph.content().inputs.iter().map(|(_, port)| port.name.clone())).to_vec(), names);
}

/// What a provider gets wrong, or does not take, is not in the graphs for it: neither in those of any recipe nor of any model. Where
/// their weights lie is the package's choice, and not looked at here.
#[test]
fn providers_take_every_graph_as_a_whole() {
    let check_graph =
        |provider: FixedFor, config: &Config, graph: &Graph<'_>, window: [usize; 2], logits: bool, what: &str| {
            let dialect = Fixed::new(provider, window[0], window[1], logits);
            build(config, &dialect, Extras::default(), graph).unwrap();
            let content = graph.content();
            let bytes = |source: &Source| match source {
                Source::Ints(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
                _ => Vec::new(),
            };
            let data = content.initializers.iter().map(|(_, it)| Data::Inline(bytes(&it.source))).collect();
            let model = decode(&encode(&content, "{}", data)).unwrap();
            let target = provider.target();
            let checked = check::check(what, &model, check::rules(target).unwrap());
            assert!(checked.is_whole() && checked.partitions == 1, "{checked}");
        };
    for provider in PROVIDERS {
        for (tokens, logits) in [(1, true), (4, false)] {
            for precision in Precision::ALL {
                let recipe = precision.recipe().unwrap();
                let graph = static_graph(&recipe, provider);
                check_graph(provider, &models::config(), &graph, [tokens, 8], logits, precision.as_str());
            }
            for seed in 0..24 {
                let config = random_config(seed);
                let weights = Weights { seed, activations: DType::Float32, blocks: None, channels: false };
                check_graph(provider, &config, &weights.graph(), [tokens, 24], logits, &format!("{config:?}"));
            }
        }
    }
}
