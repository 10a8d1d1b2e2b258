//! Graphs run as they are, without a package around them.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use half::{bf16, f16};
use lfm2_export::proto::encode;
use lfm2_graphs::contract::{Contract, Dim, Port, State};
use lfm2_graphs::ir::{Content, DType};
use lfm2_host::package::Package;
use lfm2_host::platform;
use ndarray::{Array2, ArrayD, Axis};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Tensor as OrtTensor};

use crate::weights::Weights;

/// What a graph is fed with. Floats are converted to the type of the port.
#[derive(Clone, Debug)]
pub enum Tensor {
    /// Floats of any width.
    Floats(ArrayD<f32>),
    /// int64.
    Integers(ArrayD<i64>),
    /// int8.
    Bytes(ArrayD<i8>),
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
            Self::Bytes(array) => Self::Bytes(array.slice_axis(Axis(axis), (start..end).into()).to_owned()),
        }
    }

    /// Size of dimension `axis`.
    pub fn length(&self, axis: usize) -> usize {
        match self {
            Self::Floats(array) => array.len_of(Axis(axis)),
            Self::Integers(array) => array.len_of(Axis(axis)),
            Self::Bytes(array) => array.len_of(Axis(axis)),
        }
    }

    /// The numbers of a tensor of floats.
    pub fn floats(&self) -> &ArrayD<f32> {
        match self {
            Self::Floats(array) => array,
            Self::Integers(_) | Self::Bytes(_) => panic!("the tensor holds integers"),
        }
    }
}

/// Runs a graph on the CPU with one thread, and returns its outputs by name.
///
/// # Panics
/// With what ONNX Runtime says if it refuses the graph or the inputs.
pub fn run(content: &Content, weights: Weights, feeds: &BTreeMap<&str, Tensor>) -> BTreeMap<String, ArrayD<f32>> {
    Loaded::new(content, weights).run(feeds)
}

/// A graph that is run as it is, several times.
#[derive(Debug)]
pub struct Loaded {
    session: Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Loaded {
    /// Loads a graph on the CPU with one thread.
    ///
    /// # Panics
    /// With what ONNX Runtime says if it refuses the graph.
    pub fn new(content: &Content, weights: Weights) -> Self {
        let model = encode(content, "{}", weights.data(content));
        let session = builder().and_then(|mut builder| builder.commit_from_memory(&model));
        let session = session.unwrap_or_else(|error| panic!("the graph is refused: {error}"));
        let [inputs, outputs] =
            [&content.inputs, &content.outputs].map(|ports| ports.iter().map(|(_, port)| port.clone()).collect());
        Self { session, inputs, outputs }
    }

    /// Runs it, and returns its outputs by name.
    ///
    /// # Panics
    /// With what ONNX Runtime says if it refuses the inputs.
    pub fn run(&mut self, feeds: &BTreeMap<&str, Tensor>) -> BTreeMap<String, ArrayD<f32>> {
        let [inputs, outputs] = [&self.inputs, &self.outputs].map(|ports| ports.iter().collect::<Vec<_>>());
        run_session(&mut self.session, &inputs, &outputs, feeds)
    }
}

/// A package run as it is, with batches of any size.
#[derive(Debug)]
pub struct Runner {
    session: Session,
    contract: Contract,
}

impl Runner {
    /// Loads the ONNX file of a package on the CPU with one thread.
    pub fn open(graph: &Path) -> Self {
        let contract = Package::open(graph).unwrap().contract().clone();
        let session = builder().and_then(|mut builder| builder.commit_from_file(graph));
        let session = session.unwrap_or_else(|error| panic!("{} is refused: {error}", graph.display()));
        Self { session, contract }
    }

    /// Description of the graph.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The states before the first token.
    pub fn empty_states(&self, batch: usize) -> Vec<ArrayD<f32>> {
        let size = |dim: &Dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Symbol(name) if name == "batch_size" => batch,
            Dim::Symbol(_) => 0,
        };
        let shape = |state: &State| state.past.shape.iter().map(size).collect::<Vec<_>>();
        self.contract.states.iter().map(|state| ArrayD::zeros(shape(state))).collect()
    }

