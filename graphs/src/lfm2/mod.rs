//! LFM2, one block per file.

mod attention;
mod config;
mod decoder;
mod feed_forward;
mod ports;
mod short_conv;

pub use attention::attention;
pub use config::{Config, ConfigError, Mixer};
pub use decoder::{BuildError, Extras, build};
pub use feed_forward::feed_forward;
pub use ports::EMBEDDINGS;
pub use short_conv::short_conv;

use crate::dialect::{Dialect, Tokens};
use crate::ir::{Role, Scope, Value};

/// What every block needs.
#[derive(Clone, Copy)]
pub struct Block<'g, 'a> {
    /// Hyper-parameters.
    pub config: &'a Config,
    /// How the operations that providers disagree about are written.
    pub dialect: &'a dyn Dialect,
    /// The token inputs.
    pub tokens: Tokens<'g>,
}

impl<'g> Block<'g, '_> {
    /// The projection `{path}.{name}` from `inputs` to `outputs` values.
    fn project(&self, at: Scope<'g>, name: &str, x: Value<'g>, outputs: usize, inputs: usize, bias: bool) -> Value<'g> {
        at.within(name, |at| {
            let weight = at.weight(Role::Matrix, &[outputs, inputs]);
            let bias = bias.then(|| at.bias(outputs));
            self.dialect.linear(at, x, &weight, bias.as_ref())
        })
    }
}
