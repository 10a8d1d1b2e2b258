//! `lfm2-host bench`: rows of measurements, one process for each, and their comparison.

mod args;
mod diff;
mod lists;
mod plan;
mod worker;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;

use super::error::{CliError, Exit};
use super::interrupt;
use crate::cancel::Cancel;
use crate::measure::format::{Format, Printer};
use crate::measure::{Cell, Origin, Program, Row, bandwidth};
use crate::platform::Machine;
use crate::runtime::Runtime;
use args::BenchCommand;
pub(super) use args::{BenchArgs, spelled_out};
use plan::{Model, Plan};

/// Runs the command. `verbose` and `quiet` are those of the program.
pub(super) fn bench(args: &BenchArgs, verbose: u8, quiet: bool) -> Result<Exit, CliError> {
    match &args.command {
        Some(BenchCommand::Diff(args)) => diff::diff(args),
        Some(BenchCommand::Cell { cell }) => worker::work(cell),
        None => measure(args, verbose, quiet),
    }
}

fn measure(args: &BenchArgs, verbose: u8, quiet: bool) -> Result<Exit, CliError> {
    let plan = Plan::new(args)?;
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
    let cancel = Cancel::new();
    interrupt::takes_over(&cancel).map_err(CliError::failed)?;

    let runtime = Runtime::load(args.ort_lib.as_deref()).map_err(CliError::failed)?;
    let verbosity = ["-v"].repeat(usize::from(verbose));
    let mut bench = Bench {
        program: Program::new(runtime).map_err(CliError::failed)?,
        machine: Machine::here(),
        bandwidths: HashMap::new(),
        flags: if quiet { vec!["-q"] } else { verbosity },
        bar: progress(&plan, quiet).map_err(CliError::failed)?,
        cancel,
    };
    let mut rows = Rows::new(&plan);
    let measured = bench.run(&plan, &mut rows);
    // What was measured is worth keeping, whatever ended it.
    bench.bar.finish_and_clear();
    let printed = rows.finish();
    let exit = measured?;
    printed?;
    Ok(exit)
}

/// What all cells share.
struct Bench {
    program: Program,
    machine: Machine,
    /// Bytes per second that so many threads read.
    bandwidths: HashMap<usize, Option<f64>>,
    /// Flags for the processes.
    flags: Vec<&'static str>,
    bar: ProgressBar,
    cancel: Cancel,
}

impl Bench {
    fn run(&mut self, plan: &Plan, rows: &mut Rows) -> Result<Exit, CliError> {
        for model in &plan.models {
            for cell in &model.cells {
                let Some(row) = self.row(model, cell)? else { return Ok(Exit::Interrupted) };
                // Lines of a table and a bar would write over each other.
                self.bar.suspend(|| rows.add(&row))?;
            }
        }
        Ok(Exit::Done)
    }

    /// The row of a cell, or nothing after Ctrl-C.
    fn row(&mut self, model: &Model, cell: &Cell) -> Result<Option<Row>, CliError> {
        self.bar.set_message(format!("{}, {} threads, {}", model.subject.model_filename, cell.threads, cell.test));
        let is_decode = cell.test.prompt == 0;
        let read_bandwidth = if is_decode { self.bandwidth(cell.threads) } else { None };
        let test_time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let measured = worker::measure_apart(cell, &self.flags, &self.cancel, &mut || self.bar.inc(1));
        let Some(measured) = measured.map_err(CliError::failed)? else { return Ok(None) };
        let (program, machine, subject) = (&self.program, &self.machine, &model.subject);
        let origin = Origin { program, machine, subject, read_bandwidth, test_time: &test_time };
        Ok(Some(Row::new(origin, cell, &measured)))
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
}

impl Rows {
    fn new(plan: &Plan) -> Self {
        let printer = |format: Format| Printer::new(format, plan.shown.clone(), io::stderr());
        Self {
            output: Printer::new(plan.output, plan.shown.clone(), io::stdout()),
            errors: plan.output_err.map(printer),
        }
    }

    fn add(&mut self, row: &Row) -> Result<(), CliError> {
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

/// Why benchmarks ended early.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    /// A cell could not be measured.
    #[error("{cell}: {reason}")]
    Cell {
        /// The cell in a few words.
        cell: String,
        /// What went wrong.
        reason: String,
    },
}
