//! Downloads that are given up when nothing arrives any more: the client of the hub itself would wait for ever.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use hf_hub::Repo;
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiError};
use indicatif::ProgressBar;

/// Downloads `file` into the cache: its path there and the tag that the hub gives it. `None` if nothing has happened for
/// as long as `patience`.
pub(super) fn download(
    api: &Api,
    repo: Repo,
    file: &str,
    patience: Duration,
) -> Option<Result<(PathBuf, String), ApiError>> {
    let steps = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = mpsc::channel();
    let (api, name, counted) = (api.clone(), file.to_owned(), Arc::clone(&steps));
    // A download that is given up keeps its thread until the connection ends; nothing of the caller's is borrowed by it.
    thread::spawn(move || {
        let repo = api.repo(repo);
        let downloaded = api.metadata(&repo.url(&name)).and_then(|metadata| {
            counted.fetch_add(1, Ordering::Relaxed);
            let progress = Counted { bar: ProgressBar::no_length(), steps: counted };
            Ok((repo.download_with_progress(&name, progress)?, metadata.etag().to_owned()))
        });
        // Nobody may be waiting any more.
        drop(sender.send(downloaded));
    });
    let mut seen = 0;
    loop {
        match receiver.recv_timeout(patience) {
            Ok(downloaded) => return Some(downloaded),
            // The thread has panicked.
            Err(RecvTimeoutError::Disconnected) => {
                return Some(Err(std::io::Error::other("the client of the hub has stopped").into()));
            }
            Err(RecvTimeoutError::Timeout) => match steps.load(Ordering::Relaxed) {
                now if now == seen => return None,
                now => seen = now,
            },
        }
    }
}

/// A progress bar that counts how often something arrives.
struct Counted {
    bar: ProgressBar,
    steps: Arc<AtomicU64>,
}

impl Progress for Counted {
    fn init(&mut self, size: usize, name: &str) {
        Progress::init(&mut self.bar, size, name);
    }

    fn update(&mut self, size: usize) {
        self.steps.fetch_add(1, Ordering::Relaxed);
        Progress::update(&mut self.bar, size);
    }

    fn finish(&mut self) {
        Progress::finish(&mut self.bar);
    }
}
