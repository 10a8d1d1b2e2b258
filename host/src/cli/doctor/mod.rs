//! `lfm2-host doctor`: what models can run on here.

mod args;
mod facts;
mod report;

use std::io::{self, IsTerminal, Write};
use std::process::{Command, Output};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::error::{CliError, Exit, Problems};
use super::output;
use super::provider::ProviderSettings;
use crate::platform;
use crate::provider::{self, Provider};
pub(super) use args::DoctorArgs;
use facts::{Facts, facts};
use report::Report;

/// How long a process may take to ask one provider. Compiling the graphs of a large package for an NPU takes minutes.
const LIMIT: Duration = Duration::from_secs(30 * 60);

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
    let Some(output) = platform::output_within(&mut command, LIMIT).map_err(start)? else {
        let problem = format!("the process that asked it took more than {} seconds and was ended", LIMIT.as_secs());
        return Ok(Facts { problem: Some(problem), ..Facts::of(provider.name()) });
    };
    Ok(said(provider.name(), &output))
}

/// What the output of such a process means.
fn said(provider: &str, output: &Output) -> Facts {
    let text = String::from_utf8_lossy(&output.stdout);
    let ended = platform::ended(output.status);
    // Libraries of vendors print what they like in front of it.
    if let Some(facts) = text.lines().rev().find_map(|line| serde_json::from_str::<Facts>(line).ok()) {
        let warning = format!("the process that asked it answered, and then {ended}");
        return Facts { warning: (!output.status.success()).then_some(warning), ..facts };
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let said = last.map_or(String::new(), |line| format!(", and said last: {}", line.trim()));
    let problem =
        format!("the process that asked it {ended} without an answer, which its library is to blame for{said}");
    Facts { problem: Some(problem), ..Facts::of(provider) }
}

/// What that process does.
fn probe(name: &str, args: &DoctorArgs, settings: &ProviderSettings) -> Result<Exit, CliError> {
    let provider = provider::named(name).map_err(CliError::failed)?;
    let facts = facts(provider, settings, args.model.as_deref());
    let mut output = output::output();
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

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn how_the_process_ended_is_told() {
        let said = |script: &str| said("qnn", &Command::new("sh").args(["-c", script]).output().unwrap());
        let answer = serde_json::to_string(&Facts { works: true, ..Facts::of("qnn") }).unwrap();
        let fine = said(&format!("echo Simulator v2; echo '{answer}'"));
        assert!(fine.works && fine.warning.is_none() && fine.problem.is_none(), "{fine:?}");
        let crashed = said(&format!("echo '{answer}'; kill -SEGV $$"));
        assert!(crashed.works && crashed.warning.as_ref().is_some_and(|it| it.contains("SIGSEGV")), "{crashed:?}");
        let silent = said("echo no room >&2; exit 3");
        let problem = silent.problem.unwrap();
        assert!(problem.contains("exit status 3") && problem.contains("no room"), "{problem}");
    }
}
