//! Tier "command line": `lfm2-export` as it is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{MANIFEST_NAME, Manifest, Purpose};
use lfm2_tests::packages::{TINY_CHAT, TINY_RANDOM, complete, fixture, needs_portable};
use lfm2_tests::programs::{self, run};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

#[path = "export_command_line/recipes.rs"]
mod recipes;
#[path = "export_command_line/targets.rs"]
mod targets;

/// The program with these arguments.
fn export(arguments: &[&str]) -> Command {
    programs::program(env!("CARGO_BIN_EXE_export-under-test"), arguments)
}

/// The program on a checkpoint.
fn export_to(checkpoint: &Path, out: &Path, arguments: &[&str]) -> Command {
    let mut command = export(arguments);
    command.arg(checkpoint).arg("--out").arg(out);
    command
}

/// For checkpoints whose rows the blocks of the default do not divide.
const FP32: &[&str] = &["--precision", "fp32"];

/// A folder of its own for every test, with the path of something in it.
fn folder(inside: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(inside);
    (folder, path)
}

/// Every file below `folder`, relative to it, sorted.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// Every file below `folder` with its bytes.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    files(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

#[test]
fn help_names_every_flag_and_shows_examples() {
    let help = run(export(&["--help"])).answer();
    let flags = [
        "LiquidAI/LFM2-1.2B",
        "--out",
        "--precision",
        "--recipe",
        "--calibration",
        "recipes",
        "--dialect",
        "--padding",
        "--max-context",
        "--for",
        "--chunk",
        "--static-context",
        "--force",
        "check",
        "--prefill",
        "--kv",
        "--calibration",
        "--revision",
        "--cache-dir",
        "--offline",
        "--token",
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "--json",
        "inspect",
        "diff",
        "Examples:",
        "Exit status:",
    ];
    for text in flags {
        assert!(help.contains(text), "{text} is missing in:\n{help}");
    }
}

#[test]
fn a_file_has_everything_beside_it() {
    let (folder, out) = folder("a/lfm2.onnx");
    let printed = run(export_to(&fixture(TINY_CHAT), &out, &[])).answer();
    assert_eq!(printed, format!("{}\n", out.display()));
    let expected = [
        "a/chat_template.jinja",
        "a/config.json",
        "a/genai_config.json",
        "a/generation_config.json",
        "a/lfm2.manifest.json",
        "a/lfm2.onnx",
        "a/lfm2.onnx_data",
        "a/lfm2.qnn-chunk.onnx",
        "a/lfm2.qnn-token.onnx",
        "a/tokenizer.json",
        "a/tokenizer_config.json",
    ];
    assert_eq!(files(folder.path()), expected);
}

#[test]
fn a_folder_takes_several_precisions_in_the_layout_of_the_hub() {
    let (_folder, out) = folder("lfm2");
    for precision in Precision::ALL {
        // The folder is there from the second time on; the first time only the slash says that it is one.
        let with_slash = PathBuf::from(format!("{}/", out.display()));
        let json =
            run(export_to(&fixture(TINY_CHAT), &with_slash, &["--precision", precision.as_str(), "--json"])).json();
        let graph = out.join(format!("onnx/model{}.onnx", precision.suffix()));
        assert_eq!(Path::new(json["graph"].as_str().unwrap()), graph);
        assert!(graph.is_file());
    }
    let manifest = Manifest::from_json(&fs::read_to_string(out.join(MANIFEST_NAME)).unwrap()).unwrap();
    // The general graph, and the pair for NPUs.
    assert_eq!(manifest.graphs.len(), 3 * Precision::ALL.len());
    let mut listed: Vec<_> = manifest.files.iter().map(|file| file.name.clone()).collect();
    listed.push(MANIFEST_NAME.to_owned());
    listed.sort();
    assert_eq!(files(&out), listed, "the manifest lists every file");
    for file in &manifest.files {
        assert_eq!(fs::metadata(out.join(&file.name)).unwrap().len(), file.size, "{}", file.name);
    }

    let inspected = run(export(&["inspect", out.to_str().unwrap(), "--json"])).json();
    assert_eq!(inspected["graphs"].as_array().unwrap().len(), 3 * Precision::ALL.len());
}

/// Names of the graphs in a manifest, with what they are for.
fn graphs(folder: &Path) -> Vec<(String, Purpose)> {
    let manifest = Manifest::from_json(&fs::read_to_string(folder.join(MANIFEST_NAME)).unwrap()).unwrap();
    manifest.graphs.into_iter().map(|graph| (graph.file, graph.purpose)).collect()
}

