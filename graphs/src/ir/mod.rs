//! The intermediate representation: graphs, values, weights and types.

pub mod activations;
pub mod algebra;
pub mod encoding;
pub mod graph;
pub mod initializer;
pub mod text;
pub mod types;
pub mod verify;
pub mod weight;

pub use encoding::{Encoding, Range};
pub use graph::{Attribute, Content, Graph, Node, Scope, Value, ValueId};
pub use initializer::{ENCODED_LARGEST, Initializer, RopePart, Source};
pub use types::{DType, Dim, Shape};
pub use weight::{Blocks, CHANNEL_LARGEST, CHANNEL_ZERO_POINT, Format, Role, Weight};
