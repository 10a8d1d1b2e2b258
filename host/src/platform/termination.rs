//! Being asked to end, by those who run programs: SIGTERM.
#![allow(
    unsafe_code,
    reason = "the standard library ends a process only with all that libraries have asked for before"
)]
#![allow(clippy::exit, reason = "whoever calls it has nothing more to do")]

use std::io;

/// From now on calls `action`, in a thread of its own, each time the system asks this process to end, which otherwise ends it. On systems
/// without such a request nothing is done.
///
/// To be called before other threads are started: those that are there already would get the request, and it would end the process. Other
/// programs that are started from here do not end on request either, unless they do the same; they can be killed.
pub fn on_termination(action: impl FnMut() + Send + 'static) -> io::Result<()> {
    #[cfg(unix)]
    {
        use nix::errno::Errno;
        use nix::sys::signal::{SigSet, Signal};

        let mut action = action;
        let mut asked = SigSet::empty();
        asked.add(Signal::SIGTERM);
        asked.thread_block()?;
        let wait = move || {
            loop {
                match asked.wait() {
                    Ok(_) => action(),
                    Err(Errno::EINTR) => {}
                    Err(error) => {
                        return tracing::error!(
                            "SIGTERM cannot be waited for, only SIGKILL ends this process: {error}"
                        );
                    }
                }
            }
        };
        std::thread::Builder::new().name("termination".to_owned()).spawn(wait)?;
    }
    #[cfg(not(unix))]
    drop(action);
    Ok(())
}

/// Ends this process as the request to end does where nobody has asked for it with [`on_termination`], whose thread calls this.
pub fn terminate() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal, raise};

        let mut asked = SigSet::empty();
        asked.add(Signal::SIGTERM);
        if let Err(error) = asked.thread_unblock().and_then(|()| raise(Signal::SIGTERM)) {
            tracing::error!("this process cannot end itself: {error}");
        }
    }
}

/// Ends this process with this status at once, whatever other threads do. Nothing is put in order: libraries that do so when a program ends
/// crash where their own threads go on meanwhile, as ONNX Runtime and compilers of NPUs do.
pub fn leave(status: i32) -> ! {
    #[cfg(unix)]
    {
        // SAFETY: it takes a number and does not return; nothing is borrowed, and no memory is looked at.
        unsafe { nix::libc::_exit(status) }
    }
    #[cfg(not(unix))]
    {
        std::process::exit(status)
    }
}

/// What sets the terminal of the standard input back to the way in which it is now, whatever line editors have done meanwhile. Does nothing
/// without a terminal, and in the background: then the terminal is somebody else's, and who sets it is stopped instead of being ended.
pub fn terminal_as_it_is() -> impl Fn() + Send + 'static {
    #[cfg(unix)]
    {
        use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};
        use nix::unistd::{getpgrp, tcgetpgrp};

        let mode = tcgetattr(io::stdin()).ok();
        move || {
            // Which is not told of a terminal that this process was not started from.
            if tcgetpgrp(io::stdin()).is_ok_and(|foreground| foreground != getpgrp()) {
                return;
            }
            if let Some(Err(error)) = mode.as_ref().map(|mode| tcsetattr(io::stdin(), SetArg::TCSANOW, mode)) {
                // The terminal may be gone, which is why this program has to end.
                tracing::debug!("the terminal cannot be set back: {error}");
            }
        }
    }
    #[cfg(not(unix))]
    {
        || {}
    }
}
