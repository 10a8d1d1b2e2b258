//! Tier "provider": who runs which node, which options are taken, and what is said where something is missing. The graphs are
//! small, so that every provider that is there can take part.

use std::path::{Path, PathBuf};

use lfm2_export::package::{CudaActivations, DialectName, Options, Targets};
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{Padding, Target};
use lfm2_graphs::ir::graph::port;
use lfm2_graphs::ir::{DType, Dim, Role};
use lfm2_graphs::ops;
use lfm2_host::provider::{self, Fallback, ProviderError, SessionOptions, Setup};
use lfm2_host::runtime::Runtime;
use lfm2_host::session::{self, Placement, SessionError};
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib, options, rollback};
use lfm2_tests::plugins;
use lfm2_tests::weights::Weights;
use tempfile::TempDir;

/// |x W + x|: a product, a sum and a magnitude, or in its place an operator that only ONNX Runtime's own kernels know. All shapes are
/// fixed.
fn small_graph(is_standard: bool) -> (TempDir, PathBuf) {
    let weights = Weights { seed: 1, activations: DType::Float32, blocks: None, channels: false };
    let graph = weights.graph();
    let root = graph.root();
    let shape: Vec<Dim> = [1, 4, 8].map(Dim::Fixed).into();
    let x = root.input(port("x", DType::Float32, shape.clone()));
    let matrix =
        root.within("matrix", |at| at.op(&ops::MATMUL, &[x, at.dense(&at.weight(Role::Matrix, &[8, 8]))], &[]));
    let sum = root.within("sum", |at| at.op(&ops::ADD, &[matrix, x], &[]));
    let last = root.within("last", |at| match is_standard {
        true => at.op(&ops::ABS, &[sum], &[]),
        false => {
            let scales = at.dense(&at.weight(Role::Vector, &[8]));
            at.op(&ops::SKIP_SIMPLIFIED_LAYER_NORMALIZATION, &[sum, x, scales], &[])
        }
    });
    root.output(last, port("y", DType::Float32, shape));
    let content = graph.content();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("small.onnx");
    std::fs::write(&path, lfm2_export::proto::encode(&content, "{}", weights.data(&content))).unwrap();
    (folder, path)
}

/// Loads the graph onto a provider.
fn load(graph: &Path, name: &str, options: &SessionOptions) -> Result<Placement, SessionError> {
    let runtime = Runtime::load(None).unwrap();
    let setup = Setup { runtime, options, fingerprint: None };
    session::load(graph, provider::named(name).unwrap(), &setup).map(|loaded| loaded.placement)
}

fn operators(placement: &Placement, provider: &str) -> Vec<String> {
    let mut operators: Vec<_> = placement.on(provider).iter().map(|node| node.operator.clone()).collect();
    operators.sort();
    operators
}

#[test]
fn the_processor_runs_every_node() {
    let (_folder, graph) = small_graph(true);
    let placement = load(&graph, "cpu", &SessionOptions::default()).unwrap();
    assert_eq!(operators(&placement, "CPUExecutionProvider"), ["Abs", "Add", "MatMul"]);
    assert_eq!(placement.counts().len(), 1);
    assert_eq!(placement.elsewhere("CPUExecutionProvider").count(), 0);
}

#[test]
fn what_is_not_built_in_says_how_to_get_it() {
    let (_folder, graph) = small_graph(true);
    for (name, remedy) in [("cuda", "make runtime-cuda"), ("coreml", "macOS"), ("nnapi", "Android")] {
        let built_in = Runtime::load(None).unwrap().built_in();
        let provider = provider::named(name).unwrap();
        if built_in.iter().any(|it| it == provider.runtime_name()) {
            println!("skipped: this ONNX Runtime has {name}");
            continue;
        }
        let message = load(&graph, name, &SessionOptions::default()).unwrap_err().to_string();
        assert!(message.contains(&format!("--ep {name}")) && message.contains(remedy), "{message}");
    }
}

/// The graph for NVIDIA's GPUs in bfloat16 was never run. What ONNX Runtime can say of it here is that the types of all its operators fit
/// together, which it looks at first, and that the processor has no kernels for them.
#[test]
fn graphs_of_bfloat16_are_sound_though_the_processor_cannot_run_them() {
    let bf16 = Targets { cuda_activations: Some(CudaActivations::Bfloat16), ..Targets::asked([Target::Cuda]) };
    for precision in [Precision::Fp16, Precision::Q4, Precision::Q4f16, Precision::Q8] {
        for options in [contrib(precision), rollback(options(precision, DialectName::Contrib, Padding::Left))] {
            let exported = Exported::new(TINY_CHAT, Options { targets: bf16.clone(), ..options });
            let graph = exported.graph.with_file_name("lfm2.cuda.onnx");
            let refused = load(&graph, "cpu", &SessionOptions::default()).unwrap_err();
            let SessionError::Load { reason, .. } = &refused else { panic!("{refused}") };
            assert!(reason.contains("Could not find an implementation for"), "{precision}: {reason}");
        }
    }
}

#[test]
fn options_are_checked_before_anything_is_loaded() {
    let (_folder, graph) = small_graph(true);
    let options = |key: &str, value: &str| SessionOptions {
        provider: vec![(key.to_owned(), value.to_owned())],
        ..SessionOptions::default()
    };
    for (name, key, value) in [("cpu", "arena", "0"), ("qnn", "soc_model", "SM9999"), ("cuda", "use_tf23", "0")] {
        let error = load(&graph, name, &options(key, value)).unwrap_err();
        let is_refused =
            matches!(&error, SessionError::Provider(ProviderError::Options { problems }) if problems.len() == 1);
        assert!(is_refused && error.to_string().contains(key), "{error}");
    }
}

#[test]
fn a_missing_plugin_says_where_it_was_looked_for() {
    let (_folder, graph) = small_graph(true);
    let options = SessionOptions { plugin: Some("elsewhere/plugin.so".into()), ..SessionOptions::default() };
    let message = load(&graph, "qnn", &options).unwrap_err().to_string();
    let parts = ["--ep qnn", "--ep-lib names elsewhere", "make runtime-qnn"];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

#[test]
fn the_simulator_of_an_npu_runs_every_node_or_names_those_that_it_does_not() {
    if !plugins::qnn() {
        return;
    }
    let (_folder, graph) = small_graph(true);
    let strict = SessionOptions::default();
    let placement = load(&graph, "qnn", &strict).unwrap();
    assert_eq!(operators(&placement, "QNNExecutionProvider"), ["Abs", "Add", "MatMul"]);
    assert_eq!(placement.counts().len(), 1);

    // The plugin is registered by now, and sessions of the processor must not care.
    let placement = load(&graph, "cpu", &strict).unwrap();
    assert_eq!(placement.counts().keys().collect::<Vec<_>>(), ["CPUExecutionProvider"]);

    let (_folder, graph) = small_graph(false);
    let error = load(&graph, "qnn", &strict).unwrap_err();
    let SessionError::Elsewhere { nodes, count, of, .. } = &error else { panic!("{error}") };
    assert_eq!((nodes.len(), *count, *of), (1, 1, 3));
    assert!(nodes[0].contains("CPUExecutionProvider") && nodes[0].contains("last"), "{error}");
    assert!(error.to_string().contains("--allow-fallback"), "{error}");

    let allowed = SessionOptions { fallback: Some(Fallback::Allowed), ..strict };
    let placement = load(&graph, "qnn", &allowed).unwrap();
    assert_eq!(placement.counts().values().sum::<usize>(), 3);
    assert_eq!(placement.on("CPUExecutionProvider").len(), 1);
}
