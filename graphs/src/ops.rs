//! The ONNX vocabulary: one line per operator that graphs may contain.
//!
//! Standard operators are written as of opset 21. `com.microsoft` operators are ONNX Runtime's contrib kernels, documented in
//! its `ContribOperators.md`; only the files under `lower/` may emit them.

/// An operator of the vocabulary.
#[derive(Debug, PartialEq, Eq)]
pub struct Op {
    /// Name in the schema.
    pub name: &'static str,
    /// Domain; empty for standard operators.
    pub domain: &'static str,
    /// Fewest and most inputs.
    pub inputs: (usize, usize),
    /// Most outputs.
    pub outputs: usize,
}

/// Version of the standard operator set that the vocabulary is written in.
pub const OPSET: u32 = 21;

/// Domain of ONNX Runtime's contrib operators.
pub const CONTRIB: &str = "com.microsoft";

/// Most inputs of operators that take any number.
const MANY: usize = 1 << 16;

macro_rules! ops {
    ($($constant:ident = $domain:expr, $name:literal, $fewest:expr, $most:expr, $outputs:expr;)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub static $constant: Op = Op { name: $name, domain: $domain, inputs: ($fewest, $most), outputs: $outputs };
        )*
        /// Every operator of the vocabulary.
        pub static ALL: &[&Op] = &[$(&$constant),*];
    };
}

ops! {
    ABS = "", "Abs", 1, 1, 1;
    ADD = "", "Add", 2, 2, 1;
    AND = "", "And", 2, 2, 1;
    CAST = "", "Cast", 1, 1, 1;
    CONCAT = "", "Concat", 1, MANY, 1;
    CONV = "", "Conv", 2, 3, 1;
    DEQUANTIZE_LINEAR = "", "DequantizeLinear", 2, 3, 1;
    DIV = "", "Div", 2, 2, 1;
    EXPAND = "", "Expand", 2, 2, 1;
    GATHER = "", "Gather", 2, 2, 1;
    GEMM = "", "Gemm", 2, 3, 1;
    LESS_OR_EQUAL = "", "LessOrEqual", 2, 2, 1;
    MATMUL = "", "MatMul", 2, 2, 1;
    MAX = "", "Max", 1, MANY, 1;
    MUL = "", "Mul", 2, 2, 1;
    NEG = "", "Neg", 1, 1, 1;
    QUANTIZE_LINEAR = "", "QuantizeLinear", 2, 3, 1;
    RANGE = "", "Range", 3, 3, 1;
    REDUCE_MAX = "", "ReduceMax", 1, 2, 1;
    REDUCE_MEAN = "", "ReduceMean", 1, 2, 1;
    REDUCE_MIN = "", "ReduceMin", 1, 2, 1;
    REDUCE_SUM = "", "ReduceSum", 1, 2, 1;
    REDUCE_SUM_SQUARE = "", "ReduceSumSquare", 1, 2, 1;
    RESHAPE = "", "Reshape", 2, 2, 1;
    SHAPE = "", "Shape", 1, 1, 1;
    SIGMOID = "", "Sigmoid", 1, 1, 1;
    SLICE = "", "Slice", 3, 5, 1;
    SOFTMAX = "", "Softmax", 1, 1, 1;
    SPLIT = "", "Split", 1, 2, MANY;
    SQRT = "", "Sqrt", 1, 1, 1;
    SUB = "", "Sub", 2, 2, 1;
    TRANSPOSE = "", "Transpose", 1, 1, 1;
    UNSQUEEZE = "", "Unsqueeze", 2, 2, 1;
    WHERE = "", "Where", 3, 3, 1;
    // Registered by ONNX Runtime in the standard domain although the ONNX standard does not have it.
    SIMPLIFIED_LAYER_NORMALIZATION = "", "SimplifiedLayerNormalization", 2, 2, 1;
    CAUSAL_CONV_WITH_STATE = CONTRIB, "CausalConvWithState", 2, 4, 2;
    GATHER_BLOCK_QUANTIZED = CONTRIB, "GatherBlockQuantized", 3, 4, 1;
    GROUP_QUERY_ATTENTION = CONTRIB, "GroupQueryAttention", 7, 16, 3;
    MATMUL_INTEGER_TO_FLOAT = CONTRIB, "MatMulIntegerToFloat", 4, 7, 1;
    MATMUL_NBITS = CONTRIB, "MatMulNBits", 3, 6, 1;
    SKIP_SIMPLIFIED_LAYER_NORMALIZATION = CONTRIB, "SkipSimplifiedLayerNormalization", 3, 4, 4;
}

/// Operators that give the numbers of their first input another order or shape, or a part of them.
pub fn moves(op: &Op) -> bool {
    [&RESHAPE, &SLICE, &SPLIT, &TRANSPOSE, &UNSQUEEZE].contains(&op)
}

/// Operators whose results lie between 0 and 1.
pub fn is_fraction(op: &Op) -> bool {
    [&SIGMOID, &SOFTMAX].contains(&op)
}

/// Operators that only ONNX Runtime has, in whichever domain it registers them.
pub fn is_vendor(op: &Op) -> bool {
    op.domain == CONTRIB || op == &SIMPLIFIED_LAYER_NORMALIZATION
}
