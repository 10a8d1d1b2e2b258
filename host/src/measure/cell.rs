//! One test with one model and one setting, from loading to the last repetition.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lfm2_graphs::contract::Contract;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::agreement::{Agreement, agreement};
use super::run::{Procedure, run};
use super::{MeasureError, Samples, Subject, Test};
use crate::decoder::{AnyDecoder, Decoder, DecoderSettings, Opening};
use crate::engine::DraftCost;
use crate::evaluate::Pass;
use crate::package::{Package, Prefill, UsedFile};
use crate::platform::{self, ThermalZone};
use crate::provider::{self, Fallback, Prepack, SessionOptions};

/// What is measured, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// The package, as [`Package::open`] takes it.
    pub model: PathBuf,
    /// The ONNX Runtime library, as [`Runtime::load`](crate::runtime::Runtime::load) takes it.
    pub library: Option<PathBuf>,
    /// Name of the execution provider.
    pub provider: String,
    /// Its options, as [`SessionOptions::provider`] takes them, by key.
    pub provider_options: BTreeMap<String, String>,
    /// The library of a provider that comes in one of its own.
    pub plugin: Option<PathBuf>,
    /// Whether other providers may run what this one does not take; without it, as is usual for the provider.
    pub allow_fallback: Option<bool>,
    /// The folder with the graphs that were compiled ahead of time, if they are to be used.
    pub compiled: Option<PathBuf>,
    /// Number of threads.
    pub threads: usize,
    /// Whether threads wait actively for more work.
    pub spinning: bool,
    /// Tokens of a prompt that are run at once.
    pub chunk: usize,
    /// Whether weights are packed one after the other, which takes less memory at once.
    pub low_memory: bool,
    /// What runs prompts.
    pub prefill: Prefill,
    /// Most tokens that are guessed for one run; 0 for none.
    pub speculate: usize,
    /// The package that is exact, with which the model is compared on the CPU after the test.
    pub reference: Option<PathBuf>,
    /// What the paths lead to, as far as it is known.
    pub sources: Sources,
    /// The test.
    pub test: Test,
    /// How often it is measured.
    pub repetitions: usize,
    /// Seed of the tokens.
    pub seed: u64,
    /// What the plan calls it.
    pub names: Names,
}

/// What tells apart what lies under the same names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// [`Package::fingerprint`] of the graphs that run, if the model's own does not.
    pub graphs: Vec<String>,
    /// What takes part in running prompts beside the model's own graph, if something does: the number formats, and the fingerprint of that
    /// graph if a manifest lists it.
    pub prefill: Option<String>,
    /// That of the reference.
    pub reference: Option<String>,
    /// The chip that the compiled graphs are for.
    pub chip: Option<String>,
}

/// What a plan calls a cell, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The plan.
    pub plan: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The test.
    pub test: Option<String>,
}

