//! `lfm2-host bench`: rows of measurements, one process for each, and their comparison.

mod args;
mod diff;
mod lists;
mod matrix;
mod merge;
mod plan;
mod report;
mod row_file;
mod worker;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::error::{CliError, Exit};
use super::interrupt;
use crate::cancel::Cancel;
use crate::measure::agreement::Agreement;
use crate::measure::format::{Format, Printer};
use crate::measure::{Cell, Origin, Program, Row, bandwidth, library_sha256};
use crate::platform::Machine;
use crate::provider;
use args::BenchCommand;
pub(super) use args::{BenchArgs, spelled_out};
use plan::{Model, Plan};
use row_file::RowFile;

/// Runs the command. `verbose` and `quiet` are those of the program.
pub(super) fn bench(args: &BenchArgs, verbose: u8, quiet: bool) -> Result<Exit, CliError> {
    match &args.command {
        Some(BenchCommand::Diff(args)) => diff::diff(args),
        Some(BenchCommand::Merge(args)) => merge::merge(args, quiet),
        Some(BenchCommand::Report(args)) => report::report(args),
        Some(BenchCommand::Cell { cell }) => worker::work(cell),
        None => measure(args, verbose, quiet),
    }
}

fn measure(args: &BenchArgs, verbose: u8, quiet: bool) -> Result<Exit, CliError> {
    let mut plan = Plan::new(args)?;
    if cfg!(debug_assertions) {
        tracing::warn!(
            "this program was built without optimization, and measures itself along: build it with --release"
        );
    }
    for model in plan.models.iter().filter(|model| model.subject.model_sha256.is_none()) {
        tracing::warn!(
            model = model.subject.model_filename,
            "no manifest lists the files of the model, so that rows cannot tell it from others"
        );
    }
    let machine = Machine::here();
    let device = args.device.as_deref();
    let file = args.out.as_deref().map(|path| RowFile::open(path, args.resume, args.retry_failed, &machine, device));
    let mut file = file.transpose()?;
    let without_result = match &mut file {
        Some(file) => leave_out(&mut plan, file, quiet)?,
        None => 0,
    };
    let cancel = Cancel::new();
    interrupt::takes_over(&cancel).map_err(CliError::failed)?;

    // The cells do so again, each for its provider; without any runtime there is no point in trying.
    provider::load_runtime(&plan.providers, args.ort_lib.as_deref()).map_err(CliError::failed)?;
    let verbosity = ["-v"].repeat(usize::from(verbose));
    let mut bench = Bench {
        libraries: HashMap::new(),
        machine,
        args,
        timeout: plan.timeout,
        bandwidths: HashMap::new(),
        agreements: HashMap::new(),
        flags: if quiet { vec!["-q"] } else { verbosity },
        bar: progress(&plan, quiet).map_err(CliError::failed)?,
        cancel,
    };
    let mut rows = Rows::new(&plan, file);
    let measured = bench.run(&plan, &mut rows);
    // What was measured is worth keeping, whatever ended it.
    bench.bar.finish_and_clear();
    let printed = rows.finish();
    let exit = measured?;
    printed?;
    if exit == Exit::Done && without_result > 0 {
        return Err(CliError::failed(BenchError::Left { cells: without_result }));
    }
    Ok(exit)
}

/// Takes the cells from the plan that the file has rows of, and says how many. Returns how many of those have no result.
fn leave_out(plan: &mut Plan, file: &mut RowFile, quiet: bool) -> Result<usize, CliError> {
    let (mut all, mut left, mut without_result) = (0, 0, 0);
    for Model { subject, cells } in &mut plan.models {
        all += cells.len();
        cells.retain(|cell| match file.take(&cell.id(subject)) {
            Some(has_result) => {
                without_result += usize::from(!has_result);
                false
            }
            None => true,
        });
        left += cells.len();
    }
    if left < all && !quiet {
        let done = all - left;
        let without = if without_result > 0 { format!(", {without_result} without a result") } else { String::new() };
        writeln!(io::stderr(), "{} has rows of {done} of {all} cells{without}", file.path().display())
            .map_err(closed)?;
    }
    Ok(without_result)
}

