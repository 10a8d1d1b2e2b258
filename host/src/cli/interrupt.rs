//! Ctrl-C, and being asked to end by whoever runs the program: SIGTERM, as of Slurm, Kubernetes or `timeout`. Windows has no such request.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::compiled;
use crate::platform;

/// What is done when the program is asked to end. Until a command says, it ends at once, as programs do.
static TERMINATION: Mutex<Option<Action>> = Mutex::new(None);

type Action = Box<dyn FnMut() + Send>;

/// How long a process whose end another one decides goes on when it is asked to end itself: if both are asked, as Slurm does, the other one is
/// to be faster.
const DEFERENCE: Duration = Duration::from_secs(2);

/// Lets commands say what is done when the program is asked to end. To be called before any other thread is started.
pub(super) fn watch() -> Result<(), InterruptError> {
    let act = || match &mut *TERMINATION.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(action) => action(),
        None => end(),
    };
    platform::on_termination(act).map_err(InterruptError::Termination)
}

/// From now on Ctrl-C, or being asked to end, makes this request instead of ending the program, and ends it if the request is still there. One
/// request per process can have it.
pub(super) fn takes_over(cancel: &Cancel) -> Result<(), InterruptError> {
    let handler = asks(cancel);
    ctrlc::set_handler(handler.clone())?;
    on_termination(handler);
    Ok(())
}

/// Makes the request, and ends the program if it is still there.
fn asks(cancel: &Cancel) -> impl Fn() + Clone + Send + 'static + use<> {
    let request = cancel.clone();
    move || {
        if request.is_cancelled() {
            leave();
        }
        request.cancel();
    }
}

/// As [`takes_over`], for a chat: Ctrl-C stops an answer there, and not the program. Being asked to end ends it, with the terminal as it is now.
///
/// While a line is read, the line editor gets Ctrl-C as a key, so that the request is made only while work goes on.
pub(super) fn stops_answers(cancel: &Cancel) -> Result<(), InterruptError> {
    ctrlc::set_handler(asks(cancel))?;
    let restore = platform::terminal_as_it_is();
    on_termination(move || {
        restore();
        leave();
    });
    Ok(())
}

/// From now on Ctrl-C, or being asked to end, ends the program at once, and what it has half compiled into `out` is removed: compilers cannot be
/// stopped, and take minutes. The request is made too, for what fails meanwhile because it is removed.
pub(super) fn leaves_nothing_in(out: &Path, cancel: &Cancel) -> Result<(), InterruptError> {
    let (out, request) = (out.to_owned(), cancel.clone());
    let handler = move || {
        request.cancel();
        // Held to the end, so that meanwhile nothing else is begun or replaced.
        let _folders = compiled::remove_partial(&out);
        leave();
    };
    ctrlc::set_handler(handler.clone())?;
    on_termination(handler);
    Ok(())
}

/// From now on this process does not end as soon as it is asked to, but a moment later: who has started it decides when it ends, and may be about
/// to.
pub(super) fn is_for_the_parent() {
    on_termination(|| {
        thread::sleep(DEFERENCE);
        end();
    });
}

/// Ends the program as being asked to does by itself.
fn end() {
    platform::terminate();
    // Which does nothing to the first process of a container.
    leave();
}

fn on_termination(action: impl FnMut() + Send + 'static) {
    *TERMINATION.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(action));
}

/// Whoever presses Ctrl-C twice waits for nothing, and whatever is being written gets its name only when it is whole.
fn leave() -> ! {
    platform::leave(130)
}

/// Ctrl-C, or being asked to end, could not be taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum InterruptError {
    /// Ctrl-C.
    #[error("Ctrl-C cannot be handled: {0}")]
    Interrupt(#[from] ctrlc::Error),
    /// SIGTERM.
    #[error("SIGTERM cannot be handled: {0}")]
    Termination(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handler_per_process() {
        takes_over(&Cancel::new()).unwrap();
        let message = takes_over(&Cancel::new()).unwrap_err().to_string();
        assert!(message.contains("Ctrl-C"), "{message}");
    }
}
