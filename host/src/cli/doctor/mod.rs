//! `lfm2-host doctor`: what models can run on here.

mod args;
mod facts;
mod report;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::error::{CliError, Exit, Problems};
use super::provider::ProviderSettings;
use crate::provider::{self, Provider};
pub(super) use args::DoctorArgs;
use facts::{Facts, facts};
use report::Report;

/// Asks every provider, and prints what they said.
pub(super) fn doctor(args: &DoctorArgs, quiet: bool) -> Result<Exit, CliError> {
    let mut problems = Problems::default();
    let settings = args.provider_args().resolve(&mut problems);
    problems.distinct()?;
    if let Some(name) = &args.probe {
        return probe(name, args, &settings);
    }
    let bar = progress(quiet);
    let mut providers = Vec::new();
    for provider in &settings.providers {
        bar.set_message(format!("asking {}", provider.name()));
        providers.push(ask_apart(*provider, args)?);
    }
    bar.finish_and_clear();
    let is_asked = |facts: &&Facts| args.ep.is_some() || facts.provider == provider::DEFAULT;
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        works: providers.iter().filter(is_asked).all(Facts::is_well),
        model: args.model.as_ref().map(|model| model.display().to_string()),
        providers,
    };
    print(&report, args.json).map_err(CliError::output)?;
    Ok(if report.works { Exit::Done } else { Exit::Changed })
}

/// What a process of its own says about a provider. Libraries of vendors that crash do so there.
fn ask_apart(provider: &dyn Provider, args: &DoctorArgs) -> Result<Facts, CliError> {
    let start = |error: io::Error| {
        CliError::failed(format!("the process that asks {} cannot be started: {error}", provider.name()))
    };
    let mut command = Command::new(std::env::current_exe().map_err(start)?);
    command.args(["doctor", "--probe", provider.name(), "--quiet"]);
    let paths = [("--model", &args.model), ("--ep-lib", &args.ep_lib), ("--ort-lib", &args.ort_lib)];
    for (flag, path) in paths {
        path.iter().for_each(|path| {
            command.arg(flag).arg(path);
        });
    }
    args.ep.iter().for_each(|list| {
        command.args(["--ep", list]);
    });
    args.ep_option.iter().for_each(|option| {
        command.args(["--ep-option", option]);
    });
    command.args(args.allow_fallback.then_some("--allow-fallback"));
    let output = command.stdin(Stdio::null()).output().map_err(start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Libraries of vendors print what they like in front of it.
    if let Some(facts) = text.lines().rev().find_map(|line| serde_json::from_str(line).ok()) {
        return Ok(facts);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let said = last.map_or(String::new(), |line| format!(", and said last: {}", line.trim()));
    let problem = format!(
        "the process that asked it ended too early, which the library is to blame for: {}{said}",
        output.status
    );
    Ok(Facts { problem: Some(problem), ..Facts::of(provider.name()) })
}

/// What that process does.
fn probe(name: &str, args: &DoctorArgs, settings: &ProviderSettings) -> Result<Exit, CliError> {
    let provider = provider::named(name).map_err(CliError::failed)?;
    let facts = facts(provider, settings, args.model.as_deref());
    let mut output = io::stdout().lock();
    let line = serde_json::to_string(&facts).map_err(CliError::failed)?;
    writeln!(output, "{line}").and_then(|()| output.flush()).map_err(CliError::output)?;
    Ok(Exit::Done)
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut output = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut output, report)?;
        writeln!(output)?;
    } else {
        write!(output, "{report}")?;
    }
    output.flush()
}

/// Something that moves while nothing is printed yet, if somebody watches.
fn progress(quiet: bool) -> ProgressBar {
    let is_watched = io::stderr().is_terminal() && !quiet;
    let target = if is_watched { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
