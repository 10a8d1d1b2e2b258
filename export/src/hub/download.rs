//! Requests to the hub.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiError};
use sha2::{Digest, Sha256};

use super::{Hub, HubError, at, is_commit, watch};

/// How often a file is tried when the connection breaks off or the server is busy.
const ATTEMPTS: u32 = 5;

/// The first pause between attempts; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// Asks the hub for the model's commit and files.
pub(super) fn info(hub: &Hub, api: &Api, repo: &str) -> Result<RepoInfo, HubError> {
    let request = api.repo(at(repo, &hub.revision)).info_request();
    let patience = Some(hub.patience);
    let endpoint = hub.endpoint.clone();
    let unreachable = |error: ureq::Error| HubError::Network { endpoint: endpoint.clone(), reason: error.to_string() };
    let mut response = request
        .config()
        .http_status_as_error(false)
        .timeout_connect(patience)
        .timeout_recv_response(patience)
        .timeout_per_read(patience)
        .build()
        .call()
        .map_err(unreachable)?;
    let header = |name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned).unwrap_or_default()
    };
    let status = response.status().as_u16();
    if status != 200 {
        // Which of model and revision is missing is only said here.
        if status == 404 && header("x-error-code") == "RevisionNotFound" {
            return Err(HubError::NoRevision { repo: repo.to_owned(), revision: hub.revision.clone(), endpoint });
        }
        return Err(refusal(hub, repo, "its list of files", status, header("x-error-message")));
    }
    let unusable =
        |reason: String| HubError::Answer { endpoint: hub.endpoint.clone(), what: format!("{repo}'s files"), reason };
    let info: RepoInfo = response.body_mut().read_json().map_err(|error| match error {
        error @ (ureq::Error::Timeout(_) | ureq::Error::Io(_)) => unreachable(error),
        error => unusable(error.to_string()),
    })?;
    if !is_commit(&info.sha) {
        return Err(unusable(format!("{:?} is not a commit", info.sha)));
    }
    Ok(info)
}

/// A model at one commit.
pub(super) struct Pinned<'a> {
    pub(super) hub: &'a Hub,
    pub(super) api: &'a Api,
    pub(super) repo: &'a str,
    pub(super) commit: &'a str,
}

