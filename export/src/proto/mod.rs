//! ONNX files: the one place that knows protobuf.

mod decode;
mod encode;
#[allow(missing_docs, clippy::all, unreachable_pub)]
mod onnx;
mod outline;

pub use decode::{DecodeError, Model, Node, Port, Stored, Tensor, decode};
pub use encode::{Data, Frame, Hole, encode, frame};
pub use outline::read;
