//! ONNX files to plain data, for reports. Files of any exporter are read, not only ours.

use std::collections::BTreeMap;
use std::io;

use lfm2_graphs::contract::Dim;
use prost::Message;
use serde::Serialize;

use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::{DataLocation, DataType},
    tensor_shape_proto::dimension,
    type_proto,
};

/// What an ONNX file says, without the bytes of its tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// Version of each operator set, by domain.
    pub opsets: BTreeMap<String, i64>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Inputs of the graph.
    pub inputs: Vec<Port>,
    /// Outputs of the graph.
    pub outputs: Vec<Port>,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Initializers.
    pub tensors: Vec<Tensor>,
}

/// An input or output of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Name in the graph.
    pub name: String,
    /// Element type, named as ONNX names it in lower case.
    pub dtype: String,
    /// Numbers, and names of sizes that the caller chooses; `?` where nothing is said.
    pub shape: Vec<Dim>,
}

impl Port {
    /// Type and shape in one: `float32[batch_size, 256, 2]`.
    pub fn kind(&self) -> String {
        let sizes: Vec<_> = self.shape.iter().map(ToString::to_string).collect();
        format!("{}[{}]", self.dtype, sizes.join(", "))
    }
}

/// One operator call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Name in the graph.
    pub name: String,
    /// Operator, with its domain if that is not the standard one: `com.microsoft.MatMulNBits`.
    pub op: String,
    /// Names of the inputs; an empty one is left out.
    pub inputs: Vec<String>,
    /// Names of the outputs; an empty one is left out.
    pub outputs: Vec<String>,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
}

/// An initializer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Name in the graph.
    pub name: String,
    /// Element type, named as ONNX names it in lower case.
    pub dtype: String,
    /// Shape.
    pub shape: Vec<i64>,
    /// Number of bytes.
    pub bytes: u64,
    /// Where they are.
    pub stored: Stored,
    /// The values of int64 lists in the ONNX file, which shapes are made of; empty for everything else.
    pub integers: Vec<i64>,
}

/// Where the bytes of an initializer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In the ONNX file.
    Inline,
    /// In another file.
    External {
        /// Name of the file, relative to the ONNX file.
        file: String,
        /// First byte.
        offset: u64,
    },
}

/// Why bytes are not an ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The file system refused.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A field that ends behind the message that it is a part of, or has no known type.
    #[error("not an ONNX file, or not all of one")]
    Malformed,
    /// Not protobuf, or not of this schema.
    #[error("not an ONNX file: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A model without a graph.
    #[error("not an ONNX file: it has no graph")]
    NoGraph,
    /// A tensor of a size that cannot be.
    #[error("the size of the tensor `{tensor}` is beyond any file")]
    Sizes {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor that says it is external without saying where.
    #[error(
        "the tensor `{tensor}` says that its bytes are in another file, but its `{key}` is missing or not a number"
    )]
    External {
        /// Name of the tensor.
        tensor: String,
        /// The entry that is missing.
        key: &'static str,
    },
}

/// Reads an ONNX file.
pub fn decode(bytes: &[u8]) -> Result<Model, DecodeError> {
    let model = ModelProto::decode(bytes)?;
    let graph = model.graph.ok_or(DecodeError::NoGraph)?;
    let GraphProto { node, initializer, input, output, .. } = graph;
    Ok(Model {
        producer: [model.producer_name, model.producer_version].into_iter().flatten().collect::<Vec<_>>().join(" "),
        opsets: model
            .opset_import
            .into_iter()
            .map(|import| (import.domain.unwrap_or_default(), import.version.unwrap_or_default()))
            .collect(),
        metadata: entries(model.metadata_props),
        inputs: input.into_iter().map(port).collect(),
        outputs: output.into_iter().map(port).collect(),
        nodes: node.into_iter().map(decode_node).collect(),
        tensors: initializer.into_iter().map(decode_tensor).collect::<Result<_, _>>()?,
    })
}

fn decode_node(node: NodeProto) -> Node {
    let op = node.op_type.unwrap_or_default();
    Node {
        name: node.name.unwrap_or_default(),
        op: match node.domain.filter(|domain| !domain.is_empty() && domain != "ai.onnx") {
            Some(domain) => format!("{domain}.{op}"),
            None => op,
        },
        inputs: node.input,
        outputs: node.output,
        attributes: node.attribute.into_iter().map(attribute).collect(),
    }
}

fn attribute(attribute: AttributeProto) -> (String, String) {
    let value = match attribute.r#type.and_then(|kind| AttributeType::try_from(kind).ok()) {
        Some(AttributeType::Int) => attribute.i.unwrap_or_default().to_string(),
        Some(AttributeType::Float) => attribute.f.unwrap_or_default().to_string(),
        Some(AttributeType::String) => {
            format!("{:?}", String::from_utf8_lossy(&attribute.s.unwrap_or_default()))
        }
        Some(AttributeType::Ints) => format!("{:?}", attribute.ints),
        Some(AttributeType::Floats) => format!("{:?}", attribute.floats),
        Some(AttributeType::Tensor) => match attribute.t.map(decode_tensor) {
            Some(Ok(tensor)) => format!("tensor {}{:?}", tensor.dtype, tensor.shape),
            _ => "tensor".to_owned(),
        },
        Some(other) => other.as_str_name().to_lowercase(),
        None => "?".to_owned(),
    };
    (attribute.name.unwrap_or_default(), value)
}

