//! Every block in every dialect as text, so that a change to a lowering is read as a difference of lines.
//!
//! `goldens/<block>.<dialect>.txt` holds one graph for each group of precisions that give the same one. `make bless` writes the
//! files anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use expect_test::expect_file;
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::State;
use lfm2_graphs::dialect::{AddNorm, Convolved, Dialect, Observed, Tokens};
use lfm2_graphs::ir::graph::port;
use lfm2_graphs::ir::verify::verify;
use lfm2_graphs::ir::{DType, Dim, Graph, Role, Scope, Value, text};
use lfm2_graphs::lfm2::{Block, Config, Extras, attention, build, feed_forward, short_conv};
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

/// The precisions that a dialect can express.
fn precisions(dialect: &str) -> Vec<Precision> {
    let all = Precision::ALL.into_iter();
    all.filter(|precision| dialect != "portable" || !precision.recipe().unwrap().is_quantized()).collect()
}

#[test]
fn blocks() {
    for case in CASES {
        for dialect in ["contrib", "contrib-left", "portable"] {
            if dialect != "contrib-left" || case.padded {
                check(case.name, dialect, |dialect, graph| write_block(case, dialect, graph));
            }
        }
    }
}

#[test]
fn whole_model() {
    for dialect in ["contrib", "contrib-left", "portable"] {
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

#[test]
fn no_golden_is_left_over() {
    let mut expected = BTreeSet::from([golden("model-observed", "contrib")]);
    for dialect in ["contrib", "contrib-left", "portable"] {
        let cases = CASES.iter().filter(|case| dialect != "contrib-left" || case.padded);
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
        let graph = models::graph(precision);
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
    let tokens = Tokens {
        given: root.input(port("input_ids", DType::Int64, vec!["batch_size".into(), "sequence_length".into()])),
        mask: root.input(port(
            "attention_mask",
            DType::Int64,
            vec!["batch_size".into(), "total_sequence_length".into()],
        )),
        rotary: None,
    };
    (case.write)(&Block { config: &config, dialect, tokens }, root);
}

fn embed_and_head<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let shape = [block.config.vocab_size, block.config.hidden_size];
    let table = at.within("embed_tokens", |at| at.weight(Role::Table, &shape));
    let rows = at.within("embed_tokens", |at| block.dialect.embed(at, &table, block.tokens.given));
    let head = if block.config.tied { table } else { at.within("lm_head", |at| at.weight(Role::Head, &shape)) };
    let logits = at.within("lm_head", |at| block.dialect.linear(at, rows, &head, None));
    output(at, "rows", rows, block.config.hidden_size);
    output(at, "logits", logits, block.config.vocab_size);
}

fn norm<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let [stream, update] = ["stream", "update"].map(|name| input(at, name, block.config.hidden_size));
    let epsilon = block.config.norm_epsilon;
    let weight = |name| at.within(name, |at| at.weight(Role::Vector, &[block.config.hidden_size]));
    let [first, second] = ["first_norm", "second_norm"].map(weight);
    let normed = at.within("first_norm", |at| block.dialect.norm(at, stream, &first, epsilon));
    let op = AddNorm { stream: normed, update, scale: &second, epsilon };
    let (sum, normed) = at.within("second_norm", |at| block.dialect.add_norm(at, op));
    output(at, "sum", sum, block.config.hidden_size);
    output(at, "normed", normed, block.config.hidden_size);
}

fn convolution<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    convolve(block, at);
}

/// As in graphs that can be rolled back.
fn convolution_with_columns<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let convolved = convolve(block, at);
    output(at, "conv_columns", convolved.columns, block.config.hidden_size);
}

fn convolve<'g>(block: &Block<'g, '_>, at: Scope<'g>) -> Convolved<'g> {
    let hidden = block.config.hidden_size;
    let state = vec!["batch_size".into(), hidden.into(), (block.config.conv_width - 1).into()];
    let past = at.input(port("past_conv", at.activations(), state.clone()));
    let convolved = at.within("conv", |at| short_conv(block, at, input(at, "x", hidden), past));
    output(at, "y", convolved.y, hidden);
    at.output(convolved.present, port("present_conv", at.activations(), state));
    convolved
}

fn attend<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let Config { hidden_size, kv_heads, head_dim, .. } = *block.config;
    let cache = |name: &str, length: &str| {
        port(name, at.activations(), vec!["batch_size".into(), kv_heads.into(), length.into(), head_dim.into()])
    };
    let past = ["past_key", "past_value"].map(|name| at.input(cache(name, "past_sequence_length")));
    let (y, present) = at.within("self_attn", |at| attention(block, at, input(at, "x", hidden_size), past));
    output(at, "y", y, hidden_size);
    at.output(present[0], cache("present_key", "total_sequence_length"));
    at.output(present[1], cache("present_value", "total_sequence_length"));
}

fn feed<'g>(block: &Block<'g, '_>, at: Scope<'g>) {
    let hidden = block.config.hidden_size;
    let y = at.within("feed_forward", |at| feed_forward(block, at, input(at, "x", hidden)));
    output(at, "y", y, hidden);
}

fn input<'g>(at: Scope<'g>, name: &str, width: usize) -> Value<'g> {
    at.input(port(name, at.activations(), rows(width)))
}

fn output<'g>(at: Scope<'g>, name: &str, value: Value<'g>, width: usize) {
    at.output(value, port(name, at.activations(), rows(width)));
}

/// `width` values for each token.
fn rows(width: usize) -> Vec<Dim> {
    vec!["batch_size".into(), "sequence_length".into(), width.into()]
}