/// What all cells share.
struct Bench<'a> {
    /// Hashes of the libraries of ONNX Runtime that cells were measured with.
    libraries: HashMap<PathBuf, String>,
    machine: Machine,
    args: &'a BenchArgs,
    /// How long a cell may take.
    timeout: Duration,
    /// Bytes per second that so many threads read.
    bandwidths: HashMap<usize, Option<f64>>,
    /// What comparisons with the reference have found.
    agreements: HashMap<Compared, Known>,
    /// Flags for the processes.
    flags: Vec<&'static str>,
    bar: ProgressBar,
    cancel: Cancel,
}

/// What a comparison with the reference depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Compared {
    model: PathBuf,
    provider: String,
    /// Whether tokens go one by one.
    one_by_one: bool,
    /// Whether a companion takes part in running prompts.
    companion: bool,
}

impl Compared {
    /// What will run in a cell.
    fn of(cell: &Cell) -> Self {
        let one_by_one = cell.test.generate > 0;
        let companion = cell.sources.prefill.is_some();
        let (model, provider) = (cell.model.clone(), cell.provider.clone());
        Self { model, provider, one_by_one, companion: companion && !one_by_one }
    }
}

/// What a comparison has found.
#[derive(Clone, Debug)]
struct Known {
    agreement: Agreement,
    /// Number formats that prompts were computed with.
    prefill: String,
}

impl Known {
    /// The agreement for a cell that compares the same, if the same ran there.
    fn agreement(self, compared: &Compared, prefill: &str) -> Result<Agreement, String> {
        if compared.one_by_one || self.prefill == prefill {
            return Ok(self.agreement);
        }
        let other = self.prefill;
        Err(format!("prompts were computed with {prefill}, and what was compared with the reference with {other}"))
    }
}

impl Bench<'_> {
    fn run(&mut self, plan: &Plan, rows: &mut Rows) -> Result<Exit, CliError> {
        let (mut cells, mut incomplete, mut steps) = (0, 0, 0);
        for model in &plan.models {
            for cell in &model.cells {
                let Some(row) = self.row(model, cell)? else { return Ok(Exit::Interrupted) };
                cells += 1;
                steps += cell.repetitions as u64 + 1;
                self.bar.set_position(steps);
                // Lines of a table and a bar would write over each other.
                self.bar.suspend(|| {
                    if let Some(error) = &row.error {
                        tracing::error!("{}: {}: {error}", worker::name(cell), row.status.name());
                    }
                    rows.add(&row)
                })?;
                incomplete += usize::from(!row.is_complete());
            }
        }
        if incomplete > 0 {
            return Err(CliError::failed(BenchError::Incomplete { incomplete, cells }));
        }
        Ok(Exit::Done)
    }

    /// The row of a cell, or nothing after Ctrl-C or SIGTERM.
    fn row(&mut self, model: &Model, cell: &Cell) -> Result<Option<Row>, CliError> {
        self.bar.set_message(worker::name(cell));
        let has_limit = cell.test.prompt == 0 && cell.provider == "cpu";
        let read_bandwidth = if has_limit { self.bandwidth(cell.threads) } else { None };
        let test_time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // Comparing takes a second model; once for all cells that compute the same is enough.
        let compared = Compared::of(cell);
        let known = self.agreements.get(&compared).cloned();
        let asked = Cell { reference: cell.reference.clone().filter(|_| known.is_none()), ..cell.clone() };
        let mut measured =
            worker::measure_apart(&asked, &self.flags, self.timeout, &self.cancel, &mut || self.bar.inc(1));
        if let Some(Ok(measured)) = &mut measured {
            match (known, &measured.agreement) {
                (Some(known), _) => {
                    measured.agreement = Some(known.agreement(&compared, &measured.settings.prefill));
                }
                (None, Some(Ok(found))) => {
                    let known = Known { agreement: found.clone(), prefill: measured.settings.prefill.clone() };
                    self.agreements.insert(compared, known);
                }
                (None, _) => {}
            }
        }
        let mut program = Program::here();
        if let Some(Ok(measured)) = &measured {
            program.runtime_version = Some(measured.runtime_version.clone());
            program.runtime_sha256 = Some(self.library_hash(&measured.library)?);
        }
        let (program, machine, subject) = (&program, &self.machine, &model.subject);
        let (device, form_factor) = (self.args.device.as_deref(), self.args.form_factor.as_deref());
        let origin = Origin { program, machine, subject, device, form_factor, read_bandwidth, test_time: &test_time };
        Ok(measured.map(|measured| match measured {
            Ok(measured) => Row::new(origin, cell, &measured),
            Err(failure) => Row::failed(origin, cell, &failure),
        }))
    }

    /// The hash of a library, which is read once.
    fn library_hash(&mut self, library: &Path) -> Result<String, CliError> {
        if let Some(hash) = self.libraries.get(library) {
            return Ok(hash.clone());
        }
        let hash = library_sha256(library).map_err(CliError::failed)?;
        self.libraries.insert(library.to_owned(), hash.clone());
        Ok(hash)
    }

    /// How fast so many threads read memory, measured once.
    fn bandwidth(&mut self, threads: usize) -> Option<f64> {
        *self.bandwidths.entry(threads).or_insert_with(|| {
            let bandwidth = bandwidth::read_bandwidth(threads);
            if bandwidth.is_none() {
                tracing::warn!("there is too little free memory to measure how fast it is read: rows have no roofline");
            }
            bandwidth
        })
    }
}

