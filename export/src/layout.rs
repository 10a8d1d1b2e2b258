//! Where every initializer of a graph goes: into the ONNX file, or to which bytes of the data file.

use std::collections::HashMap;

use lfm2_graphs::contract::Location;
use lfm2_graphs::ir::{Content, Initializer, Role, Source};

/// Tensors shorter than this are stored in the ONNX file: a page of its own would be a waste, and runtimes want the
/// constants of shape computations there.
const INLINE_LIMIT: u64 = 1024;

/// Offsets are multiples of a page, so that runtimes can map tensors instead of reading them.
const PAGE: u64 = 4096;

/// Offsets of tensors of [`LARGE`] bytes and more are multiples of this: the granularity of mapping on Windows, which is also
/// a multiple of the 16 KiB pages of Apple's processors.
const LARGE_ALIGNMENT: u64 = 64 * 1024;

/// From here on the larger alignment costs little.
const LARGE: u64 = 1024 * 1024;

/// Bytes of the data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Where every initializer of a graph goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// One entry for each initializer, in their order. `None`: in the ONNX file.
    pub spans: Vec<Option<Span>>,
    /// Length of the data file.
    pub length: u64,
}

impl Layout {
    /// Lays the initializers out one after another. Those of equal source and type share their bytes.
    pub fn new(content: &Content) -> Self {
        let mut placed: Vec<(&Initializer, Span)> = Vec::new();
        // Places in `placed` by weight: only sources of one weight can be equal, or those of none.
        let mut by_weight: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
        let mut end = 0_u64;
        let mut place = |initializer| {
            if is_inline(initializer) {
                return None;
            }
            let known = by_weight.entry(initializer.source.weight().map(|weight| weight.name.as_str())).or_default();
            if let Some(&twin) = known.iter().find(|&&twin| same_bytes(placed[twin].0, initializer)) {
                return Some(placed[twin].1);
            }
            let length = initializer.bytes();
            let offset = end.next_multiple_of(if length >= LARGE { LARGE_ALIGNMENT } else { PAGE });
            end = offset + length;
            known.push(placed.len());
            placed.push((initializer, Span { offset, length }));
            Some(Span { offset, length })
        };
        let spans = content.initializers.iter().map(|(_, initializer)| place(initializer)).collect();
        Self { spans, length: end }
    }

    /// The spans with the initializer that each is made from, in the order of the file, each span once.
    pub fn written<'c>(&self, content: &'c Content) -> Vec<(Span, &'c Initializer)> {
        let placed = self.spans.iter().zip(&content.initializers);
        let mut written: Vec<_> = placed.filter_map(|(span, (_, it))| span.map(|span| (span, it))).collect();
        written.sort_by_key(|(span, _)| span.offset);
        written.dedup_by_key(|(span, _)| span.offset);
        written
    }

    /// Fills in where the initializer called `location.name` lies.
    pub fn locate(&self, content: &Content, file: &str, location: &mut Location) {
        let named = content.initializers.iter().position(|(id, _)| content.name(*id) == location.name);
        if let Some(span) = named.and_then(|i| self.spans[i]) {
            *location =
                Location { file: file.to_owned(), offset: span.offset, length: span.length, ..location.clone() };
        }
    }
}

/// Hosts read rows of the token table from the data file, so that it is never stored in the ONNX file.
fn is_inline(initializer: &Initializer) -> bool {
    let is_table = initializer.source.weight().is_some_and(|weight| weight.role == Role::Table);
    let is_constant = matches!(initializer.source, Source::Ints(_) | Source::Float(_));
    is_constant || (initializer.bytes() < INLINE_LIMIT && !is_table)
}

fn same_bytes(a: &Initializer, b: &Initializer) -> bool {
    a.dtype == b.dtype && a.source == b.source
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::dialect::Contrib;
    use lfm2_graphs::ir::Graph;
    use lfm2_graphs::lfm2::{Config, Mixer, build};

    use super::*;
    use crate::recipe::Precision;

    fn config(vocab_size: usize) -> Config {
        Config {
            vocab_size,
            hidden_size: 64,
            feed_forward_size: 128,
            layers: vec![Mixer::ShortConv, Mixer::Attention],
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            conv_width: 3,
            conv_bias: false,
            norm_epsilon: 1e-5,
            rope_theta: 1e6,
            tied: true,
            context_length: 4096,
        }
    }

    #[test]
    fn spans_are_aligned_disjoint_and_a_tied_table_is_stored_once() {
        let precision = Precision::Q4;
        let graph = Graph::new(precision.activations(), |_, role, _| precision.format(role));
        let dialect = Contrib { padding: lfm2_graphs::contract::Padding::None };
        let contract = build(&config(40_000), &dialect, &graph).unwrap();
        let content = graph.content();
        let layout = Layout::new(&content);

        let mut end = 0;
        let mut tables = 0;
        for (span, initializer) in layout.written(&content) {
            let alignment = if span.length >= LARGE { LARGE_ALIGNMENT } else { PAGE };
            assert!(span.offset.is_multiple_of(alignment) && span.offset >= end, "{span:?}");
            assert_eq!(span.length, initializer.bytes());
            let table = initializer.source.weight().is_some_and(|weight| weight.role == Role::Table);
            tables += usize::from(table && matches!(initializer.source, Source::Packed { .. }));
            end = span.offset + span.length;
        }
        assert_eq!(end, layout.length);
        assert_eq!(tables, 1);

        let mut location = contract.table.values.clone();
        layout.locate(&content, "x.data", &mut location);
        assert_eq!((location.file.as_str(), location.length), ("x.data", 40_000 * 32));
    }

    #[test]
    fn even_a_small_table_lies_in_the_data_file() {
        let precision = Precision::Fp16;
        let graph = Graph::new(precision.activations(), |_, role, _| precision.format(role));
        let contract = build(&config(4), &lfm2_graphs::dialect::Portable, &graph).unwrap();
        let content = graph.content();
        let mut location = contract.table.values.clone();
        Layout::new(&content).locate(&content, "x.data", &mut location);
        assert_eq!(location.length, 4 * 64 * 2);
    }
}
