//! `lfm2-host calibrate`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

use indicatif::ProgressBar;
use lfm2_graphs::contract::{Calibration, Purpose};

use super::error::Exit;
use super::load;
use super::settings::LoadSettings;
use super::text::{PlaceArgs, TextArgs, bar, shown};
use super::{CliError, Problems, interrupt};
use crate::calibrate::{CalibrationError, calibrate, ranges};
use crate::cancel::Cancel;
use crate::decoder::{DecoderError, RangeObserver};
use crate::documents::Window;
use crate::package::Package;
use crate::session::Session;
use crate::text::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  lfm2-export ./my-fine-tune --for calibrate --out calibrate.onnx
  lfm2-host calibrate --model calibrate.onnx --text dialogues.jsonl --out calibration.json
  lfm2-export ./my-fine-tune --precision q4 --calibration calibration.json --out q4.onnx
  lfm2-export ./my-fine-tune --qnn-precision w8a16 --calibration calibration.json --out npu.onnx";

/// Runs a text through the graphs of `lfm2-export --for calibrate`, and writes what quantization should spare and between which bounds
/// activations lie.
///
/// Each token is run twice if graphs for NPUs may follow.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CalibrateArgs {
    /// The graph that `lfm2-export --for calibrate` wrote
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,

    #[command(flatten)]
    text: TextArgs,

    /// Where the statistics go; `lfm2-export --calibration` reads them
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    #[command(flatten)]
    place: PlaceArgs,
}

/// Calibrates, and prints the path of what was written.
pub(super) fn run(args: CalibrateArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut problems = Problems::default();
    let text = args.text.settings(&mut problems);
    let mut model = args.place.settings(args.model, &mut problems);
    // Between runs there is work for one thread, for which the others would wait at full speed.
    model.session.spinning = false;
    problems.distinct()?;

    let cancel = Cancel::new();
    interrupt::takes_over(&cancel).map_err(CliError::failed)?;
    // Whether it can be written is known before the work, during which nothing lies there: the program may be ended.
    drop(Partial::create(&args.out)?);
    let package = load::open(&model, Purpose::Calibrate)?;
    package.require_statistics().map_err(CliError::failed)?;
    let fingerprint = package.model().ok_or_else(|| NoFingerprint { graph: shown(package.graph()) });
    let fingerprint = fingerprint.map_err(CliError::failed)?;
    let tokenizer = Tokenizer::load(package.folder()).map_err(CliError::failed)?;
    let read = text.read(&package, &tokenizer)?;
    let observed = observed(&model, &package)?;

    let tokens: usize = read.windows.iter().map(|window| window.tokens.len()).sum();
    let bar = bar(if observed.is_some() { 2 * tokens } else { tokens }, quiet)?;
    let found = taken(&model, &package, observed.as_ref(), &read.windows, fingerprint, &cancel, &bar);
    bar.finish_and_clear();
    let calibration = match found? {
        Err(CalibrationError::Decoder(DecoderError::Cancelled)) => return Ok(Exit::Interrupted),
        found => found.map_err(CliError::failed)?,
    };
    tracing::info!(tokens = calibration.tokens, documents = read.documents, "the statistics are taken");
    let json = calibration.to_json().map_err(CliError::failed)?;
    Partial::create(&args.out)?.finish(&args.out, json.as_bytes())?;
    let mut output = super::output::output();
    writeln!(output, "{}", args.out.display()).and_then(|()| output.flush()).map_err(CliError::output)?;
    Ok(Exit::Done)
}

/// Runs the text through both graphs, one after the other: each has loaded all weights in float32, and only one of them is there at a
/// time.
fn taken(
    settings: &LoadSettings,
    package: &Package,
    observed: Option<&Package>,
    windows: &[Window],
    fingerprint: &str,
    cancel: &Cancel,
    bar: &ProgressBar,
) -> Result<Result<Calibration, CalibrationError>, CliError> {
    let decoder = load::decoder(settings, package, cancel)?.decoder.into_dynamic();
    let mut decoder = decoder.ok_or_else(|| CliError::failed("calibration runs on the processor: leave --ep out"))?;
    let found = calibrate(&mut decoder, windows, fingerprint, cancel, &mut |done| bar.set_position(done as u64));
    drop(decoder);
    let (mut calibration, graph) = match (found, observed) {
        (Ok(calibration), Some(graph)) => (calibration, graph),
        (found, _) => return Ok(found),
    };
    let before = calibration.tokens;
    let mut observer = observer(settings, graph)?;
    let ranges = ranges(&mut observer, windows, cancel, &mut |done| bar.set_position(before + done as u64));
    Ok(ranges.map(|ranges| {
        calibration.ranges = ranges;
        calibration
    }))
}

/// The graph that tells ranges, if there is one.
fn observed(settings: &LoadSettings, package: &Package) -> Result<Option<Package>, CliError> {
    let Some(graph) = package.ranges().map_err(CliError::failed)? else {
        tracing::warn!(
            "there is no graph beside {} that tells between which bounds activations lie, so that `lfm2-export --qnn-precision` will not take the result",
            shown(package.graph())
        );
        return Ok(None);
    };
    if settings.verify {
        graph.verify().map_err(CliError::failed)?;
    }
    Ok(Some(graph))
}

/// The graph that tells ranges, loaded onto the processor.
fn observer(settings: &LoadSettings, graph: &Package) -> Result<RangeObserver, CliError> {
    let runtime = settings.provider.runtime()?;
    settings.provider.first_that_works(|provider| {
        let options = settings.provider.session(provider, &settings.session);
        let session = Session::new(runtime, graph, provider, &options).map_err(CliError::failed)?;
        let folder = graph.graph().parent().unwrap_or(graph.folder());
        RangeObserver::new(session, folder).map_err(CliError::failed)
    })
}

/// What export would not accept.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no manifest that lists {graph}, so that nothing tells which checkpoint the statistics are of; keep the graph in the folder that it was exported to"
)]
struct NoFingerprint {
    graph: String,
}

/// A file under a name of its own until it is whole; removed if it never is.
struct Partial(PathBuf);

impl Partial {
    /// Creates the file beside `out`.
    fn create(out: &Path) -> Result<Self, CliError> {
        let name =
            out.file_name().filter(|_| !out.is_dir()).ok_or_else(|| unwritable(out, "it is no name of a file"))?;
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{}.partial", process::id()));
        let path = out.with_file_name(partial);
        File::create(&path).map_err(|error| unwritable(out, error))?;
        Ok(Self(path))
    }

    /// Writes all of it, and gives it its name.
    fn finish(self, out: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let write = || {
            let mut file = File::create(&self.0)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&self.0, out)
        };
        write().map_err(|error| unwritable(out, error))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a renaming there is nothing left to remove.
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

fn unwritable(out: &Path, reason: impl std::fmt::Display) -> CliError {
    CliError::failed(format!("{} cannot be written: {reason}", out.display()))
}
