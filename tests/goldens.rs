//! Every block in every dialect as text, so that a change to a lowering is read as a difference of lines.
//!
//! `goldens/<block>.<dialect>.txt` holds one graph for each group of precisions that give the same one. `make bless` writes the
//! files anew.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;

use expect_test::expect_file;
use lfm2_export::package::{CudaActivations, gpu_graph};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Padding, State};
use lfm2_graphs::dialect::{AddNorm, ContribGpu, Convolved, Dialect, Fixed, Observed, Tokens, Window};
use lfm2_graphs::ir::graph::port;
use lfm2_graphs::ir::verify::verify;
use lfm2_graphs::ir::{Attribute, DType, Dim, Format, Graph, Role, Scope, Source, Value, text};
use lfm2_graphs::lfm2::{Block, Config, EMBEDDINGS, Extras, attention, build, feed_forward, short_conv};
use lfm2_graphs::ops;
use lfm2_tests::models;

/// A block: a name, what its config differs in, how it is written, and whether padding on the left changes it.
struct Case {
    name: &'static str,
    config: fn(&mut Config),
    write: for<'g> fn(&Block<'g, '_>, Scope<'g>),
    padded: bool,
}

const CASES: &[Case] = &[
    Case { name: "embed_and_head", config: |_| {}, write: embed_and_head, padded: false },
    Case { name: "embed_and_head-untied", config: |config| config.tied = false, write: embed_and_head, padded: false },
    Case { name: "norm", config: |_| {}, write: norm, padded: false },
    Case { name: "short_conv", config: |_| {}, write: convolution, padded: true },
    Case { name: "short_conv-bias", config: |config| config.conv_bias = true, write: convolution, padded: false },
    Case { name: "short_conv-width-5", config: |config| config.conv_width = 5, write: convolution, padded: false },
    Case { name: "short_conv-rollback", config: |_| {}, write: convolution_with_columns, padded: true },
    Case { name: "attention", config: |_| {}, write: attend, padded: true },
    Case { name: "feed_forward", config: |_| {}, write: feed, padded: false },
];

/// Dialects with graphs for any number of tokens.
const DYNAMIC: [&str; 5] = ["contrib", "contrib-left", "contrib-gpu", "contrib-gpu-bf16", "portable"];

/// Dialects with fixed shapes, and the same for single tokens.
const STATIC: [&str; 3] = ["coreml", "nnapi", "qnn"];
const TOKEN: [&str; 3] = ["coreml-token", "nnapi-token", "qnn-token"];

/// The precisions that a dialect can express.
fn precisions(dialect: &str) -> Vec<Precision> {
    let all = Precision::ALL.into_iter();
    all.filter(|precision| match dialect {
        "portable" => !precision.recipe().unwrap().is_quantized(),
        "coreml" | "coreml-token" => *precision == Precision::Fp16,
        "nnapi" | "nnapi-token" => *precision == Precision::Fp32,
        // Packed products take no float16.
        "qnn" | "qnn-token" => *precision != Precision::Q4f16,
        // The packed numbers of other recipes come with scales of float32, and activations are always float16.
        "contrib-gpu" => matches!(precision, Precision::Fp16 | Precision::Q4f16),
        // Plain numbers, and scales of both types.
        "contrib-gpu-bf16" => matches!(precision, Precision::Fp16 | Precision::Q4 | Precision::Q4f16),
        _ => true,
    })
    .collect()
}

/// Whether there is a golden of a block in a dialect.
fn has_golden(case: &Case, dialect: &str) -> bool {
    match dialect {
        "contrib-left" => case.padded,
        // The other blocks are those of the contrib dialect.
        "contrib-gpu" | "contrib-gpu-bf16" => case.name == "attention",
        // Static graphs return the columns of every convolution.
        "coreml" | "nnapi" | "qnn" => case.name != "short_conv-rollback",
        _ => true,
    }
}

#[test]
fn blocks() {
    for case in CASES {
        for dialect in DYNAMIC.into_iter().chain(STATIC) {
            if has_golden(case, dialect) {
                check(case.name, dialect, |dialect, graph| write_block(case, dialect, graph));
            }
        }
    }
}

#[test]
fn whole_model() {
    for dialect in DYNAMIC.into_iter().chain(STATIC).chain(TOKEN) {
        check("model", dialect, |dialect, graph| {
            build(&models::config(), dialect, Extras::default(), graph).unwrap();
        });
    }
}

