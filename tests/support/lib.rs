//! What the cross-crate tests share.

pub mod compare;
pub mod graphs;
pub mod models;
pub mod packages;
pub mod reference;
pub mod weights;
