//! Tier "command line": `lfm2-export` as it is used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{MANIFEST_NAME, Manifest};
use lfm2_tests::packages::{TINY_CHAT, TINY_RANDOM, complete, fixture, needs_portable};
use lfm2_tests::programs::{self, run};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

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

#[test]
fn help_names_every_flag_and_shows_examples() {
    let help = run(export(&["--help"])).answer();
    let flags = [
        "LiquidAI/LFM2-1.2B",
        "--out",
        "--precision",
        "--dialect",
        "--padding",
        "--max-context",
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
    assert_eq!(manifest.graphs.len(), Precision::ALL.len());
    let mut listed: Vec<_> = manifest.files.iter().map(|file| file.name.clone()).collect();
    listed.push(MANIFEST_NAME.to_owned());
    listed.sort();
    assert_eq!(files(&out), listed, "the manifest lists every file");
    for file in &manifest.files {
        assert_eq!(fs::metadata(out.join(&file.name)).unwrap().len(), file.size, "{}", file.name);
    }

    let inspected = run(export(&["inspect", out.to_str().unwrap(), "--json"])).json();
    assert_eq!(inspected["graphs"].as_array().unwrap().len(), Precision::ALL.len());
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let (_folder, out) = folder("");
    for precision in ["q4", "fp16"] {
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
    run(export_to(&fixture(TINY_CHAT), &out, &["--precision", "q4", "--max-context", "1000"])).answer();
    let text = run(export(&["inspect", out.to_str().unwrap()])).answer();
    for part in [
        "lfm2 q4, contrib dialect, ONNX Runtime 1.30 or newer",
        "past_conv.0              float32[batch_size, 256, 2]",
        "com.microsoft.MatMulNBits",
        "uint8",
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
    fails(&tiny, &out, &["--precision", "q5"], 2, &["fp32, fp16, q8, q4, q4f16"]);
    fails(&tiny, &folder.path().join("model.bin"), &[], 2, &[".onnx"]);
    fails(Path::new("no-such-folder"), &out, &[], 1, &["no-such-folder"]);
    fails(Path::new("owner/name"), &out, &["--offline", "--cache-dir", "none"], 1, &["no folder owner/name here"]);
    fails(&tiny.join("config.json"), &out, &[], 2, &["name the folder that holds it"]);
    let for_the_hub = ["--revision", "main", "--offline", "--token", "x", "--cache-dir", "none"];
    fails(&tiny, &out, &for_the_hub, 2, &["--revision, --cache-dir, --offline, --token", "only for models on the hub"]);
    fails(&tiny, &out, &["--token", " "], 2, &["the token is empty"]);
    // Without a tokenizer there is nothing to chat with.
    fails(&fixture("original"), &out, &[], 1, &["tokenizer.json"]);
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
    let message = run(export_to(&checkpoint, &out, &[])).failure(1);
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
    let message = run(export_to(&checkpoint, &out, &[])).failure(1);
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
        run(export_to(&checkpoint, &out, &[]))
    };
    with_head(false).answer();
    assert!(with_head(true).failure(1).contains("`lm_head.weight` differs"));
}

#[test]
fn a_failure_half_way_leaves_the_old_package_as_it_was() {
    let (_checkpoint, checkpoint) = copied("original");
    let (folder, out) = folder("out/lfm2.onnx");
    run(export_to(&checkpoint, &out, &[])).answer();
    let contents = || files(folder.path()).into_iter().map(|name| (fs::read(folder.path().join(&name)).unwrap(), name));
    let before: Vec<_> = contents().collect();

    // The last tensor in the order of writing, so that everything before it has been written.
    rewrite(&checkpoint, |tensors| {
        let (.., bytes) = tensors.iter_mut().find(|(name, ..)| name.ends_with("4.feed_forward.w2.weight")).unwrap();
        let last = bytes.len() - 2;
        bytes[last..].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    });
    let message = run(export_to(&checkpoint, &out, &[])).failure(1);
    assert!(message.contains("model.layers.4.feed_forward.w2.weight") && message.contains("NaN"), "{message}");
    assert!(contents().collect::<Vec<_>>() == before);
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
