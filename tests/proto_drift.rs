//! The generated ONNX messages are what the vendored schema gives.

use std::path::Path;

/// Set `BLESS=1` to write the generated file anew after the schema has been updated.
#[test]
fn generated_messages_match_the_schema() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let committed = root.join("export/src/proto/onnx.rs");
    let schema = root.join("export/proto");
    let folder = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(["onnx-ml.proto"], [&schema]).unwrap();
    prost_build::Config::new().out_dir(folder.path()).disable_comments(["."]).compile_fds(descriptors).unwrap();
    let generated = std::fs::read_to_string(folder.path().join("onnx.rs")).unwrap();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&committed, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(committed).unwrap_or_default();
    assert_eq!(committed.replace("\r\n", "\n"), generated, "run with BLESS=1 to regenerate");
}
