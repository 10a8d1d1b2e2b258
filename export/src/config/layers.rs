//! Which layer is an attention layer.

use lfm2_graphs::lfm2::Mixer;

use super::reader::{Reader, Reported};

/// The word of `layer_types` for attention layers.
pub(super) const ATTENTION: &str = "full_attention";

/// The word of `layer_types` for short convolutions.
pub(super) const CONV: &str = "conv";

/// Far more than any model has; a list of this length is harmless.
const MAX_LAYERS: usize = 4096;

/// How many unknown words are named.
const NAMED: usize = 10;

/// The mixer of each layer, from `layer_types`, `full_attn_idxs`, or neither.
pub(super) fn mixers(reader: &mut Reader<'_>) -> Result<Vec<Mixer>, Reported> {
    let count = reader.required::<usize>("num_hidden_layers");
    let by_type = by_type(reader);
    let indices = reader.list::<usize>("full_attn_idxs");
    let (count, by_type, indices) = (count?, by_type?, indices?);
    if count > MAX_LAYERS {
        return Err(reader.problem(format!("num_hidden_layers is {count}, at most {MAX_LAYERS} are supported")));
    }
    let by_index = indices.map(|indices| by_index(reader, &indices, count)).transpose()?;
    if let Some(layers) = &by_type
        && layers.len() != count
    {
        return Err(
            reader.problem(format!("layer_types has {} entries for the {count} of num_hidden_layers", layers.len()))
        );
    }
    match (by_type, by_index) {
        (Some(left), Some(right)) if left != right => {
            Err(reader.problem("layer_types and full_attn_idxs name different attention layers".to_owned()))
        }
        (Some(layers), _) | (None, Some(layers)) => Ok(layers),
        (None, None) => Ok(vec![Mixer::Attention; count]),
    }
}

fn by_type(reader: &mut Reader<'_>) -> Result<Option<Vec<Mixer>>, Reported> {
    let Some(names) = reader.list::<String>("layer_types")? else { return Ok(None) };
    let mut layers = Vec::with_capacity(names.len());
    let mut unknown: Vec<String> = Vec::new();
    for name in names {
        match name.as_str() {
            ATTENTION => layers.push(Mixer::Attention),
            CONV => layers.push(Mixer::ShortConv),
            _ if unknown.len() == NAMED || unknown.contains(&name) => {}
            _ => unknown.push(name),
        }
    }
    if unknown.is_empty() {
        return Ok(Some(layers));
    }
    Err(reader.problem(format!("layer_types has {unknown:?}; only {ATTENTION:?} and {CONV:?} are known")))
}

fn by_index(reader: &mut Reader<'_>, indices: &[usize], count: usize) -> Result<Vec<Mixer>, Reported> {
    let mut layers = vec![Mixer::ShortConv; count];
    for &index in indices {
        match layers.get_mut(index) {
            Some(layer) => *layer = Mixer::Attention,
            None => {
                return Err(reader.problem(format!("full_attn_idxs names layer {index}, there are only {count}")));
            }
        }
    }
    Ok(layers)
}
