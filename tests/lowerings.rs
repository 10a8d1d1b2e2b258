//! Tier "lowerings": every lowering of the contrib dialect against the portable one in float32, on random inputs.
//!
//! Both graphs have the same ports and compute with the same numbers: where a recipe rounds weights, the reference gets the
//! rounded ones. What is left is the rounding of the arithmetic, and for quantized weights that of the activations.

use std::collections::BTreeMap;

use lfm2_graphs::contract::Port;
use lfm2_graphs::dialect::{AddNorm, Attention, CausalConv, Dialect, Heads, Portable, Tokens};
use lfm2_graphs::ir::graph::port;
use lfm2_graphs::ir::verify::verify;
use lfm2_graphs::ir::{Blocks, DType, Dim, Role, Scope, Value};
use lfm2_tests::compare::{Agreement, agreement};
use lfm2_tests::graphs::{Tensor, run};
use lfm2_tests::models::dialect;
use lfm2_tests::weights::{Weights, rounded};
use ndarray::{Array, ArrayD, IxDyn};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

#[path = "lowerings/int8.rs"]
mod int8;

const SEEDS: std::ops::Range<u64> = 0..3;

/// Number formats of a comparison, and how far results may be apart.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    activations: DType,
    blocks: Option<Blocks>,
    /// Whether matrices are quantized by row instead.
    channels: bool,
    /// Largest difference, relative to the largest magnitude expected.
    error: f64,
    /// Smallest cosine between rows.
    cosine: f64,
}

/// Sums of some hundred products in another order: a few units of the 24th bit.
const FLOAT32: Numbers =
    Numbers { activations: DType::Float32, blocks: None, channels: false, error: 2e-6, cosine: 0.999_999_999 };

/// Each intermediate result is rounded to 11 bits; some of them lie behind one another.
const FLOAT16: Numbers =
    Numbers { activations: DType::Float16, blocks: None, channels: false, error: 3e-3, cosine: 0.999_99 };

/// Weights by row: the activations are rounded to 8 bits too, as with blocks, one step for a whole row.
const CHANNELS: Numbers = Numbers { channels: true, error: 1.5e-2, cosine: 0.9999, ..FLOAT32 };

/// Caches of int8 with 127 steps up to the largest value of each channel: half a step is 0.4 % of it, and attention averages that
/// error of the values and adds that of the keys in the scores. A wrong scale or order of channels costs ten times as much.
const CACHES: Numbers = Numbers { error: 1e-2, cosine: 0.9999, ..FLOAT32 };

/// Weights in blocks: the kernel may round activations to 8 bits, half a step of 1/127 of the largest in a block. In a sum these
/// errors average out; a wrong scale, zero point or order of the packed numbers costs ten times as much and more.
const fn blocks(bits: usize, block_size: usize) -> Numbers {
    let blocks = Blocks { bits, block_size, zero_points: false, scales: DType::Float32 };
    Numbers { blocks: Some(blocks), error: 1.5e-2, cosine: 0.9999, ..FLOAT32 }
}

/// Every block format that a recipe can ask for: bits, sizes, with and without zero points, scales of both types.
fn all_blocks() -> Vec<Numbers> {
    let mut all = Vec::new();
    for (bits, block_size) in [4, 8].into_iter().flat_map(|bits| [16, 32, 64, 128, 256].map(|size| (bits, size))) {
        for (zero_points, scales) in [false, true].into_iter().flat_map(|zero| FLOATS.map(|scales| (zero, scales))) {
            let blocks = Blocks { bits, block_size, zero_points, scales };
            all.push(Numbers { activations: scales, blocks: Some(blocks), ..self::blocks(bits, block_size) });
        }
    }
    all
}

/// Types of activations; scales have the same.
const FLOATS: [DType; 2] = [DType::Float32, DType::Float16];

/// Rows looked up in a quantized table are multiplied out, and nothing else is rounded.
/// With float16, the products are.
fn exact(numbers: Numbers) -> Numbers {
    let plain = if numbers.activations == DType::Float16 { FLOAT16 } else { FLOAT32 };
    let error = if numbers.activations == DType::Float16 { 6e-4 } else { 1e-7 };
    Numbers { error, cosine: plain.cosine, ..numbers }
}

/// Sizes of the tokens of a run.
#[derive(Clone, Copy, Debug)]
struct Run {
    batch: usize,
    sequence: usize,
    past: usize,
}

