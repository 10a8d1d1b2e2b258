//! What providers take, as data. Each rule names where it is from: the provider's source, or a run of it.

use lfm2_graphs::contract::Target;

/// The rules of a provider. A node that keeps all of them is taken; nodes that are not split the graph.
#[derive(Debug)]
pub struct Rules {
    /// The provider.
    pub target: Target,
    /// Most dimensions of a tensor.
    pub most_dimensions: usize,
    /// Types of floats, of activations and constants.
    pub floats: &'static [&'static str],
    /// Types of integers, of activations.
    pub integers: &'static [&'static str],
    /// Whether the provider takes nodes with weights that lie in a file beside the graph.
    pub external: bool,
    /// The operators that the provider takes.
    pub operators: &'static [Operator],
    /// Where the rules above and the list of operators are from.
    pub source: &'static str,
    /// What no rule can tell.
    pub caveat: Option<&'static str>,
}

/// What holds for an operator beside the rules for all.
#[derive(Debug)]
pub struct Operator {
    /// Its name, with the domain if that is not the standard one.
    pub name: &'static str,
    /// Everything that a node must keep to.
    pub needs: &'static [Need],
    /// Where that is from.
    pub source: &'static str,
}

/// What a node must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The input at this place, if there is one, is a constant.
    Constant(usize),
    /// There is no input at this place.
    Without(usize),
    /// There is an input at this place.
    Given(usize),
    /// The first input has one of these types.
    Type(&'static [&'static str]),
    /// The first input has this many dimensions, neither fewer nor more.
    Rank(usize, usize),
    /// The attribute is there and has one of these values.
    Attribute(&'static str, &'static [&'static str]),
    /// The attribute, if it is there, has one of these values.
    Unless(&'static str, &'static [&'static str]),
    /// The softmax says that it is over the last dimension.
    LastAxis,
    /// All parts of a split have the same size.
    EqualParts,
    /// At most one dimension of the first input but the last is not 1.
    OneDimensionOfRows,
    /// The input does not come from a norm of more rows of which some are cut out.
    NoRowsCutFromNorm,
    /// A matrix by a constant matrix, or two stacks of as many matrices.
    MatrixOrEqualStacks,
    /// Not both inputs are uint16 that is not constant.
    NotTwoUnsigned,
    /// No sum of a product of matrices with something that is not constant, because the runtime makes a `Gemm` of it.
    NoSumOfMatrices,
}

/// The rules of a static target.
pub fn rules(target: Target) -> Option<&'static Rules> {
    [&COREML, &NNAPI, &QNN].into_iter().find(|rules| rules.target == target)
}

const fn op(name: &'static str, needs: &'static [Need], source: &'static str) -> Operator {
    Operator { name, needs, source }
}

const COREML_SOURCE: &str = "ONNX Runtime, core/providers/coreml/builders/impl";
const NNAPI_SOURCE: &str = "ONNX Runtime, core/providers/nnapi/nnapi_builtin/builders/impl";
const QNN_RUN: &str = "runs of onnxruntime-qnn 2.7.0 on the HTP simulator";

/// Slices whose bounds are known.
const SLICE: &[Need] = &[Need::Constant(1), Need::Constant(2), Need::Constant(3), Need::Constant(4)];

static COREML: Rules = Rules {
    target: Target::Coreml,
    most_dimensions: 5,
    floats: &["float16", "float32"],
    integers: &[],
    external: true,
    operators: &[
        op(
            "Add",
            &[Need::NoSumOfMatrices],
            "ONNX Runtime, MatMulAddFusion and coreml/builders/impl/gemm_op_builder.cc",
        ),
        op("Cast", &[], COREML_SOURCE),
        op("Concat", &[], COREML_SOURCE),
        op("Div", &[], COREML_SOURCE),
        op(
            "Gemm",
            &[Need::Constant(1), Need::Constant(2), Need::Unless("transA", &["0"]), Need::Unless("alpha", &["1"])],
            "ONNX Runtime, coreml/builders/impl/gemm_op_builder.cc",
        ),
        op("MatMul", &[Need::Rank(2, 5)], "ONNX Runtime, coreml/builders/impl/gemm_op_builder.cc"),
        op("Mul", &[], COREML_SOURCE),
        op("ReduceMean", &[Need::Constant(1)], "ONNX Runtime, coreml/builders/impl/reduction_op_builder.cc"),
        op("Reshape", &[Need::Constant(1)], "ONNX Runtime, coreml/builders/impl/reshape_op_builder.cc"),
        op("Sigmoid", &[], COREML_SOURCE),
        op("Slice", SLICE, "ONNX Runtime, coreml/builders/impl/slice_op_builder.cc"),
        op("Softmax", &[Need::LastAxis], "ONNX Runtime, coreml/builders/impl/softmax_op_builder.cc"),
        op("Split", &[Need::Constant(1)], "ONNX Runtime, coreml/builders/impl/split_op_builder.cc"),
        op("Sqrt", &[], COREML_SOURCE),
        op("Sub", &[], COREML_SOURCE),
        op("Transpose", &[], COREML_SOURCE),
    ],
    source: COREML_SOURCE,
    caveat: Some("read from the provider's source, not run: ML programs only"),
};

static NNAPI: Rules = Rules {
    target: Target::Nnapi,
    most_dimensions: 4,
    floats: &["float32"],
    integers: &[],
    external: false,
    operators: &[
        op("Add", &[], NNAPI_SOURCE),
        op(
            "Cast",
            &[Need::Attribute("to", &["1", "6"])],
            "ONNX Runtime, nnapi_builtin/builders/impl/cast_op_builder.cc",
        ),
        op("Concat", &[], NNAPI_SOURCE),
        op("Div", &[], NNAPI_SOURCE),
        op(
            "Gemm",
            &[Need::Constant(1), Need::Constant(2), Need::Unless("transA", &["0"]), Need::Unless("alpha", &["1"])],
            "ONNX Runtime, nnapi_builtin/builders/impl/gemm_op_builder.cc",
        ),
        op("MatMul", &[Need::MatrixOrEqualStacks], "ONNX Runtime, nnapi_builtin/builders/impl/gemm_op_builder.cc"),
        op("Mul", &[], NNAPI_SOURCE),
        op("ReduceMean", &[Need::Constant(1)], "ONNX Runtime, nnapi_builtin/builders/impl/reduction_op_builder.cc"),
        op("Reshape", &[Need::Constant(1)], "ONNX Runtime, nnapi_builtin/builders/impl/reshape_op_builder.cc"),
        op("Sigmoid", &[], NNAPI_SOURCE),
        op("Slice", SLICE, "ONNX Runtime, nnapi_builtin/builders/impl/slice_op_builder.cc"),
        op(
            "Softmax",
            &[Need::LastAxis],
            "ONNX Runtime, nnapi_builtin/builders/impl/softmax_op_builder.cc: an axis left out is read as 1",
        ),
        op("Split", &[Need::EqualParts], "ONNX Runtime, nnapi_builtin/builders/impl/split_op_builder.cc"),
        op("Sqrt", &[], NNAPI_SOURCE),
        op("Sub", &[], NNAPI_SOURCE),
        op("Transpose", &[], NNAPI_SOURCE),
    ],
    source: NNAPI_SOURCE,
    caveat: Some("read from the provider's source, not run: the session must leave out the optimizer MatMulAddFusion"),
};

static QNN: Rules = Rules {
    target: Target::Qnn,
    most_dimensions: 4,
    floats: &["float16", "float32"],
    integers: &["int16", "uint16"],
    external: true,
    operators: &[
        op("Add", &[], QNN_RUN),
        op("Cast", &[], QNN_RUN),
        op("Concat", &[], QNN_RUN),
        op(
            "DequantizeLinear",
            &[Need::Constant(1), Need::Constant(2), Need::Given(2)],
            "runs of onnxruntime-qnn 2.7.0 on the HTP simulator: weights of 4 bits without zero points came out as garbage",
        ),
        op("Div", &[], QNN_RUN),
        op("Gemm", &[Need::Constant(1), Need::Constant(2)], QNN_RUN),
        op(
            "MatMul",
            &[Need::Rank(2, 4), Need::NotTwoUnsigned],
            "runs of onnxruntime-qnn 2.7.0 on the HTP simulator: of two factors of uint16 the second one is cut to 8 bits without a word",
        ),
        op("Mul", &[], QNN_RUN),
        op("QuantizeLinear", &[Need::Constant(1), Need::Constant(2)], QNN_RUN),
        op("ReduceMean", &[Need::Constant(1)], QNN_RUN),
        op("Reshape", &[Need::Constant(1)], QNN_RUN),
        op("Sigmoid", &[], QNN_RUN),
        op(
            "SimplifiedLayerNormalization",
            &[Need::OneDimensionOfRows, Need::Constant(1)],
            "runs of onnxruntime-qnn 2.7.0 on the HTP simulator, and a report from devices: with several dimensions of rows it computes garbage",
        ),
        op("Slice", SLICE, QNN_RUN),
        op("Softmax", &[Need::LastAxis], QNN_RUN),
        op("Split", &[Need::Constant(1)], QNN_RUN),
        op("Sqrt", &[], QNN_RUN),
        op("Sub", &[], QNN_RUN),
        op("Transpose", &[], QNN_RUN),
        op(
            "com.microsoft.MatMulNBits",
            &[
                Need::Type(&["float32"]),
                Need::Rank(3, 3),
                Need::Constant(1),
                Need::Constant(2),
                Need::Constant(3),
                Need::Without(4),
                Need::Without(5),
                Need::Attribute("bits", &["4", "8"]),
                // Blocks of 256 were not tried.
                Need::Attribute("block_size", &["16", "32", "64", "128"]),
                Need::NoRowsCutFromNorm,
            ],
            "runs of onnxruntime-qnn 2.7.0 on the HTP simulator; in graphs of float16 some products were wrong that are right alone, and so were those of 4 bits behind a slice of a norm",
        ),
    ],
    source: QNN_RUN,
    caveat: None,
};
