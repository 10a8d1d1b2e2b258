use std::collections::BTreeMap;

use lfm2_graphs::contract::{Dim, Target};

use super::{Checked, check, rules};
use crate::proto::{Model, Node, Port, Stored, Tensor};

/// A graph of one input `x` and one output `y`, with constants.
#[derive(Default)]
struct Built {
    model: Model,
}

impl Built {
    fn new(dtype: &str, shape: &[usize]) -> Self {
        let shape = shape.iter().map(|&size| Dim::Fixed(size)).collect();
        let input = Port { name: "x".to_owned(), dtype: dtype.to_owned(), shape };
        Self { model: Model { inputs: vec![input], ..Model::default() } }
    }

    fn constant(mut self, name: &str, dtype: &str, shape: &[i64], integers: &[i64]) -> Self {
        self.model.tensors.push(Tensor {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            shape: shape.to_vec(),
            bytes: 0,
            stored: Stored::Inline,
            integers: integers.to_vec(),
        });
        self
    }

    fn node(mut self, op: &str, inputs: &[&str], output: &str, attributes: &[(&str, &str)]) -> Self {
        self.model.nodes.push(Node {
            name: output.to_owned(),
            op: op.to_owned(),
            inputs: inputs.iter().map(|&it| it.to_owned()).collect(),
            outputs: output.split(',').map(str::to_owned).collect(),
            attributes: attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        });
        self
    }

    fn check(&self, target: Target) -> Checked {
        check("x.onnx", &self.model, rules(target).unwrap())
    }

    /// Asserts that a provider takes the graph, or the words of the one thing that it does not.
    #[track_caller]
    fn expect(self, target: Target, problem: Option<&str>) {
        let checked = self.check(target);
        let problems: Vec<_> = checked.breaches.iter().map(|breach| breach.problem.as_str()).collect();
        match problem {
            None => assert_eq!((problems, checked.partitions), (vec![], 1), "{target}"),
            Some(words) => {
                assert_eq!(problems.len(), 1, "{target}: {problems:?}");
                assert!(problems[0].contains(words), "{target}: {problems:?}");
            }
        }
    }
}

/// A product of `x` with itself, stored as these types in between.
fn integers(first: &str, second: &str) -> Built {
    let zeros = |built: Built, name: &str, dtype: &str| built.constant(name, dtype, &[], &[]);
    let built = zeros(zeros(Built::new("float32", &[2, 4, 4]), "first.zero", first), "second.zero", second);
    let stored =
        |built: Built, name: &str| {
            let [scale, zero, integers] = ["scale", "zero", "integers"].map(|part| format!("{name}.{part}"));
            built
                .constant(&scale, "float32", &[], &[])
                .node("QuantizeLinear", &["x", &scale, &zero], &integers, &[])
                .node("DequantizeLinear", &[&integers, &scale, &zero], name, &[])
        };
    stored(stored(built, "first"), "second").node("MatMul", &["first", "second"], "y", &[])
}

#[test]
fn products_of_two_unsigned_factors_are_cut_to_8_bits() {
    integers("uint16", "int16").expect(Target::Qnn, None);
    integers("int16", "uint16").expect(Target::Qnn, None);
    integers("uint16", "uint16").expect(Target::Qnn, Some("first.integers and second.integers are both uint16"));
    // Other providers take no integers at all.
    assert!(!integers("uint16", "int16").check(Target::Coreml).is_whole());
}

#[test]
fn weights_without_zero_points_come_out_as_others() {
    let product = |inputs: &[&str]| {
        Built::new("float32", &[2, 4])
            .constant("w", "int4", &[8, 4], &[])
            .constant("scales", "float32", &[8], &[])
            .constant("zeros", "int4", &[8], &[])
            .node("DequantizeLinear", inputs, "numbers", &[("axis", "0")])
            .node("Gemm", &["x", "numbers"], "y", &[("transB", "1")])
    };
    product(&["w", "scales", "zeros"]).expect(Target::Qnn, None);
    product(&["w", "scales"]).expect(Target::Qnn, Some("input 2 is left out"));
}

