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

/// Bytes of a data file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Whether they are bytes of another graph's data file, with which this graph shares them.
    pub shared: bool,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// Names of data files, relative to the ONNX file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFiles<'n> {
    /// That of the graph itself.
    pub own: &'n str,
    /// That of the graph with which it shares bytes; graphs that share none never look at it.
    pub shared: &'n str,
}

impl<'n> DataFiles<'n> {
    /// The file of a span.
    pub fn of(self, span: Span) -> &'n str {
        if span.shared { self.shared } else { self.own }
    }
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
        Self::beside(content, |_| None)
    }

    /// As [`Layout::new`], for a graph that shares whatever it can with `other`, whose layout is `layout`.
    pub fn companion(content: &Content, other: &Content, layout: &Layout) -> Self {
        Self::beside(content, |initializer| {
            let mut theirs = layout.spans.iter().zip(&other.initializers);
            let twin = theirs.find(|(span, (_, it))| span.is_some() && same_bytes(it, initializer));
            twin.and_then(|(span, _)| *span).map(|span| Span { shared: true, ..span })
        })
    }

    /// As [`Layout::companion`], for a graph all of whose weights `other` has too. None if it has more.
    pub fn part_of(content: &Content, other: &Content, layout: &Layout) -> Option<Self> {
        let span = |initializer: &Initializer| {
            let mut theirs = layout.spans.iter().zip(&other.initializers);
            if is_inline(initializer) {
                return Some(None);
            }
            theirs.find(|(span, (_, it))| span.is_some() && same_bytes(it, initializer)).map(|(span, _)| *span)
        };
        let spans = content.initializers.iter().map(|(_, initializer)| span(initializer)).collect::<Option<_>>()?;
        Some(Self { spans, length: layout.length })
    }

    /// For a graph all of whose weights go into its ONNX file.
    pub fn inside(content: &Content) -> Self {
        Self { spans: vec![None; content.initializers.len()], length: 0 }
    }

    fn beside(content: &Content, shared: impl Fn(&Initializer) -> Option<Span>) -> Self {
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
            if let Some(span) = shared(initializer) {
                return Some(span);
            }
            let length = initializer.bytes();
            let offset = end.next_multiple_of(if length >= LARGE { LARGE_ALIGNMENT } else { PAGE });
            end = offset + length;
            known.push(placed.len());
            let span = Span { shared: false, offset, length };
            placed.push((initializer, span));
            Some(span)
        };
        let spans = content.initializers.iter().map(|(_, initializer)| place(initializer)).collect();
        Self { spans, length: end }
    }

    /// The spans of the graph's own file with the initializer that each is made from, in the order of the file, each span once.
    pub fn written<'c>(&self, content: &'c Content) -> Vec<(Span, &'c Initializer)> {
        let placed = self.spans.iter().zip(&content.initializers);
        let own = placed.filter_map(|(span, (_, it))| Some((span.filter(|span| !span.shared)?, it)));
        let mut written: Vec<_> = own.collect();
        written.sort_by_key(|(span, _)| span.offset);
        written.dedup_by_key(|(span, _)| span.offset);
        written
    }

    /// Fills in where the initializer called `location.name` lies.
    pub fn locate(&self, content: &Content, files: DataFiles<'_>, location: &mut Location) {
        let named = content.initializers.iter().position(|(id, _)| content.name(*id) == location.name);
        if let Some(span) = named.and_then(|i| self.spans[i]) {
            let file = files.of(span).to_owned();
            *location = Location { file, offset: span.offset, length: span.length, ..location.clone() };
        }
    }
}

/// Whether an initializer is written by itself, wherever it lies, and not with everything else of the ONNX file: one that is large,
/// and the token table.
pub fn is_apart(initializer: &Initializer) -> bool {
    !is_inline(initializer)
}

/// Hosts read rows of the token table by their place, so that even a small one is not stored with everything else. The taps of convolutions
/// are small and belong to static graphs alone, which then need no data file beside that of the general graph.
fn is_inline(initializer: &Initializer) -> bool {
    let is_table = initializer.source.weight().is_some_and(|weight| weight.role == Role::Table);
    let is_constant = |source: &Source| {
        matches!(source, Source::Ints(_) | Source::Float(_) | Source::Floats(_) | Source::Column { .. })
    };
    let is_constant = match &initializer.source {
        Source::Encoded(numbers) | Source::EncodedScale(numbers) => is_constant(numbers),
        source => is_constant(source),
    };
    is_constant || (initializer.bytes() < INLINE_LIMIT && !is_table)
}

fn same_bytes(a: &Initializer, b: &Initializer) -> bool {
    a.dtype == b.dtype && a.bytes() == b.bytes() && a.source == b.source
}

#[cfg(test)]
mod tests {
    use lfm2_graphs::dialect::Contrib;
    use lfm2_graphs::ir::Graph;
    use lfm2_graphs::lfm2::{Config, Extras, Mixer, build};

    use super::*;
    use crate::recipe::Precision;

    const FILES: DataFiles<'_> = DataFiles { own: "x.data", shared: "y.data" };

    #[test]
    fn a_companion_shares_what_it_can_and_stores_the_rest() {
        let recipe = Precision::Q8.recipe().unwrap();
        let general = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
        let prefill = Graph::new(recipe.activations, |name, role, _| match role {
            Role::Matrix => lfm2_graphs::ir::Format::Channels,
            role => recipe.format(name, role),
        });
        let dialect = Contrib { padding: lfm2_graphs::contract::Padding::None };
        build(&config(500), &dialect, Extras::default(), &general).unwrap();
        let contract = build(&config(500), &dialect, Extras::default(), &prefill).unwrap();
        let (general, prefill) = (general.content(), prefill.content());
        let layout = Layout::new(&general);
        let companion = Layout::companion(&prefill, &general, &layout);
        let written = companion.written(&prefill);
        assert!(!written.is_empty());
        for (_, initializer) in &written {
            assert!(matches!(initializer.source, Source::Channels { .. } | Source::ChannelScales { .. }));
        }
        for (span, (id, initializer)) in companion.spans.iter().zip(&prefill.initializers) {
            let Some(span) = span.filter(|span| span.shared) else { continue };
            let theirs = layout.written(&general);
            let (_, twin) = theirs.iter().find(|(other, _)| other.offset == span.offset).unwrap();
            assert_eq!((&twin.source, twin.bytes()), (&initializer.source, span.length), "{}", prefill.name(*id));
        }
        let mut location = contract.table.values.clone();
        companion.locate(&prefill, FILES, &mut location);
        assert_eq!(location.file, "y.data");
    }

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
        let recipe = precision.recipe().unwrap();
        let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
        let dialect = Contrib { padding: lfm2_graphs::contract::Padding::None };
        let contract = build(&config(40_000), &dialect, Extras::default(), &graph).unwrap();
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
        layout.locate(&content, FILES, &mut location);
        assert_eq!((location.file.as_str(), location.length), ("x.data", 40_000 * 32));
    }

    #[test]
    fn even_a_small_table_lies_in_the_data_file() {
        let precision = Precision::Fp16;
        let recipe = precision.recipe().unwrap();
        let graph = Graph::new(recipe.activations, |name, role, _| recipe.format(name, role));
        let contract = build(&config(4), &lfm2_graphs::dialect::Portable, Extras::default(), &graph).unwrap();
        let content = graph.content();
        let mut location = contract.table.values.clone();
        Layout::new(&content).locate(&content, FILES, &mut location);
        assert_eq!(location.length, 4 * 64 * 2);
    }
}