/// A graph for calibration: the same graph, with an output for every input of a product.
#[test]
fn observed() {
    let dialect = models::dialect("contrib");
    let graph = models::graph(Precision::Fp32);
    let observed = Observed::new(&*dialect);
    let mut contract = build(&models::config(), &observed, Extras::default(), &graph).unwrap();
    observed.describe(&mut contract);
    let statistics: Vec<_> =
        contract.outputs.statistics.iter().map(|it| format!("{}: {}", it.port.name, it.weights.join(", "))).collect();
    let text = format!("{}\n# statistics\n{}\n", text::dump(&graph.content()), statistics.join("\n"));
    expect_file![golden("model-observed", "contrib")].assert_eq(&text);
}

/// Activations as integers, and the graph that tells their ranges: the values of both have the same names.
#[test]
fn integers() {
    let write = |name: &str, graph: &Graph<'_>, logits| {
        let hidden = graph.is_encoded().then_some(-40.0);
        let dialect = Fixed::integers(if logits { 1 } else { 4 }, 8, logits || hidden.is_none(), hidden);
        let contract = build(&models::config(), &dialect, Extras::default(), graph).unwrap();
        expect_file![golden("model", name)].assert_eq(&text::dump(&graph.content()));
        contract.outputs.ranges.map(|ranges| ranges.values).unwrap_or_default()
    };
    let plain = |_: &str, _, _: &[usize]| Format::Dense(DType::Float32);
    let told: BTreeSet<String> =
        write("qnn-ranges", &Graph::new(DType::Float32, plain).observing(), false).into_iter().collect();
    for (name, logits) in [("qnn-w4a16", false), ("qnn-w4a16-token", true)] {
        let asked = RefCell::new(BTreeSet::new());
        let formats = |_: &str, role, _: &[usize]| match role {
            Role::Matrix => Format::Rows { bits: 4 },
            Role::Table | Role::Head => Format::Rows { bits: 8 },
            Role::Kernel | Role::Vector => Format::Dense(DType::Float32),
        };
        let graph = Graph::new(DType::Float32, formats).with_ranges(|name| {
            asked.borrow_mut().insert(name.to_owned());
            Some([-1.0, 3.0])
        });
        write(name, &graph, logits);
        drop(graph);
        let embeddings = BTreeSet::from([EMBEDDINGS.to_owned()]);
        let missing: Vec<_> = asked.into_inner().difference(&(&told | &embeddings)).cloned().collect();
        assert!(missing.is_empty(), "nobody tells the ranges of {missing:?}");
    }
}

#[test]
fn rollback_adds_outputs_and_nothing_else() {
    for dialect in ["contrib", "contrib-left", "portable"] {
        for precision in precisions(dialect) {
            let [(plain, plain_nodes, before), (cut, nodes, after)] = [false, true].map(|rollback| {
                let graph = models::graph(precision);
                let model = models::dialect(dialect);
                let contract = build(&models::config(), &*model, Extras { rollback }, &graph).unwrap();
                let content = graph.content();
                let outputs: Vec<_> = content.outputs.iter().map(|(_, port)| port.clone()).collect();
                let nodes: Vec<_> = content.nodes.iter().map(|node| (node.op.name, node.inputs.clone())).collect();
                (outputs, nodes, contract.states)
            });
            let columns: Vec<_> = after.iter().filter_map(|state| state.columns.clone()).collect();
            let shape: Vec<Dim> =
                vec!["batch_size".into(), "sequence_length".into(), models::config().hidden_size.into()];
            assert_eq!(columns, [port("conv_columns.0", precision.recipe().unwrap().activations, shape)]);
            assert_eq!(cut, [plain, columns].concat(), "{dialect} {precision}");
            assert_eq!(nodes, plain_nodes, "{dialect} {precision}: the columns are computed anyway");
            let without: Vec<_> = after.into_iter().map(|state| State { columns: None, ..state }).collect();
            assert_eq!(without, before);
        }
    }
}

