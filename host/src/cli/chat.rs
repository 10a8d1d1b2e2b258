//! The interactive chat, over any source of lines and any output.

use std::io::{self, Write};

use super::{CliError, report, sink::Sink};
use crate::{
    cancel::Cancel,
    decoder::Decoder,
    engine::{Answer, Conversation, Engine, FinishReason},
    generation::{Generation, GenerationError},
};

const HELP: &str = "\
/reset  start a new conversation (the system message stays)
/stats  timings of the last answer, and how much of the context is used
/help   this list
/exit   leave, as Ctrl-D does
Ctrl-C stops an answer. A line that ends with \\ continues on the next one.";

/// Where the user's lines come from.
pub(super) trait Lines {
    /// The next line, asked for with `prompt`.
    fn next(&mut self, prompt: &str) -> io::Result<Line>;
}

/// What the user did when asked for a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Typed this.
    Text(String),
    /// Pressed Ctrl-C.
    Interrupted,
    /// Typed bytes that are no text.
    Undecodable,
    /// Pressed Ctrl-D, or the input is at its end.
    End,
}

/// A chat: answers go to `output`, everything else to `notes`.
pub(super) struct Chat<'a, D> {
    pub(super) engine: &'a mut Engine<D>,
    pub(super) conversation: Conversation,
    /// The settings of the next answer: without a fixed seed, each answer has its own.
    pub(super) generation: &'a dyn Fn() -> Result<Generation, GenerationError>,
    pub(super) cancel: &'a Cancel,
    pub(super) output: &'a mut dyn Write,
    pub(super) notes: &'a mut dyn Write,
}

impl<D: Decoder> Chat<'_, D> {
    /// Reads and answers until the user leaves. Only failures of the terminal end it with an error; what goes wrong with
    /// an answer is told, and the chat goes on.
    pub(super) fn run(mut self, lines: &mut dyn Lines) -> Result<(), CliError> {
        let mut last = None;
        loop {
            let text = match read(lines)? {
                Line::Text(text) => text,
                Line::Interrupted => {
                    self.note("Ctrl-D or /exit leaves.")?;
                    continue;
                }
                Line::Undecodable => {
                    self.note("That is no UTF-8 text, so it was not read; please type it again.")?;
                    continue;
                }
                Line::End => return Ok(()),
            };
            match text.trim() {
                "" => {}
                "/exit" | "/quit" => return Ok(()),
                "/help" => self.note(HELP)?,
                "/stats" => self.statistics(last.as_ref())?,
                "/reset" => {
                    self.conversation.reset();
                    self.engine.reset();
                    last = None;
                    self.note("This is a new conversation.")?;
                }
                command if is_command(command) => {
                    self.note(&format!("There is no command {command}; /help lists them."))?;
                }
                // As it was typed: indentation may matter.
                _ => {
                    if let Some(answer) = self.say(&text)? {
                        last = Some(answer);
                    }
                }
            }
        }
    }

    fn say(&mut self, text: &str) -> Result<Option<Answer>, CliError> {
        self.cancel.clear();
        let generation = (self.generation)().map_err(CliError::failed)?;
        let mut sink = Sink::new(self.output, self.cancel);
        let said = self.conversation.say(text, self.engine, &generation, self.cancel, &mut |text| sink.write(text));
        match said {
            Ok(answer) => {
                sink.finish().map_err(CliError::output)?;
                if let Some(note) = self.ending(&answer) {
                    self.note(&note)?;
                }
                Ok(Some(answer))
            }
            Err(error) => {
                sink.abandon().map_err(CliError::output)?;
                if let Some(text) = CliError::failed(error).report() {
                    self.note(&format!("error: {text}"))?;
                }
                Ok(None)
            }
        }
    }

    /// What the user should know about how an answer ended.
    fn ending(&self, answer: &Answer) -> Option<String> {
        match answer.finish_reason {
            FinishReason::Stop => None,
            FinishReason::Length => Some(format!("[ended after {} tokens, as asked for]", answer.tokens.len())),
            FinishReason::Context => {
                let context = self.engine.decoder().context_length();
                Some(format!("[the context of {context} tokens is full; /reset starts a new conversation]"))
            }
            FinishReason::Cancelled => Some("[stopped]".into()),
        }
    }

    fn statistics(&mut self, last: Option<&Answer>) -> Result<(), CliError> {
        let text = last.map_or("There is no answer yet.".into(), report::statistics);
        let (used, context) = (self.engine.state_tokens(), self.engine.decoder().context_length());
        self.note(&format!("{text}\ncontext: {used} of {context} tokens"))
    }

    fn note(&mut self, text: &str) -> Result<(), CliError> {
        writeln!(self.notes, "{text}").map_err(|source| CliError::Stream { stream: "standard error", source })
    }
}

/// A line together with those that continue it.
fn read(lines: &mut dyn Lines) -> Result<Line, CliError> {
    let mut whole = String::new();
    loop {
        let prompt = if whole.is_empty() { "> " } else { ". " };
        match lines.next(prompt).map_err(|source| CliError::Stream { stream: "standard input", source })? {
            Line::Text(text) => match text.strip_suffix('\\') {
                Some(text) => {
                    whole.push_str(text);
                    whole.push('\n');
                }
                None => return Ok(Line::Text(whole + &text)),
            },
            // What was typed before the input ended counts; Ctrl-C drops it.
            Line::End if !whole.is_empty() => return Ok(Line::Text(whole)),
            other => return Ok(other),
        }
    }
}