#[test]
fn norms_of_several_dimensions_of_rows_are_not_for_npus() {
    let norm = |shape: &[usize]| {
        Built::new("float32", shape).constant("scale", "float32", &[16], &[]).node(
            "SimplifiedLayerNormalization",
            &["x", "scale"],
            "y",
            &[("axis", "-1")],
        )
    };
    norm(&[1, 64, 16]).expect(Target::Qnn, None);
    norm(&[1, 1, 64, 16]).expect(Target::Qnn, None);
    norm(&[1, 4, 16, 16]).expect(Target::Qnn, Some("[1, 4, 16, 16]"));
    norm(&[4, 16, 16]).expect(Target::Qnn, Some("[4, 16, 16]"));
    // Other providers have no such operator.
    norm(&[1, 64, 16]).expect(Target::Coreml, Some("no such operator"));
}

#[test]
fn rows_are_cut_in_front_of_a_norm_and_not_behind_it() {
    let product = |first: [&str; 2], bits: &str| {
        let mut built = Built::new("float32", &[1, 16, 64]).constant("scale", "float32", &[64], &[]);
        for (name, value) in [("start", 15), ("end", 16), ("axis", 1)] {
            built = built.constant(name, "int64", &[1], &[value]);
        }
        for (op, input, output) in [(first[0], "x", "a"), (first[1], "a", "b")] {
            built = match op {
                "Slice" => built.node("Slice", &[input, "start", "end", "axis"], output, &[]),
                op => built.node(op, &[input, "scale"], output, &[]),
            };
        }
        built.constant("packed", "uint8", &[8, 2, 16], &[]).constant("scales", "float32", &[8, 2], &[]).node(
            "com.microsoft.MatMulNBits",
            &["b", "packed", "scales"],
            "y",
            &[("N", "8"), ("K", "64"), ("bits", bits), ("block_size", "32")],
        )
    };
    let norm = "SimplifiedLayerNormalization";
    product(["Slice", norm], "4").expect(Target::Qnn, None);
    product([norm, "Slice"], "4").expect(Target::Qnn, Some("cuts its input out of"));
    product([norm, "Slice"], "8").expect(Target::Qnn, None);
}

#[test]
fn packed_products_are_as_they_were_tried() {
    let product_of = |dtype: &str, shape: &[usize], block: &str, inputs: &[&str]| {
        let mut built = Built::new(dtype, shape);
        for name in ["packed", "zeros", "more"] {
            built = built.constant(name, "uint8", &[8, 2, 16], &[]);
        }
        built = built.constant("stored", "float16", &[8, 2], &[]).node("Cast", &["stored"], "scales", &[("to", "1")]);
        let attributes = [("N", "8"), ("K", "64"), ("bits", "4"), ("block_size", block)];
        built.node("com.microsoft.MatMulNBits", inputs, "y", &attributes)
    };
    let product = |shape: &[usize], block: &str, inputs: &[&str]| product_of("float32", shape, block, inputs);
    let inputs = ["x", "packed", "scales", "zeros", "more"];
    product(&[1, 4, 64], "32", &inputs[..4]).expect(Target::Qnn, None);
    product_of("float16", &[1, 4, 64], "32", &["x", "packed", "scales", "zeros"])
        .expect(Target::Qnn, Some("the input is float16"));
    product(&[1, 4, 64], "256", &inputs[..4]).expect(Target::Qnn, Some("block_size is 256"));
    product(&[4, 64], "32", &inputs[..4]).expect(Target::Qnn, Some("[4, 64]"));
    product(&[1, 4, 64], "32", &inputs).expect(Target::Qnn, Some("input 4, more, is given"));
}