/// The CUDA provider has no kernel for attention in float32, and says nothing when the CPU runs it. This cannot be run here: what
/// the graphs look like is all that is tested.
#[test]
fn attention_on_gpus_has_16_bits_and_takes_its_norms() {
    for activations in [CudaActivations::Float16, CudaActivations::Bfloat16] {
        for precision in Precision::ALL {
            // States of 16 bits whatever the recipe: q4, q8 and fp32 have activations of float32 elsewhere.
            let recipe = precision.recipe().unwrap();
            // The formats of an export.
            let graph = gpu_graph(&recipe, activations);
            let dialect = ContribGpu::new(Padding::None, activations.dtype());
            let contract = build(&models::config(), &dialect, Extras::default(), &graph).unwrap();
            assert!(contract.states.iter().all(|state| state.past.dtype == activations.dtype()), "{precision}");
            assert_eq!(contract.logits().unwrap().dtype, DType::Float32);
            check_attention_on_gpus(&graph, activations.dtype());
        }
    }
}

fn check_attention_on_gpus(graph: &Graph<'_>, activations: DType) {
    let content = graph.content();
    let attention: Vec<_> = content.nodes.iter().filter(|node| node.op == &ops::GROUP_QUERY_ATTENTION).collect();
    assert_eq!(attention.len(), 1);
    assert_eq!(attention[0].inputs.len(), 16);
    for (place, name) in [(14, "q_layernorm"), (15, "k_layernorm")] {
        assert!(content.name(attention[0].inputs[place].unwrap()).ends_with(&format!("{name}.weight")));
    }
    let epsilon = attention[0].attributes.iter().find(|(name, _)| *name == "qk_norm_epsilon").unwrap();
    assert_eq!(epsilon.1, Attribute::Float(1e-5));
    // Dense numbers have the type of the activations; others have the scales that the graph shares with that of the CPU, each behind
    // a cast.
    let is_other = |dtype| matches!(dtype, DType::Float32 | DType::Float16) && dtype != activations;
    for (id, initializer) in content.initializers.iter().filter(|(_, it)| is_other(it.dtype)) {
        assert!(matches!(initializer.source, Source::Scales { .. }), "{}", content.name(*id));
        let users = content.nodes.iter().filter(|node| node.inputs.contains(&Some(*id)));
        assert!(users.clone().count() > 0);
        let taken = [&ops::CAST, &ops::GATHER_BLOCK_QUANTIZED];
        assert!(users.clone().all(|node| taken.contains(&node.op)), "{}", content.name(*id));
    }
}

/// The operators for which the library of ONNX Runtime 1.31.1 for CUDA has a kernel that takes bfloat16, of those that its graphs have:
/// so say the names of the kernels' classes in it. Those that only move numbers, or handle integers, have kernels for every type.
#[test]
fn operators_on_gpus_have_kernels_for_bfloat16() {
    let computing = [
        &ops::ADD,
        &ops::CAUSAL_CONV_WITH_STATE,
        &ops::GATHER_BLOCK_QUANTIZED,
        &ops::GEMM,
        &ops::GROUP_QUERY_ATTENTION,
        &ops::MATMUL,
        &ops::MATMUL_NBITS,
        &ops::MUL,
        &ops::SIGMOID,
        &ops::SIMPLIFIED_LAYER_NORMALIZATION,
        &ops::SKIP_SIMPLIFIED_LAYER_NORMALIZATION,
        &ops::WHERE,
    ];
    let moving = [
        &ops::CAST,
        &ops::CONCAT,
        &ops::GATHER,
        &ops::RESHAPE,
        &ops::SHAPE,
        &ops::SLICE,
        &ops::SPLIT,
        &ops::TRANSPOSE,
        &ops::UNSQUEEZE,
    ];
    // What the mask is made of, in int64 and bool.
    let counting = [&ops::AND, &ops::EXPAND, &ops::LESS_OR_EQUAL, &ops::NEG, &ops::RANGE, &ops::REDUCE_SUM, &ops::SUB];
    let known = [&computing[..], &moving, &counting].concat();
    for precision in Precision::ALL {
        for (padding, tied, conv_bias) in [(Padding::None, true, false), (Padding::Left, false, true)] {
            let recipe = precision.recipe().unwrap();
            let graph = gpu_graph(&recipe, CudaActivations::Bfloat16);
            let config = Config { tied, conv_bias, ..models::config() };
            let dialect = ContribGpu::new(padding, DType::Bfloat16);
            let contract = build(&config, &dialect, Extras { rollback: true }, &graph).unwrap();
            assert_eq!(contract.minimum_runtime_minor, 31);
            for node in &graph.content().nodes {
                assert!(known.contains(&node.op), "{precision}: {} has {}", node.name, node.op.name);
            }
        }
    }
}