const fn tokens(batch: usize, sequence: usize, past: usize) -> Run {
    Run { batch, sequence, past }
}

/// Prompts, chunks and single tokens. The fused attention takes several tokens on a past for one row only.
const RUNS: [Run; 7] = [
    tokens(1, 1, 0),
    tokens(1, 9, 0),
    tokens(3, 5, 0),
    tokens(1, 1, 7),
    tokens(3, 1, 12),
    tokens(1, 6, 5),
    tokens(1, 2, 31),
];

/// Values that a graph is fed with, by the names of its inputs.
type Feeds = BTreeMap<&'static str, Tensor>;

#[test]
fn embed() {
    for numbers in [FLOAT32, FLOAT16].into_iter().chain(all_blocks().into_iter().map(exact)) {
        for (run, seed) in some_runs_and_seeds(numbers) {
            embed_once(numbers, run, seed);
        }
    }
}

fn embed_once(numbers: Numbers, run: Run, seed: u64) {
    let [rows, width] = [96, 768];
    let mut random = Random::new(seed, numbers);
    let feeds = Feeds::from([("ids", random.ids(&[run.batch, run.sequence], rows))]);
    check(&format!("embed {run:?}"), "contrib", numbers, seed, &feeds, &|dialect, at| {
        let ids = at.input(port("ids", DType::Int64, shape(&[run.batch, run.sequence])));
        let table = at.within("table", |at| at.weight(Role::Table, &[rows, width]));
        output(at, "rows", dialect.embed(at, &table, ids), &[run.batch, run.sequence, width]);
    });
}

/// All that the processor has kernels for in bfloat16 is to look rows up: those of a table of plain numbers are what the table holds, and
/// products of blocks and scales are rounded to 8 bits.
#[test]
fn embed_in_bfloat16() {
    let plain = Numbers { activations: DType::Bfloat16, error: 0.0, ..FLOAT32 };
    let scales = |scales| Some(Blocks { bits: 4, block_size: 32, zero_points: true, scales });
    let packed = FLOATS.map(|dtype| Numbers { blocks: scales(dtype), error: 4e-3, cosine: 0.999_98, ..plain });
    for numbers in [plain].into_iter().chain(packed) {
        for (run, seed) in some_runs_and_seeds(numbers) {
            embed_once(numbers, run, seed);
        }
    }
}

#[test]
fn norm_and_add_norm() {
    for numbers in [FLOAT32, FLOAT16] {
        for (run, seed) in runs_and_seeds() {
            // From where epsilon decides to where it does not matter.
            for magnitude in [1e-3, 1.0, 100.0] {
                let size = [run.batch, run.sequence, 160];
                let mut random = Random::new(seed, numbers);
                let feeds = Feeds::from(["stream", "update"].map(|name| (name, random.floats(&size, magnitude))));
                check(&format!("norm {run:?}, {magnitude}"), "contrib", numbers, seed, &feeds, &|dialect, at| {
                    let [stream, update] = ["stream", "update"].map(|name| input(at, name, &size));
                    let scale = at.within("scale", |at| at.weight(Role::Vector, &size[2..]));
                    output(at, "norm", dialect.norm(at, stream, &scale, 1e-5), &size);
                    let op = AddNorm { stream, update, scale: &scale, epsilon: 1e-5 };
                    let (sum, normed) = dialect.add_norm(at, op);
                    output(at, "sum", sum, &size);
                    output(at, "normed", normed, &size);
                });
            }
        }
    }
}

#[test]
fn linear() {
    for numbers in [FLOAT32, FLOAT16, CHANNELS].into_iter().chain(all_blocks()) {
        for (run, seed) in some_runs_and_seeds(numbers) {
            for (role, biased) in
                [(Role::Matrix, false), (Role::Matrix, true), (Role::Head, false), (Role::Table, false)]
            {
                // Three blocks of the largest size, so that zero points do not fill their bytes.
                let [inputs, outputs] = [768, 96];
                let size = [run.batch, run.sequence, inputs];
                let mut random = Random::new(seed, numbers);
                let feeds = Feeds::from([("x", random.floats(&size, 1.0))]);
                let what = format!("linear {role:?} {run:?}, bias {biased}");
                check(&what, "contrib", numbers, seed, &feeds, &|dialect, at| {
                    let x = input(at, "x", &size);
                    let weight = at.within("projection", |at| at.weight(role, &[outputs, inputs]));
                    let bias = at.within("projection", |at| at.bias(outputs));
                    let y = dialect.linear(at, x, &weight, biased.then_some(&bias));
                    output(at, "y", y, &[run.batch, run.sequence, outputs]);
                });
            }
        }
    }
}

