//! Other processes.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

/// How often it is looked whether a process has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long a process may take to be gone after it was killed: one that waits for a driver cannot be.
const GRACE: Duration = Duration::from_secs(5);

/// Keeps Ctrl-C on the terminal from the process that is started: who starts it decides when it ends.
pub fn keep_from_interrupts(command: &mut Command) {
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(command, 0);
    #[cfg(windows)]
    {
        /// Groups of their own do not get Ctrl-C.
        const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
        std::os::windows::process::CommandExt::creation_flags(command, CREATE_NEW_PROCESS_GROUP);
    }
}

/// How a process ended, as a phrase that follows "its process": `was ended by SIGSEGV (signal 11)`, `ended with exit status 3`.
pub fn ended(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(number) = std::os::unix::process::ExitStatusExt::signal(&status) {
        let name = nix::sys::signal::Signal::try_from(number).map_or("a signal", |signal| signal.as_str());
        return format!("was ended by {name} (signal {number})");
    }
    match status.code() {
        // Windows tells crashes by their exception, such as 0xC0000005 for an access violation.
        Some(code) if code < 0 => format!("ended with the exception {code:#010X}"),
        Some(code) => format!("ended with exit status {code}"),
        None => "ended".to_owned(),
    }
}

/// How the process ended, if it did so within `limit`.
pub fn wait_within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(LOOK);
    }
}

/// Ends the process. Whether it can be ended is for the system: if it is still there after a while, that is an error.
pub fn end(child: &mut Child) -> io::Result<ExitStatus> {
    // If this fails, it has ended by itself.
    drop(child.kill());
    wait_within(child, GRACE)?.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "it was killed and does not end"))
}

/// Runs the process without input. Nothing comes back if it took longer than `limit`, and was ended.
pub fn output_within(command: &mut Command, limit: Duration) -> io::Result<Option<Output>> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (child.stdout.take().map(read_apart), child.stderr.take().map(read_apart));
    let Some(status) = wait_within(&mut child, limit)? else {
        end(&mut child)?;
        return Ok(None);
    };
    // Processes that it has left behind may hold its streams for as long as they like.
    let read = |stream: Option<Receiver<Vec<u8>>>| {
        stream.and_then(|stream| stream.recv_timeout(GRACE).ok()).unwrap_or_default()
    };
    Ok(Some(Output { status, stdout: read(stdout), stderr: read(stderr) }))
}

/// All of a stream, when it has come.
fn read_apart(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error may say why there is one.
        drop(stream.read_to_end(&mut bytes));
        drop(sender.send(bytes));
    });
    receiver
}

/// Whether there is a process of this number. Where that cannot be told, there is.
pub fn is_running(process: u32) -> bool {
    #[cfg(unix)]
    {
        use nix::{errno::Errno, sys::signal, unistd::Pid};
        let number = i32::try_from(process).ok().filter(|number| *number > 0);
        number.is_some_and(|number| signal::kill(Pid::from_raw(number), None) != Err(Errno::ESRCH))
    }
    #[cfg(not(unix))]
    {
        let _ = process;
        true
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn processes_have_a_limit() {
        let run = |script: &str, limit| output_within(Command::new("sh").args(["-c", script]), limit).unwrap();
        let output = run("echo out; echo err >&2; exit 3", Duration::from_secs(60)).unwrap();
        assert_eq!((&*output.stdout, &*output.stderr), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        assert!(run("exec sleep 600", Duration::ZERO).is_none());
    }

    #[test]
    fn processes_are_told_from_none() {
        assert!(is_running(std::process::id()));
        let mut child = Command::new("true").spawn().unwrap();
        wait_within(&mut child, Duration::from_secs(60)).unwrap().unwrap();
        assert!(!is_running(child.id()) && !is_running(0));
    }

    #[test]
    fn signals_have_names() {
        let ended = |script: &str| ended(Command::new("sh").args(["-c", script]).status().unwrap());
        assert_eq!(ended("kill -SEGV $$"), "was ended by SIGSEGV (signal 11)");
        assert_eq!(ended("exit 3"), "ended with exit status 3");
    }
}
