//! Work on several threads whose results come in order.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Calls `make` for every number below `count` on `threads` threads, and `take` on this one with the results, in order.
///
/// Nobody begins what lies `window` or more beyond what is taken, so that no more than `window` results wait. The first error
/// that `take` returns ends the work.
pub(super) fn ordered<T: Send, E>(
    count: usize,
    threads: usize,
    window: usize,
    make: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let queue = Queue { state: Mutex::new(State::default()), changed: Condvar::new(), count, window };
    thread::scope(|scope| {
        // Workers must not wait for what a `take` that panicked will never take.
        let _stop = StopOnPanic(&queue);
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                // However a worker ends, the others must not wait for what it has begun.
                let _stop = StopOnPanic(&queue);
                while let Some(next) = queue.begin() {
                    queue.end(next, make(next));
                }
            });
        }
        let taken = (0..count).try_for_each(|next| match queue.take(next) {
            Some(result) => take(next, result),
            None => Ok(()),
        });
        queue.stop();
        taken
    })
}

struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    count: usize,
    window: usize,
}

struct State<T> {
    /// The number that is begun next.
    next: usize,
    /// How many results have been taken.
    taken: usize,
    /// Results that wait.
    results: BTreeMap<usize, T>,
    stopped: bool,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { next: 0, taken: 0, results: BTreeMap::new(), stopped: false }
    }
}

impl<T> Queue<T> {
    /// The number to work on, when its turn has come; `None` at the end.
    fn begin(&self) -> Option<usize> {
        let is_early =
            |state: &mut State<T>| !state.stopped && state.next < self.count && state.next >= state.taken + self.window;
        let mut state = self.wait_while(is_early);
        if state.stopped || state.next == self.count {
            return None;
        }
        state.next += 1;
        Some(state.next - 1)
    }

    fn end(&self, number: usize, result: T) {
        self.lock().results.insert(number, result);
        self.changed.notify_all();
    }

    /// The result of `number`, when it is there; `None` if it never will be.
    fn take(&self, number: usize) -> Option<T> {
        let mut state = self.wait_while(|state| !state.stopped && !state.results.contains_key(&number));
        let result = state.results.remove(&number);
        state.taken = number + 1;
        drop(state);
        self.changed.notify_all();
        result
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl FnMut(&mut State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }
}

struct StopOnPanic<'q, T>(&'q Queue<T>);

impl<T> Drop for StopOnPanic<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_order_whoever_makes_them() {
        for threads in [1, 2, 7] {
            let taken = AtomicUsize::new(0);
            let mut results = Vec::new();
            let all: Result<(), ()> = ordered(
                100,
                threads,
                4,
                |i| {
                    assert!(i < taken.load(Ordering::SeqCst) + 5, "begun too early");
                    i * i
                },
                |i, result| {
                    results.push((i, result));
                    taken.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                },
            );
            all.unwrap();
            assert_eq!(results, (0..100).map(|i| (i, i * i)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_the_work() {
        let made = AtomicUsize::new(0);
        let make = |i| {
            made.fetch_add(1, Ordering::SeqCst);
            i
        };
        let result = ordered(1_000_000, 2, 3, make, |i, _| if i == 5 { Err(i) } else { Ok(()) });
        assert_eq!(result, Err(5));
        assert!(made.load(Ordering::SeqCst) <= 10);
        let nothing: Result<(), ()> = ordered(0, 2, 3, |i| i, |_, _| Err(()));
        nothing.unwrap();
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_passed_on() {
        let make = |i| assert!(i != 3, "the panic that is passed on");
        ordered(10, 2, 2, make, |_, ()| Ok::<(), ()>(())).unwrap();
    }

    #[test]
    #[should_panic(expected = "the one that takes")]
    fn a_panic_of_the_one_that_takes_ends_the_work() {
        let take = |i, _| -> Result<(), ()> {
            assert!(i != 3, "the one that takes");
            Ok(())
        };
        ordered(1000, 2, 2, |i| i, take).unwrap();
    }
}