#[test]
fn causal_conv() {
    for numbers in [FLOAT32, FLOAT16] {
        for (run, seed) in runs_and_seeds() {
            for (width, biased) in [(2, false), (3, false), (3, true), (4, false), (4, true), (5, true)] {
                let block = Convolution { run, width, biased };
                let feeds = block.feeds(&mut Random::new(seed, numbers));
                for name in ["contrib", "contrib-left"] {
                    check(&format!("{block:?}"), name, numbers, seed, &feeds, &|dialect, at| block.write(dialect, at));
                }
            }
        }
    }
}

#[test]
fn attention() {
    for numbers in [FLOAT32, FLOAT16] {
        for (run, seed) in runs_and_seeds() {
            for (heads, kv_heads, head_dim) in [(1, 1, 16), (4, 4, 16), (4, 2, 32), (8, 1, 16), (6, 2, 64)] {
                let block = Attend { run, heads, kv_heads, head_dim };
                let feeds = block.feeds(&mut Random::new(seed, numbers));
                for name in ["contrib", "contrib-left"] {
                    check(&format!("{block:?}"), name, numbers, seed, &feeds, &|dialect, at| block.write(dialect, at));
                }
            }
        }
    }
}

/// Decoding rows of different lengths: the caches are filled from the left, and each row's mask says how far.
#[test]
fn rows_of_different_lengths_decode_as_if_alone() {
    for seed in SEEDS {
        let lengths = [3, 11, 6];
        let all = Attend { run: tokens(3, 1, 11), heads: 4, kv_heads: 2, head_dim: 16 };
        let weights = weights(FLOAT32, seed);
        let mut feeds = all.feeds(&mut Random::new(seed, FLOAT32));
        // One more than the past: the token that is being decoded.
        let mask = Array::from_shape_fn((3, 12), |(row, at)| i64::from(at <= lengths[row])).into_dyn();
        feeds.insert("attention_mask", Tensor::Integers(mask));
        let found = execute("contrib", weights, &feeds, &|dialect, at| all.write(dialect, at));

        for (row, length) in lengths.into_iter().enumerate() {
            let alone = Attend { run: tokens(1, 1, length), ..all };
            let mut feeds: Feeds = feeds.iter().map(|(name, feed)| (*name, feed.row(row))).collect();
            for name in ["past_key", "past_value"] {
                feeds.insert(name, feeds[name].slice(2, 0, length));
            }
            feeds.insert("attention_mask", Tensor::Integers(ArrayD::ones(IxDyn(&[1, length + 1]))));
            let expected = reference(weights, &feeds, &|dialect, at| alone.write(dialect, at));
            for (name, expected) in expected {
                let mut found = Tensor::Floats(found[&name].clone()).row(row);
                if name != "context" {
                    found = found.slice(2, 0, length + 1);
                }
                compare(&format!("row {row}, {name}"), FLOAT32, found.floats(), &expected);
            }
        }
    }
}

/// Prompts of different lengths, padded on the left, and one more token behind each: both dialects that promise it.
#[test]
fn left_padded_prompts_are_as_if_alone() {
    for name in ["contrib-left", "portable"] {
        for (numbers, seed) in [FLOAT32, FLOAT16].into_iter().flat_map(|numbers| SEEDS.map(move |seed| (numbers, seed)))
        {
            let prompt = tokens(3, 7, 0);
            let attend = Attend { run: prompt, heads: 4, kv_heads: 2, head_dim: 16 };
            padded_attention(name, numbers, seed, attend);
            for width in [2, 3, 5] {
                padded_convolution(name, numbers, seed, Convolution { run: prompt, width, biased: true });
            }
        }
    }
}

/// How many of the seven tokens of each prompt are real.
const REAL: [usize; 3] = [7, 1, 4];

/// 0 at the padding and 1 behind it, `extra` tokens behind the prompt included.
fn padded_mask(length: usize, extra: usize) -> Tensor {
    let mask = Array::from_shape_fn((REAL.len(), length + extra), |(row, at)| i64::from(at >= length - REAL[row]));
    Tensor::Integers(mask.into_dyn())
}

