//! LFM2 as ONNX graphs: the model written once, lowered per dialect.

pub mod contract;
pub mod ir;
pub mod lfm2;
