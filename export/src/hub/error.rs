//! Why a checkpoint cannot be fetched, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;

/// Why a checkpoint cannot be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Not a name of a model.
    #[error("{repo:?} is not the name of a model on the hub, which has the form owner/name")]
    Name {
        /// What was given.
        repo: String,
    },
    /// Not a name of a revision.
    #[error("{revision:?} is not a branch, tag or commit")]
    Revision {
        /// What was given.
        revision: String,
    },
    /// Not a token.
    #[error(
        "the access token is empty or has spaces or other characters that no token has; give another with --token or HF_TOKEN"
    )]
    Token,
    /// There is no folder for downloads.
    #[error("there is no home folder to keep downloads in; name a folder with --cache-dir or HF_HOME")]
    NoCache,
    /// The client does not start.
    #[error("the client of the hub cannot be set up: {reason}")]
    Client {
        /// What it said.
        reason: String,
    },
    /// 401: the hub wants to know who asks.
    #[error(
        "the hub does not let {who} see {repo}: check its spelling; if it is private or gated, {advice}",
        who = if *has_token { "the owner of this token" } else { "the public" },
        advice = if *has_token {
            "use the token of an account that has access"
        } else {
            "give the token of an account that has access with --token or HF_TOKEN"
        }
    )]
    Unauthorized {
        /// The model.
        repo: String,
        /// Whether a token was sent.
        has_token: bool,
    },
    /// 403: the hub knows who asks and refuses.
    #[error("access to {repo} is refused{detail}; accept its terms at {endpoint}/{repo} with the account of the token", detail = detail(reason))]
    Forbidden {
        /// The model.
        repo: String,
        /// Address of the hub.
        endpoint: String,
        /// What the hub said, if anything.
        reason: String,
    },
    /// 404: there is no such model.
    #[error("{endpoint} has no model {repo}; check its spelling")]
    NoRepo {
        /// The model.
        repo: String,
        /// Address of the hub.
        endpoint: String,
    },
    /// 404: there is no such revision.
    #[error("{repo} has no branch, tag or commit {revision}; see {endpoint}/{repo}/tree/main")]
    NoRevision {
        /// The model.
        repo: String,
        /// The revision.
        revision: String,
        /// Address of the hub.
        endpoint: String,
    },
    /// The model is not a checkpoint that can be exported.
    #[error(
        "{repo} at {revision} is not a checkpoint that can be exported: it lacks {files}; name the original model, not a GGUF or ONNX conversion",
        files = some(files)
    )]
    Incomplete {
        /// The model.
        repo: String,
        /// The revision.
        revision: String,
        /// What is missing.
        files: Vec<String>,
    },
    /// Offline, and not everything is in the cache.
    #[error(
        "{repo} at {revision} is not complete in {cache}{files}; run once without --offline and HF_HUB_OFFLINE",
        cache = cache.display(),
        files = if files.is_empty() { String::new() } else { format!(": {} missing", some(files)) }
    )]
    NotCached {
        /// The model.
        repo: String,
        /// The revision.
        revision: String,
        /// The cache folder.
        cache: PathBuf,
        /// What is missing; empty if nothing is there.
        files: Vec<String>,
    },
    /// The hub cannot be reached.
    #[error(
        "cannot reach {endpoint}: {reason}; check the connection and the proxy (HTTPS_PROXY), or take what was downloaded before with --offline"
    )]
    Network {
        /// Address of the hub.
        endpoint: String,
        /// What the client said.
        reason: String,
    },
    /// The hub answered with something unexpected.
    #[error("{endpoint} answered unexpectedly to a request for {what}: {reason}; try again later")]
    Answer {
        /// Address of the hub.
        endpoint: String,
        /// What was asked for.
        what: String,
        /// The answer.
        reason: String,
    },
    /// A download failed several times.
    #[error("{file} could not be downloaded in {attempts} attempts: {reason}; run again to continue where it stopped")]
    Download {
        /// The file.
        file: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong the last time.
        reason: String,
    },
    /// A download does not go on.
    #[error(
        "{endpoint} has sent nothing of {file} for {seconds} seconds; check the connection, then run again to continue where it stopped"
    )]
    Stalled {
        /// Address of the hub.
        endpoint: String,
        /// The file.
        file: String,
        /// How long was waited.
        seconds: f32,
    },
    /// Another process downloads the same file.
    #[error("{lock} is held by another program that downloads the same file; wait for it, then run again", lock = lock.display())]
    Locked {
        /// The lock.
        lock: PathBuf,
    },
    /// The cache cannot be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The model is not one that can be exported.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The index of the shards cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The first of the names: a damaged index can name many.
fn some(files: &[String]) -> String {
    const NAMED: usize = 20;
    let more = files.len().saturating_sub(NAMED);
    let named = files[..files.len() - more].join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

fn detail(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}
