//! `--for`: graphs for other providers beside the general one.

use std::fs;
use std::path::Path;

use lfm2_graphs::contract::{Contract, DType, Location, MANIFEST_NAME, Manifest, Purpose, TableFormat};
use lfm2_tests::packages::{TINY_CHAT, fixture};
use lfm2_tests::programs::run;
use serde_json::Value;

use super::{FP32, contents, copied, export, export_to, files, folder};

/// The names of the graphs and of the files with their weights.
fn manifest(folder: &Path) -> Vec<(String, Vec<String>)> {
    let manifest = Manifest::from_json(&fs::read_to_string(folder.join(MANIFEST_NAME)).unwrap()).unwrap();
    manifest.graphs.into_iter().map(|graph| (graph.file, graph.data)).collect()
}

/// What `inspect` shows of the contract of a graph.
fn contract(graph: &Path) -> Contract {
    let json = run(export(&["inspect", graph.to_str().unwrap(), "--json"])).json();
    Contract::from_json(&json["graphs"][0]["contract"].to_string()).unwrap()
}

#[test]
fn pairs_share_what_they_can() {
    let (_folder, out) = folder("lfm2.onnx");
    let flags =
        ["--precision", "q4", "--for", "qnn,coreml,nnapi", "--chunk", "16", "--static-context", "100", "--json"];
    let written = run(export_to(&fixture(TINY_CHAT), &out, &flags));
    let json: Value = serde_json::from_str(&written.output).unwrap();
    let package = out.parent().unwrap();
    let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    // Exactly what each graph or its token table lies in.
    let expected: Vec<(String, Vec<String>)> = vec![
        ("lfm2.coreml-chunk.onnx".into(), named(&["lfm2.coreml.onnx_data"])),
        ("lfm2.coreml-token.onnx".into(), named(&["lfm2.coreml.onnx_data"])),
        ("lfm2.nnapi-chunk.onnx".into(), named(&["lfm2.nnapi-token.onnx"])),
        ("lfm2.nnapi-token.onnx".into(), vec![]),
        ("lfm2.onnx".into(), named(&["lfm2.onnx_data"])),
        ("lfm2.qnn-chunk.onnx".into(), named(&["lfm2.onnx_data"])),
        ("lfm2.qnn-token.onnx".into(), named(&["lfm2.onnx_data"])),
    ];
    assert_eq!(manifest(package), expected);
    let notes: Vec<_> = json["notes"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let note = notes[0];
    assert!(notes.len() == 1 && written.errors.contains(note), "{notes:?}");
    for part in ["carries its weights itself", "lfm2.nnapi-token.onnx has ", "lfm2.nnapi-chunk.onnx has "] {
        assert!(note.contains(part), "{note}");
    }
    let targets: Vec<_> = json["targets"].as_array().unwrap().iter().map(|it| it["target"].as_str().unwrap()).collect();
    assert_eq!(targets, ["coreml", "nnapi", "qnn"]);
    assert_eq!([1, 2].map(|target| &json["targets"][target]["data"]), [&Value::Null; 2]);
    assert!(!package.join("lfm2.nnapi.onnx_data").exists());

    for (graph, _) in &expected {
        let contract = contract(&package.join(graph));
        let dense = |dtype| TableFormat::Dense { dtype };
        let (file, format) = match contract.dialect.as_str() {
            "coreml" => ("lfm2.coreml.onnx_data", dense(DType::Float16)),
            "nnapi" => ("lfm2.nnapi-token.onnx", dense(DType::Float32)),
            _ => ("lfm2.onnx_data", contract.table.format),
        };
        assert_eq!(contract.table.format, format, "{graph}");
        // The host reads rows of the table wherever the contract says, from graphs without a head too.
        let table = &contract.table;
        for location in [Some(&table.values), table.scales.as_ref(), table.zero_points.as_ref()].into_iter().flatten() {
            assert_eq!(location.file, file, "{graph}");
            let length = fs::metadata(package.join(&location.file)).unwrap().len();
            assert!(location.length > 0 && location.offset + location.length <= length, "{graph}: {location:?}");
        }
        if contract.purpose != Purpose::General {
            let rows = contract.rows().unwrap();
            assert_eq!(rows.tokens, if contract.purpose == Purpose::Chunk { 16 } else { 1 });
            assert_eq!((rows.past, contract.context_length), (100, 100));
        }
    }
    // What the host keeps of a token does not depend on how many a graph takes.
    let state = |name: &str| {
        let path = package.join(name);
        run(export(&["inspect", path.to_str().unwrap(), "--json"])).json()["graphs"][0]["state"].clone()
    };
    let general = state("lfm2.onnx");
    for name in ["lfm2.qnn-token.onnx", "lfm2.qnn-chunk.onnx", "lfm2.nnapi-token.onnx"] {
        assert_eq!(state(name)["bytes_per_1000_tokens"], general["bytes_per_1000_tokens"], "{name}");
        assert_eq!(state(name)["fixed_bytes"], general["fixed_bytes"], "{name}");
    }
    for provider in ["qnn", "coreml", "nnapi"] {
        for path in [&out, &package.to_owned()] {
            let checked = run(export(&["check", path.to_str().unwrap(), "--ep", provider, "--json"]));
            assert_eq!((checked.status, checked.errors.as_str()), (Some(0), ""), "{provider}");
            let checked: Value = serde_json::from_str(&checked.output).unwrap();
            assert_eq!(checked["graphs"].as_array().unwrap().len(), 2, "{provider}");
            assert_eq!(checked["graphs"][0]["partitions"], 1, "{provider}");
        }
    }
    // Half a pair is none.
    fs::remove_file(package.join("lfm2.qnn-token.onnx")).unwrap();
    for path in [&out, &package.to_owned()] {
        let message = run(export(&["check", path.to_str().unwrap(), "--ep", "qnn"])).failure(1);
        assert!(message.contains("lfm2.qnn-token.onnx is missing"), "{message}");
    }
    fs::remove_file(&out).unwrap();
    let message = run(export(&["check", package.to_str().unwrap(), "--ep", "qnn"])).failure(1);
    assert!(message.contains("lfm2.qnn-token.onnx is missing"), "{message}");
}

#[test]
fn a_check_of_nothing_fails() {
    let (_folder, out) = folder("");
    let check = |folder: &Path| run(export(&["check", folder.to_str().unwrap(), "--ep", "qnn"]));
    let calibrate = out.join("calibrate");
    run(export_to(&fixture(TINY_CHAT), &calibrate.join("x.onnx"), &["--for", "calibrate"])).answer();
    let message = check(&calibrate).failure(1);
    assert!(message.contains("no graphs for qnn") && message.contains("the list replaces"), "{message}");

    let several = out.join("several");
    run(export_to(&fixture(TINY_CHAT), &several.join("a.onnx"), &[])).answer();
    run(export_to(&fixture(TINY_CHAT), &several.join("b.onnx"), &["--for", "cpu,cuda"])).answer();
    let checked = check(&several);
    assert_eq!((checked.status, checked.output.lines().count()), (Some(0), 2), "{}", checked.output);
    let warned = &checked.errors;
    assert!(warned.contains("b.onnx has no graphs for qnn") && !warned.contains("a.onnx"), "{warned}");
    assert!(!warned.contains("cuda"), "{warned}");
}

#[test]
fn names_of_other_graphs_data_are_refused() {
    let (_folder, out) = folder("lfm2.onnx");
    run(export_to(&fixture(TINY_CHAT), &out, &["--for", "cpu,coreml"])).answer();
    let before = contents(out.parent().unwrap());
    for target in ["coreml", "cuda", "nnapi", "qnn"] {
        let name = out.with_file_name(format!("lfm2.{target}.onnx"));
        let outcome = run(export_to(&fixture(TINY_CHAT), &name, &["--for", "cpu"]));
        assert_eq!(outcome.status, Some(2), "{}", outcome.errors);
        assert!(outcome.errors.contains("companions of x.onnx"), "{}", outcome.errors);
    }
    assert!(contents(out.parent().unwrap()) == before);
}

#[test]
fn a_pair_costs_no_weights() {
    let (_folder, out) = folder("");
    let size = |name: &str, flags: &[&str]| {
        let flags = [&["--json"], flags].concat();
        run(export_to(&fixture(TINY_CHAT), &out.join(name), &flags)).json()["bytes"].as_u64().unwrap()
    };
    for precision in ["q4", "q4-mixed", "q8", "fp32", "fp16", "q4f16"] {
        let alone = size("a/lfm2.onnx", &["--precision", precision, "--for", "cpu"]);
        let both = size("b/lfm2.onnx", &["--precision", precision]);
        let [a, b] = ["a", "b"].map(|name| fs::read(out.join(name).join("lfm2.onnx_data")).unwrap());
        assert!(a == b, "{precision}: the general graph's weights are the same");
        assert!(both > alone && both - alone < 200_000, "{precision}: {alone} bytes became {both}");
    }
}

#[test]
fn a_graph_for_gpus_shares_what_is_packed() {
    let (_folder, out) = folder("lfm2.onnx");
    let bytes = |precision: &str| {
        run(export_to(&fixture(TINY_CHAT), &out, &["--precision", precision, "--for", "cpu,cuda"])).answer();
        let inspected =
            run(export(&["inspect", out.with_file_name("lfm2.cuda.onnx").to_str().unwrap(), "--json"])).json();
        let graph = &inspected["graphs"][0];
        assert_eq!(
            (&graph["contract"]["dialect"], &graph["contract"]["purpose"]),
            (&"contrib-gpu".into(), &"general".into())
        );
        assert_eq!(
            graph["contract"]["table"]["values"]["file"].as_str().unwrap().contains("cuda"),
            precision == "fp32"
        );
        let data = |name: &str| fs::metadata(out.with_file_name(name)).map_or(0, |it| it.len());
        [data("lfm2.onnx_data"), data("lfm2.cuda.onnx_data")]
    };
    // Rotary tables and norms in float16.
    let [shared, own] = bytes("q4");
    assert!(own < shared / 4, "{shared} {own}");
    // Plain numbers of float32 are none of float16.
    let [shared, own] = bytes("fp32");
    assert!(own > shared / 3, "{shared} {own}");
    let [_, own] = bytes("fp16");
    assert_eq!(own, 0);
    // The general graph is still the one that a folder means.
    let diff = run(export(&["diff", out.parent().unwrap().to_str().unwrap(), out.to_str().unwrap()]));
    assert_eq!((diff.status, diff.errors.as_str()), (Some(0), ""));
}

/// What a checkpoint in bfloat16 holds is in the graph to the bit. The graph cannot be run here.
#[test]
fn a_graph_of_bfloat16_has_the_numbers_of_the_checkpoint() {
    let (_folder, out) = folder("lfm2.onnx");
    let inspected = |flags: &[&str]| {
        let flags = [&["--for", "cpu,cuda"], flags].concat();
        run(export_to(&fixture(TINY_CHAT), &out, &flags)).answer();
        contract(&out.with_file_name("lfm2.cuda.onnx"))
    };
    let dense = inspected(&["--precision", "fp16", "--cuda-activations", "bf16"]);
    assert_eq!(dense.table.format, TableFormat::Dense { dtype: DType::Bfloat16 });
    assert_eq!((dense.precision.as_str(), dense.minimum_runtime_minor), ("bf16", 31));
    assert!(
        dense.states.iter().all(|state| [&state.past, &state.present].iter().all(|it| it.dtype == DType::Bfloat16))
    );
    assert_eq!(dense.logits().unwrap().dtype, DType::Float32);
    let Location { file, offset, length, name } = &dense.table.values;
    let stored = fs::read(out.with_file_name(file)).unwrap();
    let checkpoint = fs::read(fixture(TINY_CHAT).join("model.safetensors")).unwrap();
    let checkpoint = safetensors::SafeTensors::deserialize(&checkpoint).unwrap();
    let table = checkpoint.tensor(name).unwrap();
    assert_eq!(table.dtype(), safetensors::Dtype::BF16);
    assert!(stored[*offset as usize..][..*length as usize] == *table.data());

    // Packed numbers are shared, whatever the activations.
    let packed = inspected(&["--precision", "q4", "--cuda-activations", "bf16"]);
    assert_eq!((packed.precision.as_str(), packed.table.values.file.as_str()), ("q4", "lfm2.onnx_data"));
    let usual = inspected(&["--precision", "fp32"]);
    assert_eq!((usual.precision.as_str(), usual.table.format), ("fp16", TableFormat::Dense { dtype: DType::Float16 }));
}

#[test]
fn an_untied_table_is_that_of_the_general_graph() {
    let (_folder, out) = folder("lfm2.onnx");
    let flags = [FP32, &["--for", "coreml"]].concat();
    let (_checkpoint, checkpoint) = copied("untied");
    run(export_to(&checkpoint, &out, &flags)).answer();
    let general = contract(&out);
    for name in ["lfm2.coreml-chunk.onnx", "lfm2.coreml-token.onnx"] {
        let contract = contract(&out.with_file_name(name));
        assert_eq!((contract.table, contract.precision.as_str()), (general.table.clone(), "fp16"), "{name}");
    }
}

#[test]
fn a_table_in_fewer_bits_than_the_graph_is_named() {
    let (_folder, out) = folder("lfm2.onnx");
    let recipe = out.with_file_name("small.toml");
    let text =
        run(export(&["recipes", "q4"])).answer().replace("block = 128", "block = 32").replace("\"q4\"", "\"small\"");
    fs::write(&recipe, text).unwrap();
    let (_checkpoint, checkpoint) = copied("untied");
    let flags = ["--recipe", recipe.to_str().unwrap(), "--for", "coreml,nnapi,qnn", "--json"];
    let written = run(export_to(&checkpoint, &out, &flags));
    let json: Value = serde_json::from_str(&written.output).unwrap();
    let notes = json["notes"].as_array().unwrap();
    let of_tables: Vec<_> =
        notes.iter().map(|it| it.as_str().unwrap()).filter(|it| it.contains("are those of small")).collect();
    assert_eq!(of_tables.len(), 2, "{notes:?}");
    for (note, target) in of_tables.iter().zip(["coreml", "nnapi"]) {
        assert!(note.contains(target) && written.errors.contains(note), "{}", written.errors);
    }
    for (name, precision) in [
        ("lfm2.coreml-chunk.onnx", ("fp16", Some("small"))),
        ("lfm2.coreml-token.onnx", ("fp16", Some("small"))),
        ("lfm2.nnapi-token.onnx", ("fp32", Some("small"))),
        ("lfm2.qnn-token.onnx", ("small", None)),
    ] {
        let contract = contract(&out.with_file_name(name));
        assert_eq!((contract.precision.as_str(), contract.table.precision.as_deref()), precision, "{name}");
        assert_eq!(contract.table.format, self::contract(&out).table.format, "{name}");
        let label = precision.1.map_or(precision.0.to_owned(), |table| format!("{}, table {table}", precision.0));
        assert_eq!(contract.formats(), label);
    }
    // What a graph has none of its weights in is listed if its token table is there.
    let listed = manifest(out.parent().unwrap());
    let data = |name: &str| listed.iter().find(|(graph, _)| graph == name).unwrap().1.clone();
    assert_eq!(data("lfm2.nnapi-token.onnx"), ["lfm2.onnx_data"]);
    assert_eq!(data("lfm2.coreml-token.onnx"), ["lfm2.onnx_data", "lfm2.coreml.onnx_data"]);
}

#[test]
fn graphs_of_a_target_go_when_it_is_not_asked_for_again() {
    let (_folder, out) = folder("package/");
    let with = |list: &str| {
        run(export_to(&fixture(TINY_CHAT), &out, &["--precision", "q4", "--for", list])).answer();
        files(&out).into_iter().filter(|name| name.contains("model_q4.")).collect::<Vec<_>>()
    };
    let plain = ["onnx/model_q4.onnx", "onnx/model_q4.onnx_data"];
    let coreml =
        ["onnx/model_q4.coreml-chunk.onnx", "onnx/model_q4.coreml-token.onnx", "onnx/model_q4.coreml.onnx_data"];
    let qnn = ["onnx/model_q4.qnn-chunk.onnx", "onnx/model_q4.qnn-token.onnx"];
    assert_eq!(with("coreml"), [&coreml[..], &plain].concat());
    assert_eq!(with("cpu,qnn"), [&plain[..], &qnn].concat());
    assert_eq!(with("cpu"), plain);
}

#[test]
fn a_manifest_cannot_reach_out_of_its_folder() {
    let (folder, out) = folder("package/lfm2.onnx");
    run(export_to(&fixture(TINY_CHAT), &out, &[])).answer();
    fs::write(folder.path().join("precious"), "").unwrap();
    let path = out.with_file_name(MANIFEST_NAME);
    let manifest = Manifest::from_json(&fs::read_to_string(&path).unwrap()).unwrap();
    let absolute = folder.path().join("precious").to_str().unwrap().to_owned();
    for name in ["../precious", &absolute] {
        // In what belongs to the package, and in what belongs to a companion that every export removes and writes anew.
        for place in 0..3 {
            let mut manifest = manifest.clone();
            let companion = manifest.graphs.iter_mut().find(|it| it.file == "lfm2.qnn-token.onnx").unwrap();
            match place {
                0 => manifest.files[0].name = name.to_owned(),
                1 => companion.data.push(name.to_owned()),
                _ => companion.file = name.to_owned(),
            }
            fs::write(&path, manifest.to_json().unwrap()).unwrap();
            let message = run(export_to(&fixture(TINY_CHAT), &out, &[])).failure(1);
            assert!(message.contains(&format!("{name} is no name of a file in the package")), "{message}");
            assert!(folder.path().join("precious").is_file());
        }
    }
    // A file that lies in the folder and that no export has written is none of the package's either.
    fs::write(out.with_file_name("thesis"), "").unwrap();
    let mut manifest = manifest;
    let companions = manifest.graphs.iter_mut().filter(|it| it.file != "lfm2.onnx");
    companions.for_each(|it| it.data.push("thesis".to_owned()));
    fs::write(&path, manifest.to_json().unwrap()).unwrap();
    run(export_to(&fixture(TINY_CHAT), &out, &["--for", "cpu"])).answer();
    assert!(out.with_file_name("thesis").is_file());
}

#[test]
fn what_cannot_be_written_is_noted_or_refused() {
    let (_folder, out) = folder("");
    let recipe = out.join("large.toml");
    let text = run(export(&["recipes", "q4"])).answer().replace("block = 128", "block = 256").replace("q4", "large");
    fs::write(&recipe, text).unwrap();
    let large = ["--recipe", recipe.to_str().unwrap()];
    for (name, flags, reason) in [
        ("portable", &["--precision", "fp32", "--dialect", "portable"][..], "--dialect portable"),
        ("large", &large[..], "block_size is 256"),
    ] {
        let out = out.join(name).join("lfm2.onnx");
        let outcome = run(export_to(&fixture(TINY_CHAT), &out, &[flags, &["--json"]].concat()));
        assert!(outcome.errors.contains("no graphs for qnn") && outcome.errors.contains(reason), "{}", outcome.errors);
        let json: Value = serde_json::from_str(&outcome.output).unwrap();
        assert!(json["notes"][0].as_str().unwrap().contains(reason), "{json}");
        assert_eq!(json["targets"], serde_json::json!([]));
        let before = files(out.parent().unwrap());

        let outcome = run(export_to(&fixture(TINY_CHAT), &out, &[flags, &["--for", "cpu,qnn"]].concat()));
        assert!(outcome.status != Some(0) && outcome.errors.contains(reason), "{}", outcome.errors);
        assert_eq!(files(out.parent().unwrap()), before);
        let checked = run(export(&["check", out.to_str().unwrap(), "--ep", "qnn"]));
        assert!(checked.failure(1).contains("--for cpu,qnn"));
    }

    let out = out.join("large/lfm2.onnx");
    let flags = [&large[..], &["--for", "cpu,qnn", "--force", "--json"]].concat();
    let written = run(export_to(&fixture(TINY_CHAT), &out, &flags));
    let json: Value = serde_json::from_str(&written.output).unwrap();
    assert!(json["notes"][0].as_str().unwrap().contains("because of --force"), "{json}");
    let checked = run(export(&["check", out.to_str().unwrap(), "--ep", "qnn"]));
    assert_eq!(checked.status, Some(1));
    assert!(checked.output.contains("(com.microsoft.MatMulNBits): block_size is 256"), "{}", checked.output);
}

#[test]
fn lists_and_sizes_that_make_no_sense_are_refused() {
    let (_folder, out) = folder("lfm2.onnx");
    for (flags, part) in [
        (&["--for", "calibrate,qnn"][..], "stands alone"),
        (&["--for", "tpu"], "tpu"),
        (&["--for", "cpu", "--chunk", "8"], "--chunk"),
        (&["--chunk", "0"], "--chunk is 0"),
        // More than the default, whatever the model.
        (&["--chunk", "2000"], "--chunk 2000 is more than the 1024"),
        (&["--for", "cpu", "--force"], "--force is for graphs for NPUs"),
        (&["--for", "cpu,cuda", "--force"], "--force is for graphs for NPUs"),
        (
            &["--for", "cpu,coreml", "--cuda-activations", "bf16"],
            "--cuda-activations is for the graph for NVIDIA's GPUs",
        ),
        (&["--for", "cpu,cuda", "--cuda-activations", "fp32"], "fp16, bf16"),
        (&["--for", "calibrate", "--force"], "--force is for graphs for NPUs"),
        (&["--static-context", "0"], "--static-context is 0"),
        (&["--chunk", "64", "--static-context", "32"], "--chunk 64 is more than the 32"),
    ] {
        let outcome = run(export_to(&fixture(TINY_CHAT), &out, flags));
        assert_eq!(outcome.status, Some(2), "{flags:?}: {}", outcome.errors);
        assert!(outcome.errors.contains(part), "{part} is missing in {}", outcome.errors);
    }
    let long = run(export_to(&fixture(TINY_CHAT), &out, &["--static-context", "9999999"])).failure(1);
    assert!(long.contains("this model takes 1 to"), "{long}");
    assert_eq!(files(out.parent().unwrap()), [""; 0]);
}
