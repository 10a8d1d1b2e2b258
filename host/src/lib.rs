//! Runs LFM2 packages through ONNX Runtime.

pub mod cancel;
pub mod decoder;
pub mod package;
pub mod platform;
pub mod provider;
pub mod runtime;
pub mod sampler;
pub mod session;
pub mod stop;
pub mod text;