#[test]
fn a_graph_for_prompts_lies_beside_its_companion() {
    let (folder, out) = folder("a/lfm2.onnx");
    let flags = ["--precision", "q4", "--prefill", "int8", "--for", "cpu"];
    let json = run(export_to(&fixture(TINY_CHAT), &out, &[&flags[..], &["--json"]].concat())).json();
    assert_eq!(Path::new(json["prefill"].as_str().unwrap()), out.with_file_name("lfm2.prefill.onnx"));
    let package = folder.path().join("a");
    let expected = [("lfm2.onnx".to_owned(), Purpose::General), ("lfm2.prefill.onnx".to_owned(), Purpose::Prefill)];
    assert_eq!(graphs(&package), expected);
    let manifest = Manifest::from_json(&fs::read_to_string(package.join(MANIFEST_NAME)).unwrap()).unwrap();
    assert_eq!(manifest.graphs[1].data, ["lfm2.onnx_data", "lfm2.prefill.onnx_data"]);
    let mut listed: Vec<_> = manifest.files.iter().map(|file| format!("a/{}", file.name)).collect();
    listed.push(format!("a/{MANIFEST_NAME}"));
    listed.sort();
    assert_eq!(files(folder.path()), listed);

    // What both need is stored once.
    let inspected = run(export(&["inspect", package.to_str().unwrap(), "--json"])).json();
    let inspected = inspected["graphs"].as_array().unwrap();
    assert_eq!(inspected[1]["data_files"], serde_json::json!(["lfm2.onnx_data", "lfm2.prefill.onnx_data"]));
    assert_eq!(inspected[1]["contract"]["table"]["values"], inspected[0]["contract"]["table"]["values"]);
    let bytes = fs::metadata(package.join("lfm2.prefill.onnx_data")).unwrap().len();
    let all = inspected[1]["weight_bytes"].as_u64().unwrap();
    assert!(bytes < all, "{bytes} of {all}");

    // One graph is meant by the folder, and it is what it is without a companion.
    let alone = folder.path().join("b/lfm2.onnx");
    run(export_to(&fixture(TINY_CHAT), &alone, &flags[..2])).answer();
    assert_eq!(run(export(&["diff", package.to_str().unwrap(), alone.to_str().unwrap()])).answer(), "");
    assert!(fs::read(&out).unwrap() == fs::read(&alone).unwrap());
}

#[test]
fn a_graph_for_prompts_goes_with_the_graph_that_it_belongs_to() {
    let (_folder, out) = folder("lfm2/");
    let with = |precision: &str| {
        run(export_to(&fixture(TINY_CHAT), &out, &["--precision", precision, "--prefill", "int8", "--for", "cpu"]))
            .answer()
    };
    with("q4");
    with("q8");
    let names = |graphs: Vec<(String, Purpose)>| graphs.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let [q4, q8] =
        ["model_q4", "model_quantized"].map(|name| [format!("onnx/{name}.onnx"), format!("onnx/{name}.prefill.onnx")]);
    assert_eq!(names(graphs(&out)), [q4[0].clone(), q4[1].clone(), q8[0].clone(), q8[1].clone()]);

    // Exported again without it, a companion would share bytes that are not there any more.
    run(export_to(&fixture(TINY_CHAT), &out, &["--precision", "q4", "--max-context", "100", "--for", "cpu"])).answer();
    assert_eq!(names(graphs(&out)), [q4[0].clone(), q8[0].clone(), q8[1].clone()]);
    let left = files(&out);
    assert!(!left.iter().any(|name| name.starts_with("onnx/model_q4.prefill")), "{left:?}");
    assert!(left.contains(&format!("{}_data", q8[1])), "{left:?}");
    with("q4");
    assert_eq!(graphs(&out).len(), 4);

    // transformers.js counts the data files of the graphs that it knows, and knows no companion.
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(!config.contains("prefill"), "{config}");
}

