//! What the tests here share: a contract, and rows in which every number can be computed by head.

use lfm2_graphs::contract::{Contract, VERSION};

use super::agreement::Agreement;
use super::{Cell, Measured, Names, Origin, Program, Row, Samples, Sources, Subject, Test};
use crate::decoder::DecoderSettings;
use crate::package::{FileRole, Prefill, UsedFile};
use crate::platform::{Machine, ThermalZone};

/// A row of a decode test in which nothing is missing and every number can be computed by head.
pub(crate) fn decode() -> Row {
    origin(|origin| Row::new(origin, &cell(), &measured()))
}

/// A row of a prefill test.
pub(crate) fn prefill() -> Row {
    let cell = Cell { test: Test { prompt: 512, generate: 0, depth: 0 }, repetitions: 1, ..cell() };
    let samples = Samples {
        windows: vec![1_000_000_000],
        runs: vec![999_000_000],
        sampling: vec![0],
        first_tokens: vec![1_010_000_000],
        tokens: vec![],
        answer_runs: vec![],
    };
    origin(|origin| Row::new(origin, &cell, &Measured { samples, agreement: None, ..measured() }))
}

/// The cell of [`decode`].
pub(crate) fn cell() -> Cell {
    Cell {
        model: "it's/lfm2.onnx".into(),
        library: None,
        provider: "cpu".to_owned(),
        provider_options: [].into(),
        plugin: None,
        allow_fallback: None,
        compiled: None,
        threads: 2,
        spinning: true,
        chunk: 512,
        low_memory: false,
        prefill: Prefill::Auto,
        speculate: 0,
        reference: None,
        sources: Sources::default(),
        test: Test { prompt: 0, generate: 4, depth: 9 },
        repetitions: 2,
        seed: 0,
        names: Names::default(),
    }
}

/// What [`decode`] was made of.
pub(crate) fn measured() -> Measured {
    let tokens = [[100_000_000; 4], [125_000_000; 4]].concat();
    let samples = Samples {
        windows: vec![400_000_000, 500_000_000],
        runs: vec![380_000_000, 480_000_000],
        sampling: vec![8_000_000, 8_000_000],
        first_tokens: vec![],
        tokens,
        answer_runs: vec![4, 4],
    };
    let zones = |celsius| Some(vec![ThermalZone { zone: 0, kind: "cpu-thermal".to_owned(), celsius }]);
    let agreement = Agreement {
        reference: "exact/lfm2.onnx".to_owned(),
        precision: "fp32".to_owned(),
        tokens: 252,
        top1: 0.875,
        mean_kld: 0.03125,
    };
    Measured {
        library: "libonnxruntime.so".into(),
        runtime_version: "1.32.0".to_owned(),
        contract: contract(1000),
        files: Some(files()),
        device: "CPU (AuthenticAMD)".to_owned(),
        settings: DecoderSettings { chunk: 512, prefill: "q4".to_owned(), speculate: 0, kv: "float16".to_owned() },
        samples,
        load_ns: 300_000_000,
        session_ns: 200_000_000,
        first_run_ns: 20_000_000,
        peak_bytes: Some(90 << 20),
        peak_run_bytes: Some(80 << 20),
        device_bytes: None,
        placement: Some([("CPUExecutionProvider".to_owned(), 412)].into()),
        cache_hit: None,
        thermal_before: zones(41.5),
        thermal_after: zones(52.0),
        frequency_before: Some(vec![3_000_000_000, 2_000_000_000]),
        frequency_after: None,
        agreement: Some(Ok(agreement)),
    }
}

/// The model of [`decode`].
pub(crate) fn subject() -> Subject {
    Subject {
        model_filename: "it's/lfm2.onnx".to_owned(),
        model_type: "lfm2 q4".to_owned(),
        model_size: Some(3 << 20),
        model_sha256: text("bb"),
        weights_sha256: text("cc"),
        model_files: None,
        model_verified: false,
        weight_bytes: 1000,
        precision: "q4".to_owned(),
        dialect: "contrib".to_owned(),
        contract: contract(1000),
    }
}

/// What it was loaded from.
pub(crate) fn files() -> Vec<UsedFile> {
    let file = |name: &str, role, size, sha256: &str| UsedFile {
        name: format!("it's/{name}"),
        role,
        size,
        sha256: sha256.to_owned(),
    };
    vec![file("lfm2.onnx", FileRole::Graph, 1 << 20, "bb"), file("lfm2.onnx_data", FileRole::Data, 2 << 20, "cc")]
}

/// What is made with the origin of [`decode`].
pub(crate) fn origin<T>(make: impl FnOnce(Origin<'_>) -> T) -> T {
    let program = Program {
        build_commit: Some("abc1234"),
        build_version: "0.1.0",
        build_optimized: true,
        runtime_version: text("1.32.0"),
        runtime_sha256: text("aa"),
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
    make(Origin {
        program: &program,
        machine: &machine,
        subject: &subject(),
        device: Some("desk"),
        form_factor: Some("desktop"),
        read_bandwidth: Some(17_920.0),
        test_time: "2026-01-02T03:04:05Z",
    })
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
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
