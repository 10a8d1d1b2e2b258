//! Runs LFM2 packages through ONNX Runtime.

pub mod chat;
pub mod generation;
pub mod sampler;
pub mod stop;
pub mod text;
