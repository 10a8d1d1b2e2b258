//! Runs LFM2 packages through ONNX Runtime.

pub mod cancel;
pub mod chat;
pub mod cli;
pub mod decoder;
pub mod engine;
pub mod generation;
pub mod package;
pub mod platform;
pub mod provider;
pub mod runtime;
pub mod sampler;
pub mod session;
mod state;
pub mod stop;
pub mod text;
