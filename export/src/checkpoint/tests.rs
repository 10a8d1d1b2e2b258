use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::{Dtype as StDtype, TensorView};
use tempfile::TempDir;

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

/// A safetensors file with the given header and that many zero bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn index(entries: &[(&str, &str)]) -> Vec<u8> {
    let map: HashMap<_, _> = entries.iter().copied().collect();
    serde_json::to_vec(&serde_json::json!({ "weight_map": map })).unwrap()
}

fn entry(name: &str, dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

fn one(name: &str) -> Vec<u8> {
    file(&format!("{{{}}}", entry(name, "F32", "[1]", 0, 4)), 4)
}

fn error(files: &[(&str, &[u8])]) -> String {
    let folder = folder(files);
    Checkpoint::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn values_of_every_type_are_read() {
    let values: Vec<f32> = (0..1200).map(|i| (i as f32 - 600.0) / 64.0).collect();
    let bytes_of = |dtype: StDtype| -> Vec<u8> {
        match dtype {
            StDtype::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            StDtype::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        }
    };
    for (dtype, expected) in [(StDtype::F32, Dtype::F32), (StDtype::F16, Dtype::F16), (StDtype::BF16, Dtype::Bf16)] {
        let bytes = bytes_of(dtype);
        let view = TensorView::new(dtype, vec![3, 20, 20], &bytes).unwrap();
        let folder = folder(&[(SINGLE_FILE, &safetensors::serialize([("a", view)], None).unwrap())]);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.get("a"), Some(&TensorInfo { shape: vec![3, 20, 20], dtype: expected }));
        let mut rows = vec![9.0];
        for (start, count) in [(0, 3), (1, 1), (2, 1), (3, 0), (1, 2)] {
            checkpoint.read_rows("a", start, count, &mut rows).unwrap();
            let expected: Vec<f32> = values[start * 400..(start + count) * 400]
                .iter()
                .map(|&v| match dtype {
                    StDtype::BF16 => bf16::from_f32(v).to_f32(),
                    _ => v,
                })
                .collect();
            assert_eq!(rows, expected, "{dtype} rows {start}+{count}");
        }
    }
}

#[test]
fn rows_larger_than_the_scratch_buffer_are_read_in_pieces() {
    let values: Vec<u8> = (0..600_000_u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = TensorView::new(StDtype::F32, vec![2, 300_000], &values).unwrap();
    let folder = folder(&[(SINGLE_FILE, &safetensors::serialize([("a", view)], None).unwrap())]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let mut rows = Vec::new();
    checkpoint.read_rows("a", 0, 2, &mut rows).unwrap();
    assert!(rows.iter().enumerate().all(|(i, &value)| value == i as f32));
    assert_eq!(rows.len(), 600_000);
}

#[test]
fn vectors_have_rows_of_one_value_and_scalars_one_row() {
    let header = format!("{{{},{}}}", entry("v", "F32", "[3]", 0, 12), entry("s", "F32", "[]", 12, 16));
    let folder = folder(&[(SINGLE_FILE, &file(&header, 16))]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let mut rows = Vec::new();
    checkpoint.read_rows("v", 1, 2, &mut rows).unwrap();
    assert_eq!(rows, [0.0, 0.0]);
    checkpoint.read_rows("s", 0, 1, &mut rows).unwrap();
    assert_eq!(rows, [0.0]);
}

#[test]
fn every_fixture_opens_and_agrees_with_the_safetensors_crate() {
    let mut folders = vec![fixture("tiny-chat")];
    folders.extend(fs::read_dir(fixture("tiny-random")).unwrap().map(|entry| entry.unwrap().path()));
    for path in folders {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let mut count = 0;
        for file in fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "safetensors") {
                continue;
            }
            let bytes = fs::read(&file).unwrap();
            for (name, view) in safetensors::SafeTensors::deserialize(&bytes).unwrap().tensors() {
                let info = checkpoint.get(&name).unwrap();
                assert_eq!(info.shape, view.shape());
                let mut expected = Vec::new();
                info.dtype.decode(view.data(), &mut expected);
                let mut found = Vec::new();
                checkpoint.read_rows(&name, 0, info.rows(), &mut found).unwrap();
                assert_eq!(found, expected, "{name}");
                count += 1;
            }
        }
        assert_eq!(checkpoint.tensors().count(), count);
    }
}

#[test]
fn rows_and_names_out_of_range_are_refused() {
    let checkpoint = Checkpoint::open(&fixture("tiny-random/original")).unwrap();
    let mut out = Vec::new();
    for (start, rows) in [(160, 1), (0, 161), (usize::MAX, 2), (1, usize::MAX)] {
        let error = checkpoint.read_rows("model.embed_tokens.weight", start, rows, &mut out).unwrap_err();
        assert!(matches!(error, CheckpointError::RowsOutOfRange { available: 160, .. }), "{error}");
    }
    let error = checkpoint.read_rows("lm_head.weight", 0, 1, &mut out).unwrap_err();
    assert!(error.to_string().contains("lm_head.weight"));
}

#[test]
fn damaged_files_are_described() {
    let two = |second: String| format!("{{{},{second}}}", entry("a", "F32", "[2]", 0, 8));
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty", vec![], &["has 0 bytes"]),
        ("length beyond the file", 50_u64.to_le_bytes().to_vec(), &["truncated"]),
        ("huge length", u64::MAX.to_le_bytes().to_vec(), &["at most 16777216"]),
        ("not JSON", file("hello", 0), &["cannot be read"]),
        ("not an object", file("[]", 0), &["cannot be read"]),
        ("unknown type", file(&format!("{{{}}}", entry("a", "F7", "[1]", 0, 4)), 4), &["a: ", "F7"]),
        ("negative shape", file(&format!("{{{}}}", entry("a", "F32", "[-1]", 0, 4)), 4), &["a: "]),
        (
            "truncated data",
            file(&two(entry("b", "F32", "[2]", 8, 16)), 12),
            &["1 tensor is beyond its end", "download"],
        ),
        ("overlap", file(&two(entry("b", "F32", "[2]", 4, 12)), 12), &["tensor b", "inside another"]),
        ("gap", file(&two(entry("b", "F32", "[2]", 12, 20)), 20), &["bytes 8 to 12"]),
        ("rest", file(&two(entry("b", "F32", "[2]", 8, 16)), 20), &["last 4 bytes"]),
        ("shape", file(&two(entry("b", "F32", "[3]", 8, 16)), 16), &["tensor b has 8 bytes", "needs 12"]),
        ("reversed", file(&two(entry("b", "F32", "[2]", 16, 8)), 8), &["before it starts"]),
        (
            "overflow behind a zero",
            file(&two(entry("b", "F32", &format!("[0,{0},{0}]", u64::MAX), 8, 8)), 8),
            &["impossible shape"],
        ),
        ("overflow", file(&two(entry("b", "F32", &format!("[{0},{0}]", u64::MAX), 8, 16)), 16), &["impossible shape"]),
        (
            "huge offsets",
            file(&two(entry("b", "F32", "[2]", usize::MAX - 8, usize::MAX)), 8),
            &["bytes 8 to 18446744073709551607", "beyond its end"],
        ),
        ("duplicate", file(&two(entry("a", "F32", "[2]", 8, 16)), 16), &["a is there more than once"]),
        (
            "duplicate field",
            file(r#"{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}"#, 4),
            &["duplicate field"],
        ),
        (
            "several at once",
            file(&two(format!("{},{}", entry("b", "I8", "[2]", 8, 10), entry("c", "I8", "[1]", 12, 13))), 13),
            &["2 tensors are of type I8: b, c", "bytes 10 to 12"],
        ),
    ];
    for (case, bytes, expected) in cases {
        let message = error(&[(SINGLE_FILE, &bytes)]);
        for part in expected {
            assert!(message.contains(part), "{case}: {message}");
        }
        assert!(message.contains(SINGLE_FILE), "{case}: {message}");
    }
}

#[test]
fn indexes_that_lie_are_described() {
    let (a, b) = (one("a"), one("b"));
    let missing = error(&[
        (INDEX_FILE, &index(&[("a", "1.safetensors"), ("b", "2.safetensors"), ("c", "3.safetensors")])),
        ("2.safetensors", &b),
    ]);
    assert!(missing.contains("1.safetensors is missing") && missing.contains("3.safetensors is missing"), "{missing}");

    let twice = error(&[
        (INDEX_FILE, &index(&[("a", "1.safetensors"), ("b", "2.safetensors")])),
        ("1.safetensors", &a),
        ("2.safetensors", &a),
    ]);
    assert!(twice.contains("tensor a is in 1.safetensors and in 2.safetensors"), "{twice}");

    let elsewhere = error(&[
        (INDEX_FILE, &index(&[("a", "2.safetensors"), ("c", "1.safetensors")])),
        ("1.safetensors", &a),
        ("2.safetensors", &b),
    ]);
    for part in
        ["tensor a is not in 2.safetensors", "tensor c is not in 1.safetensors", "tensor b is in 2.safetensors but"]
    {
        assert!(elsewhere.contains(part), "{elsewhere}");
    }

    let duplicate = br#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors"}}"#;
    assert!(error(&[(INDEX_FILE, duplicate)]).contains("a is listed more than once"));
    assert!(error(&[(INDEX_FILE, b"{}")]).contains("weight_map"));
    assert!(error(&[(INDEX_FILE, br#"{"weight_map":{}}"#)]).contains("no tensors"));
    assert!(error(&[]).contains("neither"));
}

#[test]
fn only_the_first_of_many_problems_are_listed() {
    let entries: Vec<String> = (0..20_000).map(|i| entry(&format!("t{i}"), "F32", "[2]", 0, 4)).collect();
    let message = error(&[(SINGLE_FILE, &file(&format!("{{{}}}", entries.join(",")), 4))]);
    assert!(message.len() < 200_000, "{} bytes", message.len());
    assert!(message.lines().last().unwrap().ends_with("more"), "{message}");
    let integers: Vec<String> = (0..20_000).map(|i| entry(&format!("t{i}"), "I8", "[1]", i, i + 1)).collect();
    let message = error(&[(SINGLE_FILE, &file(&format!("{{{}}}", integers.join(",")), 20_000))]);
    assert!(message.contains("20000 tensors are of type I8") && message.len() < 5_000, "{} bytes", message.len());
}

#[test]
fn shard_names_cannot_leave_the_folder() {
    for name in ["../x", "/etc/passwd", "a/b", "..", ".", "", "a\\b", "C:x", "a\0b", "./a", "a/"] {
        let message = error(&[(INDEX_FILE, &index(&[("a", name)]))]);
        assert!(message.contains("not a plain file name"), "{name:?}: {message}");
    }
}

#[test]
fn an_index_beside_a_single_file_is_not_looked_at() {
    for map in [index(&[("b", "1.safetensors")]), b"{}".to_vec()] {
        let folder = folder(&[(INDEX_FILE, &map), (SINGLE_FILE, &one("a"))]);
        assert!(Checkpoint::open(folder.path()).unwrap().get("a").is_some());
    }
    let folder = folder(&[(INDEX_FILE, &index(&[("a", SINGLE_FILE)])), (SINGLE_FILE, &one("a"))]);
    assert!(Checkpoint::open(folder.path()).unwrap().get("a").is_some());
}

#[test]
fn a_folder_called_like_the_weights_is_refused() {
    let folder = folder(&[]);
    fs::create_dir(folder.path().join(SINGLE_FILE)).unwrap();
    assert!(matches!(Checkpoint::open(folder.path()), Err(CheckpointError::NotAFile { .. })));
}

#[test]
fn a_file_that_shrinks_after_opening_gives_an_error() {
    let folder = folder(&[(SINGLE_FILE, &one("a"))]);
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    fs::OpenOptions::new().write(true).open(folder.path().join(SINGLE_FILE)).unwrap().set_len(10).unwrap();
    let error = checkpoint.read_rows("a", 0, 1, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, CheckpointError::Read { .. }), "{error}");
}

/// Opens the bytes as a checkpoint and, where that works, reads every tensor: every offset has to be good.
fn open_and_read(bytes: &[u8]) -> bool {
    let folder = folder(&[(SINGLE_FILE, bytes)]);
    let Ok(checkpoint) = Checkpoint::open(folder.path()) else { return false };
    let mut out = Vec::new();
    for (name, info) in checkpoint.tensors() {
        checkpoint.read_rows(name, 0, info.rows(), &mut out).unwrap();
        assert_eq!(out.len(), info.rows() * info.columns());
    }
    true
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        open_and_read(&bytes);
    }

    #[test]
    fn random_headers_never_panic(header in r#"\{("[ab]":\{"dtype":"(F32|BF16|I8)","shape":\[[0-9]{0,2}\],"data_offsets":\[[0-9]{1,2},[0-9]{1,20}\]\},?){0,3}\}"#, data in 0_usize..40) {
        open_and_read(&file(&header, data));
    }

    #[test]
    fn truncated_files_are_refused(length in 0_usize..65_552) {
        let bytes = fs::read(fixture("tiny-random/all-attention/model.safetensors")).unwrap();
        prop_assert!(!open_and_read(&bytes[..length.min(bytes.len() - 1)]));
    }

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((0_usize..4_000, 0_u8..8), 1..4)) {
        let mut bytes = fs::read(fixture("tiny-random/all-attention/model.safetensors")).unwrap();
        for (position, bit) in flips {
            bytes[position] ^= 1 << bit;
        }
        open_and_read(&bytes);
    }

    #[test]
    fn damaged_indexes_never_panic(position in 0_usize..2_366, byte: u8, cut: bool) {
        let source = fixture("tiny-random/sharded");
        let mut text = fs::read(source.join(INDEX_FILE)).unwrap();
        let position = position.min(text.len() - 1);
        text[position] = byte;
        if cut {
            text.truncate(position);
        }
        let folder = folder(&[(INDEX_FILE, &text)]);
        for shard in ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"] {
            fs::copy(source.join(shard), folder.path().join(shard)).unwrap();
        }
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            prop_assert!(checkpoint.tensors().count() > 0);
        }
    }
}
