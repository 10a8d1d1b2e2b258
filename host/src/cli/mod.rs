//! The command line program: raw arguments, checked settings, then a chat, one answer or
//! a command, each of which has its file.

mod answer;
mod args;
mod bench;
mod calibrate;
mod chat;
mod compile;
mod doctor;
mod error;
mod eval;
mod interrupt;
mod load;
mod output;
mod provider;
mod report;
mod settings;
mod sink;
mod terminal;
mod text;

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{cancel::Cancel, decoder::Decoder, engine::Conversation};
use answer::Question;
use args::{Args, Command};
use chat::Chat;
use error::{CliError, Exit, Problems};
use load::Loaded;
use settings::{Settings, Task, Terminals};
use terminal::Terminal;

/// Runs the program with these arguments, the first being its name, and returns its exit status: 0 if all went well, 1 if
/// something failed, 2 if the arguments are wrong, 130 after Ctrl-C or SIGTERM. To be called before other threads
/// are started.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(bench::spelled_out(arguments)) {
        Ok(args) => args,
        // Also how clap reports that it was asked for help or its version. If that cannot be written, nobody reads it.
        Err(message) => {
            let status = ExitCode::from(u8::try_from(message.exit_code()).unwrap_or(2));
            return message.print().map_or(ExitCode::SUCCESS, |()| status);
        }
    };
    match run(args) {
        Ok(exit) => exit.into(),
        Err(error) => {
            if let Some(text) = error.report() {
                // There is no other place left to report to.
                drop(writeln!(io::stderr(), "error: {text}"));
            }
            error.status()
        }
    }
}

fn run(mut args: Args) -> Result<Exit, CliError> {
    interrupt::watch().map_err(CliError::failed)?;
    log_to_stderr(args.verbose, args.quiet)?;
    match args.command.take() {
        Some(Command::Bench(bench)) => bench::bench(&bench, args.verbose, args.quiet),
        Some(Command::Eval(eval)) => eval::eval(eval, args.quiet),
        Some(Command::Compile(compile)) => compile::run(compile, args.quiet),
        Some(Command::Calibrate(calibrate)) => calibrate::run(calibrate, args.quiet),
        Some(Command::Doctor(doctor)) => doctor::doctor(&doctor, args.quiet),
        None => converse(args),
    }
}

/// A chat or one answer.
fn converse(args: Args) -> Result<Exit, CliError> {
    let terminals = Terminals { input: io::stdin().is_terminal(), output: io::stdout().is_terminal() };
    let quiet = args.quiet;
    let settings = Settings::resolve(args, terminals)?;
    match settings.task {
        Task::Chat => chat(settings, quiet),
        Task::Answer { ref prompt, raw, json } => {
            let prompt = match prompt {
                Some(prompt) => prompt.clone(),
                None => answer::read_prompt(&mut io::stdin().lock())?,
            };
            let cancel = Cancel::new();
            let mut loaded = load(&settings, !raw, quiet, &cancel)?;
            let question = Question { prompt: &prompt, system: settings.system.clone(), raw, json };
            interrupt::takes_over(&cancel).map_err(CliError::failed)?;
            tracing::info!(milliseconds = loaded.time.as_millis(), "the model is ready");
            let generation = loaded.defaults.resolve(&settings.overrides).map_err(CliError::failed)?;
            let origin = (&loaded.origin, loaded.time);
            let mut output = output::output();
            answer::answer(&mut loaded.engine, question, &generation, &cancel, origin, &mut output)
        }
    }
}

fn chat(settings: Settings, quiet: bool) -> Result<Exit, CliError> {
    let cancel = Cancel::new();
    let mut loaded = load(&settings, true, quiet, &cancel)?;
    interrupt::stops_answers(&cancel).map_err(CliError::failed)?;
    // Not locked: threads of the runtime may have something to log.
    let mut notes = io::stderr();
    let closed = |source| CliError::Stream { stream: "standard error", source };
    if !quiet {
        let context = loaded.engine.decoder().context_length();
        writeln!(
            notes,
            "{model} ({precision}) on {provider}, {context} tokens of context. /help lists the commands.",
            model = load::name(loaded.origin.model.as_ref()),
            precision = loaded.origin.precision,
            provider = loaded.origin.provider,
        )
        .map_err(closed)?;
    }
    let mut lines = Terminal::new().map_err(|source| CliError::Stream { stream: "the terminal", source })?;
    Chat {
        engine: &mut loaded.engine,
        conversation: Conversation::new(settings.system),
        generation: &|| loaded.defaults.resolve(&settings.overrides),
        cancel: &cancel,
        output: &mut output::output(),
        notes: &mut notes,
    }
    .run(&mut lines)?;
    Ok(Exit::Done)
}

/// Loads the model, and says so meanwhile if somebody watches.
fn load(settings: &Settings, chat: bool, quiet: bool, cancel: &Cancel) -> Result<Loaded, CliError> {
    let mut stderr = io::stderr();
    if stderr.is_terminal() && !quiet {
        // A line of its own, because log lines may follow. Progress that cannot be shown is not worth a failure.
        drop(writeln!(stderr, "Loading {} ...", settings.load.model.display()));
    }
    load::load(&settings.load, &settings.overrides, chat, cancel)
}

/// `RUST_LOG` decides what is logged; without it, -v and --quiet do.
fn log_to_stderr(verbose: u8, quiet: bool) -> Result<(), Problems> {
    let default = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        // The binding tells at each start that the library is newer than itself, which it may be.
        (false, 1) => "info,ort=warn",
        (false, _) => "debug",
    };
    let wanted = env::var("RUST_LOG").ok().filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::try_new(wanted.as_deref().unwrap_or(default)).map_err(|error| {
        let mut problems = Problems::default();
        problems.add("RUST_LOG", format!("is no filter for log messages: {error}"));
        problems
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
        .without_time()
        .with_target(false)
        .finish();
    // A second subscriber is refused, which only happens if a program runs this twice.
    drop(tracing::subscriber::set_global_default(subscriber));
    Ok(())
}