#[test]
fn no_golden_is_left_over() {
    let mut expected = BTreeSet::from([golden("model-observed", "contrib")]);
    expected.extend(TOKEN.map(|dialect| golden("model", dialect)));
    expected.extend(["qnn-ranges", "qnn-w4a16", "qnn-w4a16-token"].map(|name| golden("model", name)));
    for dialect in DYNAMIC.into_iter().chain(STATIC) {
        let cases = CASES.iter().filter(|case| has_golden(case, dialect));
        expected.extend(cases.map(|case| golden(case.name, dialect)));
        expected.insert(golden("model", dialect));
    }
    let folder = golden("model", "contrib").parent().unwrap().to_owned();
    let found: BTreeSet<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.difference(&expected).collect::<Vec<_>>(), [] as [&PathBuf; 0], "remove them");
}

#[test]
fn quantized_weights_are_refused_where_no_kernel_takes_them() {
    for precision in Precision::ALL.into_iter().filter(|precision| precision.recipe().unwrap().is_quantized()) {
        let error =
            build(&models::config(), &*models::dialect("portable"), Extras::default(), &models::graph(precision))
                .unwrap_err();
        assert!(error.to_string().contains("model.embed_tokens.weight: the recipe quantizes it"), "{error}");
    }
}

/// Compares the graphs of all precisions with the golden file.
fn check(name: &str, dialect: &str, write: impl Fn(&dyn Dialect, &Graph<'_>)) {
    let mut groups: Vec<(Vec<&str>, String)> = Vec::new();
    for precision in precisions(dialect) {
        let recipe = precision.recipe().unwrap();
        let graph = match dialect {
            "contrib-gpu-bf16" => gpu_graph(&recipe, CudaActivations::Bfloat16),
            _ => models::graph(precision),
        };
        write(&*models::dialect(dialect), &graph);
        verify(&graph.content()).unwrap_or_else(|error| panic!("{name}, {dialect}, {precision}: {error}"));
        let text = text::dump(&graph.content());
        match groups.iter_mut().find(|(_, known)| *known == text) {
            Some((names, _)) => names.push(precision.as_str()),
            None => groups.push((vec![precision.as_str()], text)),
        }
    }
    let sections: Vec<String> = groups.iter().map(|(names, text)| format!("# {}\n{text}", names.join(", "))).collect();
    expect_file![golden(name, dialect)].assert_eq(&sections.join("\n"));
}

fn golden(name: &str, dialect: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "goldens", &format!("{name}.{dialect}.txt")].iter().collect()
}

fn write_block(case: &Case, dialect: &dyn Dialect, graph: &Graph<'_>) {
    let mut config = models::config();
    (case.config)(&mut config);
    let root = graph.root();
    let tokens = match dialect.window() {
        Some(window) => fixed_tokens(root, &config, window),
        None => any_tokens(root),
    };
    (case.write)(&Block { config: &config, dialect, tokens }, root);
}

fn any_tokens(root: Scope<'_>) -> Tokens<'_> {
    Tokens {
        given: root.input(port("input_ids", DType::Int64, vec!["batch_size".into(), "sequence_length".into()])),
        mask: root.input(port(
            "attention_mask",
            DType::Int64,
            vec!["batch_size".into(), "total_sequence_length".into()],
        )),
        rotary: None,
    }
}

fn fixed_tokens<'g>(root: Scope<'g>, config: &Config, window: Window) -> Tokens<'g> {
    let [given, total] = [window.tokens, window.past + window.tokens];
    let input = |name: &str, shape: Vec<usize>| {
        root.input(port(name, root.activations(), shape.into_iter().map(Dim::Fixed).collect()))
    };
    let matrix = |columns| window.matrix(window.tokens, columns);
    Tokens {
        given: input("inputs_embeds", matrix(config.hidden_size)),
        mask: input("attention_bias", vec![1, given, total]),
        rotary: Some(["cosines", "sines"].map(|name| input(name, vec![1, given, config.head_dim / 2]))),
    }
}

