//! One answer to one prompt.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use super::{
    CliError, Problems,
    error::Exit,
    report::{self, Origin, Report},
    sink::Sink,
};
use crate::{
    cancel::Cancel,
    decoder::Decoder,
    engine::{Answer, Conversation, Engine, EngineError, FinishReason},
    generation::Generation,
};

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) prompt: &'a str,
    pub(super) system: Option<String>,
    pub(super) raw: bool,
    pub(super) json: bool,
}

/// Most bytes of a prompt, which is more than any context holds.
const LONGEST_PROMPT: u64 = 64 << 20;

/// The prompt from standard input, without the line break at its end that `echo` adds. There must be one.
pub(super) fn read_prompt(input: &mut dyn Read) -> Result<String, CliError> {
    let mut prompt = String::new();
    let closed = |source| CliError::Stream { stream: "standard input", source };
    input.take(LONGEST_PROMPT + 1).read_to_string(&mut prompt).map_err(closed)?;
    if prompt.len() as u64 > LONGEST_PROMPT {
        let longest = LONGEST_PROMPT >> 20;
        return Err(closed(io::Error::other(format!("a prompt has at most {longest} MiB; give a shorter one"))));
    }
    if prompt.ends_with('\n') {
        prompt.pop();
        if prompt.ends_with('\r') {
            prompt.pop();
        }
    }
    if prompt.is_empty() {
        let mut problems = Problems::default();
        problems.add("--prompt", "is missing, and standard input is empty");
        return Err(problems.into());
    }
    Ok(prompt)
}

/// Answers on `output`: the text as it comes, or a JSON object in the end.
pub(super) fn answer<D: Decoder>(
    engine: &mut Engine<D>,
    question: Question<'_>,
    generation: &Generation,
    cancel: &Cancel,
    (origin, load): (&Origin, Duration),
    output: &mut dyn Write,
) -> Result<Exit, CliError> {
    let answer = if question.json {
        let answer = generate(engine, &question, generation, cancel, &mut |_| {}).map_err(CliError::failed)?;
        write_json(&Report::new(&answer, origin, load), output).map_err(CliError::output)?;
        answer
    } else {
        let mut sink = Sink::new(output, cancel);
        let answer = generate(engine, &question, generation, cancel, &mut |text| sink.write(text));
        match answer {
            Ok(answer) => sink.finish().map(|()| answer).map_err(CliError::output)?,
            Err(error) => {
                // The failure is the better message of the two, if both go wrong.
                if let Err(output) = sink.abandon() {
                    tracing::debug!("standard output failed too: {output}");
                }
                return Err(CliError::failed(error));
            }
        }
    };
    if answer.finish_reason == FinishReason::Context {
        tracing::warn!("the answer is cut: the context of {} tokens is full", engine.decoder().context_length());
    }
    tracing::info!("{}", report::statistics(&answer));
    Ok(match answer.finish_reason {
        FinishReason::Cancelled => Exit::Interrupted,
        _ => Exit::Done,
    })
}

fn generate<D: Decoder>(
    engine: &mut Engine<D>,
    question: &Question<'_>,
    generation: &Generation,
    cancel: &Cancel,
    on_text: &mut dyn FnMut(&str),
) -> Result<Answer, EngineError> {
    if question.raw {
        let prompt = engine.tokenizer().encode_prompt(question.prompt)?;
        return engine.generate(&prompt, generation, cancel, on_text);
    }
    Conversation::new(question.system.clone()).say(question.prompt, engine, generation, cancel, on_text)
}

fn write_json(report: &Report<'_>, output: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *output, report)?;
    writeln!(output)?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake::{Fake, engine, greedy, tokens};

    fn ask(fake: Fake, question: Question<'_>) -> (Result<Exit, CliError>, String, Vec<u32>) {
        let mut engine = engine(fake);
        let mut output = Vec::new();
        let placement = [("CPUExecutionProvider".to_owned(), 7)].into();
        let origin = Origin { model: "x.onnx".into(), precision: "q4".into(), provider: "cpu".into(), placement };
        let load = Duration::from_millis(5);
        let exit = answer(&mut engine, question, &greedy(), &Cancel::new(), (&origin, load), &mut output);
        (exit, String::from_utf8(output).unwrap(), engine.decoder().steps.first().cloned().unwrap_or_default())
    }

    fn question(prompt: &str) -> Question<'_> {
        Question { prompt, system: None, raw: false, json: false }
    }

    #[test]
    fn the_prompt_goes_through_the_template_unless_it_is_raw() {
        let fake = || Fake::saying(200, tokens("Paris."));
        let (exit, output, prompt) = ask(fake(), Question { system: Some("Be brief.".into()), ..question("Where?") });
        assert_eq!((exit.unwrap(), output.as_str()), (Exit::Done, "Paris.\n"));
        let rendered = "<|startoftext|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(prompt, tokens(rendered));
        let (_, _, prompt) = ask(fake(), Question { raw: true, ..question("Where?") });
        assert_eq!(prompt, tokens("<|startoftext|>Where?"));
    }

    #[test]
    fn json_holds_all_facts_and_nothing_else_is_written() {
        let (_, output, _) = ask(Fake::saying(200, tokens("Paris.")), Question { json: true, ..question("Where?") });
        let json: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(output.lines().count(), 1);
        assert_eq!((&json["text"], &json["finish_reason"]), (&"Paris.".into(), &"stop".into()));
        assert_eq!(
            (&json["model"], &json["precision"], &json["provider"]),
            (&"x.onnx".into(), &"q4".into(), &"cpu".into())
        );
        assert_eq!(json["placement"]["CPUExecutionProvider"], 7);
        assert_eq!(json["tokens"].as_array().unwrap().len(), tokens("Paris.").len() + 1);
        assert!(json["seed"].is_u64() && json["timings"]["decode_ms"].is_f64() && json["timings"]["load_ms"] == 5.0);
    }

    #[test]
    fn failures_come_after_what_was_said() {
        let mut fake = Fake::saying(200, tokens("one two three"));
        fake.failure = Some((3, || crate::decoder::DecoderError::Run { held: 3, source: "device lost".into() }));
        let (exit, output, _) = ask(fake, question("Count."));
        assert!(exit.unwrap_err().report().unwrap().contains("device lost"));
        assert!(output.starts_with("one") && output.ends_with('\n'), "{output:?}");
    }

    #[test]
    fn one_line_break_at_the_end_of_the_input_is_dropped() {
        for (input, prompt) in [("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("a", "a")] {
            assert_eq!(read_prompt(&mut input.as_bytes()).unwrap(), prompt);
        }
        for empty in ["", "\n"] {
            assert!(matches!(read_prompt(&mut empty.as_bytes()).unwrap_err(), CliError::Usage(_)));
        }
        let endless = read_prompt(&mut io::repeat(b'a')).unwrap_err().report().unwrap();
        assert!(endless.contains("standard input") && endless.contains("64 MiB"), "{endless}");
        assert!(read_prompt(&mut &b"\xff"[..]).unwrap_err().report().unwrap().contains("standard input"));
    }
}
