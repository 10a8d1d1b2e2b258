//! Files with weights, made on several threads and written in the order in which they lie there.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::thread;

use lfm2_graphs::ir::{Content, Initializer, Source};

use super::bytes::append_floats;
use super::ordered::ordered;
use super::producer::{Made, Part, Producer, Rest, parts};
use super::{HashedFile, WriteError};
use crate::layout::Layout;
use crate::proto::Frame;

/// Most threads that make weights: reading and writing cannot keep up with more.
const MOST_THREADS: usize = 16;

/// Most threads where matrices are turned: each part of one holds some tens of megabytes, and copying numbers is bound by the disk
/// long before.
const MOST_TURNING: usize = 4;

/// Parts that may wait to be written, for each thread. More would only need more memory.
const WAITING: usize = 2;

/// Writes all weights of a graph; `progress` is told how many bytes there are, and of how many, and may stop it.
///
/// Making them on `threads` threads, by default as many as there are processors, gives the same bytes.
pub fn write_data(
    file: &mut HashedFile,
    layout: &Layout,
    content: &Content,
    producer: Producer<'_>,
    threads: Option<NonZero<usize>>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), WriteError> {
    let weights = layout.written(content).into_iter().map(|(span, initializer)| (span.offset, initializer));
    let steps = steps(weights);
    write(file, &steps, layout.length, producer, threads, HashedFile::pad_to, progress)
}

/// Writes an ONNX file with weights in it, in the same way: the frame of a graph with what belongs into its holes.
pub fn write_graph(
    file: &mut HashedFile,
    frame: &Frame,
    content: &Content,
    producer: Producer<'_>,
    threads: Option<NonZero<usize>>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), WriteError> {
    let weights = frame.holes.iter().map(|hole| (hole.offset, &content.initializers[hole.initializer].1));
    let steps = steps(weights);
    let mut rest = &frame.bytes[..];
    let between = |file: &mut HashedFile, offset: u64| {
        // Less than what there is of the frame, and nothing within an initializer.
        let (next, behind) = rest.split_at(offset.saturating_sub(file.size()) as usize);
        rest = behind;
        file.write(next)
    };
    write(file, &steps, frame.length(), producer, threads, between, progress)?;
    file.write(rest)
}

/// Writes weights, each behind what `between` writes up to the place where it begins.
fn write(
    file: &mut HashedFile,
    steps: &[Step<'_>],
    length: u64,
    producer: Producer<'_>,
    threads: Option<NonZero<usize>>,
    mut between: impl FnMut(&mut HashedFile, u64) -> Result<(), WriteError>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(), WriteError> {
    let is_turned = |step: &Step<'_>| {
        matches!(
            step.initializer.source,
            Source::Transposed { .. } | Source::Channels { .. } | Source::ChannelScales { .. }
        )
    };
    let most = if steps.iter().any(is_turned) { MOST_TURNING } else { MOST_THREADS };
    let threads = threads.or_else(|| thread::available_parallelism().ok()).map_or(1, NonZero::get).min(most);
    let mut kept = BTreeMap::<&str, Rest>::new();
    let make = |i: usize| match &steps[i] {
        Step { initializer, what: What::Make(part), .. } => producer.make(initializer, *part),
        Step { what: What::Keep, .. } => Ok(Made::default()),
    };
    ordered(steps.len(), threads, WAITING * threads, make, |i, made| {
        let Step { initializer, offset, what } = &steps[i];
        let mut made = made?;
        let name = initializer.source.weight().map_or("", |weight| weight.name.as_str());
        if let Some(Rest { scales, zero_points }) = made.rest {
            let kept = kept.entry(name).or_default();
            kept.scales.extend(scales);
            kept.zero_points.extend(zero_points);
        }
        if *what == What::Keep
            && let Some(kept) = kept.get_mut(name)
        {
            match initializer.source {
                Source::ZeroPoints { .. } => made.bytes = std::mem::take(&mut kept.zero_points),
                _ => append_floats(&std::mem::take(&mut kept.scales), initializer.dtype, &mut made.bytes),
            }
        }
        between(file, *offset)?;
        file.write(&made.bytes)?;
        match progress(file.size(), length) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(WriteError::Interrupted),
        }
    })
}

/// A piece of the file.
struct Step<'c> {
    initializer: &'c Initializer,
    /// Where the initializer begins.
    offset: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A part is made.
    Make(Part),
    /// The scales or zero points are taken that packing the weight, further up in the file, has found.
    Keep,
}

/// What has to be done for weights that begin at such places, in the order of the file.
fn steps<'c>(weights: impl Iterator<Item = (u64, &'c Initializer)>) -> Vec<Step<'c>> {
    let mut packed = BTreeSet::new();
    let mut steps = Vec::new();
    for (offset, initializer) in weights {
        let is_kept = match &initializer.source {
            Source::Scales { weight } | Source::ZeroPoints { weight } | Source::RowScales { weight } => {
                packed.contains(weight.name.as_str())
            }
            _ => false,
        };
        if let Source::Packed { weight } | Source::Rows { weight } = &initializer.source {
            packed.insert(weight.name.as_str());
        }
        if is_kept {
            steps.push(Step { initializer, offset, what: What::Keep });
        } else {
            let make = |part| Step { initializer, offset, what: What::Make(part) };
            steps.extend(parts(initializer).into_iter().map(make));
        }
    }
    steps
}
