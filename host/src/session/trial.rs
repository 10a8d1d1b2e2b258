//! A small graph, to see whether a provider really runs something here.

use ort::editor::{Graph, Model, Node, ONNX_DOMAIN, Opset};
use ort::memory::Allocator;
use ort::session::builder::SessionBuilder;
use ort::value::{Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType};

use super::SessionError;
use super::placement::{Placement, RECORD};
use crate::provider::{Provider, Setup, plain};

/// Dimensions of the one input and output.
const SHAPE: [i64; 3] = [1, 4, 8];

/// Elements of both.
const SIZE: usize = 32;

/// Adds a tensor to itself on `provider`, and fails if that runs elsewhere or is not the sum. Whether it can be used is known only
/// then: drivers and libraries are asked for when the first session is created.
pub fn trial(provider: &dyn Provider, setup: &Setup<'_>) -> Result<(), SessionError> {
    let failed = |reason: String| SessionError::Trial { provider: provider.name(), reason };
    let runtime = |error: ort::Error| failed(plain(&error.to_string()));
    let builder = SessionBuilder::new(setup.runtime.environment()).map_err(runtime)?;
    let (key, value) = RECORD;
    let builder = builder.with_config_entry(key, value).map_err(|error| runtime(error.into()))?;
    let builder = provider.configure(builder, setup)?;
    let (placement, sums) = super::clean(provider, || run(&builder)).map_err(runtime)?;
    if placement.elsewhere(provider.runtime_name()).count() > 0 {
        return Err(failed(placement.summary_elsewhere(provider.runtime_name())));
    }
    let error = |(index, sum): (usize, &f32)| (sum - 2.0 * index as f32).abs();
    let error = sums.iter().enumerate().map(error).fold(0.0, f32::max);
    // An NPU computes in half precision, which is exact for these numbers, and multiplies with something near 1 before or after.
    if sums.len() != SIZE || error.is_nan() || error > 0.05 {
        return Err(failed(format!("it computes wrong sums, by up to {error}")));
    }
    Ok(())
}

/// Who ran the graph, and what came out.
fn run(builder: &SessionBuilder) -> ort::Result<(Placement, Vec<f32>)> {
    let tensor = || ValueType::Tensor {
        ty: TensorElementType::Float32,
        shape: Shape::new(SHAPE),
        dimension_symbols: SymbolicDimensions::empty(SHAPE.len()),
    };
    let mut graph = Graph::new()?;
    graph.set_inputs([Outlet::new("x", tensor())])?;
    graph.set_outputs([Outlet::new("y", tensor())])?;
    graph.add_node(Node::new("Add", ONNX_DOMAIN, "sum", ["x", "x"], ["y"], [])?)?;
    let mut model = Model::new([Opset::new(ONNX_DOMAIN, 21)?])?;
    model.set_graph(graph)?;
    let mut session = model.into_session(builder)?;
    let mut x = Tensor::<f32>::new(&Allocator::default(), SHAPE)?;
    for (index, value) in x.extract_tensor_mut().1.iter_mut().enumerate() {
        *value = index as f32;
    }
    let sums = {
        let outputs = session.run(ort::inputs!["x" => x])?;
        outputs[0].try_extract_tensor::<f32>()?.1.to_vec()
    };
    Ok((Placement::of(&session)?, sums))
}
