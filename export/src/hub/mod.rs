//! Fetching checkpoints from the Hugging Face hub, into the cache folder that its other programs use.

mod download;
mod environment;
mod error;
mod files;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};

use crate::checkpoint::{self, INDEX_FILE};
use crate::config::{CONFIG_FILE, ModelConfig};

pub use error::HubError;

/// A connection that is silent for longer is not slow but gone.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How to reach the hub.
#[derive(Clone, PartialEq, Eq)]
pub struct Hub {
    /// Address, without a slash at the end.
    pub endpoint: String,
    /// Access token. Without one only public models can be fetched.
    pub token: Option<String>,
    /// Where downloads are kept.
    pub cache_dir: PathBuf,
    /// Branch, tag or commit.
    pub revision: String,
    /// Takes only what is in the cache.
    pub offline: bool,
    /// For how long the hub may be silent before it counts as unreachable.
    pub patience: Duration,
}

impl Hub {
    /// Settings from the environment as the hub's own programs understand it: `HF_ENDPOINT`, `HF_TOKEN` or the token that
    /// `hf auth login` saved, `HF_HUB_CACHE` or `HF_HOME`, and `HF_HUB_OFFLINE`. The revision is `main`.
    ///
    /// # Errors
    /// If no variable says where the cache folder is and the user has no home folder either.
    pub fn from_env() -> Result<Self, HubError> {
        environment::read(&|name| std::env::var_os(name), std::env::home_dir())
    }

    /// Fetches what an export needs of the model `repo` (`owner/name`) and returns the folder with it.
    ///
    /// Files that are in the cache are not downloaded again, and a download that was cut off continues where it stopped.
    /// The config is looked at before the weights are fetched, so that models of other kinds are refused at once. Progress
    /// bars go to stderr if that is a terminal.
    ///
    /// # Errors
    /// If the hub cannot be reached, refuses access, or does not have the model or all of its files; each error says what
    /// to do. If the model cannot be exported.
    pub fn fetch(&self, repo: &str) -> Result<PathBuf, HubError> {
        check_names(repo, &self.revision)?;
        // It becomes a line of the request.
        if self.token.as_deref().is_some_and(|token| token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic())) {
            return Err(HubError::Token);
        }
        if self.offline { self.cached(repo) } else { self.download(repo) }
    }

    /// The folder in the cache, without asking the hub.
    fn cached(&self, repo: &str) -> Result<PathBuf, HubError> {
        let missing = |files: Vec<String>| HubError::NotCached {
            repo: repo.to_owned(),
            revision: self.revision.clone(),
            cache: self.cache_dir.clone(),
            files,
        };
        let commit = self.cached_commit(repo).ok_or_else(|| missing(Vec::new()))?;
        let folder = self.repo_cache(repo, &self.revision).pointer_path(&commit);
        let present: Vec<String> = files::present(&folder)?;
        let weights = checkpoint::first_file(&present);
        let needed = files::ALWAYS_NEEDED.map(str::to_owned).into_iter().chain(weights.map(str::to_owned));
        let mut absent: Vec<String> = needed.filter(|name| !present.contains(name)).collect();
        match weights {
            None => absent.push(files::WEIGHTS.to_owned()),
            Some(INDEX_FILE) => {
                let shards = checkpoint::shard_names(&folder.join(INDEX_FILE))?;
                absent.extend(shards.into_iter().filter(|name| !present.contains(name)));
            }
            Some(_) => {}
        }
        if absent.is_empty() { Ok(folder) } else { Err(missing(absent)) }
    }

    fn download(&self, repo: &str) -> Result<PathBuf, HubError> {
        let api = self.api()?;
        let info = download::info(self, &api, repo)?;
        // All files are of one commit, even if the branch moves in between.
        let pinned = download::Pinned { hub: self, api: &api, repo, commit: &info.sha };
        let listed: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        let weights = checkpoint::first_file(&listed);
        let mut absent: Vec<String> = files::ALWAYS_NEEDED
            .into_iter()
            .filter(|name| !listed.iter().any(|file| file == name))
            .map(str::to_owned)
            .collect();
        let incomplete = |files| HubError::Incomplete { repo: repo.to_owned(), revision: self.revision.clone(), files };
        let (Some(weights), true) = (weights, absent.is_empty()) else {
            if weights.is_none() {
                absent.push(files::WEIGHTS.to_owned());
            }
            return Err(incomplete(absent));
        };

        let folder = self.repo_cache(repo, &info.sha).pointer_path(&info.sha);
        pinned.fetch(CONFIG_FILE)?;
        ModelConfig::load(&folder)?;
        for name in files::SMALL.into_iter().filter(|name| listed.iter().any(|file| file == name)) {
            pinned.fetch(name)?;
        }
        pinned.fetch(weights)?;
        if weights == INDEX_FILE {
            let shards = checkpoint::shard_names(&folder.join(INDEX_FILE))?;
            let absent: Vec<String> = shards.iter().filter(|name| !listed.contains(name)).cloned().collect();
            if !absent.is_empty() {
                return Err(incomplete(absent));
            }
            for shard in shards {
                pinned.fetch(&shard)?;
            }
        }
        // Now that everything is there, the revision may be found without asking the hub.
        self.repo_cache(repo, &self.revision)
            .create_ref(&info.sha)
            .map_err(|source| HubError::Io { path: self.cache_dir.clone(), source })?;
        Ok(folder)
    }

    fn api(&self) -> Result<Api, HubError> {
        ApiBuilder::from_cache(Cache::new(self.cache_dir.clone()))
            .with_endpoint(self.endpoint.clone())
            .with_token(self.token.clone())
            .build()
            .map_err(|error| HubError::Client { reason: error.to_string() })
    }

    fn repo_cache(&self, repo: &str, revision: &str) -> hf_hub::CacheRepo {
        Cache::new(self.cache_dir.clone()).repo(at(repo, revision))
    }

    /// The commit that the revision was when it was last asked for.
    fn cached_commit(&self, repo: &str) -> Option<String> {
        if is_commit(&self.revision) {
            return Some(self.revision.clone());
        }
        let root = self.cache_dir.join(at(repo, &self.revision).folder_name());
        let commit = std::fs::read_to_string(root.join("refs").join(&self.revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Logs must not contain the token.
        f.debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("has_token", &self.token.is_some())
            .field("cache_dir", &self.cache_dir)
            .field("revision", &self.revision)
            .field("offline", &self.offline)
            .field("patience", &self.patience)
            .finish()
    }
}

/// A model at a revision.
fn at(repo: &str, revision: &str) -> Repo {
    Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned())
}

