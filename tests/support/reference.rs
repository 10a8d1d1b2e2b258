//! What transformers computes from the fixtures: see `tests/reference/models.py`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;

/// Tensors of one reference file.
#[derive(Debug)]
pub struct Reference {
    /// One prompt.
    pub input_ids: Vec<u32>,
    /// Shape and values of every float tensor.
    pub floats: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Shape and values of every integer tensor.
    pub integers: BTreeMap<String, (Vec<usize>, Vec<i64>)>,
}

impl Reference {
    /// Reads the reference of a fixture.
    pub fn load(fixture: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("reference/data/{fixture}.safetensors"));
        let bytes = fs::read(&path).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut floats = BTreeMap::new();
        let mut integers = BTreeMap::<_, (_, Vec<i64>)>::new();
        for (name, view) in tensors.iter() {
            let shape = view.shape().to_vec();
            match view.dtype() {
                safetensors::Dtype::F32 => {
                    let values = view.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
                    floats.insert(name.to_owned(), (shape, values));
                }
                safetensors::Dtype::I64 => {
                    let values: Vec<i64> =
                        view.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();
                    integers.insert(name.to_owned(), (shape, values));
                }
                other => panic!("{name} in {} is {other:?}", path.display()),
            }
        }
        let input_ids = integers["input_ids"].1.iter().map(|&id| u32::try_from(id).unwrap()).collect();
        Self { input_ids, floats, integers }
    }

    /// Logits of every position, `[tokens, vocab_size]`: the values.
    pub fn logits(&self) -> &[f32] {
        &self.floats["logits"].1
    }

    /// A state after the prompt, by the name of the input that takes it.
    pub fn state(&self, past: &str) -> &[f32] {
        &self.floats[past].1
    }
}