fn padded_attention(name: &str, numbers: Numbers, seed: u64, block: Attend) {
    let weights = weights(numbers, seed);
    let length = block.run.sequence;
    let mut random = Random::new(seed, numbers);
    let mut prompt = block.feeds(&mut random);
    prompt.insert("attention_mask", padded_mask(length, 0));
    let prefilled = execute(name, weights, &prompt, &|dialect, at| block.write(dialect, at));

    let next = Attend { run: tokens(REAL.len(), 1, length), ..block };
    let mut token = next.feeds(&mut random);
    token.insert("attention_mask", padded_mask(length, 1));
    token.insert("past_key", Tensor::Floats(prefilled["present_key"].clone()));
    token.insert("past_value", Tensor::Floats(prefilled["present_value"].clone()));
    let decoded = execute(name, weights, &token, &|dialect, at| next.write(dialect, at));

    for (row, real) in REAL.into_iter().enumerate() {
        let what = format!("{name}, attention, row {row}");
        let alone = Attend { run: tokens(1, real, 0), ..block };
        let expected =
            reference(weights, &own_part(&prompt, row, real, alone.run), &|dialect, at| alone.write(dialect, at));
        let found = Tensor::Floats(prefilled["context"].clone()).row(row).slice(1, length - real, length);
        compare(&format!("{what}, prompt"), numbers, found.floats(), &expected["context"]);

        let alone = Attend { run: tokens(1, 1, real), ..block };
        let mut feeds = own_part(&token, row, 1, alone.run);
        feeds.insert("past_key", Tensor::Floats(expected["present_key"].clone()));
        feeds.insert("past_value", Tensor::Floats(expected["present_value"].clone()));
        let expected = reference(weights, &feeds, &|dialect, at| alone.write(dialect, at));
        let found = Tensor::Floats(decoded["context"].clone()).row(row);
        compare(&format!("{what}, next token"), numbers, found.floats(), &expected["context"]);
    }
}

fn padded_convolution(name: &str, numbers: Numbers, seed: u64, block: Convolution) {
    let weights = weights(numbers, seed);
    let length = block.run.sequence;
    let mut prompt = block.feeds(&mut Random::new(seed, numbers));
    prompt.insert("attention_mask", padded_mask(length, 0));
    // A new conversation: before the first token there is nothing.
    prompt.insert("past", Tensor::Floats(ArrayD::zeros(IxDyn(&[REAL.len(), Convolution::CHANNELS, block.width - 1]))));
    let found = execute(name, weights, &prompt, &|dialect, at| block.write(dialect, at));

    for (row, real) in REAL.into_iter().enumerate() {
        let alone = Convolution { run: tokens(1, real, 0), ..block };
        let mut feeds = own_part(&prompt, row, real, alone.run);
        feeds.insert("past", prompt["past"].row(row));
        let expected = reference(weights, &feeds, &|dialect, at| alone.write(dialect, at));
        let what = format!("{name}, convolution of width {}, row {row}", block.width);
        let y = Tensor::Floats(found["y"].clone()).row(row).slice(1, length - real, length);
        compare(&what, numbers, y.floats(), &expected["y"]);
        compare(&what, numbers, Tensor::Floats(found["present"].clone()).row(row).floats(), &expected["present"]);
    }
}

/// What belongs to the last `real` tokens of one row, without padding.
fn own_part(feeds: &Feeds, row: usize, real: usize, run: Run) -> Feeds {
    let of_run = |name: &str| !matches!(name, "past_key" | "past_value" | "past" | "attention_mask");
    let mut own: Feeds = feeds
        .iter()
        .filter(|(name, _)| of_run(name))
        .map(|(name, feed)| {
            let length = feed.length(1);
            (*name, feed.row(row).slice(1, length - real, length))
        })
        .collect();
    own.insert("attention_mask", Tensor::Integers(ArrayD::ones(IxDyn(&[1, run.past + run.sequence]))));
    for name in ["past_key", "past_value"] {
        // An empty past; who continues a run puts its own in place.
        own.extend(feeds.get(name).map(|feed| (name, feed.row(row).slice(2, 0, 0))));
    }
    own
}

/// A convolution alone.
#[derive(Clone, Copy, Debug)]
struct Convolution {
    run: Run,
    width: usize,
    biased: bool,
}

impl Convolution {
    const CHANNELS: usize = 48;

