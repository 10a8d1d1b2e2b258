//! `lfm2-export [MODEL] --out PATH`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use lfm2_graphs::contract::Purpose;

use super::args::{ExportArguments, PurposeArgument};
use super::{Outcome, UsageError};
use crate::hub::{Hub, HubError};
use crate::package::{self, ExportError, Options, Output, Targets};
use crate::recipe::Recipe;
use crate::write::WriteError;

/// Exports a model and prints the path of the graph.
pub(super) fn export(arguments: &ExportArguments) -> anyhow::Result<Outcome> {
    let out = arguments.out.as_deref().context("--out is missing")?;
    let recipe = recipe(arguments)?;
    let (purpose, targets) = purpose(arguments)?;
    let output = match purpose {
        Purpose::Calibrate => Output::for_calibration(out),
        _ => Output::new(out, &recipe),
    };
    let output = output.map_err(|error| UsageError(error.to_string()))?;
    if arguments.max_context == Some(0) {
        return Err(UsageError("--max-context is 0: at least 1 token is needed".to_owned()).into());
    }
    let options = Options {
        recipe,
        calibration: arguments.calibration.clone(),
        dialect: arguments.dialect.into(),
        padding: arguments.padding.into(),
        max_context: arguments.max_context,
        rollback: arguments.rollback,
        purpose,
        prefill: arguments.prefill.map(Into::into).unwrap_or_default(),
        caches: arguments.kv.map(Into::into).unwrap_or_default(),
        targets,
        threads: None,
    };
    // What can be refused without the checkpoint is refused before it is downloaded.
    options.dialect().map_err(|error| UsageError(error.to_string()))?;
    let source = source(arguments)?;

    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    // From here on there are files to tidy up; a download before is continued by the next run.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}")?);
    bar.set_message(output.graph().display().to_string());
    let written = package::export(&source, &output, &options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
        if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    if let Err(ExportError::Write(WriteError::Interrupted)) = &written {
        return Ok(Outcome::Interrupted);
    }
    let summary = written?;
    if arguments.json {
        return super::print(&(serde_json::to_string_pretty(&summary)? + "\n"));
    }
    super::print(&format!("{}\n", summary.graph.display()))
}

/// What `--for` names.
fn purpose(arguments: &ExportArguments) -> Result<(Purpose, Targets), UsageError> {
    let ExportArguments { purpose, chunk, static_context, force, qnn_precision, cuda_activations, .. } = arguments;
    let qnn = qnn_precision.map(Into::into).unwrap_or_default();
    let cuda_activations = cuda_activations.map(Into::into);
    let asked: BTreeSet<_> = purpose.iter().filter_map(|it| it.target()).collect();
    let sizes = |targets| Targets {
        chunk: *chunk,
        static_context: *static_context,
        qnn,
        force: *force,
        cuda_activations,
        ..targets
    };
    if !purpose.contains(&PurposeArgument::Calibrate) {
        let targets = if asked.is_empty() { Targets::default() } else { Targets::asked(asked) };
        return Ok((Purpose::General, sizes(targets)));
    }
    if qnn_precision.is_some() {
        let problem = "--qnn-precision is for the export that reads the calibration; leave it out here";
        return Err(UsageError(problem.to_owned()));
    }
    if asked.is_empty() {
        // With the graph that tells the ranges of what NPUs compute with.
        return Ok((Purpose::Calibrate, sizes(Targets::default())));
    }
    let problem = "--for calibrate stands alone: its graph is not for running the model; export the others without it";
    Err(UsageError(problem.to_owned()))
}

/// The recipe that `--recipe` or `--precision` names.
fn recipe(arguments: &ExportArguments) -> anyhow::Result<Recipe> {
    match &arguments.recipe {
        Some(path) => Recipe::load(path).map_err(|error| UsageError(error.to_string()).into()),
        None => Ok(arguments.precision.recipe()?),
    }
}

/// The folder of the checkpoint, downloaded if MODEL names one on the hub.
fn source(arguments: &ExportArguments) -> anyhow::Result<PathBuf> {
    let path = Path::new(&arguments.model);
    let name = path.display();
    if path.is_dir() {
        let flags = arguments.hub_flags();
        if flags.is_empty() {
            return Ok(path.to_owned());
        }
        let flags = flags.join(", ");
        return Err(UsageError(format!("{flags}: only for models on the hub, and {name} is a folder here")).into());
    }
    if path.symlink_metadata().is_ok() {
        return Err(UsageError(format!("{name} is not a folder; name the folder that holds it")).into());
    }
    let Some(model) = arguments.model.to_str().filter(|text| is_hub_id(text)) else {
        let problem = "is neither a folder nor the name of a model on the hub, which has the form owner/name";
        anyhow::bail!("{name} {problem}");
    };
    let mut hub = Hub::from_env()?;
    if let Some(revision) = &arguments.revision {
        hub.revision.clone_from(revision);
    }
    hub.offline |= arguments.offline;
    if let Some(folder) = &arguments.cache_dir {
        hub.cache_dir.clone_from(folder);
    }
    if arguments.token.is_some() {
        hub.token.clone_from(&arguments.token);
    }
    hub.fetch(model).map_err(|error| match error {
        // Of all that looks like a name on the hub, much is a path with a slip in it. The hub answers 401 for unknown names.
        HubError::NoRepo { .. }
        | HubError::NotCached { .. }
        | HubError::Network { .. }
        | HubError::Unauthorized { .. } => anyhow::anyhow!("{error} (there is no folder {model} here either)"),
        error => error.into(),
    })
}

/// Whether the text has the form `owner/name` of the hub's names, and not that of a path.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    text.split_once('/').is_some_and(|(owner, name)| part(owner) && part(name))
}

#[cfg(test)]
mod tests {
    use super::is_hub_id;

    #[test]
    fn names_on_the_hub_are_told_from_paths() {
        assert!(is_hub_id("LiquidAI/LFM2-1.2B"));
        for path in ["LFM2", "./a/b", "../b", "/a/b", "a/b/c", "a/", "a\\b", "C:/x"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
