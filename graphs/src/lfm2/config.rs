//! The hyper-parameters that shape a graph.

use crate::dialect::Heads;

/// Bound of the number of values of every tensor, and so of every product of sizes. The largest matrices of models with 24
/// billion weights have a quarter of it; it fits into `usize` also where that has 32 bits.
const MOST_ELEMENTS: u128 = 1 << 31;

/// What a decoder layer mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mixer {
    /// Grouped-query attention.
    Attention,
    /// Gated short convolution.
    ShortConv,
}

/// Hyper-parameters of a dense LFM2. Nothing here has a default: every field changes the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of token ids; rows of the token table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the feed-forward blocks, after the adjust rule of the checkpoint's config has been applied.
    pub feed_forward_size: usize,
    /// The mixer of each layer, first layer first.
    pub layers: Vec<Mixer>,
    /// Query heads of an attention layer.
    pub heads: usize,
    /// Key and value heads of an attention layer; divides `heads`.
    pub kv_heads: usize,
    /// Elements of one head; even. Not necessarily `hidden_size / heads`.
    pub head_dim: usize,
    /// Taps of the short convolution (`conv_L_cache`), at least 2.
    pub conv_width: usize,
    /// Whether the projections and the kernel of the short convolution have biases.
    pub conv_bias: bool,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether the head is the token table.
    pub tied: bool,
    /// Largest total number of tokens (`max_position_embeddings`).
    pub context_length: usize,
}

impl Config {
    /// Checks every relation between fields that the graphs rely on, and reports all that do not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Vec::new();
        let mut require = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        for (name, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("feed_forward_size", self.feed_forward_size),
            ("num_attention_heads", self.heads),
            ("num_key_value_heads", self.kv_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.context_length),
        ] {
            require(value > 0, format!("{name} is 0"));
        }
        let (heads, kv_heads) = ([self.heads, self.head_dim], [self.kv_heads, self.head_dim]);
        for (names, factors) in [
            ("vocab_size x hidden_size", vec![self.vocab_size, self.hidden_size]),
            ("hidden_size x feed_forward_size", vec![self.hidden_size, self.feed_forward_size]),
            ("3 x hidden_size x hidden_size", vec![3, self.hidden_size, self.hidden_size]),
            ("hidden_size x conv_L_cache", vec![self.hidden_size, self.conv_width]),
            ("num_attention_heads x head_dim x hidden_size", [&heads[..], &[self.hidden_size]].concat()),
            ("num_key_value_heads x head_dim x hidden_size", [&kv_heads[..], &[self.hidden_size]].concat()),
            ("max_position_embeddings x head_dim", vec![self.context_length, self.head_dim]),
        ] {
            let elements = factors.iter().fold(1_u128, |product, &factor| product.saturating_mul(factor as u128));
            require(
                elements < MOST_ELEMENTS,
                format!("{names} is {elements}, more than the {MOST_ELEMENTS} values that a tensor may have"),
            );
        }
        require(
            self.context_length <= 1 << 24,
            format!(
                "max_position_embeddings is {}, positions beyond 2^24 are not exact in float32",
                self.context_length
            ),
        );
        require(!self.layers.is_empty(), "there are no layers".to_owned());
        require(self.conv_width >= 2, format!("conv_L_cache is {}, at least 2 is needed", self.conv_width));
        require(self.conv_width <= 1024, format!("conv_L_cache is {}, at most 1024 is supported", self.conv_width));
        require(
            self.head_dim.is_multiple_of(2),
            format!("head_dim is {}, rotary embedding needs an even number", self.head_dim),
        );
        require(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            format!("num_attention_heads {} is not a multiple of num_key_value_heads {}", self.heads, self.kv_heads),
        );
        require(
            is_positive(self.norm_epsilon),
            format!("norm_eps is {}, a positive number of float32 is needed", self.norm_epsilon),
        );
        require(
            is_positive(self.rope_theta),
            format!("rope_theta is {}, a positive number of float32 is needed", self.rope_theta),
        );
        if problems.is_empty() { Ok(()) } else { Err(ConfigError { problems }) }
    }

    /// The sizes of the attention layers, as dialects take them.
    pub(super) fn attention_heads(&self) -> Heads {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            rope_theta: self.rope_theta,
            context_length: self.context_length,
        }
    }

    /// Whether any layer is an attention layer.
    pub fn has_attention(&self) -> bool {
        self.layers.contains(&Mixer::Attention)
    }
}

/// Whether the number is finite and positive in the graph, which has it as float32.
fn is_positive(number: f64) -> bool {
    let number = number as f32;
    number.is_finite() && number > 0.0
}

/// Every relation between hyper-parameters that does not hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the config cannot be built: {}", problems.join("; "))]
pub struct ConfigError {
    /// One sentence per problem.
    pub problems: Vec<String>,
}