    fn feeds(self, random: &mut Random) -> Feeds {
        let Run { batch, sequence, past } = self.run;
        Feeds::from([
            ("ids", random.ids(&[batch, sequence], 10)),
            ("attention_mask", Tensor::Integers(ArrayD::ones(IxDyn(&[batch, past + sequence])))),
            ("x", random.floats(&[batch, sequence, Self::CHANNELS], 1.0)),
            ("past", random.floats(&[batch, Self::CHANNELS, self.width - 1], 1.0)),
        ])
    }

    fn write(self, dialect: &dyn Dialect, at: Scope<'_>) {
        let Run { batch, sequence, .. } = self.run;
        let size = [batch, sequence, Self::CHANNELS];
        let state = [batch, Self::CHANNELS, self.width - 1];
        let tokens = token_inputs(at, self.run);
        let kernel = at.within("conv", |at| at.weight(Role::Kernel, &[Self::CHANNELS, 1, self.width]));
        let bias = at.within("conv", |at| at.bias(Self::CHANNELS));
        let (x, past) = (input(at, "x", &size), input(at, "past", &state));
        let op = CausalConv { x, kernel: &kernel, bias: self.biased.then_some(&bias), past, tokens };
        let convolved = dialect.causal_conv(at, op);
        output(at, "y", convolved.y, &size);
        output(at, "present", convolved.present, &state);
    }
}

/// Attention alone, between the projections.
#[derive(Clone, Copy, Debug)]
struct Attend {
    run: Run,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Attend {
    fn feeds(self, random: &mut Random) -> Feeds {
        let Run { batch, sequence, past } = self.run;
        let [queries, keys] = [self.heads, self.kv_heads].map(|heads| [batch, sequence, heads * self.head_dim]);
        let cache = [batch, self.kv_heads, past, self.head_dim];
        Feeds::from([
            ("ids", random.ids(&[batch, sequence], 10)),
            ("attention_mask", Tensor::Integers(ArrayD::ones(IxDyn(&[batch, past + sequence])))),
            ("query", random.floats(&queries, 1.0)),
            ("key", random.floats(&keys, 1.0)),
            ("value", random.floats(&keys, 1.0)),
            ("past_key", random.floats(&cache, 1.0)),
            ("past_value", random.floats(&cache, 1.0)),
        ])
    }

    fn write(self, dialect: &dyn Dialect, at: Scope<'_>) {
        let Run { batch, sequence, past } = self.run;
        let [queries, keys] = [self.heads, self.kv_heads].map(|heads| [batch, sequence, heads * self.head_dim]);
        let tokens = token_inputs(at, self.run);
        let scale = |name| at.within(name, |at| at.weight(Role::Vector, &[self.head_dim]));
        let op = Attention {
            query: input(at, "query", &queries),
            key: input(at, "key", &keys),
            value: input(at, "value", &keys),
            query_norm: &scale("query_norm"),
            key_norm: &scale("key_norm"),
            past_key: self.cache(at, "past_key", "present_key", past),
            past_value: self.cache(at, "past_value", "present_value", past),
            tokens,
            heads: Heads {
                heads: self.heads,
                kv_heads: self.kv_heads,
                head_dim: self.head_dim,
                rope_theta: 1e4,
                context_length: 64,
            },
            epsilon: 1e-5,
        };
        let attended = dialect.attention(at, op);
        output(at, "context", attended.context, &queries);
        let present = [("present_key", attended.present_key), ("present_value", attended.present_value)];
        for (name, value) in present {
            at.output(value, self.cache_port(at, name, name, past + sequence));
        }
    }

    /// A cache of int8 if the graph says so.
    fn cache<'g>(self, at: Scope<'g>, name: &str, present: &str, length: usize) -> Value<'g> {
        let port = self.cache_port(at, name, present, length);
        match at.graph().cache_scales(present) {
            Some(scales) => at.quantized_input(port, scales, &[1, self.kv_heads, 1, self.head_dim]),
            None => at.input(port),
        }
    }

    fn cache_port(self, at: Scope<'_>, name: &str, present: &str, length: usize) -> Port {
        let quantized = at.graph().cache_scales(present).is_some();
        let size = [self.run.batch, self.kv_heads, length, self.head_dim];
        port(name, if quantized { DType::Int8 } else { at.activations() }, shape(&size))
    }
}

/// Writes an operation through a dialect, with ports of its own.
type Write<'w> = dyn Fn(&dyn Dialect, Scope<'_>) + 'w;

