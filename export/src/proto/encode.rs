//! Graphs to ONNX files.

use lfm2_graphs::contract::{Dim, METADATA_KEY, Port};
use lfm2_graphs::ir::algebra::onnx_type;
use lfm2_graphs::ir::{Attribute, Content, Initializer, Node, ValueId};
use lfm2_graphs::ops::{CONTRIB, OPSET};
use prost::Message;

use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, tensor_proto::DataLocation,
    tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
};

/// Version of the ONNX format itself: the one that opset 21 came with, which every runtime since ONNX Runtime 1.18 reads.
const IR_VERSION: i64 = 10;

/// Where the bytes of an initializer are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// In the ONNX file, little-endian.
    Inline(Vec<u8>),
    /// In the ONNX file, and written there when its turn comes: so many bytes.
    Later {
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

/// The ONNX file of a graph. `data` has one entry for each initializer, in their order; those of [`Data::Later`] stay without bytes.
pub fn encode(content: &Content, contract: &str, data: Vec<Data>) -> Vec<u8> {
    frame(content, contract, data).bytes
}

/// An ONNX file without the bytes of the initializers that are [`Data::Later`], which may be too many for the memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the file has beside them.
    pub bytes: Vec<u8>,
    /// Where they belong, in the order of the file.
    pub holes: Vec<Hole>,
}

/// The place of an initializer's bytes in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Its place among the initializers.
    pub initializer: usize,
    /// First byte in the file.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

impl Frame {
    /// Number of bytes of the file.
    pub fn length(&self) -> u64 {
        self.bytes.len() as u64 + self.holes.iter().map(|hole| hole.length).sum::<u64>()
    }
}

/// As [`encode`], with the places of what is written later. Where these are does not depend on the contract, which comes last.
pub fn frame(content: &Content, contract: &str, data: Vec<Data>) -> Frame {
    let import = |domain: &str, version| OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) };
    let mut opset_import = vec![import("", i64::from(OPSET))];
    if content.nodes.iter().any(|node| node.op.domain == CONTRIB) {
        opset_import.push(import(CONTRIB, 1));
    }
    let before = ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import,
        producer_name: Some(env!("CARGO_PKG_NAME").to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..ModelProto::default()
    };
    let graph = GraphProto {
        name: Some("lfm2".to_owned()),
        node: content.nodes.iter().map(|node| encode_node(content, node)).collect(),
        input: content.inputs.iter().map(|(_, port)| encode_port(port)).collect(),
        output: content.outputs.iter().map(|(_, port)| encode_port(port)).collect(),
        ..GraphProto::default()
    };
    let behind = ModelProto { metadata_props: vec![entry(METADATA_KEY, contract)], ..ModelProto::default() };

    // A message is its fields one behind the other, in any order, so that the fields before and behind a hole can be put together
    // by hand as soon as all lengths are known.
    let mut body = Frame { bytes: graph.encode_to_vec(), holes: Vec::new() };
    for (place, ((id, initializer), data)) in content.initializers.iter().zip(data).enumerate() {
        let later = if let Data::Later { length } = data { Some(length) } else { None };
        let mut tensor = encode_initializer(content.name(*id), initializer, data).encode_to_vec();
        if let Some(length) = later {
            put_key(RAW_DATA, length, &mut tensor);
        }
        put_key(INITIALIZER, tensor.len() as u64 + later.unwrap_or(0), &mut body.bytes);
        body.bytes.extend(tensor);
        if let Some(length) = later {
            body.holes.push(Hole { initializer: place, offset: body.length(), length });
        }
    }
    let mut bytes = before.encode_to_vec();
    put_key(GRAPH, body.length(), &mut bytes);
    let start = bytes.len() as u64;
    bytes.extend(body.bytes);
    bytes.extend(behind.encode_to_vec());
    Frame { bytes, holes: body.holes.into_iter().map(|hole| Hole { offset: start + hole.offset, ..hole }).collect() }
}

/// Numbers of fields in the ONNX schema: `ModelProto.graph`, `GraphProto.initializer` and `TensorProto.raw_data`.
pub(super) const GRAPH: u8 = 7;
pub(super) const INITIALIZER: u8 = 5;
pub(super) const RAW_DATA: u8 = 9;

/// What stands in front of the `length` bytes of a field: its number with the wire type of what has a length, and the length.
fn put_key(field: u8, length: u64, bytes: &mut Vec<u8>) {
    bytes.push(field << 3 | 2);
    put_varint(length, bytes);
}

/// A number as protobuf writes it: seven bits to a byte, low bits first, the highest bit of a byte saying that more follow.
pub(super) fn put_varint(number: u64, bytes: &mut Vec<u8>) {
    let mut left = number;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

fn encode_node(content: &Content, node: &Node) -> NodeProto {
    // ONNX writes an optional input or output that is left out as an empty name.
    let names =
        |ids: &[Option<ValueId>]| ids.iter().map(|id| id.map_or("", |id| content.name(id)).to_owned()).collect();
    NodeProto {
        name: Some(node.name.clone()),
        op_type: Some(node.op.name.to_owned()),
        domain: Some(node.op.domain.to_owned()),
        input: names(&node.inputs),
        output: names(&node.outputs),
        attribute: node.attributes.iter().map(|(name, value)| encode_attribute(name, value)).collect(),
        ..NodeProto::default()
    }
}

fn encode_attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attribute::Int(number) => {
            attribute.i = Some(*number);
            AttributeType::Int
        }
        Attribute::Float(number) => {
            attribute.f = Some(*number);
            AttributeType::Float
        }
        Attribute::Text(text) => {
            attribute.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
        Attribute::Ints(numbers) => {
            attribute.ints.clone_from(numbers);
            AttributeType::Ints
        }
    };
    attribute.r#type = Some(kind as i32);
    attribute
}

fn encode_initializer(name: &str, initializer: &Initializer, data: Data) -> TensorProto {
    let mut tensor = TensorProto {
        name: Some(name.to_owned()),
        data_type: Some(onnx_type(initializer.dtype) as i32),
        dims: initializer.shape.iter().map(|&size| size as i64).collect(),
        ..TensorProto::default()
    };
    match data {
        Data::Inline(bytes) => tensor.raw_data = Some(bytes),
        Data::Later { .. } => {}
        Data::External { file, offset, length } => {
            tensor.data_location = Some(DataLocation::External as i32);
            tensor.external_data = vec![
                entry("location", &file),
                entry("offset", &offset.to_string()),
                entry("length", &length.to_string()),
            ];
        }
    }
    tensor
}

fn encode_port(port: &Port) -> ValueInfoProto {
    let dimension = |dim: &Dim| Dimension {
        value: Some(match dim {
            Dim::Fixed(size) => dimension::Value::DimValue(*size as i64),
            Dim::Symbol(name) => dimension::Value::DimParam(name.clone()),
        }),
        ..Dimension::default()
    };
    let tensor = type_proto::Tensor {
        elem_type: Some(onnx_type(port.dtype) as i32),
        shape: Some(TensorShapeProto { dim: port.shape.iter().map(dimension).collect() }),
    };
    ValueInfoProto {
        name: Some(port.name.clone()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() }),
        ..ValueInfoProto::default()
    }
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.to_owned()), value: Some(value.to_owned()) }
}