#[test]
fn softmax_names_its_axis() {
    for target in [Target::Coreml, Target::Nnapi, Target::Qnn] {
        let softmax = |axis: &[(&str, &str)]| Built::new("float32", &[1, 4, 8]).node("Softmax", &["x"], "y", axis);
        softmax(&[("axis", "-1")]).expect(target, None);
        softmax(&[("axis", "2")]).expect(target, None);
        softmax(&[("axis", "1")]).expect(target, Some("axis is 1"));
        softmax(&[]).expect(target, Some("leaves out its axis"));
    }
}

#[test]
fn products_of_matrices_differ_between_providers() {
    let constant = |shape: &[usize]| {
        Built::new("float32", shape).constant("w", "float32", &[8, 4], &[]).node("MatMul", &["x", "w"], "y", &[])
    };
    constant(&[3, 8]).expect(Target::Nnapi, None);
    constant(&[1, 3, 8]).expect(Target::Coreml, None);
    constant(&[1, 3, 8]).expect(Target::Nnapi, Some("[1, 3, 8] and [8, 4]"));
    let stacks = |by: &[&str]| {
        let transpose = [("perm", "[0, 2, 1]")];
        Built::new("float32", &[2, 3, 8]).node("Transpose", &["x"], "t", &transpose).node("MatMul", by, "y", &[])
    };
    stacks(&["x", "t"]).expect(Target::Nnapi, None);

    // The runtime fuses the two, and Core ML takes no such Gemm.
    let sum = |shape: &[usize], other: &str| {
        Built::new("float32", shape)
            .constant("w", "float32", &[8, 8], &[])
            .constant("c", "float32", &[8], &[])
            .node("MatMul", &["x", "w"], "p", &[])
            .node("Add", &["p", other], "y", &[])
    };
    sum(&[1, 3, 8], "x").expect(Target::Coreml, None);
    sum(&[3, 8], "c").expect(Target::Coreml, None);
    sum(&[3, 8], "x").expect(Target::Coreml, Some("fused with p"));
}

#[test]
fn types_ranks_and_sizes_are_those_of_the_provider() {
    let add = |dtype: &str, shape: &[usize]| Built::new(dtype, shape).node("Sigmoid", &["x"], "y", &[]);
    let words = |built: &Built, target| {
        let checked = built.check(target);
        checked.breaches.iter().map(|it| it.problem.clone()).collect::<Vec<_>>().join("; ")
    };
    assert!(words(&add("float16", &[2, 3]), Target::Nnapi).contains("float16"));
    assert_eq!(words(&add("float16", &[2, 3]), Target::Coreml), "");
    assert!(words(&add("float32", &[1, 1, 1, 2, 3]), Target::Qnn).contains("more than 4 dimensions"));
    assert_eq!(words(&add("float32", &[1, 1, 1, 2, 3]), Target::Coreml), "");
    assert!(words(&add("float32", &[2, 0]), Target::Coreml).contains("empty"));
    assert!(words(&add("int64", &[2]), Target::Coreml).contains("only constants"));
    let mut open = add("float32", &[2, 3]);
    open.model.inputs[0].shape[0] = Dim::symbol("batch");
    assert!(words(&open, Target::Qnn).contains("not fixed"));
}

#[test]
fn bounds_are_constants_and_shapes_are_followed() {
    let mut built = Built::new("float32", &[1, 6, 8]);
    for (name, integers) in [("shape", &[2, 3, 8][..]), ("start", &[-2]), ("end", &[i64::MAX]), ("axis", &[1])] {
        built = built.constant(name, "int64", &[integers.len() as i64], integers);
    }
    let built = built
        .node("Reshape", &["x", "shape"], "r", &[])
        .node("Slice", &["r", "start", "end", "axis"], "s", &[])
        .node("Split", &["s"], "a,b", &[("axis", "-1"), ("num_outputs", "2")])
        .node("Concat", &["a", "b"], "c", &[("axis", "0")])
        .node("Transpose", &["c"], "y", &[("perm", "[1, 0, 2]")]);
    let known = super::shapes::infer(&built.model);
    let shape = |name: &str| known[name].shape.clone().unwrap();
    assert_eq!([shape("s"), shape("b"), shape("c"), shape("y")], [[2, 2, 8], [2, 2, 4], [4, 2, 4], [2, 4, 4]]);
    built.expect(Target::Nnapi, None);

    let moving = Built::new("float32", &[4]).node("Slice", &["x", "x", "x"], "y", &[]);
    let problems = moving.check(Target::Nnapi).breaches.into_iter().map(|it| it.problem).collect::<Vec<_>>();
    assert!(problems.iter().any(|it| it.contains("input 1, x, is not a constant")), "{problems:?}");
}

