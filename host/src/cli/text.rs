//! Arguments of the commands that run a model over a text, and what follows from them.

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::RuntimeArgs;
use super::provider::ProviderArgs;
use super::settings::LoadSettings;
use super::{CliError, Problems};
use crate::chat::ChatTemplate;
use crate::documents::{self, Window, windows};
use crate::package::Package;
use crate::text::Tokenizer;

/// The text, and how it is cut.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct TextArgs {
    /// The text: a .jsonl file has a document on each line, {"messages": [...], "tools": [...]} or {"text": "..."}; any other
    /// file is one text
    #[arg(long, value_name = "FILE")]
    pub(super) text: PathBuf,

    /// Tokens that are run from one empty state; longer documents are cut
    #[arg(long, value_name = "N", default_value = "512", allow_hyphen_values = true)]
    context: String,

    /// Tokens of the text to take; without it, all
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    max_tokens: Option<String>,
}

/// Where the model runs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct PlaceArgs {
    #[command(flatten)]
    provider: ProviderArgs,

    /// Number of threads; by default as many as there are physical cores
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    threads: Option<String>,

    /// Compare all files of the package with the hashes in its manifest first
    #[arg(long)]
    verify: bool,
}

impl PlaceArgs {
    /// How to load the package at `model`, whose general graph runs everything.
    pub(super) fn settings(self, model: PathBuf, problems: &mut Problems) -> LoadSettings {
        let Self { provider, threads, verify } = self;
        let args = RuntimeArgs {
            provider,
            threads,
            battery: false,
            low_memory: false,
            max_context: None,
            speculate: None,
            prefill: "same".to_owned(),
            compiled: None,
            verify,
        };
        LoadSettings::resolve(model, args, problems)
    }
}

/// Checked [`TextArgs`].
#[derive(Clone, Debug)]
pub(super) struct TextSettings {
    pub(super) file: PathBuf,
    pub(super) context: usize,
    max_tokens: Option<usize>,
}

impl TextArgs {
    pub(super) fn settings(self, problems: &mut Problems) -> TextSettings {
        let context = "a whole number of at least 2";
        let context = problems.number("--context", Some(self.context), context, |context: &usize| *context >= 2);
        let max_tokens = "a whole number of at least 1";
        let max_tokens = problems.number("--max-tokens", self.max_tokens, max_tokens, |_: &NonZeroUsize| true);
        TextSettings {
            file: self.text,
            context: context.unwrap_or_default(),
            max_tokens: max_tokens.map(NonZeroUsize::get),
        }
    }
}

/// A text in windows.
pub(super) struct Text {
    pub(super) documents: usize,
    pub(super) windows: Vec<Window>,
}

impl TextSettings {
    /// Reads the text with tokenizer and template of the package, which must be able to run windows of this length.
    pub(super) fn read(&self, package: &Package, tokenizer: &Tokenizer) -> Result<Text, CliError> {
        let available = package.contract().context_length;
        if self.context > available {
            let mut problems = Problems::default();
            let graph = package.graph().display();
            problems
                .add("--context", format!("{} is more than the {available} tokens that {graph} takes", self.context));
            return Err(problems.into());
        }
        let template = ChatTemplate::load(package.folder()).map_err(CliError::failed)?;
        let documents = documents::read(&self.file, tokenizer, template.as_ref(), self.max_tokens);
        let documents = documents.map_err(CliError::failed)?;
        let windows = windows(&documents, self.context, tokenizer.beginning());
        Ok(Text { documents: documents.len(), windows })
    }
}

/// A bar on standard error while it is a terminal, for `total` tokens.
pub(super) fn bar(total: usize, quiet: bool) -> Result<ProgressBar, CliError> {
    let hidden = quiet || !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    let style = "{wide_bar} {pos}/{len} tokens, {per_sec}, {eta} left";
    bar.set_style(ProgressStyle::with_template(style).map_err(CliError::failed)?);
    bar.enable_steady_tick(Duration::from_millis(500));
    Ok(bar)
}

/// What a path is called in a table.
pub(super) fn shown(path: &Path) -> String {
    path.display().to_string()
}