    /// Runs `ids` `[batch, sequence]` with a mask `[batch, total]`. Returns the logits of the last position
    /// `[batch, vocab_size]`, and replaces the states.
    pub fn step(&mut self, ids: Array2<i64>, mask: Array2<i64>, states: &mut [ArrayD<f32>]) -> Array2<f32> {
        let (inputs, logits) = (self.contract.ids().unwrap(), self.contract.logits().unwrap());
        let described = &self.contract.states;
        let mut feeds = BTreeMap::from([
            (inputs.input_ids.name.as_str(), Tensor::Integers(ids.into_dyn())),
            (inputs.attention_mask.name.as_str(), Tensor::Integers(mask.into_dyn())),
        ]);
        feeds.extend(
            described.iter().zip(&*states).map(|(it, state)| (it.past.name.as_str(), Tensor::Floats(state.clone()))),
        );
        let past = described.iter().map(|state| &state.past);
        let present = described.iter().map(|state| &state.present);
        let taken: Vec<_> = [&inputs.input_ids, &inputs.attention_mask].into_iter().chain(past).collect();
        let given: Vec<_> = [logits].into_iter().chain(present).collect();
        let mut found = run_session(&mut self.session, &taken, &given, &feeds);
        for (described, state) in described.iter().zip(states) {
            *state = found.remove(&described.present.name).unwrap();
        }
        let logits = found.remove(&logits.name).unwrap();
        logits.index_axis_move(Axis(1), 0).into_dimensionality().unwrap()
    }
}

fn run_session(
    session: &mut Session,
    inputs: &[&Port],
    outputs: &[&Port],
    feeds: &BTreeMap<&str, Tensor>,
) -> BTreeMap<String, ArrayD<f32>> {
    let feed = |port: &&Port| {
        let feed = feeds.get(port.name.as_str()).unwrap_or_else(|| panic!("nothing is fed to {}", port.name));
        (port.name.clone(), value(feed, port.dtype))
    };
    let inputs: Vec<(String, DynValue)> = inputs.iter().map(feed).collect();
    let found = session.run(inputs).unwrap_or_else(|error| panic!("the run failed: {error}"));
    outputs.iter().map(|port| (port.name.clone(), floats(&found[port.name.as_str()]))).collect()
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
    let is_library =
        |path: &PathBuf| platform::is_library_file(&path.file_name().unwrap().to_string_lossy(), "onnxruntime");
    let library = entries.into_iter().find(is_library);
    library.unwrap_or_else(|| panic!("there is no ONNX Runtime in {}: run `make runtime`", folder.display()))
}

fn builder() -> ort::Result<SessionBuilder> {
    let cpu = ENVIRONMENT.devices().filter(|device| device.ep().ok() == Some("CPUExecutionProvider"));
    Ok(Session::builder(&ENVIRONMENT)?.with_devices(cpu, None)?.with_intra_threads(1)?)
}

fn value(tensor: &Tensor, dtype: DType) -> DynValue {
    match (tensor, dtype) {
        (Tensor::Floats(array), DType::Float32) => OrtTensor::from_array(array.clone()).unwrap().into_dyn(),
        (Tensor::Floats(array), DType::Float16) => OrtTensor::from_array(array.mapv(f16::from_f32)).unwrap().into_dyn(),
        (Tensor::Floats(array), DType::Bfloat16) => {
            OrtTensor::from_array(array.mapv(bf16::from_f32)).unwrap().into_dyn()
        }
        (Tensor::Bytes(array), DType::Int8) => OrtTensor::from_array(array.clone()).unwrap().into_dyn(),
        (Tensor::Integers(array), DType::Int64) => OrtTensor::from_array(array.clone()).unwrap().into_dyn(),
        _ => panic!("the port takes {dtype}"),
    }
}

fn floats(value: &DynValue) -> ArrayD<f32> {
    if let Ok(array) = value.try_extract_array::<f32>() {
        return array.to_owned();
    }
    if let Ok(array) = value.try_extract_array::<bf16>() {
        return array.mapv(bf16::to_f32);
    }
    match value.try_extract_array::<f16>() {
        Ok(array) => array.mapv(f16::to_f32),
        Err(_) => value.try_extract_array::<i8>().unwrap().mapv(f32::from),
    }
}
