//! Packages made by hand: a graph that says nothing but its contract, and whatever files a test needs.

use lfm2_graphs::contract::*;
use proptest::prelude::*;

use super::*;

/// A contract with the given number format and dialect.
fn contract(precision: &str, dialect: &str) -> Contract {
    let port = |name: &str| Port { name: name.into(), dtype: DType::Int64, shape: vec![] };
    let values = Location { name: "table".into(), file: "x.onnx_data".into(), offset: 0, length: 0 };
    Contract {
        version: VERSION,
        family: "lfm2".into(),
        dialect: dialect.into(),
        purpose: Purpose::General,
        precision: precision.into(),
        opset: 21,
        minimum_runtime_minor: 24,
        padding: Padding::None,
        vocab_size: 8,
        hidden_size: 4,
        layers: 0,
        context_length: 16,
        rope: None,
        table: Table {
            rows: 8,
            columns: 4,
            format: TableFormat::Dense { dtype: DType::Float32 },
            values,
            scales: None,
            zero_points: None,
            precision: None,
        },
        preferred: true,
        weight_bytes: 0,
        inputs: Inputs::Ids(IdInputs {
            input_ids: port("input_ids"),
            attention_mask: port("attention_mask"),
            num_logits_to_keep: port("num_logits_to_keep"),
        }),
        outputs: Outputs { logits: Some(port("logits")), statistics: vec![], ranges: None },
        states: vec![],
    }
}

/// An ONNX file with an empty graph and one entry of metadata.
fn onnx(key: &str, value: &str) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| {
        let length = [bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8 | 0x80, (bytes.len() >> 14) as u8];
        [&[number << 3 | 2][..], &length, bytes].concat()
    };
    [field(7, b""), field(14, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())].concat()
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Writes a graph with its weights, and adds it to the manifest in `folder`.
fn add(folder: &Path, file: &str, precision: &str, dialect: &str) {
    let contract = contract(precision, dialect).to_json().unwrap();
    let data = format!("{file}_data");
    let contents =
        [(file, onnx(METADATA_KEY, &contract)), (&data, b"weights".to_vec()), ("config.json", b"{}".to_vec())];
    let path = folder.join(MANIFEST_NAME);
    let mut manifest = manifest_in(folder).unwrap().unwrap_or_default();
    let files = contents.iter().map(|(name, content)| {
        put(&folder.join(name), content);
        let sha256 = <sha2::Sha256 as sha2::Digest>::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        ManifestFile { name: (*name).to_owned(), size: content.len() as u64, sha256 }
    });
    let [precision, dialect] = [precision, dialect].map(str::to_owned);
    let graph = ManifestGraph {
        file: file.into(),
        data: vec![data.clone()],
        purpose: Purpose::General,
        precision,
        dialect,
        minimum_runtime_minor: 24,
    };
    manifest.merge(graph, files.collect());
    fs::write(path, manifest.to_json().unwrap()).unwrap();
}

fn opened(path: &Path) -> String {
    let package = Package::open(path).unwrap();
    package.graph().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_file_and_its_sidecars() {
    let root = tempfile::tempdir().unwrap();
    for (name, hub) in [("plain", false), ("hub", true)] {
        let folder = root.path().join(name);
        let file = if hub { "onnx/model_q4.onnx" } else { "lfm2.onnx" };
        add(&folder, file, "q4", "contrib");
        for path in [folder.clone(), folder.join(file)] {
            let package = Package::open(&path).unwrap();
            assert_eq!((package.graph(), package.folder()), (&*folder.join(file), &*folder));
            assert_eq!(package.contract().precision, "q4");
            package.verify().unwrap();
        }
    }
    // A folder that happens to be called onnx, with everything in it.
    let folder = root.path().join("mine/onnx");
    add(&folder, "x.onnx", "q8", "contrib");
    assert_eq!(Package::open(&folder).unwrap().folder(), folder);
}

#[test]
fn the_preferred_precision_of_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let listed = root.path().join("listed");
    let order = [
        ("onnx/model.onnx", "fp32", "contrib"),
        ("onnx/model_fp16.onnx", "fp16", "contrib"),
        ("onnx/model_quantized.onnx", "q8", "contrib"),
        ("onnx/model_q4f16.onnx", "q4f16", "contrib"),
        ("onnx/model_q4.onnx", "q4", "contrib"),
    ];
    for (file, precision, dialect) in order {
        add(&listed, file, precision, dialect);
        assert_eq!(opened(&listed), file.strip_prefix("onnx/").unwrap());
    }
    // Only some files were fetched.
    fs::remove_file(listed.join("onnx/model_q4.onnx")).unwrap();
    assert_eq!(opened(&listed), "model_q4f16.onnx");
    // Without a manifest, the graphs say it themselves, and foreign files are passed over.
    fs::remove_file(listed.join(MANIFEST_NAME)).unwrap();
    put(&listed.join("other.onnx"), &onnx("other", "text"));
    assert_eq!(opened(&listed), "model_q4f16.onnx");

    let dialects = root.path().join("dialects");
    add(&dialects, "a.onnx", "fp32", "portable");
    add(&dialects, "b.onnx", "q4", "static");
    assert_eq!(opened(&dialects), "a.onnx");
    add(&dialects, "c.onnx", "fp32", "contrib");
    assert_eq!(opened(&dialects), "c.onnx");
    add(&dialects, "d.onnx", "fp32", "contrib");
    let message = Package::open(&dialects).unwrap_err().to_string();
    assert!(message.contains("c.onnx, d.onnx") && message.contains("fp32"), "{message}");
}