/// A slash and one word. Paths and other texts that begin with a slash are no commands.
fn is_command(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{END, Fake, cancel_after, engine, greedy, only, tokens};

    struct Script(std::vec::IntoIter<Line>);

    impl Lines for Script {
        fn next(&mut self, _: &str) -> io::Result<Line> {
            Ok(self.0.next().unwrap_or(Line::End))
        }
    }

    /// Output and notes of a chat with these lines, in which the decoder says `said`, each followed by the end token.
    fn chat(lines: Vec<Line>, said: &[&str], context: usize) -> (String, String, Vec<usize>) {
        let mut script: Vec<u32> = said.iter().flat_map(|text| [tokens(text), vec![END]].concat()).collect();
        script.reverse();
        let mut engine = engine(Fake::new(context, move |_| only(script.pop().unwrap_or(END))));
        let (mut output, mut notes, cancel) = (Vec::new(), Vec::new(), Cancel::new());
        // A request from before the chat must not stop its first answer.
        cancel.cancel();
        Chat {
            engine: &mut engine,
            conversation: Conversation::new(None),
            generation: &|| Ok(greedy()),
            cancel: &cancel,
            output: &mut output,
            notes: &mut notes,
        }
        .run(&mut Script(lines.into_iter()))
        .unwrap();
        let steps = engine.decoder().steps.iter().map(Vec::len).filter(|&length| length > 1).collect();
        (String::from_utf8(output).unwrap(), String::from_utf8(notes).unwrap(), steps)
    }

    fn typed(lines: &[&str]) -> Vec<Line> {
        lines.iter().map(|&line| Line::Text(line.into())).collect()
    }

    #[test]
    fn answers_go_to_the_output_and_the_rest_to_the_notes() {
        let lines = typed(&["Hi!", "", "/stats", "How are you?", "/help", "/nonsense", "/exit", "never read"]);
        let (output, notes, _) = chat(lines, &["Hello there.", "Fine."], 500);
        assert_eq!(output, "Hello there.\nFine.\n");
        for part in ["decode:", "context: ", "/reset", "no command /nonsense"] {
            assert!(notes.contains(part), "{part} is missing in:\n{notes}");
        }
    }

    #[test]
    fn reset_forgets_the_turns() {
        let lines = |between: &str| typed(&["Hi!", between, "Hi!"]);
        let (_, _, with) = chat(lines("/reset"), &["Hello.", "Hello."], 500);
        assert_eq!(with[0], with[1], "the same prompt again: {with:?}");
        let (_, notes, _) = chat(typed(&["/stats", "/reset", "/stats"]), &[], 500);
        assert_eq!(notes.matches("no answer yet").count(), 2, "{notes}");
    }

    #[test]
    fn reset_empties_the_context() {
        let (_, notes, _) = chat(typed(&["Hi!", "/reset", "/stats"]), &["Hello."], 500);
        assert!(notes.contains("context: 0 of 500 tokens"), "{notes}");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_the_chat() {
        let lines = [vec![Line::Undecodable], typed(&["Hi!"])].concat();
        let (output, notes, _) = chat(lines, &["Hello."], 500);
        assert_eq!(output, "Hello.\n");
        assert!(notes.contains("no UTF-8"), "{notes}");
    }

    #[test]
    fn texts_are_said_as_they_were_typed() {
        let lengths = |text: &str| chat(typed(&[text]), &["a"], 500).2;
        assert!(lengths("    indented  ") > lengths("indented"));
    }

    #[test]
    fn lines_are_continued_and_slashes_may_begin_a_text() {
        let (output, notes, steps) = chat(typed(&["one \\", "two", "/etc/passwd?"]), &["a", "b"], 500);
        assert_eq!((output.as_str(), notes.as_str(), steps.len()), ("a\nb\n", "", 2));
        let interrupted = [typed(&["one \\"]), vec![Line::Interrupted], typed(&["two"])].concat();
        let (_, notes, steps) = chat(interrupted, &["a"], 500);
        assert!(notes.contains("Ctrl-D"));
        assert_eq!(steps.len(), 1);
    }

    #[test]
    fn a_full_context_and_a_long_prompt_are_told() {
        let long = "word ".repeat(40);
        let (output, notes, _) = chat(typed(&["Hi", &long, "/reset", "Hi"]), &["one two three four"], 12);
        assert!(output.starts_with("one"), "{output}");
        assert!(notes.contains("the context of 12 tokens is full; /reset"), "{notes}");
        assert!(notes.contains("error: the prompt has"), "{notes}");
    }

    #[test]
    fn an_answer_can_be_stopped_and_the_chat_goes_on() {
        /// Cancels after some writes, as a user who presses Ctrl-C would.
        struct Impatient<'a>(Vec<u8>, Box<dyn FnMut(&str) + 'a>);
        impl Write for Impatient<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                (self.1)("");
                self.0.extend(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut engine = engine(Fake::new(500, |_| only(300)));
        let (mut notes, cancel) = (Vec::new(), Cancel::new());
        let mut output = Impatient(Vec::new(), Box::new(cancel_after(3, &cancel)));
        Chat {
            engine: &mut engine,
            conversation: Conversation::new(None),
            generation: &|| Ok(Generation { max_new_tokens: Some(5), ..greedy() }),
            cancel: &cancel,
            output: &mut output,
            notes: &mut notes,
        }
        .run(&mut Script(typed(&["a", "b"]).into_iter()))
        .unwrap();
        let notes = String::from_utf8(notes).unwrap();
        assert!(notes.contains("[stopped]") && notes.contains("[ended after 5 tokens"), "{notes}");
    }
}