#[test]
fn int8_is_refused_where_it_cannot_be() {
    let (_folder, out) = folder("lfm2.onnx");
    for (flags, parts) in [
        (&["--prefill", "int8", "--precision", "fp16"][..], ["--prefill int8", "float32"]),
        (&["--prefill", "int8", "--precision", "q4f16"], ["--prefill int8", "q4f16"]),
        (
            &["--prefill", "int8", "--dialect", "portable", "--precision", "fp32"],
            ["--prefill int8", "--dialect contrib"],
        ),
        (&["--kv", "int8", "--dialect", "portable", "--precision", "fp32"], ["--kv int8", "--dialect contrib"]),
        (&["--kv", "int8"], ["--kv int8", "--calibration"]),
    ] {
        let outcome = run(export_to(&fixture(TINY_CHAT), &out, flags));
        assert_eq!(outcome.status, Some(2), "{flags:?}: {}", outcome.errors);
        for part in parts {
            assert!(outcome.errors.contains(part), "{part} is missing in {}", outcome.errors);
        }
    }
    assert_eq!(files(out.parent().unwrap()), [""; 0]);
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let (_folder, out) = folder("");
    for precision in ["q4", "q4-mixed", "fp16"] {
        let hashes = ["a.onnx", "b.onnx"].map(|name| {
            run(export_to(&fixture(TINY_CHAT), &out.join(name), &["--precision", precision])).answer();
            fs::read(out.join(format!("{name}_data"))).unwrap()
        });
        assert!(hashes[0] == hashes[1], "{precision}");
    }
}

#[test]
fn inspect_says_what_a_package_holds() {
    let (_folder, out) = folder("lfm2.onnx");
    run(export_to(&fixture(TINY_CHAT), &out, &["--precision", "q4", "--max-context", "1000", "--for", "cpu"])).answer();
    let text = run(export(&["inspect", out.to_str().unwrap()])).answer();
    for part in [
        "lfm2 q4, contrib dialect, ONNX Runtime 1.30 or newer",
        "past_conv.0              float32[batch_size, 256, 2]",
        "com.microsoft.MatMulNBits",
        "4-bit blocks of 32",
        "4-bit blocks of 128",
        "lfm2.onnx_data",
        // Two attention layers with keys and values of 2 heads of 64 float32 numbers.
        "for every 1000 tokens",
    ] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let json = run(export(&["inspect", out.to_str().unwrap(), "--json"])).json();
    let graph = &json["graphs"][0];
    assert_eq!(graph["state"]["bytes_per_1000_tokens"], 2 * 2 * 2 * 64 * 4 * 1000);
    assert_eq!(graph["state"]["fixed_bytes"], 4 * 256 * 2 * 4);
    assert_eq!(graph["contract"]["context_length"], 1000);
    assert_eq!(graph["operators"]["com.microsoft.GroupQueryAttention"], 2);
    assert_eq!(graph["inputs"][0]["shape"], serde_json::json!(["batch_size", "sequence_length"]));
    // All matrices, and the table that embedding and head share once.
    let values: usize = 4 * (768 + 256) * 256 + 2 * (2 * 256 + 2 * 128) * 256 + 6 * 3 * 512 * 256;
    for (format, values) in [("4-bit blocks of 128", values), ("4-bit blocks of 32", 1024 * 256)] {
        assert_eq!(graph["formats"][format]["values"], values);
        assert_eq!(graph["formats"][format]["bytes"], values / 2);
    }
    let table = &graph["contract"]["table"];
    assert_eq!(
        (&table["zero_points"]["length"], &table["scales"]["length"]),
        (&(1024 * 4).into(), &(1024 * 8 * 4).into())
    );
    assert_eq!(table["zero_points"]["file"], "lfm2.onnx_data");

    let data = out.with_file_name("lfm2.onnx_data");
    fs::OpenOptions::new().write(true).open(data).unwrap().set_len(100).unwrap();
    let damaged = run(export(&["inspect", out.to_str().unwrap()]));
    assert_eq!(damaged.status, Some(1));
    assert!(damaged.errors.starts_with("error: lfm2.onnx_data has 100 bytes"), "{}", damaged.errors);
    fs::remove_file(&out).unwrap();
    assert!(run(export(&["inspect", out.parent().unwrap().to_str().unwrap()])).failure(1).contains("no ONNX file"));
}

#[test]
fn rollback_is_asked_for_and_shown() {
    let (_folder, out) = folder("");
    let [plain, cut] = ["plain.onnx", "cut.onnx"].map(|name| out.join(name));
    run(export_to(&fixture(TINY_CHAT), &plain, &[])).answer();
    run(export_to(&fixture(TINY_CHAT), &cut, &["--rollback"])).answer();
    let inspect = |graph: &Path| run(export(&["inspect", graph.to_str().unwrap()])).answer();
    let (without, with) = (inspect(&plain), inspect(&cut));
    for part in ["rollback: the state can be cut", "conv_columns.0   float32[batch_size, sequence_length, 256]"] {
        assert!(with.contains(part) && !without.contains(part), "{part} is missing in:\n{with}");
    }
    let different = run(export(&["diff", plain.to_str().unwrap(), cut.to_str().unwrap()]));
    assert!(different.status == Some(1) && different.output.contains("conv_columns.0"), "{}", different.output);
}

