//! Stopping an answer on request.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A request to stop, shared between who asks and who works. Clones are the same request.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Request>);

impl Cancel {
    /// A request that nobody has made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the work to stop: within a long prompt at once, otherwise at its next step.
    ///
    /// Not for signal handlers, because it takes a lock; a thread that waits for signals may call it.
    pub fn cancel(&self) {
        self.0.made.store(true, Ordering::SeqCst);
        self.0.actions().iter().for_each(|(_, action)| action());
    }

    /// Whether the work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.made.load(Ordering::SeqCst)
    }

    /// Takes the request back, before new work begins.
    pub fn clear(&self) {
        self.0.made.store(false, Ordering::SeqCst);
    }

    /// Until the guard is dropped, `action` is called when the request is made, and at once if it was made already. The action
    /// must return soon, and must not touch this request.
    pub(crate) fn during(&self, action: impl Fn() + Send + 'static) -> During<'_> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut actions = self.0.actions();
        // Under the lock: either this sees the request, or who makes it sees the action.
        if self.is_cancelled() {
            action();
        }
        actions.push((id, Box::new(action)));
        During { request: &self.0, id }
    }
}

/// Holds an action of [`Cancel::during`].
pub(crate) struct During<'a> {
    request: &'a Request,
    id: u64,
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.request.actions().retain(|(id, _)| *id != self.id);
    }
}

type Action = Box<dyn Fn() + Send>;

#[derive(Default)]
struct Request {
    made: AtomicBool,
    next: AtomicU64,
    actions: Mutex<Vec<(u64, Action)>>,
}

impl Request {
    fn actions(&self) -> MutexGuard<'_, Vec<(u64, Action)>> {
        self.actions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("made", &self.made).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn clones_are_one_request() {
        let (asked, seen) = (Cancel::new(), Cancel::new());
        let shared = asked.clone();
        asked.cancel();
        assert!(shared.is_cancelled() && !seen.is_cancelled());
        shared.clear();
        assert!(!asked.is_cancelled());
    }

    #[test]
    fn actions_are_called_while_their_guard_lives() {
        let (cancel, calls) = (Cancel::new(), Arc::new(AtomicUsize::new(0)));
        let count = || calls.load(Ordering::SeqCst);
        let action = || {
            let calls = calls.clone();
            move || {
                calls.fetch_add(1, Ordering::SeqCst);
            }
        };
        let guard = cancel.during(action());
        assert_eq!(count(), 0);
        cancel.clone().cancel();
        assert_eq!(count(), 1);
        drop(guard);
        cancel.cancel();
        assert_eq!(count(), 1);
        drop(cancel.during(action()));
        assert_eq!(count(), 2, "the request was made before");
    }
}