/// Runs the operation in a dialect and in the portable one, and compares all outputs.
fn check(what: &str, name: &str, numbers: Numbers, seed: u64, feeds: &Feeds, write: &Write<'_>) {
    let weights = weights(numbers, seed);
    let found = execute(name, weights, feeds, write);
    let expected = reference(weights, feeds, write);
    for (output, expected) in &expected {
        compare(&format!("{name}, {what}, seed {seed}, {output}"), numbers, &found[output], expected);
    }
}

fn compare(what: &str, numbers: Numbers, found: &ArrayD<f32>, expected: &ArrayD<f32>) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let width = *expected.shape().last().unwrap();
    let values = |array: &ArrayD<f32>| array.iter().copied().collect::<Vec<_>>();
    let Agreement { cosine, error, .. } = agreement(&values(found), &values(expected), width);
    assert!(
        cosine >= numbers.cosine && error <= numbers.error,
        "{what}: cosine {cosine}, error {error:e}; {numbers:?}"
    );
}

fn execute(name: &str, weights: Weights, feeds: &Feeds, write: &Write<'_>) -> BTreeMap<String, ArrayD<f32>> {
    let graph = weights.graph();
    write(&*dialect(name), graph.root());
    verify(&graph.content()).unwrap();
    run(&graph.content(), weights, feeds)
}

fn reference(weights: Weights, feeds: &Feeds, write: &Write<'_>) -> BTreeMap<String, ArrayD<f32>> {
    let graph = weights.reference_graph();
    write(&Portable, graph.root());
    verify(&graph.content()).unwrap();
    run(&graph.content(), weights, feeds)
}

fn weights(numbers: Numbers, seed: u64) -> Weights {
    Weights { seed, activations: numbers.activations, blocks: numbers.blocks, channels: numbers.channels }
}

fn runs_and_seeds() -> impl Iterator<Item = (Run, u64)> {
    RUNS.into_iter().flat_map(|run| SEEDS.map(move |seed| (run, seed)))
}

/// All runs with plain numbers; with blocks, of which there are many formats, a prompt and a single token.
fn some_runs_and_seeds(numbers: Numbers) -> Vec<(Run, u64)> {
    match numbers.blocks {
        None => runs_and_seeds().collect(),
        Some(_) => vec![(RUNS[0], 0), (RUNS[2], 1)],
    }
}

fn token_inputs(at: Scope<'_>, run: Run) -> Tokens<'_> {
    let token_port = |name: &str, length| port(name, DType::Int64, shape(&[run.batch, length]));
    Tokens {
        given: at.input(token_port("ids", run.sequence)),
        mask: at.input(token_port("attention_mask", run.past + run.sequence)),
        rotary: None,
    }
}

fn input<'g>(at: Scope<'g>, name: &str, size: &[usize]) -> Value<'g> {
    at.input(float_port(at, name, size))
}

fn output<'g>(at: Scope<'g>, name: &str, value: Value<'g>, size: &[usize]) {
    at.output(value, float_port(at, name, size));
}

fn float_port(at: Scope<'_>, name: &str, size: &[usize]) -> Port {
    port(name, at.activations(), shape(size))
}

/// Every size is declared as one that is known at run time only, so that no kernel is chosen by it.
fn shape(size: &[usize]) -> Vec<Dim> {
    size.iter()
        .enumerate()
        .map(|(axis, length)| if axis < 2 { Dim::symbol(&format!("d{axis}_{length}")) } else { (*length).into() })
        .collect()
}

/// Random inputs that the activations' type can hold.
struct Random {
    generator: StdRng,
    activations: DType,
}

impl Random {
    fn new(seed: u64, numbers: Numbers) -> Self {
        Self { generator: StdRng::seed_from_u64(seed), activations: numbers.activations }
    }

    fn floats(&mut self, size: &[usize], magnitude: f32) -> Tensor {
        let mut next = || rounded(magnitude * self.generator.random_range(-1.0..1.0), self.activations);
        Tensor::Floats(ArrayD::from_shape_simple_fn(IxDyn(size), &mut next))
    }

    fn ids(&mut self, size: &[usize], vocabulary: usize) -> Tensor {
        let mut next = || self.generator.random_range(0..vocabulary as i64);
        Tensor::Integers(ArrayD::from_shape_simple_fn(IxDyn(size), &mut next))
    }
}