fn embed_and_head<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let shape = [block.config.vocab_size, block.config.hidden_size];
    let table = at.within("embed_tokens", |at| at.weight(Role::Table, &shape));
    let rows = at.within("embed_tokens", |at| block.dialect.embed(at, &table, block.tokens.given));
    let head = if block.config.tied { table } else { at.within("lm_head", |at| at.weight(Role::Head, &shape)) };
    let logits = at.within("lm_head", |at| block.dialect.linear(at, rows, &head, None));
    if block.dialect.window().is_none() {
        output(block, at, "rows", rows, block.config.hidden_size);
    }
    output(block, at, "logits", logits, block.config.vocab_size);
}

fn norm<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let [stream, update] = ["stream", "update"].map(|name| input(block, at, name, block.config.hidden_size));
    let epsilon = block.config.norm_epsilon;
    let weight = |name| at.within(name, |at| at.weight(Role::Vector, &[block.config.hidden_size]));
    let [first, second] = ["first_norm", "second_norm"].map(weight);
    let normed = at.within("first_norm", |at| block.dialect.norm(at, stream, &first, epsilon));
    let op = AddNorm { stream: normed, update, scale: &second, epsilon };
    let (sum, normed) = at.within("second_norm", |at| block.dialect.add_norm(at, op));
    output(block, at, "sum", sum, block.config.hidden_size);
    output(block, at, "normed", normed, block.config.hidden_size);
}

fn convolution<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    convolve(block, at);
}

/// As in graphs that can be rolled back.
fn convolution_with_columns<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let convolved = convolve(block, at);
    output(block, at, "conv_columns", convolved.columns, block.config.hidden_size);
}

fn convolve<'g>(block: &Block<'g, '_>, at: Scope<'g>) -> Convolved<'g> {
    let hidden = block.config.hidden_size;
    let columns = block.config.conv_width - 1;
    let (state, present) = match block.dialect.window() {
        None => {
            let state = vec!["batch_size".into(), hidden.into(), columns.into()];
            (state.clone(), state)
        }
        Some(window) => {
            let shape = |columns| window.matrix(columns, hidden).into_iter().map(Dim::Fixed).collect();
            (shape(columns), shape(window.tokens))
        }
    };
    let past = at.input(port("past_conv", at.activations(), state));
    let convolved = at.within("conv", |at| short_conv(block, at, input(block, at, "x", hidden), past));
    output(block, at, "y", convolved.y, hidden);
    at.output(convolved.present, port("present_conv", at.activations(), present));
    convolved
}

fn attend<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let Config { hidden_size, kv_heads, head_dim, .. } = *block.config;
    let cache = |name: &str, length: &str| {
        let shape = match block.dialect.window() {
            None => vec!["batch_size".into(), kv_heads.into(), length.into(), head_dim.into()],
            Some(window) => {
                let rows = if length.starts_with("past") { window.past } else { window.tokens };
                let is_key = name.ends_with("key");
                let [rows, columns] = if is_key { [head_dim, rows] } else { [rows, head_dim] };
                [kv_heads, rows, columns].map(Dim::Fixed).into()
            }
        };
        port(name, at.activations(), shape)
    };
    let past = ["past_key", "past_value"].map(|name| at.input(cache(name, "past_sequence_length")));
    let (y, present) = at.within("self_attn", |at| attention(block, at, input(block, at, "x", hidden_size), past));
    output(block, at, "y", y, hidden_size);
    at.output(present[0], cache("present_key", "total_sequence_length"));
    at.output(present[1], cache("present_value", "total_sequence_length"));
}

fn feed<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let hidden = block.config.hidden_size;
    let y = at.within("feed_forward", |at| feed_forward(block, at, input(block, at, "x", hidden)));
    output(block, at, "y", y, hidden);
}

fn input<'g>(block: &Block<'g, '_>, at: Scope<'g>, name: &str, width: usize) -> Value<'g> {
    at.input(port(name, at.activations(), rows(block, width)))
}

fn output<'g>(block: &Block<'g, '_>, at: Scope<'g>, name: &str, value: Value<'g>, width: usize) {
    at.output(value, port(name, at.activations(), rows(block, width)));
}

/// `width` values for each token.
fn rows(block: &Block<'_, '_>, width: usize) -> Vec<Dim> {
    match block.dialect.window() {
        None => vec!["batch_size".into(), "sequence_length".into(), width.into()],
        Some(window) => window.matrix(window.tokens, width).into_iter().map(Dim::Fixed).collect(),
    }
}