impl Cell {
    /// What tells this cell from all others of the same model: the same in every run on every machine. Sixteen hexadecimal digits.
    ///
    /// It is the beginning of a SHA-256 over the hashes of the model, of other graphs that run and of the reference, and all settings. Where the
    /// files lie and what a plan calls them does not matter; nor do program, runtime and machine.
    pub fn id(&self, subject: &Subject) -> String {
        let Self { provider_options, allow_fallback, .. } = self;
        let Self {
            model: _,
            library: _,
            plugin: _,
            names: _,
            compiled: _,
            provider,
            threads,
            spinning,
            chunk,
            low_memory,
            ..
        } = self;
        let Self { prefill, speculate, reference, sources, test, repetitions, seed, .. } = self;
        let reference = reference.as_ref().map(|path| path.file_name().unwrap_or_default().to_string_lossy());
        let model = (&subject.model_filename, subject.model_size, &subject.model_sha256, &subject.weights_sha256);
        let session = (provider, provider_options, allow_fallback, threads, spinning, chunk, low_memory);
        let settings = (model, session, prefill, speculate, reference, test, repetitions, seed);
        let mut text = serde_json::to_string(&settings).unwrap_or_default();
        // Where nothing of this applies, numbers stay those of older versions.
        let Sources { graphs, prefill, reference, chip } = sources;
        for (name, values) in [
            ("graphs", &graphs[..]),
            ("prefill", prefill.as_slice()),
            ("reference", reference.as_slice()),
            ("chip", chip.as_slice()),
        ] {
            if !values.is_empty() {
                text += &format!(" {name} {}", values.join(","));
            }
        }
        if self.compiled.is_some() {
            text += " compiled";
        }
        Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Cell {
    fn session_options(&self) -> SessionOptions {
        SessionOptions {
            spinning: self.spinning,
            prepack: if self.low_memory { Prepack::Frugal } else { Prepack::default() },
            provider: self.provider_options.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            plugin: self.plugin.clone(),
            fallback: self.allow_fallback.map(|allowed| if allowed { Fallback::Allowed } else { Fallback::Refused }),
            ..SessionOptions::with_threads(Some(self.threads))
        }
    }
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The ONNX Runtime library, which may be another one for each provider.
    pub library: PathBuf,
    /// Its version.
    pub runtime_version: String,
    /// Description of the graph that ran single tokens, which is not that of the processor on every provider.
    pub contract: Contract,
    /// Every file that a graph was loaded from, once; none if no manifest lists them.
    pub files: Option<Vec<UsedFile>>,
    /// What the provider ran on, in words that tell a simulator.
    pub device: String,
    /// How the decoder computes.
    pub settings: DecoderSettings,
    /// Times of the repetitions.
    pub samples: Samples,
    /// Nanoseconds from opening the package to a decoder that is ready, with loading ONNX Runtime.
    pub load_ns: u64,
    /// Nanoseconds of that for creating the session, or both of a pair of static graphs: reading the graph, compiling it where that
    /// is done, and bringing the weights into the kernels' form. The session of a companion is created later, by the first prompt.
    pub session_ns: u64,
    /// Nanoseconds of the first run, of one token.
    pub first_run_ns: u64,
    /// The largest number of bytes resident from the start of the process to the end of the test.
    pub peak_bytes: Option<u64>,
    /// The same from when all was loaded and one token run, without what only loading needs.
    pub peak_run_bytes: Option<u64>,
    /// Bytes of devices' memory held at the end of the test. Not a part of the others, and not to be added to them.
    pub device_bytes: Option<u64>,
    /// Number of nodes of all graphs that were loaded by the provider that runs them; none where the runtime does not tell.
    pub placement: Option<BTreeMap<String, usize>>,
    /// Whether compiled graphs were loaded; if not, `session_ns` has the compiling in it. None if the provider does not compile.
    pub cache_hit: Option<bool>,
    /// Temperatures just before the first repetition.
    pub thermal_before: Option<Vec<ThermalZone>>,
    /// Temperatures just after the last one.
    pub thermal_after: Option<Vec<ThermalZone>>,
    /// Hertz of every core just before the first repetition.
    pub frequency_before: Option<Vec<u64>>,
    /// Hertz of every core just after the last one.
    pub frequency_after: Option<Vec<u64>>,
    /// How far the model is from the reference, if there is one, or why that is not known.
    pub agreement: Option<Result<Agreement, String>>,
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
    let options = cell.session_options();
    let opening = Opening {
        runtime,
        package: &package,
        provider,
        options: options.clone(),
        max_context: None,
        prefill: cell.prefill,
        compiled: cell.compiled.as_deref(),
        verify: false,
        speculate: cell.speculate > 0,
    };
    let mut decoder = opening.decoder()?;
    let session_ns = nanoseconds(decoder.creation());
    let devices = provider.devices(runtime, &options)?;
    let device = devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    // Static graphs have chunks of their own.
    if let AnyDecoder::Dynamic(decoder) = &mut decoder {
        decoder.set_chunk(cell.chunk);
    }
    let load_ns = nanoseconds(start.elapsed());

    let first = Instant::now();
    decoder.step(&[0])?;
    let first_run_ns = nanoseconds(first.elapsed());
    decoder.reset();

    let peak_load = platform::peak_memory();
    let is_apart = platform::reset_peak_memory();
    let (thermal_before, frequency_before) = (platform::thermal_zones(), platform::core_frequencies());
    let clock = Instant::now();
    let mut clock = || clock.elapsed();
    let Cell { test, repetitions, seed, speculate, .. } = *cell;
    let procedure = Procedure { test, repetitions, seed, speculate, draft_cost: DraftCost::Learnt };
    let samples = run(&mut decoder, procedure, &mut clock, on_repetition)?;
    let (thermal_after, frequency_after) = (platform::thermal_zones(), platform::core_frequencies());
    let peak_run = platform::peak_memory();
    let device_bytes = platform::device_memory();
    let settings = DecoderSettings { speculate, ..decoder.settings() };
    let (files, placement) = (decoder.files(), decoder.placed());
    // After all else, because another model needs memory too.
    let pass = if test.generate > 0 { Pass::Decode } else { Pass::Prefill };
    let agreement = cell.reference.as_ref().map(|reference| {
        let reference = Package::open(reference)?;
        let found = agreement(&mut decoder, runtime, &reference, cell.threads, pass)?;
        // Its texts may be longer than the test's prompt, so that other graphs run them.
        let (test, compared) = (&settings.prefill, decoder.settings().prefill);
        if pass == Pass::Prefill && *test != compared {
            return Err(MeasureError::OtherPrefill { test: test.clone(), compared });
        }
        Ok(found)
    });
    Ok(Measured {
        library: runtime.library().to_owned(),
        runtime_version: runtime.version().to_owned(),
        contract: decoder.contract().clone(),
        files,
        device,
        settings,
        samples,
        load_ns,
        session_ns,
        first_run_ns,
        peak_bytes: peak_load.max(peak_run),
        peak_run_bytes: peak_run.filter(|_| is_apart),
        device_bytes,
        placement: Some(placement),
        cache_hit: provider.compiles().then_some(cell.compiled.is_some()),
        thermal_before,
        thermal_after,
        frequency_before,
        frequency_after,
        agreement: agreement.map(|found| found.map_err(|error: MeasureError| error.to_string())),
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::Sources;
    use crate::measure::Names;
    use crate::measure::tests::{cell, subject};

    #[test]
    fn the_same_settings_have_the_same_id() {
        let (cell, subject) = (cell(), subject());
        let id = cell.id(&subject);
        assert!(id.len() == 16 && id.chars().all(|c| c.is_ascii_hexdigit()), "{id}");
        let mut other = cell.clone();
        other.model = "elsewhere/lfm2.onnx".into();
        other.library = Some("libonnxruntime.so".into());
        other.names = Names { model: Some("mine".to_owned()), ..Names::default() };
        assert_eq!(other.id(&subject), id);
        other.compiled = Some("compiled".into());
        assert_ne!(other.id(&subject), id);
        other.compiled = None;
        other.threads += 1;
        assert_ne!(other.id(&subject), id);
        other = cell.clone();
        for sources in [
            Sources { graphs: vec!["aa".to_owned()], ..Sources::default() },
            Sources { prefill: Some("int8".to_owned()), ..Sources::default() },
            Sources { prefill: Some("int8 aa".to_owned()), ..Sources::default() },
            Sources { reference: Some("aa".to_owned()), ..Sources::default() },
            Sources { chip: Some("aa".to_owned()), ..Sources::default() },
        ] {
            let before = other.id(&subject);
            other.sources = sources;
            assert!(other.id(&subject) != before && other.id(&subject) != id, "{other:?}");
        }
        let mut others = subject.clone();
        others.weights_sha256 = None;
        assert_ne!(cell.id(&others), id);
    }
}
