//! Compiling a graph ahead of time.

use std::path::Path;

use ort::compiler::ModelCompiler;
use ort::session::builder::SessionBuilder;

use super::SessionError;
use crate::provider::{Provider, Setup};

/// Compiles the ONNX file `graph` with `provider`, and writes to `out` an ONNX file with what came out in the place of the nodes;
/// the binary of the compiler lies in a file beside it.
///
/// # Errors
/// If the compiler fails. What `out` has of nodes that the provider did not take is for [`load`](super::load) to find.
pub(crate) fn compile(
    graph: &Path,
    provider: &dyn Provider,
    setup: &Setup<'_>,
    out: &Path,
) -> Result<(), SessionError> {
    let failed = |reason: ort::Error| SessionError::Compile { graph: graph.to_owned(), reason: reason.to_string() };
    let builder = SessionBuilder::new(setup.runtime.environment()).map_err(failed)?;
    let compiler = ModelCompiler::new(provider.configure(builder, setup)?).map_err(failed)?;
    let compiler = compiler.with_model_from_file(graph).map_err(failed)?;
    super::clean(provider, || compiler.compile_to_file(out)).map_err(failed)
}