fn decode_tensor(tensor: TensorProto) -> Result<Tensor, DecodeError> {
    let name = tensor.name.unwrap_or_default();
    let kind = tensor.data_type.and_then(|kind| DataType::try_from(kind).ok()).unwrap_or(DataType::Undefined);
    // What the shape says; a tensor of texts has no size of its own.
    let described = || {
        let sizes = tensor.dims.iter().map(|&size| u64::try_from(size).ok());
        let mut sizes = [Some(type_bits(kind))].into_iter().chain(sizes);
        sizes.try_fold(1_u64, |product, size| product.checked_mul(size?)).map(|bits| bits.div_ceil(8))
    };
    let too_large = || DecodeError::Sizes { tensor: name.clone() };
    let (bytes, stored) = if tensor.data_location == Some(DataLocation::External as i32) {
        let entries = entries(tensor.external_data);
        let file = entries.get("location").cloned();
        let file = file.ok_or_else(|| DecodeError::External { tensor: name.clone(), key: "location" })?;
        // The format allows leaving both out: the file then begins with the tensor, and the shape tells where it ends.
        let number = |key: &'static str| match entries.get(key).map(|text| text.parse::<u64>()) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(DecodeError::External { tensor: name.clone(), key }),
        };
        let length = match number("length")? {
            Some(length) => length,
            None => described().ok_or_else(too_large)?,
        };
        (length, Stored::External { file, offset: number("offset")?.unwrap_or(0) })
    } else {
        let length = match &tensor.raw_data {
            Some(raw) => raw.len() as u64,
            None => described().ok_or_else(too_large)?,
        };
        (length, Stored::Inline)
    };
    let integers = match (&stored, kind, &tensor.raw_data) {
        (Stored::Inline, DataType::Int64, Some(raw)) => {
            raw.as_chunks().0.iter().map(|it| i64::from_le_bytes(*it)).collect()
        }
        (Stored::Inline, DataType::Int64, None) => tensor.int64_data,
        _ => Vec::new(),
    };
    Ok(Tensor { name, dtype: type_name(kind), shape: tensor.dims, bytes, stored, integers })
}

fn port(value: ValueInfoProto) -> Port {
    let name = value.name.unwrap_or_default();
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.and_then(|kind| kind.value) else {
        return Port { name, dtype: "not a tensor".to_owned(), shape: Vec::new() };
    };
    let kind = tensor.elem_type.and_then(|kind| DataType::try_from(kind).ok()).unwrap_or(DataType::Undefined);
    let dims = tensor.shape.map(|shape| shape.dim).unwrap_or_default();
    let dim = |value| match value {
        Some(dimension::Value::DimValue(size)) => match usize::try_from(size) {
            Ok(size) => Dim::Fixed(size),
            // Some exporters write -1 for what they do not know.
            Err(_) => Dim::Symbol(size.to_string()),
        },
        Some(dimension::Value::DimParam(name)) => Dim::Symbol(name),
        None => Dim::symbol("?"),
    };
    Port { name, dtype: type_name(kind), shape: dims.into_iter().map(|it| dim(it.value)).collect() }
}

/// Bits of one element; 0 for those without a fixed size.
fn type_bits(kind: DataType) -> u64 {
    match kind {
        DataType::Undefined | DataType::String => 0,
        DataType::Uint2 | DataType::Int2 => 2,
        DataType::Uint4 | DataType::Int4 | DataType::Float4e2m1 => 4,
        DataType::Float6e2m3 | DataType::Float6e3m2 => 6,
        DataType::Uint8
        | DataType::Int8
        | DataType::Bool
        | DataType::Float8e4m3fn
        | DataType::Float8e4m3fnuz
        | DataType::Float8e5m2
        | DataType::Float8e5m2fnuz
        | DataType::Float8e8m0 => 8,
        DataType::Uint16 | DataType::Int16 | DataType::Float16 | DataType::Bfloat16 => 16,
        DataType::Float | DataType::Int32 | DataType::Uint32 => 32,
        DataType::Int64 | DataType::Double | DataType::Uint64 | DataType::Complex64 => 64,
        DataType::Complex128 => 128,
    }
}

/// ONNX calls 32-bit floats just FLOAT; every other name says its width.
fn type_name(kind: DataType) -> String {
    match kind {
        DataType::Float => "float32".to_owned(),
        DataType::Double => "float64".to_owned(),
        other => other.as_str_name().to_lowercase(),
    }
}

fn entries(list: Vec<StringStringEntryProto>) -> BTreeMap<String, String> {
    list.into_iter().map(|entry| (entry.key.unwrap_or_default(), entry.value.unwrap_or_default())).collect()
}
