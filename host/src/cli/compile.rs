//! `lfm2-host compile`.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lfm2_graphs::contract::{Purpose, Target};
use serde::Serialize;

use super::error::Exit;
use super::provider::ProviderArgs;
use super::{CliError, Problems, interrupt};
use crate::cancel::Cancel;
use crate::compiled::{Compiling, PROVIDER};
use crate::package::Package;
use crate::provider::{SessionOptions, soc};

const EXAMPLES: &str = "\
Examples:
  lfm2-host compile --ep qnn --model lfm2.onnx --soc SM8750 --out compiled
      Compile for one chip, on an x86 machine or on the phone itself.
  lfm2-host compile --ep qnn --model lfm2.onnx --soc SM8550,SM8650,SM8750 --out compiled
      One folder below `compiled` for each chip.
  lfm2-host --ep qnn --model lfm2.onnx --compiled compiled/SM8750 --prompt \"What is C. elegans?\"
      Load what was compiled. The package is still needed: tokenizer, template and token table are there.

What was compiled is refused if graph, weights, plugin or chip are others than those it was made for, or if ONNX Runtime is older.
Each graph has its weights in a binary of its own, unless --share-weights puts those of both into one: little more than half of the
size. Only the chip loads such a binary: on x86 it would end the process, so that it is refused there, and was never seen to load.";

/// Compiles the graphs of a package for Qualcomm's NPUs ahead of time.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompileArgs {
    /// The package: an .onnx file, or a folder with one
    #[arg(short, long, value_name = "PACKAGE", default_value = ".")]
    model: PathBuf,

    /// The chips: names such as SM8750, or their numbers
    #[arg(long, value_name = "CHIP,..", required = true)]
    soc: String,

    /// Where the folders of the chips go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Put the weights of both graphs into one binary, which the chip alone loads: see below
    #[arg(long)]
    share_weights: bool,

    /// Print one JSON object for each chip
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    provider: ProviderArgs,
}

/// One chip, as `--json` has it.
#[derive(Debug, Serialize)]
struct Row {
    soc: &'static str,
    soc_model: u32,
    htp_arch: u32,
    folder: PathBuf,
    bytes: u64,
    seconds: f64,
}

/// Compiles, and prints the folders that were written.
pub(super) fn run(args: CompileArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut problems = Problems::default();
    let socs = chips(&args.soc, &mut problems);
    if args.provider.ep != PROVIDER {
        problems.add(
            "--ep",
            format!("{} has no compiler that works ahead of time: give --ep {PROVIDER}", args.provider.ep),
        );
    }
    let settings = args.provider.resolve(&mut problems);
    problems.distinct()?;
    let Some(&provider) = settings.providers.first() else { return Ok(Exit::Done) };

    let cancel = Cancel::new();
    interrupt::leaves_nothing_in(&args.out, &cancel).map_err(CliError::failed)?;
    let package = Package::open(&args.model).map_err(CliError::failed)?;
    package.require(Purpose::General).map_err(CliError::failed)?;
    let pair = package.pair(Target::Qnn).map_err(CliError::failed)?;
    let runtime = settings.runtime()?;
    let options = settings.session(provider, &SessionOptions::default());
    let share_weights = args.share_weights;
    let compiling = Compiling { runtime, pair: &pair, provider, options, share_weights };
    for soc in socs {
        let start = Instant::now();
        let spinner = spinner(quiet)?;
        let folder = compiling.compile(soc, &args.out, &mut |graph| {
            let name = graph.graph().file_name().unwrap_or_default().to_string_lossy();
            spinner.set_message(format!("compiling {name} for {} ({})", soc.name, soc.sold_as));
            !cancel.is_cancelled()
        });
        spinner.finish_and_clear();
        if cancel.is_cancelled() {
            return Ok(Exit::Interrupted);
        }
        let Some(folder) = folder.map_err(CliError::failed)? else { return Ok(Exit::Interrupted) };
        let row = Row {
            soc: soc.name,
            soc_model: soc.model,
            htp_arch: soc.generation,
            bytes: size(&folder).map_err(CliError::failed)?,
            folder,
            seconds: start.elapsed().as_secs_f64(),
        };
        print(&row, args.json).map_err(CliError::output)?;
    }
    Ok(Exit::Done)
}

/// The chips in a list such as `SM8550,SM8750`.
fn chips(list: &str, problems: &mut Problems) -> Vec<soc::Soc> {
    let mut chips: Vec<soc::Soc> = Vec::new();
    for name in list.split(',').map(str::trim) {
        match soc::named(name) {
            Some(soc) if chips.contains(&soc) => problems.add("--soc", format!("names {} twice", soc.name)),
            Some(soc) => chips.push(soc),
            None => {
                let known: Vec<_> = soc::ALL.iter().map(|soc| format!("{} ({})", soc.name, soc.sold_as)).collect();
                problems.add("--soc", format!("{name:?} is none of {}", known.join(", ")));
            }
        }
    }
    chips
}

/// Turns on standard error while it is a terminal.
fn spinner(quiet: bool) -> Result<ProgressBar, CliError> {
    let hidden = quiet || !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let spinner = ProgressBar::with_draw_target(None, target);
    spinner.set_style(ProgressStyle::with_template("{spinner} {msg}, {elapsed}").map_err(CliError::failed)?);
    spinner.enable_steady_tick(Duration::from_millis(200));
    Ok(spinner)
}

fn size(folder: &std::path::Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in folder.read_dir()? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn print(row: &Row, json: bool) -> io::Result<()> {
    let mut output = super::output::output();
    if json {
        serde_json::to_writer(&mut output, row)?;
        writeln!(output)?;
    } else {
        tracing::info!(soc = row.soc, seconds = row.seconds, bytes = row.bytes, "compiled");
        writeln!(output, "{}", row.folder.display())?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_named_once() {
        let mut problems = Problems::default();
        let names: Vec<_> = chips("sm8550, 69", &mut problems).iter().map(|soc| soc.name).collect();
        assert_eq!((names, problems.is_empty()), (vec!["SM8550", "SM8750"], true));
        chips("SM9999,SM8750,69,", &mut problems);
        let message = problems.to_string();
        for part in ["SM9999", "names SM8750 twice", "Snapdragon 8 Elite", "\"\""] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }
}
