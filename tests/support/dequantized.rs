//! Checkpoints with the numbers that packed weights stand for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use lfm2_export::checkpoint::{Checkpoint, INDEX_FILE};
use lfm2_export::quantize::{Quantized, quantize};
use lfm2_export::recipe::Recipe;
use lfm2_graphs::format::unpack_row;
use lfm2_graphs::ir::{Format, Role, Weight};
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

/// The checkpoint in `folder` in float32, with each weight that `recipe` stores in blocks replaced by what the blocks stand for: an
/// exact export of it is what an export with the recipe has to compute, and nothing of it was read from an export.
pub fn dequantized(folder: &Path, recipe: &Recipe) -> TempDir {
    let to = TempDir::new().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name();
        let is_weights = Path::new(&name).extension().is_some_and(|it| it == "safetensors") || name == INDEX_FILE;
        if !is_weights {
            fs::copy(folder.join(&name), to.path().join(&name)).unwrap();
        }
    }
    let checkpoint = Checkpoint::open(folder).unwrap();
    let mut tensors = BTreeMap::new();
    for (name, info) in checkpoint.tensors() {
        let mut values = Vec::new();
        checkpoint.read_rows(name, 0, info.rows(), &mut values).unwrap();
        let role = role(name, &info.shape);
        let weight =
            Weight { name: name.to_owned(), shape: info.shape.clone(), role, format: recipe.format(name, role) };
        round(&weight, recipe, &mut values);
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.insert(name, (info.shape.clone(), bytes));
    }
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &to.path().join("model.safetensors")).unwrap();
    to
}

/// What a tensor is for, by its name in the checkpoint.
fn role(name: &str, shape: &[usize]) -> Role {
    match shape.len() {
        2 if name.ends_with("embed_tokens.weight") => Role::Table,
        2 if name == "lm_head.weight" => Role::Head,
        2 => Role::Matrix,
        3 => Role::Kernel,
        _ => Role::Vector,
    }
}

/// Packs and unpacks the values, if they are stored in blocks.
fn round(weight: &Weight, recipe: &Recipe, values: &mut [f32]) {
    let Format::Blocks(blocks) = weight.format else { return };
    for row in values.chunks_mut(weight.columns()) {
        let mut packed = Quantized::default();
        quantize(blocks, recipe.method(weight), row.len(), None, row, &mut packed);
        unpack_row(blocks, &packed.packed, &packed.scales, &packed.zero_points, row);
    }
}
