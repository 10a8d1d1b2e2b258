//! `lfm2-export [MODEL] --out PATH`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use super::args::ExportArguments;
use crate::hub::Hub;
use crate::package::{self, ExportError, Options, Output};
use crate::write::WriteError;

/// Exports a model and prints the path of the graph.
pub(super) fn export(arguments: &ExportArguments) -> anyhow::Result<Outcome> {
    let out = arguments.out.as_deref().context("--out is missing")?;
    let output = Output::new(out, arguments.precision)?;
    let options = Options {
        precision: arguments.precision,
        dialect: arguments.dialect.into(),
        padding: arguments.padding.into(),
        max_context: arguments.max_context,
    };
    // What can be refused without the checkpoint is refused before it is downloaded.
    options.dialect()?;
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

/// The folder of the checkpoint, downloaded if MODEL names one on the hub.
fn source(arguments: &ExportArguments) -> anyhow::Result<PathBuf> {
    let model = arguments.model.as_str();
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if !is_hub_id(model) {
        bail!("{model} is neither a folder nor the name of a model on the hub, which has the form owner/name");
    }
    let mut hub = Hub::from_env()?;
    hub.revision.clone_from(&arguments.revision);
    hub.offline |= arguments.offline;
    if let Some(folder) = &arguments.cache_dir {
        hub.cache_dir.clone_from(folder);
    }
    if arguments.token.is_some() {
        hub.token.clone_from(&arguments.token);
    }
    Ok(hub.fetch(model)?)
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
