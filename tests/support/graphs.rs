//! Graphs run as they are, without a package around them.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use half::f16;
use lfm2_export::proto::encode;
use lfm2_graphs::ir::{Content, DType};
use lfm2_host::platform;
use ndarray::{ArrayD, Axis};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::{DynValue, Tensor as OrtTensor};

use crate::weights::Weights;

/// What a graph is fed with. Floats are converted to the type of the port.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// Floats of any width.
    Floats(ArrayD<f32>),
    /// int64.
    Integers(ArrayD<i64>),
}

impl Tensor {
    /// Row `row` of the batch, as a batch of one.
    pub fn row(&self, row: usize) -> Self {
        self.slice(0, row, row + 1)
    }

    /// The part from `start` to `end` of dimension `axis`.
    pub fn slice(&self, axis: usize, start: usize, end: usize) -> Self {
        match self {
            Self::Floats(array) => Self::Floats(array.slice_axis(Axis(axis), (start..end).into()).to_owned()),
            Self::Integers(array) => Self::Integers(array.slice_axis(Axis(axis), (start..end).into()).to_owned()),
        }
    }

    /// Size of dimension `axis`.
    pub fn length(&self, axis: usize) -> usize {
        match self {
            Self::Floats(array) => array.len_of(Axis(axis)),
            Self::Integers(array) => array.len_of(Axis(axis)),
        }
    }

    /// The numbers of a tensor of floats.
    pub fn floats(&self) -> &ArrayD<f32> {
        match self {
            Self::Floats(array) => array,
            Self::Integers(_) => panic!("the tensor holds integers"),
        }
    }
}

/// Runs a graph on the CPU with one thread, and returns its outputs by name.
///
/// # Panics
/// With what ONNX Runtime says if it refuses the graph or the inputs.
pub fn run(content: &Content, weights: Weights, feeds: &BTreeMap<&str, Tensor>) -> BTreeMap<String, ArrayD<f32>> {
    let model = encode(content, "{}", weights.data(content));
    let mut session = session(&model).unwrap_or_else(|error| panic!("the graph is refused: {error}"));
    let inputs: Vec<(String, DynValue)> = content
        .inputs
        .iter()
        .map(|(_, port)| {
            let feed = feeds.get(port.name.as_str()).unwrap_or_else(|| panic!("nothing is fed to {}", port.name));
            (port.name.clone(), value(feed, port.dtype))
        })
        .collect();
    let outputs = session.run(inputs).unwrap_or_else(|error| panic!("the run failed: {error}"));
    content.outputs.iter().map(|(_, port)| (port.name.clone(), floats(&outputs[port.name.as_str()]))).collect()
}

/// Loaded once: a process can have one environment only. `lfm2_host::runtime` has another, so that a test uses the one or the other.
static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let library = library();
    let environment = ort::init_from(&library).unwrap_or_else(|error| panic!("{}: {error}", library.display()));
    environment.with_name("tests").with_telemetry(false).build().unwrap()
});

/// Where ONNX Runtime lies: what `ORT_DYLIB_PATH` names, or what `make runtime` has fetched.
fn library() -> PathBuf {
    if let Some(path) = env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = repository.join(".runtime/onnxruntime");
    let entries = folder.read_dir().into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_library = |path: &PathBuf| platform::is_library_name(&path.file_name().unwrap().to_string_lossy());
    let library = entries.into_iter().find(is_library);
    library.unwrap_or_else(|| panic!("there is no ONNX Runtime in {}: run `make runtime`", folder.display()))
}

fn session(model: &[u8]) -> ort::Result<Session> {
    let cpu = ENVIRONMENT.devices().filter(|device| device.ep().ok() == Some("CPUExecutionProvider"));
    let mut builder = Session::builder(&ENVIRONMENT)?.with_devices(cpu, None)?.with_intra_threads(1)?;
    builder.commit_from_memory(model)
}

fn value(tensor: &Tensor, dtype: DType) -> DynValue {
    match (tensor, dtype) {
        (Tensor::Floats(array), DType::Float32) => OrtTensor::from_array(array.clone()).unwrap().into_dyn(),
        (Tensor::Floats(array), DType::Float16) => OrtTensor::from_array(array.mapv(f16::from_f32)).unwrap().into_dyn(),
        (Tensor::Integers(array), DType::Int64) => OrtTensor::from_array(array.clone()).unwrap().into_dyn(),
        _ => panic!("the port takes {dtype}"),
    }
}

fn floats(value: &DynValue) -> ArrayD<f32> {
    match value.try_extract_array::<f32>() {
        Ok(array) => array.to_owned(),
        Err(_) => value.try_extract_array::<f16>().unwrap().mapv(f16::to_f32),
    }
}