#[test]
fn what_is_not_followed_has_no_shape() {
    let slice = |step: &[i64]| {
        let mut built = Built::new("float32", &[1, 6, 8]);
        for (name, integers) in [("start", &[0][..]), ("end", &[6]), ("axis", &[1]), ("step", step)] {
            built = built.constant(name, "int64", &[integers.len() as i64], integers);
        }
        built.node("Slice", &["x", "start", "end", "axis", "step"], "y", &[])
    };
    slice(&[1]).expect(Target::Coreml, None);
    slice(&[2]).expect(Target::Coreml, Some("the shape of y is not fixed"));
    slice(&[-1]).expect(Target::Coreml, Some("the shape of y is not fixed"));

    // An output more than there are parts.
    let split = |outputs| {
        let built = Built::new("float32", &[4, 8]).constant("sizes", "int64", &[2], &[4, 4]);
        built.node("Split", &["x", "sizes"], outputs, &[("axis", "1")])
    };
    split("a,b").expect(Target::Coreml, None);
    split("a,b,c").expect(Target::Coreml, Some("the shape of c is not fixed"));
}

#[test]
fn weights_beside_the_graph_are_not_for_all() {
    let mut built = Built::new("float32", &[3, 8])
        .constant("w", "float32", &[8, 4], &[])
        .node("MatMul", &["x", "w"], "p", &[])
        .node("Sigmoid", &["p"], "y", &[]);
    let problems = |built: &Built, target| {
        let checked = built.check(target);
        checked.breaches.into_iter().map(|it| format!("{}: {}", it.node, it.problem)).collect::<Vec<_>>()
    };
    assert_eq!(problems(&built, Target::Nnapi), [""; 0]);
    built.model.tensors[0].stored = Stored::External { file: "x.onnx_data".to_owned(), offset: 0 };
    let found = problems(&built, Target::Nnapi);
    assert!(found.len() == 1 && found[0].starts_with("p: w lies in x.onnx_data"), "{found:?}");
    assert_eq!(problems(&built, Target::Coreml), [""; 0]);
    assert_eq!(problems(&built, Target::Qnn), [""; 0]);
}

#[test]
fn partitions_are_counted_and_everything_is_listed() {
    let built = Built::new("float32", &[2, 3])
        .node("Sigmoid", &["x"], "a", &[])
        .node("Erf", &["a"], "b", &[])
        .node("Sigmoid", &["a"], "y", &[])
        .node("Erf", &["y"], "z", &[]);
    let checked = built.check(Target::Coreml);
    assert_eq!((checked.partitions, checked.breaches.len(), checked.is_whole()), (2, 2, false));
    let text = checked.to_string();
    assert!(text.contains("b (Erf): there is no such operator") && text.contains("2 partitions of 4 nodes"), "{text}");
}

#[test]
fn every_rule_names_an_operator_once() {
    for target in [Target::Coreml, Target::Nnapi, Target::Qnn] {
        let names: BTreeMap<_, _> = rules(target).unwrap().operators.iter().map(|it| (it.name, it.source)).collect();
        assert_eq!(names.len(), rules(target).unwrap().operators.len(), "{target}");
        assert!(names.values().all(|source| !source.is_empty()));
    }
    assert!(rules(Target::Cpu).is_none() && rules(Target::Cuda).is_none());
}
