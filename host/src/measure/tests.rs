//! What the tests here share: a contract, and rows in which every number can be computed by head.

use lfm2_graphs::contract::{Contract, VERSION};

use super::{Cell, Measured, Origin, Program, Row, Samples, Subject, Test};
use crate::decoder::DecoderSettings;
use crate::package::Prefill;
use crate::platform::Machine;

/// A row of a decode test in which nothing is missing and every number can be computed by head.
pub(crate) fn decode() -> Row {
    let test = Test { prompt: 0, generate: 4, depth: 9 };
    let samples = Samples {
        windows: vec![400_000_000, 500_000_000],
        runs: vec![380_000_000, 480_000_000],
        sampling: vec![8_000_000, 8_000_000],
        first_tokens: vec![],
        tokens: vec![
            100_000_000,
            100_000_000,
            100_000_000,
            100_000_000,
            125_000_000,
            125_000_000,
            125_000_000,
            125_000_000,
        ],
    };
    row(test, samples)
}

/// A row of a prefill test.
pub(crate) fn prefill() -> Row {
    let test = Test { prompt: 512, generate: 0, depth: 0 };
    let samples = Samples {
        windows: vec![1_000_000_000],
        runs: vec![999_000_000],
        sampling: vec![0],
        first_tokens: vec![1_010_000_000],
        tokens: vec![],
    };
    row(test, samples)
}

fn row(test: Test, samples: Samples) -> Row {
    let text = |text: &str| Some(text.to_owned());
    let program = Program {
        build_commit: Some("abc1234"),
        build_version: "0.1.0",
        build_optimized: true,
        runtime_version: "1.32.0".to_owned(),
        runtime_sha256: "aa".to_owned(),
    };
    let machine = Machine {
        cpu_info: text("Some \"fast\" CPU, 2 GHz"),
        cpu_cores: 2,
        cpu_threads: 4,
        memory_bytes: Some(1 << 34),
        os: "Linux".to_owned(),
        kernel: text("6.1"),
        arch: "x86_64".to_owned(),
        governor: text("performance"),
        power_source: text("mains"),
    };
    let subject = Subject {
        model_filename: "it's/lfm2.onnx".to_owned(),
        model_type: "lfm2 q4".to_owned(),
        model_size: Some(3 << 20),
        model_sha256: text("bb"),
        weights_sha256: text("cc"),
        model_verified: false,
        weight_bytes: 1000,
        precision: "q4".to_owned(),
        dialect: "contrib".to_owned(),
        contract: contract(1000),
    };
    let cell = Cell {
        model: "it's/lfm2.onnx".into(),
        library: None,
        provider: "cpu".to_owned(),
        threads: 2,
        spinning: true,
        chunk: 512,
        prefill: Prefill::Auto,
        test,
        repetitions: samples.windows.len(),
        seed: 0,
    };
    let settings = DecoderSettings { chunk: 512, prefill: "q4".to_owned(), speculate: 0, kv: "float16".to_owned() };
    let measured = Measured {
        settings,
        samples,
        load_ns: 300_000_000,
        session_ns: 200_000_000,
        first_run_ns: 20_000_000,
        peak_bytes: Some(90 << 20),
        peak_run_bytes: Some(80 << 20),
    };
    let origin = Origin {
        program: &program,
        machine: &machine,
        subject: &subject,
        read_bandwidth: Some(17_920.0),
        test_time: "2026-01-02T03:04:05Z",
    };
    Row::new(origin, &cell, &measured)
}

/// A contract with `weight_bytes` bytes of weights, one convolution of 4 columns by 2 and one attention of 2 heads by 8.
pub(crate) fn contract(weight_bytes: u64) -> Contract {
    let port =
        |name: &str, dtype: &str, shape: &str| format!(r#"{{"name":"{name}","dtype":"{dtype}","shape":{shape}}}"#);
    let state = |kind: &str, dtype: &str, shape: &str| {
        format!(
            r#"{{"layer":0,"kind":"{kind}","update":"in_place","axis":2,"past":{},"present":{}}}"#,
            port("a", dtype, shape),
            port("b", dtype, shape)
        )
    };
    let location = r#"{"name":"table","file":"x.onnx_data","offset":0,"length":0}"#;
    let states = [
        state("conv", "float32", r#"["batch",4,2]"#),
        state("key", "float16", r#"["batch",2,"rows",8]"#),
        state("value", "float16", r#"["batch",2,"rows",8]"#),
    ];
    let text = format!(
        r#"{{"version":{version},"family":"lfm2","dialect":"contrib","purpose":"general","preferred":true,"precision":"q4","opset":21,
            "minimum_runtime_minor":30,"padding":"none","vocab_size":96,"hidden_size":4,"layers":2,"context_length":64,
            "rope":null,"table":{{"rows":96,"columns":4,"format":{{"kind":"dense","dtype":"float32"}},"values":{location},
            "scales":null,"zero_points":null}},"weight_bytes":{weight_bytes},
            "inputs":{{"kind":"ids","input_ids":{port},"attention_mask":{port},"num_logits_to_keep":{port}}},
            "outputs":{{"logits":{port},"statistics":[]}},"states":[{states}]}}"#,
        version = VERSION,
        port = port("p", "int64", r#"["batch"]"#),
        states = states.join(","),
    );
    Contract::from_json(&text).unwrap()
}
