//! One test with one model and one setting, from loading to the last repetition.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{MeasureError, Samples, Test, run};
use crate::decoder::{Companion, Decoder, DecoderSettings, OrtDecoder};
use crate::package::{Package, Prefill};
use crate::platform;
use crate::provider::{self, SessionOptions};
use crate::session::Session;

/// What is measured, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The package, as [`Package::open`] takes it.
    pub model: PathBuf,
    /// The ONNX Runtime library, as [`Runtime::load`](crate::runtime::Runtime::load) takes it.
    pub library: Option<PathBuf>,
    /// Name of the execution provider.
    pub provider: String,
    /// Number of threads.
    pub threads: usize,
    /// Whether threads wait actively for more work.
    pub spinning: bool,
    /// Tokens of a prompt that are run at once.
    pub chunk: usize,
    /// What runs prompts.
    pub prefill: Prefill,
    /// The test.
    pub test: Test,
    /// How often it is measured.
    pub repetitions: usize,
    /// Seed of the tokens.
    pub seed: u64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// How the decoder computes.
    pub settings: DecoderSettings,
    /// Times of the repetitions.
    pub samples: Samples,
    /// Nanoseconds from opening the package to a decoder that is ready, with loading ONNX Runtime.
    pub load_ns: u64,
    /// Nanoseconds of that for creating the session: reading the graph, and bringing the weights into the kernels' form.
    pub session_ns: u64,
    /// Nanoseconds of the first run, of one token.
    pub first_run_ns: u64,
    /// The largest number of bytes resident from the start of the process to the end of the test.
    pub peak_bytes: Option<u64>,
    /// The same from when all was loaded and one token run, without what only loading needs.
    pub peak_run_bytes: Option<u64>,
}

/// Loads the model and runs the test; calls `on_repetition` after each repetition, and after one more for warming up;
/// that may stop it.
///
/// Times of loading and peaks of memory are this test's own only if the process does nothing else.
pub fn measure(cell: &Cell, on_repetition: &mut dyn FnMut() -> ControlFlow<()>) -> Result<Measured, MeasureError> {
    let start = Instant::now();
    let package = Package::open(&cell.model)?;
    let provider = provider::named(&cell.provider)?;
    let runtime = provider::load_runtime(&[provider], cell.library.as_deref())?;
    let options = SessionOptions { threads: Some(cell.threads), spinning: cell.spinning, ..SessionOptions::default() };
    let session_start = Instant::now();
    let session = Session::new(runtime, &package, provider, &options)?;
    let session_ns = nanoseconds(session_start);
    let mut decoder = OrtDecoder::new(session, None)?;
    decoder.set_chunk(cell.chunk);
    if let Some(prefill) = package.prefill(cell.prefill)? {
        let load = move || Session::new(runtime, &prefill, provider, &options);
        decoder.set_companion(Companion::new(cell.prefill, load));
    }
    let load_ns = nanoseconds(start);

    let first = Instant::now();
    decoder.step(&[0])?;
    let first_run_ns = nanoseconds(first);
    decoder.reset();

    let peak_load = platform::peak_memory();
    let is_apart = platform::reset_peak_memory();
    let clock = Instant::now();
    let mut clock = || clock.elapsed();
    let samples = run(&mut decoder, cell.test, cell.repetitions, cell.seed, &mut clock, on_repetition)?;
    let peak_run = platform::peak_memory();
    Ok(Measured {
        settings: decoder.settings(),
        samples,
        load_ns,
        session_ns,
        first_run_ns,
        peak_bytes: peak_load.max(peak_run),
        peak_run_bytes: peak_run.filter(|_| is_apart),
    })
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