/// A bar with a step for every repetition; hidden if nobody watches.
fn progress(plan: &Plan, quiet: bool) -> Result<ProgressBar, indicatif::style::TemplateError> {
    let steps = plan.models.iter().flat_map(|model| &model.cells).map(|cell| cell.repetitions as u64 + 1).sum();
    let is_watched = io::stderr().is_terminal() && !quiet;
    let target = if is_watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(steps), target);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {elapsed}")?);
    Ok(bar)
}

/// Where rows are written.
struct Rows {
    output: Printer<io::Stdout>,
    errors: Option<Printer<io::Stderr>>,
    file: Option<RowFile>,
}

impl Rows {
    fn new(plan: &Plan, file: Option<RowFile>) -> Self {
        let printer = |format: Format| Printer::new(format, plan.shown.clone(), io::stderr());
        Self {
            output: Printer::new(plan.output, plan.shown.clone(), io::stdout()),
            errors: plan.output_err.map(printer),
            file,
        }
    }

    fn add(&mut self, row: &Row) -> Result<(), CliError> {
        // First where it stays, whatever becomes of the others.
        if let Some(file) = &mut self.file {
            file.add(row)?;
        }
        if let Some(errors) = &mut self.errors {
            errors.row(row).map_err(closed)?;
        }
        self.output.row(row).map_err(CliError::output)
    }

    fn finish(self) -> Result<(), CliError> {
        if let Some(errors) = self.errors {
            errors.finish().map_err(closed)?;
        }
        self.output.finish().map_err(CliError::output)
    }
}

fn closed(source: io::Error) -> CliError {
    CliError::Stream { stream: "standard error", source }
}

/// Writes the result of a comparison.
fn print(text: &str) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).map_err(CliError::output)
}

/// Why the program fails at the end.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// Cells were left out that have no result.
    #[error("{cells} cells have rows without a result, and were not measured again; --retry-failed does that")]
    Left {
        /// How many.
        cells: usize,
    },
    /// Some cells have no result, or not all of it.
    #[error("{incomplete} of {cells} cells were not measured, or not wholly; their rows say why")]
    Incomplete {
        /// How many.
        incomplete: usize,
        /// Of how many.
        cells: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Sources, Test};

    fn cell(prefill: Option<&str>, test: Test) -> Cell {
        let sources = Sources { prefill: prefill.map(str::to_owned), ..Sources::default() };
        Cell { test, sources, ..crate::measure::tests::cell() }
    }

    #[test]
    fn what_the_companion_runs_is_compared_apart() {
        let prompt = Test { prompt: 512, generate: 0, depth: 0 };
        let compared = |prefill, test| Compared::of(&cell(prefill, test));
        assert_ne!(compared(Some("int8"), prompt), compared(None, prompt));
        let answer = Test { prompt: 0, generate: 4, depth: 512 };
        assert_eq!(compared(Some("int8"), answer), compared(None, answer), "single tokens are for the general graph");
    }

    #[test]
    fn an_agreement_is_that_of_what_ran() {
        let agreement = Agreement {
            reference: "exact/lfm2.onnx".to_owned(),
            precision: "fp32".to_owned(),
            tokens: 252,
            top1: 0.5,
            mean_kld: 0.25,
        };
        let known = Known { agreement: agreement.clone(), prefill: "q4".to_owned() };
        let compared = Compared::of(&cell(None, Test { prompt: 64, generate: 0, depth: 0 }));
        assert_eq!(known.clone().agreement(&compared, "q4"), Ok(agreement));
        let problem = known.agreement(&compared, "int8").unwrap_err();
        assert!(problem.contains("int8") && problem.contains("q4"), "{problem}");
    }
}