impl Pinned<'_> {
    /// Makes sure that `file` is in the cache.
    pub(super) fn fetch(&self, file: &str) -> Result<PathBuf, HubError> {
        let cached = self.hub.repo_cache(self.repo, self.commit).pointer_path(self.commit).join(file);
        if cached.is_file() {
            return Ok(cached);
        }
        remove_dangling(&cached)?;
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let problem = match self.attempt(file)? {
                Ok(path) => return Ok(path),
                Err(problem) => problem,
            };
            if attempt == ATTEMPTS {
                return Err(HubError::Download { file: file.to_owned(), attempts: ATTEMPTS, reason: problem });
            }
            tracing::warn!("{file}: {problem}; trying again");
            thread::sleep(pause);
            pause *= 2;
            attempt += 1;
        }
    }

    /// Downloads the file once. The inner error is worth another attempt, the outer one is not.
    fn attempt(&self, file: &str) -> Result<Result<PathBuf, String>, HubError> {
        let Some(downloaded) = watch::download(self.api, at(self.repo, self.commit), file, self.hub.patience) else {
            // The lock of the download is held until its connection ends, so another attempt would have to wait as well.
            return Err(HubError::Stalled {
                endpoint: self.hub.endpoint.clone(),
                file: file.to_owned(),
                seconds: self.hub.patience.as_secs_f32(),
            });
        };
        match downloaded {
            Ok((path, etag)) if is_intact(&path, &etag)? => Ok(Ok(path)),
            Ok(_) => Ok(Err("the contents do not have the hash that the hub promised".to_owned())),
            Err(ApiError::InvalidResume) => {
                self.discard_part(&self.api.repo(at(self.repo, self.commit)).url(file));
                Ok(Err("what was downloaded before is longer than the file".to_owned()))
            }
            Err(error) => self.classify(file, error).map(Err),
        }
    }

    /// Whether an error is worth another attempt: then its description.
    fn classify(&self, file: &str, error: ApiError) -> Result<String, HubError> {
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(408 | 429 | 500..=599) => Ok(error.to_string()),
                // The model is there, so a file that is not is no sign of a wrong name.
                ureq::Error::StatusCode(404) => Err(HubError::Answer {
                    endpoint: self.hub.endpoint.clone(),
                    what: file.to_owned(),
                    reason: "it is listed but not there".to_owned(),
                }),
                ureq::Error::StatusCode(status) => Err(refusal(self.hub, self.repo, file, status, String::new())),
                error => Ok(error.to_string()),
            },
            ApiError::IoError(error) if is_full_or_forbidden(&error) => {
                Err(HubError::Io { path: self.hub.cache_dir.clone(), source: error })
            }
            ApiError::IoError(error) => Ok(format!("the connection broke off ({error})")),
            ApiError::LockAcquisition(lock) => Err(HubError::Locked { lock }),
            other => Err(HubError::Answer {
                endpoint: self.hub.endpoint.clone(),
                what: file.to_owned(),
                reason: other.to_string(),
            }),
        }
    }

    /// Removes the part of a file that cannot be continued. If it cannot be removed, the next attempt says so.
    fn discard_part(&self, url: &str) {
        if let Ok(metadata) = self.api.metadata(url) {
            let part = self.hub.repo_cache(self.repo, self.commit).blob_path(metadata.etag()).with_extension("part");
            if let Err(error) = fs::remove_file(&part) {
                tracing::warn!("cannot remove {}: {error}", part.display());
            }
        }
    }
}

/// The error for a status with which the hub refused.
fn refusal(hub: &Hub, repo: &str, what: &str, status: u16, reason: String) -> HubError {
    let (repo, endpoint) = (repo.to_owned(), hub.endpoint.clone());
    match status {
        401 => HubError::Unauthorized { repo, has_token: hub.token.is_some() },
        403 => HubError::Forbidden { repo, endpoint, reason },
        404 => HubError::NoRepo { repo, endpoint },
        status => HubError::Answer { endpoint, what: what.to_owned(), reason: format!("status {status} {reason}") },
    }
}

/// Removes a link whose target is gone, which would keep the file from being put there again.
fn remove_dangling(path: &Path) -> Result<(), HubError> {
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).map_err(|source| HubError::Io { path: path.to_owned(), source })?;
    }
    Ok(())
}

/// Whether another attempt would fail in the same way.
fn is_full_or_forbidden(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded | NotADirectory)
}

/// Whether the file in the cache has the contents that its tag promises; otherwise it is removed. Small files have tags of
/// another kind, which promise nothing.
fn is_intact(path: &Path, etag: &str) -> Result<bool, HubError> {
    if !is_sha256(etag) {
        return Ok(true);
    }
    let failed = |source| HubError::Io { path: path.to_owned(), source };
    let blob = path.canonicalize().map_err(failed)?;
    if sha256(&blob).map_err(failed)? == etag.to_ascii_lowercase() {
        return Ok(true);
    }
    fs::remove_file(path).map_err(failed)?;
    // Where there are no links, the path was the file itself.
    if blob.exists() {
        fs::remove_file(&blob).map_err(failed)?;
    }
    Ok(false)
}

fn is_sha256(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut HashWriter(&mut hasher))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Hashes what is written to it.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_files_are_found_without_links_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (contents, etag, intact) in [("abc", hash, true), ("abd", hash, false), ("abd", "a git hash", true)] {
            fs::write(&path, contents).unwrap();
            assert_eq!(is_intact(&path, etag).unwrap(), intact, "{contents} {etag}");
            assert_eq!(path.exists(), intact);
        }
    }
}
