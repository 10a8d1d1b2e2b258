//! LFM2 as ONNX graphs: the model written once, lowered per dialect.
//!
//! ```text
//! Config + formats -> lfm2 blocks -> Dialect -> Graph (+ Contract)
//! ```
//!
//! A [`Graph`](ir::Graph) is nodes, values and initializers that say where their bytes come from; it never holds weights.
//! [`lfm2::build`] writes the model into one, through a [`Dialect`](dialect::Dialect) that knows how the few operations are
//! written that providers disagree about. The exporter turns the result into a file; the host sees only [`contract`] and
//! [`mod@format`].
//!
//! # Invariants
//!
//! 1. This crate does no IO and knows neither the runtime nor the checkpoint reader.
//! 2. Nothing under `lfm2/` names a provider, a dialect or a vendor operator.
//! 3. Vendor operators are emitted only under `lower/`.
//! 4. Node and weight names come from the scope path; nobody types a full name.
//! 5. One owner per format: protobuf, HTTP and the runtime's types each live in one place, none of them here.
//! 6. The host learns every port from the contract and parses no tensor name.
//! 7. Prefill, chunked prefill and decode run the same graph.
//! 8. No silent fallback anywhere.
//!
//! `tests/tidy.rs` enforces them.

pub mod contract;
pub mod dialect;
pub mod format;
pub mod ir;
pub mod lfm2;
pub mod lower;
pub mod ops;
