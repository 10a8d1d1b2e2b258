use lfm2_graphs::contract::PRECISIONS;

use super::*;

fn parse(text: &str) -> Result<Recipe, RecipeError> {
    Recipe::parse(text, "my.toml")
}

fn problems(text: &str) -> Vec<String> {
    parse(text).unwrap_err().problems
}

const RULE: &str = "weights = \"matrix\"\nbits = 4\nblock = 32\nsymmetric = true\nmethod = \"round\"\n";
const HEAD: &str = "name = \"mine\"\ndescription = \"x\"\nactivations = \"float32\"\n";

fn weight(name: &str, role: Role) -> Weight {
    Weight { name: name.to_owned(), shape: vec![8, 256], role, format: Format::Dense(DType::Float32) }
}

#[test]
fn every_preset_can_be_read_and_has_its_name() {
    for preset in Precision::ALL {
        let recipe = preset.recipe().unwrap();
        assert_eq!(recipe.name, preset.as_str());
        assert_eq!(recipe.suffix(), preset.suffix());
        assert_eq!(preset.as_str().parse(), Ok(preset));
    }
    assert_eq!(Precision::default(), Precision::Q4);
    assert_eq!(Precision::Q8.suffix(), "_quantized");
    assert_eq!(Precision::Q4Mixed.suffix(), "_q4-mixed");
}

#[test]
fn presets_are_preferred_in_the_order_of_hosts() {
    assert_eq!(Precision::preferred().map(Precision::as_str), PRECISIONS);
}

#[test]
fn the_first_rule_that_names_a_weight_counts() {
    let text = format!("{HEAD}[[rule]]\nweights = [\"*.w2.weight\", \"head\"]\ndtype = \"float16\"\n[[rule]]\n{RULE}");
    let recipe = parse(&text).unwrap();
    let blocks = Blocks { bits: 4, block_size: 32, zero_points: false, scales: DType::Float32 };
    for (name, role, expected) in [
        ("model.layers.0.feed_forward.w2.weight", Role::Matrix, Format::Dense(DType::Float16)),
        ("model.layers.0.feed_forward.w1.weight", Role::Matrix, Format::Blocks(blocks)),
        ("lm_head.weight", Role::Head, Format::Dense(DType::Float16)),
        ("model.embed_tokens.weight", Role::Table, Format::Dense(DType::Float32)),
        ("x.w2.weight", Role::Vector, Format::Dense(DType::Float32)),
        ("x.w2.weight", Role::Kernel, Format::Dense(DType::Float32)),
    ] {
        assert_eq!(recipe.format(name, role), expected, "{name}");
    }
    assert!(recipe.is_quantized());
    assert!(!recipe.searches());
}

#[test]
fn everything_that_is_wrong_is_told_with_its_line() {
    let text = "name = \"Mine!\"\ncolour = 1\nactivations = \"int8\"\n\n[[rule]]\nweights = \"matrices\"\nbits = 3\nblock = 48\nsymmetric = 1\nmethod = \"guess\"\n\n[[rule]]\nweights = []\nbits = 4\n\n[[rule]]\ndtype = \"float16\"\nbits = 4\n";
    let expected = [
        "my.toml:2: there is no key `colour`",
        "my.toml:1: `name` becomes part of file names",
        "my.toml:1: `description` is missing",
        "my.toml:3: `activations` is neither",
        "my.toml:6: `weights`: \"matrices\" is neither one of table, head, matrix",
        "my.toml:7: `bits` is none of 4, 8",
        "my.toml:8: `block` is none of 16, 32, 64, 128, 256",
        "my.toml:9: `symmetric` is neither true nor false",
        "my.toml:10: `method` is not \"round\" or \"search\"",
        "my.toml:13: `weights` is empty",
        "my.toml:12: `block` is missing",
        "my.toml:12: `symmetric` is missing",
        "my.toml:12: `method` is missing",
        "my.toml:16: `weights` is missing",
        "my.toml:18: `bits` is for blocks",
    ];
    let found = problems(text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\ninstead of {expected}");
    }
}

#[test]
fn what_is_no_toml_is_told_alone() {
    let found = problems("name = \"mine\"\nactivations = float32\n[[rule]\n");
    assert!(
        !found.is_empty() && found.iter().all(|it| it.starts_with("my.toml:2:") || it.starts_with("my.toml:3:")),
        "{found:?}"
    );
    for text in ["rule = 3\n", "[rule]\nbits = 4\n", "rule = [1]\n"] {
        let found = problems(&format!("{HEAD}{text}"));
        assert!(found[0].contains("[[rule]]"), "{found:?}");
    }
}

#[test]
fn wider_weights_than_activations_are_refused() {
    let text = HEAD.replace("float32", "float16") + "[[rule]]\nweights = \"matrix\"\ndtype = \"float32\"\n";
    assert!(problems(&text)[0].starts_with("my.toml:6: `dtype`: float32 weights would be rounded"));
}

#[test]
fn rules_that_change_nothing_are_refused() {
    let rule = |weights: &str| format!("[[rule]]\n{}", RULE.replace("\"matrix\"", weights));
    let text = format!("{HEAD}{}{}{}", rule("\"matrix\""), rule("\"*.w2.weight\""), rule("\"*.w9.weight\""));
    let weights = [weight("a.w2.weight", Role::Matrix), weight("b.w9.weight", Role::Vector)];
    let found = parse(&text).unwrap().refuse_idle(weights.iter()).unwrap_err().problems;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].starts_with(
            "my.toml:10: all weights that `*.w2.weight` names follow earlier rules, such as that of line 4"
        )
    );
    assert!(found[1].starts_with("my.toml:16: `*.w9.weight` names no table, head or matrix"), "{found:?}");
    for preset in Precision::ALL {
        let weights = [weight("model.embed_tokens.weight", Role::Table), weight("a.w2.weight", Role::Matrix)];
        preset.recipe().unwrap().refuse_idle(weights.iter()).unwrap();
    }
}

#[test]
fn a_file_takes_no_name_of_a_preset() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.toml");
    let load = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Recipe::load(&path)
    };
    load(Precision::Q4.toml()).unwrap();
    let changed = Precision::Q4.toml().replace("block = 128", "block = 64");
    let error = load(&changed).unwrap_err();
    assert!(matches!(&error, RecipeFileError::PresetName { name, .. } if name == "q4"), "{error}");
    load(&changed.replace("name = \"q4\"", "name = \"mine\"")).unwrap();
    for name in ["quantized", "calibrate"] {
        let error = load(&changed.replace("name = \"q4\"", &format!("name = \"{name}\""))).unwrap_err();
        assert!(matches!(&error, RecipeFileError::FileName { .. }), "{error}");
    }
    assert!(Recipe::load(&folder.path().join("none")).unwrap_err().to_string().contains("none"));
    std::fs::write(&path, [0xff]).unwrap();
    assert!(matches!(Recipe::load(&path), Err(RecipeFileError::Io { .. })));
}

#[test]
fn bits_count_scales_and_zero_points() {
    let bits =
        |preset: Precision| -> Vec<f64> { preset.recipe().unwrap().rules.iter().map(|it| it.choice.bits()).collect() };
    assert_eq!(bits(Precision::Q4), [5.125, 4.25]);
    assert_eq!(bits(Precision::Q4f16), [4.625, 4.125]);
    assert_eq!(bits(Precision::Q8), [9.0]);
}
