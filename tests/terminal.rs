//! The chat on a terminal: what users type and press, and what they see.
#![cfg(unix)]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use lfm2_export::recipe::Precision;
use lfm2_tests::packages::{Exported, TINY_CHAT, contrib};
use nix::pty::openpty;
use nix::sys::termios::LocalFlags;

const QUESTION: &str = "What is C. elegans?";
const ANSWER: &str = "C. elegans is a tiny transparent worm that lives in soil.";

/// Long enough for a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program with all its streams on one terminal.
struct Chat {
    child: Child,
    keyboard: File,
    /// The program's end, which is kept open, because a terminal without programs has no mode.
    end: File,
    screen: Receiver<Vec<u8>>,
    /// Everything shown since the last [`Chat::sees`].
    shown: String,
}

impl Chat {
    fn start(package: &Exported, arguments: &[&str]) -> Self {
        let pair = openpty(None, None).unwrap();
        let (keyboard, end) = (File::from(pair.master), File::from(pair.slave));
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-under-test"));
        command.arg("--model").arg(&package.graph).args(arguments).env("TERM", "xterm").env_remove("RUST_LOG");
        let stream = || Stdio::from(end.try_clone().unwrap());
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let mut reader = keyboard.try_clone().unwrap();
        let (sender, screen) = channel();
        // Ends with the test.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut chat = Self { child, keyboard, end, screen, shown: String::new() };
        chat.sees("> ");
        chat
    }

    fn types(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).unwrap();
    }

    /// Waits until `text` is shown, and forgets what was shown up to it.
    fn sees(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(position) = self.shown.find(text) {
                let rest = self.shown.split_off(position + text.len());
                return std::mem::replace(&mut self.shown, rest);
            }
            match self.screen.recv_timeout(PATIENCE.saturating_sub(start.elapsed())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("{text:?} was not shown, but:\n{}", self.shown)
                }
            }
        }
    }

    /// Ctrl-C while no line is read: the terminal makes it a signal, which is sent directly here, because a terminal does so
    /// only for the program that it controls.
    fn interrupts(&self) {
        self.signals("-INT");
    }

    fn signals(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Whether the terminal hands over lines and makes Ctrl-C a signal, as it does for most programs.
    fn has_lines(&self) -> bool {
        let mode = nix::sys::termios::tcgetattr(&self.end).unwrap().local_flags;
        mode.contains(LocalFlags::ICANON | LocalFlags::ISIG | LocalFlags::ECHO)
    }

    fn ends(mut self) -> Option<i32> {
        self.ended()
    }

    fn ended(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "the program goes on");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        // Whatever a failed test left.
        if let Err(error) = self.child.kill() {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        self.child.wait().unwrap();
    }
}

/// A package whose answers nothing but the context ends: without the end token.
fn endless() -> Exported {
    let package = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let config = package.package().join("generation_config.json");
    std::fs::write(config, r#"{"eos_token_id": 0}"#).unwrap();
    std::fs::remove_file(package.package().join("lfm2.manifest.json")).unwrap();
    package
}

#[test]
fn what_is_typed_is_answered() {
    let package = Exported::new(TINY_CHAT, contrib(Precision::Fp32));
    let mut chat = Chat::start(&package, &["--temperature", "0"]);
    // Two lines at once, as if pasted: neither may be lost.
    chat.types(format!("{QUESTION}\r/stats\r").as_bytes());
    chat.sees(ANSWER);
    chat.sees("prefill: ");
    let statistics = chat.sees(" of 4096 tokens");
    assert!(!statistics.ends_with("context: 0 of 4096 tokens"), "{statistics}");
    chat.sees("> ");
    chat.types(b"/reset\r");
    chat.sees("new conversation");
    chat.sees("> ");
    chat.types(b"/stats\r");
    chat.sees("context: 0 of");
    chat.sees("> ");
    // Bytes that are no UTF-8, and Ctrl-C as a key: neither ends the chat.
    chat.types(b"\xff\xfe\r");
    chat.sees("type it again");
    // A key means what it means to the chat only while a line is read.
    chat.sees("> ");
    chat.types(b"\x03");
    chat.sees("Ctrl-D or /exit leaves.");
    chat.sees("> ");
    chat.types(format!("{QUESTION}\r").as_bytes());
    chat.sees(ANSWER);
    chat.sees("> ");
    chat.types(b"\x04");
    assert_eq!(chat.ends(), Some(0));
}

#[test]
fn an_interrupt_stops_the_answer_and_not_the_program() {
    let package = endless();
    let mut chat = Chat::start(&package, &["--temperature", "0", "--quiet"]);
    chat.types(format!("{QUESTION}\r").as_bytes());
    chat.sees(ANSWER);
    chat.interrupts();
    chat.sees("[stopped]");
    chat.sees("> ");
    chat.types(b"/stats\r");
    chat.sees("finish: cancelled");
    chat.sees("> ");
    chat.types(b"\x04");
    assert_eq!(chat.ends(), Some(0));
}

#[test]
fn being_asked_to_end_ends_the_chat_and_leaves_the_terminal_as_it_was() {
    let package = endless();
    for is_answering in [false, true] {
        let mut chat = Chat::start(&package, &["--temperature", "0", "--quiet"]);
        assert!(!chat.has_lines(), "the line editor reads keys");
        if is_answering {
            chat.types(format!("{QUESTION}\r").as_bytes());
            chat.sees(ANSWER);
        }
        chat.signals("-TERM");
        assert_eq!(chat.ended(), Some(130));
        assert!(chat.has_lines(), "answering: {is_answering}");
    }
}
