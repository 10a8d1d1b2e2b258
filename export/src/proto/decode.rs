//! ONNX files to plain data, for reports. Files of any exporter are read, not only ours.

use std::collections::BTreeMap;

use prost::Message;

use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::{DataLocation, DataType},
    tensor_shape_proto::dimension,
    type_proto,
};

/// What an ONNX file says, without the bytes of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Name and version of the program that wrote the file.
    pub producer: String,
    /// Version of each operator set, by domain.
    pub opsets: BTreeMap<String, i64>,
    /// Free text by key.
    pub metadata: BTreeMap<String, String>,
    /// Inputs of the graph: name, then element type and shape as text.
    pub inputs: Vec<(String, String)>,
    /// Outputs of the graph: name, then element type and shape as text.
    pub outputs: Vec<(String, String)>,
    /// Nodes in execution order.
    pub nodes: Vec<Node>,
    /// Initializers.
    pub tensors: Vec<Tensor>,
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
    /// Where the bytes are.
    pub stored: Stored,
}

/// Where the bytes of an initializer are, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In the ONNX file.
    Inline {
        /// Number of bytes.
        length: u64,
    },
    /// In another file.
    External {
        /// Name of the file, relative to the ONNX file.
        file: String,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

/// Why bytes are not an ONNX file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not protobuf, or not of this schema.
    #[error("not an ONNX file: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A model without a graph.
    #[error("not an ONNX file: it has no graph")]
    NoGraph,
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
    let stored = if tensor.data_location == Some(DataLocation::External as i32) {
        let entries = entries(tensor.external_data);
        let missing = |key| DecodeError::External { tensor: name.clone(), key };
        let number = |key| entries.get(key).and_then(|text| text.parse().ok()).ok_or_else(|| missing(key));
        let file = entries.get("location").cloned().ok_or_else(|| missing("location"))?;
        // The format allows leaving the offset out: the file then begins with the tensor.
        let offset = if entries.contains_key("offset") { number("offset")? } else { 0 };
        Stored::External { file, offset, length: number("length")? }
    } else {
        let typed = 4 * (tensor.float_data.len() + tensor.int32_data.len()) + 8 * tensor.int64_data.len();
        Stored::Inline { length: tensor.raw_data.map_or(typed, |raw| raw.len()) as u64 }
    };
    Ok(Tensor { name, dtype: type_name(kind), shape: tensor.dims, stored })
}

fn port(value: ValueInfoProto) -> (String, String) {
    let name = value.name.unwrap_or_default();
    let Some(type_proto::Value::TensorType(tensor)) = value.r#type.and_then(|kind| kind.value) else {
        return (name, "not a tensor".to_owned());
    };
    let kind = tensor.elem_type.and_then(|kind| DataType::try_from(kind).ok()).unwrap_or(DataType::Undefined);
    let dims = tensor.shape.map(|shape| shape.dim).unwrap_or_default();
    let dims: Vec<String> = dims
        .into_iter()
        .map(|dim| match dim.value {
            Some(dimension::Value::DimValue(size)) => size.to_string(),
            Some(dimension::Value::DimParam(name)) => name,
            None => "?".to_owned(),
        })
        .collect();
    (name, format!("{}[{}]", type_name(kind), dims.join(", ")))
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
