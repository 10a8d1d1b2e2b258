//! The intermediate representation: graphs, values, weights and types.

pub mod types;