#[test]
fn diff_tells_what_differs_by_its_status_too() {
    let (_folder, out) = folder("");
    let [a, b, c] = ["a.onnx", "b.onnx", "c.onnx"].map(|name| out.join(name));
    run(export_to(&fixture(TINY_CHAT), &a, &[])).answer();
    run(export_to(&fixture(TINY_CHAT), &b, &["--padding", "left"])).answer();
    run(export_to(&fixture(TINY_CHAT), &c, &[])).answer();
    let diff = |a: &Path, b: &Path| run(export(&["diff", a.to_str().unwrap(), b.to_str().unwrap()]));

    assert_eq!(diff(&a, &c).answer(), "", "names do not matter");

    let different = diff(&a, &b);
    assert_eq!((different.status, different.errors.as_str()), (Some(1), ""));
    assert!(different.output.contains("~ padding: \"none\" -> \"left\""), "{}", different.output);
    assert!(different.output.contains("\n  + "), "{}", different.output);
    assert!(diff(&a, &out.join("none.onnx")).failure(2).contains("none.onnx"));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_written() {
    let (folder, out) = folder("out/lfm2.onnx");
    let tiny = fixture(TINY_CHAT);
    let fails = |checkpoint: &Path, out: &Path, arguments: &[&str], status: i32, parts: &[&str]| {
        let message = run(export_to(checkpoint, out, arguments)).failure(status);
        for part in parts {
            assert!(message.contains(part), "{part} is missing in: {message}");
        }
        assert_eq!(files(folder.path()), Vec::<String>::new(), "nothing is left after: {message}");
    };
    fails(&tiny, &out, &["--precision", "q4", "--dialect", "portable"], 2, &["--dialect contrib"]);
    fails(&tiny, &out, &["--max-context", "0"], 2, &["--max-context is 0"]);
    fails(&tiny, &out, &["--max-context", "4097"], 1, &["1 to 4096"]);
    fails(&tiny, &out, &["--precision", "q5"], 2, &["fp32, fp16, q8, q4-mixed, q4, q4f16"]);
    fails(&tiny, &folder.path().join("model.bin"), &[], 2, &[".onnx"]);
    fails(Path::new("no-such-folder"), &out, &[], 1, &["no-such-folder"]);
    fails(Path::new("owner/name"), &out, &["--offline", "--cache-dir", "none"], 1, &["no folder owner/name here"]);
    fails(&tiny.join("config.json"), &out, &[], 2, &["name the folder that holds it"]);
    let for_the_hub = ["--revision", "main", "--offline", "--token", "x", "--cache-dir", "none"];
    fails(&tiny, &out, &for_the_hub, 2, &["--revision, --cache-dir, --offline, --token", "only for models on the hub"]);
    fails(&tiny, &out, &["--token", " "], 2, &["the token is empty"]);
    // Without a tokenizer there is nothing to chat with.
    fails(&fixture("original"), &out, FP32, 1, &["tokenizer.json"]);
    let narrow = TINY_RANDOM.into_iter().find(|name| needs_portable(name)).unwrap();
    let (_narrow, checkpoint) = copied(narrow);
    fails(&checkpoint, &out, &[], 1, &["--dialect portable"]);
    // Rows of 72 values cannot be cut into blocks of 32.
    let (_uneven, checkpoint) = copied("width-2");
    fails(&checkpoint, &out, &["--precision", "q4"], 1, &["feed_forward.w2.weight", "72"]);
}

#[test]
fn every_tensor_that_does_not_fit_is_listed() {
    let (_checkpoint, checkpoint) = copied("original");
    rewrite(&checkpoint, |tensors| {
        tensors.retain(|(name, ..)| name != "model.embedding_norm.weight");
        for (name, shape, _) in tensors.iter_mut() {
            match name.as_str() {
                "model.layers.0.conv.in_proj.weight" => shape.reverse(),
                "model.layers.1.ffn_norm.weight" => *name = "model.layers.9.ffn_norm.weight".to_owned(),
                _ => {}
            }
        }
    });
    let (folder, out) = folder("out/lfm2.onnx");
    let message = run(export_to(&checkpoint, &out, FP32)).failure(1);
    for part in [
        "`model.embedding_norm.weight` [64] is missing",
        "`model.layers.0.conv.in_proj.weight` is [64, 192], the config says [192, 64]",
        "`model.layers.1.ffn_norm.weight` [64] is missing",
        "`model.layers.9.ffn_norm.weight` is not part of the model",
    ] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

#[test]
fn a_config_of_another_size_does_not_bury_the_terminal() {
    let (_checkpoint, checkpoint) = copied("original");
    let path = checkpoint.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["num_hidden_layers"] = 4096.into();
    config.as_object_mut().unwrap().remove("layer_types");
    fs::write(&path, config.to_string()).unwrap();
    let (_folder, out) = folder("lfm2.onnx");
    let message = run(export_to(&checkpoint, &out, FP32)).failure(1);
    assert!(message.lines().count() < 110, "{} lines", message.lines().count());
    assert!(message.trim_end().ends_with("more"), "{message}");
}

#[test]
fn a_head_beside_a_tied_table_must_be_the_table() {
    let (_checkpoint, checkpoint) = copied("original");
    let with_head = |change: bool| {
        rewrite(&checkpoint, |tensors| {
            tensors.retain(|(name, ..)| name != "lm_head.weight");
            let (_, shape, mut bytes) =
                tensors.iter().find(|(name, ..)| name.contains("embed_tokens")).unwrap().clone();
            if change {
                bytes[100] ^= 1;
            }
            tensors.push(("lm_head.weight".to_owned(), shape, bytes));
        });
        let (_folder, out) = folder("lfm2.onnx");
        run(export_to(&checkpoint, &out, FP32))
    };
    with_head(false).answer();
    assert!(with_head(true).failure(1).contains("`lm_head.weight` differs"));
}

#[test]
fn a_failure_half_way_leaves_the_old_package_as_it_was() {
    let (_checkpoint, checkpoint) = copied("original");
    let (folder, out) = folder("out/lfm2.onnx");
    run(export_to(&checkpoint, &out, FP32)).answer();
    let before = contents(folder.path());

    // The last tensor in the order of writing, so that everything before it has been written.
    rewrite(&checkpoint, |tensors| {
        let (.., bytes) = tensors.iter_mut().find(|(name, ..)| name.ends_with("4.feed_forward.w2.weight")).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    });
    let message = run(export_to(&checkpoint, &out, FP32)).failure(1);
    assert!(message.contains("model.layers.4.feed_forward.w2.weight") && message.contains("NaN"), "{message}");
    assert!(contents(folder.path()) == before);
}

#[test]
fn the_checkpoints_own_folder_is_refused() {
    let (_checkpoint, checkpoint) = copied("original");
    let before = contents(&checkpoint);
    let message = run(export_to(&checkpoint, &checkpoint.join("lfm2.onnx"), FP32)).failure(1);
    assert!(message.contains("the folder of the checkpoint itself"), "{message}");
    assert!(contents(&checkpoint) == before);
}

#[test]
fn another_checkpoint_does_not_get_into_a_package() {
    let (_one, one) = copied("original");
    let (_two, two) = copied("original");
    rewrite(&two, |tensors| {
        let (.., bytes) = tensors.iter_mut().find(|(name, ..)| name.ends_with("2.self_attn.q_proj.weight")).unwrap();
        bytes[0] ^= 1;
    });
    let (folder, out) = folder("package");
    fs::create_dir(&out).unwrap();
    run(export_to(&one, &out, FP32)).answer();
    let before = contents(folder.path());
    let message = run(export_to(&two, &out, &["--precision", "fp16"])).failure(1);
    assert!(message.contains("onnx/model.onnx, exported from another checkpoint"), "{message}");
    assert!(contents(folder.path()) == before);
    // The only graph may be replaced.
    run(export_to(&two, &out, FP32)).answer();
    run(export_to(&two, &out, &["--precision", "fp16"])).answer();
}

#[test]
fn what_a_checkpoint_has_no_more_disappears_from_its_package() {
    let (_checkpoint, checkpoint) = copied("original");
    let (folder, out) = folder("lfm2.onnx");
    fs::write(checkpoint.join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
    run(export_to(&checkpoint, &out, FP32)).answer();
    assert!(files(folder.path()).contains(&"chat_template.jinja".to_owned()));
    fs::remove_file(checkpoint.join("chat_template.jinja")).unwrap();
    run(export_to(&checkpoint, &out, FP32)).answer();
    assert!(!files(folder.path()).contains(&"chat_template.jinja".to_owned()));
    let manifest = fs::read_to_string(folder.path().join(MANIFEST_NAME)).unwrap();
    assert!(!manifest.contains("chat_template.jinja"), "{manifest}");
}

#[test]
fn a_removed_graph_is_forgotten() {
    let (_folder, out) = folder("package");
    fs::create_dir(&out).unwrap();
    for precision in ["q4", "fp32"] {
        run(export_to(&fixture(TINY_CHAT), &out, &["--precision", precision])).answer();
    }
    for name in ["model_q4.onnx", "model_q4.onnx_data"] {
        fs::remove_file(out.join("onnx").join(name)).unwrap();
    }
    // Nothing is removed without a word.
    let written = run(export_to(&fixture(TINY_CHAT), &out, FP32));
    assert_eq!(written.status, Some(0), "{}", written.errors);
    for name in ["removed, because", "onnx/model_q4.qnn-chunk.onnx", "onnx/model_q4.qnn-token.onnx"] {
        assert!(written.errors.contains(name), "{}", written.errors);
    }
    let manifest = Manifest::from_json(&fs::read_to_string(out.join(MANIFEST_NAME)).unwrap()).unwrap();
    let names: Vec<_> = manifest.graphs.iter().map(|graph| graph.file.as_str()).collect();
    // Its companions have no weights without it.
    assert_eq!(names, ["onnx/model.onnx", "onnx/model.qnn-chunk.onnx", "onnx/model.qnn-token.onnx"]);
    let mut listed: Vec<_> = manifest.files.iter().map(|file| file.name.clone()).collect();
    listed.push(MANIFEST_NAME.to_owned());
    listed.sort();
    assert_eq!(files(&out), listed);
}

#[test]
fn files_of_others_are_not_replaced() {
    let (folder, out) = folder("lfm2.onnx");
    fs::write(folder.path().join("tokenizer.json"), "mine").unwrap();
    let message = run(export_to(&fixture(TINY_CHAT), &out, &[])).failure(1);
    assert!(message.contains("no export has written") && message.contains("tokenizer.json"), "{message}");
    assert_eq!(files(folder.path()), ["tokenizer.json"]);
}

#[test]
fn exports_into_one_folder_wait_for_nobody_and_damage_nothing() {
    let (_folder, out) = folder("package");
    fs::create_dir(&out).unwrap();
    let running: Vec<_> = Precision::ALL
        .iter()
        .map(|it| export_to(&fixture(TINY_CHAT), &out, &["--precision", it.as_str()]).spawn().unwrap())
        .collect();
    let mut done = 0;
    for child in running {
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        done += usize::from(output.status.success());
        assert!(output.status.success() || errors.contains("another export is writing"), "{errors}");
    }
    assert!(done > 0);
    let manifest = Manifest::from_json(&fs::read_to_string(out.join(MANIFEST_NAME)).unwrap()).unwrap();
    assert_eq!(manifest.graphs.len(), 3 * done);
    let mut listed: Vec<_> = manifest.files.iter().map(|file| file.name.clone()).collect();
    listed.push(MANIFEST_NAME.to_owned());
    listed.sort();
    assert_eq!(files(&out), listed);
}

#[test]
fn results_can_be_cut_off_by_their_reader() {
    let (_folder, out) = folder("lfm2.onnx");
    run(export_to(&fixture(TINY_CHAT), &out, &[])).answer();
    let mut child = export(&["inspect", out.to_str().unwrap()]).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

/// A fixture with a tokenizer, in a folder that may be changed.
fn copied(name: &str) -> (TempDir, PathBuf) {
    let (folder, path) = folder("checkpoint");
    complete(&fixture(name), &path);
    (folder, path)
}

/// Name, shape and bytes of a tensor of type bfloat16.
type Bf16 = (String, Vec<usize>, Vec<u8>);

/// Changes the tensors of a checkpoint that is all bfloat16.
fn rewrite(checkpoint: &Path, change: impl FnOnce(&mut Vec<Bf16>)) {
    let path = checkpoint.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<Bf16> =
        read.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec(), view.data().to_vec())).collect();
    tensors.sort();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::BF16, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &path).unwrap();
}
