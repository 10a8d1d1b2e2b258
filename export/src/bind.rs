//! Weights that a graph declares, matched with the tensors that a checkpoint has.

use std::collections::BTreeSet;

use lfm2_graphs::ir::{Content, Format, Role, Weight};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::problems::{Problems, lines};

/// Name of the head in checkpoints. Some trainers save it even if it is the token table.
const HEAD: &str = "lm_head.weight";

/// Makes sure that the checkpoint has every weight of the graph in its shape, and nothing else.
///
/// A separate head in a checkpoint that ties it to the table must equal the table: then it is left out, because the reference
/// implementation does not use it either.
pub fn bind(content: &Content, checkpoint: &Checkpoint) -> Result<(), BindError> {
    let weights = declared(content);
    let mut problems = Problems::default();
    problems.extend(weights.iter().filter_map(|weight| problem(weight, checkpoint)));
    let known: BTreeSet<&str> = weights.iter().map(|weight| weight.name.as_str()).collect();
    let mut extra: Vec<&str> =
        checkpoint.tensors().map(|(name, _)| name).filter(|name| !known.contains(name)).collect();
    extra.sort_unstable();
    for name in extra {
        let table = weights.iter().find(|weight| weight.role == Role::Table);
        match table.filter(|table| name == HEAD && has_shape(checkpoint, HEAD, &table.shape)) {
            Some(table) if problems.is_empty() => {
                if !equal(checkpoint, table, HEAD)? {
                    problems.add(format!(
                        "`{HEAD}` differs from `{}`, though the config ties them; set \"tie_word_embeddings\": false if the head was trained",
                        table.name
                    ));
                }
            }
            Some(_) => {}
            None => problems.add(format!("`{name}` is not part of the model that the config describes")),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(BindError::Tensors { problems: problems.into_list() }) }
}

/// Makes sure that every weight of the graph can be stored in its format.
pub fn refuse_unstorable(content: &Content) -> Result<(), BindError> {
    let mut problems = Problems::default();
    problems.extend(declared(content).into_iter().filter_map(unstorable));
    if problems.is_empty() { Ok(()) } else { Err(BindError::Formats { problems: problems.into_list() }) }
}

/// Why a checkpoint does not fit its config.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// All tensors that are missing, superfluous, of another shape, or cannot be stored in the chosen format.
    #[error("the checkpoint does not fit its config.json:{}", lines(problems))]
    Tensors {
        /// One sentence for each.
        problems: Vec<String>,
    },
    /// All weights that the chosen formats cannot hold.
    #[error("these weights cannot be stored as asked:{}", lines(problems))]
    Formats {
        /// One sentence for each.
        problems: Vec<String>,
    },
    /// A tensor cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The weights of a graph, each once, in the order of first use.
fn declared(content: &Content) -> Vec<&Weight> {
    let mut names = BTreeSet::new();
    let weights = content.initializers.iter().filter_map(|(_, initializer)| initializer.source.weight());
    weights.filter(|weight| names.insert(weight.name.as_str())).collect()
}

fn problem(weight: &Weight, checkpoint: &Checkpoint) -> Option<String> {
    let Weight { name, shape, .. } = weight;
    let Some(tensor) = checkpoint.get(name) else {
        return Some(format!("`{name}` {shape:?} is missing"));
    };
    if tensor.shape != *shape {
        return Some(format!("`{name}` is {:?}, the config says {shape:?}", tensor.shape));
    }
    unstorable(weight)
}

/// What keeps a weight from being stored in its format, if anything does.
fn unstorable(weight: &Weight) -> Option<String> {
    let Weight { name, format, .. } = weight;
    match format {
        Format::Blocks(blocks) if !weight.columns().is_multiple_of(blocks.block_size) => Some(format!(
            "`{name}` has rows of {} values, which blocks of {} do not divide; {}",
            weight.columns(),
            blocks.block_size,
            remedy(weight.columns())
        )),
        Format::Rows { bits: 4 } if !weight.columns().is_multiple_of(2) => Some(format!(
            "`{name}` has rows of {} values, and two numbers of 4 bits share a byte; choose --qnn-precision w8a16",
            weight.columns()
        )),
        _ => None,
    }
}

/// What to do about rows that a block size does not divide.
fn remedy(columns: usize) -> String {
    match [256, 128, 64, 32, 16].into_iter().find(|size| columns.is_multiple_of(*size)) {
        Some(size) => format!(
            "write a recipe that gives it blocks of {size} (`lfm2-export recipes q4` prints one to begin with), or choose fp32 or fp16"
        ),
        None => "no size from 16 to 256 does: choose fp32 or fp16, or a recipe with a `dtype` for it".to_owned(),
    }
}

fn has_shape(checkpoint: &Checkpoint, name: &str, shape: &[usize]) -> bool {
    checkpoint.get(name).is_some_and(|tensor| tensor.shape == shape)
}

fn equal(checkpoint: &Checkpoint, table: &Weight, other: &str) -> Result<bool, CheckpointError> {
    const ROWS: usize = 512;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for start in (0..table.rows()).step_by(ROWS) {
        let rows = ROWS.min(table.rows() - start);
        checkpoint.read_rows(&table.name, start, rows, &mut ours)?;
        checkpoint.read_rows(other, start, rows, &mut theirs)?;
        if ours != theirs {
            return Ok(false);
        }
    }
    Ok(true)
}
