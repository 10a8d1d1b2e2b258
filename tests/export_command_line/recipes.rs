//! Number formats as they are asked for: presets, recipes and calibrations.

use std::collections::BTreeMap;
use std::fs;

use lfm2_export::checkpoint::Checkpoint;
use lfm2_export::recipe::Precision;
use lfm2_graphs::contract::{CALIBRATION_VERSION, Calibration, MANIFEST_NAME, Manifest};
use lfm2_tests::packages::{TINY_CHAT, fixture};
use lfm2_tests::programs::run;

use super::{copied, export, export_to, folder};

#[test]
fn without_a_precision_it_is_q4() {
    let (_folder, out) = folder("lfm2/");
    let printed = run(export_to(&fixture(TINY_CHAT), &out, &[])).answer();
    assert_eq!(printed, format!("{}\n", out.join("onnx/model_q4.onnx").display()));
    assert!(run(export(&["inspect", out.to_str().unwrap()])).answer().contains("contract: lfm2 q4,"));
}

#[test]
fn recipes_are_listed_and_printed() {
    let list = run(export(&["recipes"])).answer();
    for preset in Precision::ALL {
        assert!(list.lines().any(|line| line.starts_with(&format!("{preset} "))), "{preset} is missing in:\n{list}");
        assert_eq!(run(export(&["recipes", preset.as_str()])).answer(), preset.toml());
    }
    let json = run(export(&["recipes", "--json"])).json();
    assert_eq!(json[0]["name"], "q4");
    assert_eq!(json[0]["rules"][0]["bits_per_weight"], 5.125);
    assert!(run(export(&["recipes", "q5"])).failure(2).contains("q4-mixed"));
}

#[test]
fn a_recipe_from_a_file_names_the_graph() {
    let (folder, out) = folder("lfm2/");
    let path = folder.path().join("mine.toml");
    let recipe = Precision::Q4.toml().replace("name = \"q4\"", "name = \"mine\"");
    // The rows of this checkpoint have 64 and 72 values.
    let (_checkpoint, checkpoint) = copied("width-2");
    let mine = |text: &str| {
        fs::write(&path, text).unwrap();
        run(export_to(&checkpoint, &out, &["--recipe", path.to_str().unwrap()]))
    };
    assert!(
        mine(&recipe).failure(1).contains("blocks of 128 do not divide; write a recipe that gives it blocks of 64")
    );
    let wide = "[[rule]]\nweights = \"*.w2.weight\"\ndtype = \"float16\"\n";
    let small = recipe.replace("block = 128", "block = 32").replacen("[[rule]]", &format!("{wide}[[rule]]"), 1);
    mine(&small).answer();
    assert!(out.join("onnx/model_mine.onnx").is_file());
    let inspected = run(export(&["inspect", out.to_str().unwrap(), "--json"])).json();
    assert_eq!(inspected["graphs"][0]["contract"]["precision"], "mine");
    assert!(inspected["graphs"][0]["formats"]["float16"]["tensors"].as_u64() > Some(0));

    assert!(mine(&small.replace("mine", "q4")).failure(2).contains("a preset that this recipe differs from"));
    let slips = mine(&small.replace("bits = 4", "bits = 5").replace("method", "mode")).failure(2);
    assert!(slips.contains("mine.toml:") && slips.matches("`bits` is none of 4, 8").count() == 2, "{slips}");
    assert!(mine(&small.replace("w2", "w9")).failure(1).contains("names no table, head or matrix"));
    let both = ["--recipe", path.to_str().unwrap(), "--precision", "q4"];
    assert!(run(export_to(&checkpoint, &out, &both)).failure(2).contains("cannot be used with"));
}

#[test]
fn a_calibration_must_be_of_the_checkpoint() {
    let (folder, out) = folder("out/lfm2.onnx");
    let path = folder.path().join("calibration.json");
    run(export_to(&fixture(TINY_CHAT), &out, &[])).answer();
    let without = fs::read(out.with_file_name("lfm2.onnx_data")).unwrap();
    let manifest = fs::read_to_string(out.with_file_name(MANIFEST_NAME)).unwrap();
    let model = Manifest::from_json(&manifest).unwrap().model;
    let with = |calibration: &Calibration, precision: &str| {
        fs::write(&path, calibration.to_json().unwrap()).unwrap();
        run(export_to(&fixture(TINY_CHAT), &out, &["--precision", precision, "--calibration", path.to_str().unwrap()]))
    };
    let mut calibration = Calibration {
        version: CALIBRATION_VERSION,
        model,
        tokens: 1,
        weights: matrices().into_iter().map(|(name, columns)| (name, vec![2.5; columns])).collect(),
        states: BTreeMap::new(),
        ranges: BTreeMap::new(),
    };
    with(&calibration, "q4").answer();
    assert!(fs::read(out.with_file_name("lfm2.onnx_data")).unwrap() == without, "equal importance changes nothing");
    let table = calibration.weights.get_mut("model.embed_tokens.weight").unwrap();
    table.iter_mut().step_by(3).for_each(|square| *square = 100.0);
    with(&calibration, "q4").answer();
    let calibrated = fs::read(out.with_file_name("lfm2.onnx_data")).unwrap();
    assert!(calibrated != without && calibrated.len() == without.len());

    assert!(with(&calibration, "q8").failure(2).contains("searches for no numbers"));
    let model = std::mem::replace(&mut calibration.model, "another".to_owned());
    assert!(with(&calibration, "q4").failure(1).contains("of another checkpoint"));
    calibration.model = model;
    calibration.weights.remove("model.layers.0.conv.in_proj.weight");
    calibration.weights.get_mut("model.layers.0.conv.out_proj.weight").unwrap().pop();
    calibration.weights.get_mut("model.layers.1.feed_forward.w1.weight").unwrap()[3] = -1.0;
    let message = with(&calibration, "q4").failure(1);
    for part in [
        "nothing about `model.layers.0.conv.in_proj.weight`",
        "255 numbers for `model.layers.0.conv.out_proj.weight`, which has 256 columns",
        "`model.layers.1.feed_forward.w1.weight` are not all finite",
    ] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    fs::write(&path, "{}").unwrap();
    let arguments = ["--calibration", path.to_str().unwrap()];
    assert!(run(export_to(&fixture(TINY_CHAT), &out, &arguments)).failure(1).contains("calibration.json"));
    assert!(fs::read(out.with_file_name("lfm2.onnx_data")).unwrap() == calibrated, "failures change nothing");
}

/// Names and columns of the weights of tiny-chat that recipes are for.
fn matrices() -> Vec<(String, usize)> {
    let checkpoint = Checkpoint::open(&fixture(TINY_CHAT)).unwrap();
    let matrices = checkpoint.tensors().filter(|(_, tensor)| tensor.shape.len() == 2);
    matrices.map(|(name, tensor)| (name.to_owned(), tensor.columns())).collect()
}