/// Whether the text is the hash of a commit.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Names become parts of paths and addresses.
fn check_names(repo: &str, revision: &str) -> Result<(), HubError> {
    let is_part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(allowed) && !part.starts_with('.')
    };
    if !repo.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name)) {
        return Err(HubError::Name { repo: repo.to_owned() });
    }
    // Branches may have slashes in their names: `refs/pr/1`.
    if !revision.split('/').all(is_part) || Path::new(revision).is_absolute() {
        return Err(HubError::Revision { revision: revision.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for repo in ["LiquidAI/LFM2-1.2B", "a/b_c.d"] {
            check_names(repo, "main").unwrap();
        }
        for repo in ["gpt2", "a/b/c", "../x", "a/..", "/a", "a/", "a/b?c", "a/b c", ""] {
            assert!(matches!(check_names(repo, "main"), Err(HubError::Name { .. })), "{repo}");
        }
        for revision in ["main", "v1.0", "refs/pr/1", "0123456789012345678901234567890123456789"] {
            check_names("a/b", revision).unwrap();
        }
        for revision in ["", "../x", "a//b", "/a", "a\\b", "a b", "a?b", ".."] {
            assert!(matches!(check_names("a/b", revision), Err(HubError::Revision { .. })), "{revision}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let hub = Hub {
            endpoint: "http://127.0.0.1".to_owned(),
            token: Some("secret".to_owned()),
            cache_dir: PathBuf::new(),
            revision: "main".to_owned(),
            offline: false,
            patience: PATIENCE,
        };
        assert!(!format!("{hub:?}").contains("secret"));
    }
}
