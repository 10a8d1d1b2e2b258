//! The lowerings: one file per operation, the portable form first. Only here are vendor operators emitted.

pub mod attention;
pub mod conv;
pub mod embed;
pub mod linear;
pub mod norm;
mod tokens;