#[test]
fn all_missing_and_damaged_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    add(root.path(), "x.onnx", "q4", "contrib");
    add(root.path(), "y.onnx", "fp32", "contrib");
    fs::write(root.path().join("x.onnx_data"), "cut").unwrap();
    fs::remove_file(root.path().join("config.json")).unwrap();
    fs::remove_file(root.path().join("y.onnx_data")).unwrap();
    let message = Package::open(root.path()).unwrap_err().to_string();
    assert!(
        message.contains("x.onnx_data has 3 bytes instead of 7") && message.contains("config.json is missing"),
        "{message}"
    );
    assert!(!message.contains("y.onnx"), "files of other graphs do not matter: {message}");

    fs::write(root.path().join("x.onnx_data"), "weight!").unwrap();
    put(&root.path().join("config.json"), b"{}");
    let package = Package::open(root.path()).unwrap();
    let message = package.verify().unwrap_err().to_string();
    assert!(message.contains("x.onnx_data has the SHA-256") && !message.contains("config.json"), "{message}");
}

#[test]
fn what_cannot_be_opened_is_explained() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    put(&path("foreign.onnx"), &onnx("other", "text"));
    put(&path("future.onnx"), &onnx(METADATA_KEY, r#"{"version": 99}"#));
    put(&path("broken.onnx"), &onnx(METADATA_KEY, "{"));
    put(&path("page.onnx"), b"<html>404</html>");
    fs::create_dir(path("empty")).unwrap();
    put(&path("escaping/lfm2.manifest.json"), br#"{"version": 2, "model": "", "graphs": [{"file": "x.onnx", "data": ["../../secret"], "purpose": "general", "precision": "q4", "dialect": "contrib", "minimum_runtime_minor": 24}], "files": [{"name": "../../secret", "size": 1, "sha256": ""}]}"#);
    put(&path("escaping/x.onnx"), &onnx(METADATA_KEY, &contract("q4", "contrib").to_json().unwrap()));
    put(&path("manifest/lfm2.manifest.json"), b"[]");
    for (name, part) in [
        ("foreign.onnx", "lfm2-export"),
        ("future.onnx", "version 99"),
        ("broken.onnx", "export the model again"),
        ("page.onnx", "ONNX"),
        ("missing.onnx", "cannot be read"),
        ("empty", "no ONNX file"),
        ("escaping", "../../secret is no name"),
        ("manifest", "lfm2.manifest.json"),
    ] {
        let message = Package::open(&path(name)).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(name), "{name}: {message}");
    }
}

#[test]
fn a_package_without_a_manifest_opens_but_cannot_be_verified() {
    let root = tempfile::tempdir().unwrap();
    add(root.path(), "x.onnx", "q4", "contrib");
    fs::remove_file(root.path().join(MANIFEST_NAME)).unwrap();
    let package = Package::open(&root.path().join("x.onnx")).unwrap();
    let message = package.verify().unwrap_err().to_string();
    assert!(message.contains("cannot be verified") && message.contains(MANIFEST_NAME), "{message}");
}

proptest! {
    /// Whatever happens to the files of a package, opening it ends with a package or an error.
    #[test]
    fn damage_never_panics(
        in_manifest: bool,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let root = tempfile::tempdir().unwrap();
        add(root.path(), "x.onnx", "q4", "contrib");
        let damaged = root.path().join(if in_manifest { MANIFEST_NAME } else { "x.onnx" });
        let mut bytes = fs::read(&damaged).unwrap();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&damaged, bytes).unwrap();
        for path in [root.path().to_owned(), root.path().join("x.onnx")] {
            if let Ok(package) = Package::open(&path) {
                // Both answers are right, depending on what was changed.
                drop(package.verify());
            }
        }
    }
}
