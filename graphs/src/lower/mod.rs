//! The lowerings: one file per operation, the portable form first. Only here are vendor operators emitted.

pub mod attention;
pub mod conv;
pub mod embed;
pub mod linear;
pub mod linear_channels;
pub mod norm;
pub mod observe;
mod tokens;
