use std::fs;

use super::*;

/// Tokenizer and template of the trained checkpoint.
fn tools() -> (Tokenizer, ChatTemplate) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat");
    (Tokenizer::load(&folder).unwrap(), ChatTemplate::load(&folder).unwrap().unwrap())
}

fn read_text(name: &str, text: &[u8], limit: Option<usize>) -> Result<Vec<Vec<u32>>, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(name);
    fs::write(&file, text).unwrap();
    let (tokenizer, template) = tools();
    read(&file, &tokenizer, Some(&template), limit).map_err(|error| error.to_string())
}

#[test]
fn lines_are_conversations_or_texts() {
    let (tokenizer, _) = tools();
    let lines = r#"{"messages": [{"role": "user", "content": "Hi"}], "id": 7}

{"text": "a <|im_end|> b", "tools": null}
{"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}]}"#;
    let documents = read_text("a.JSONL", lines.as_bytes(), None).unwrap();
    let texts: Vec<_> = documents.iter().map(|tokens| tokenizer.decode_with_special_tokens(tokens).unwrap()).collect();
    let tools = r#"List of tools: <|tool_list_start|>[{"name": "f"}]<|tool_list_end|>"#;
    assert_eq!(
        texts,
        [
            "<|startoftext|><|im_start|>user\nHi<|im_end|>\n".to_owned(),
            "<|startoftext|>a <|im_end|> b".to_owned(),
            format!("<|startoftext|><|im_start|>system\n{tools}<|im_end|>\n<|im_start|>user\nx<|im_end|>\n"),
        ]
    );
    let end = tokenizer.token_to_id("<|im_end|>").unwrap();
    assert!(documents[1].contains(&end), "spelled out, it is the special token");
}

#[test]
fn any_other_file_is_one_text() {
    let (tokenizer, _) = tools();
    let text = "{\"text\": \"x\"}\n<|startoftext|>y\n";
    assert_eq!(read_text("a.txt", text.as_bytes(), None).unwrap(), [tokenizer.encode(text, true).unwrap()]);
    // The token that begins every text is not doubled.
    let begun = "<|startoftext|>x";
    assert_eq!(read_text("a", begun.as_bytes(), None).unwrap(), [tokenizer.encode(begun, false).unwrap()]);
}

#[test]
fn reading_ends_at_the_limit() {
    let lines = "{\"text\": \"one two three\"}\n{\"text\": \"four five six\"}\nno document\n";
    let whole = read_text("a.jsonl", &lines.as_bytes()[..lines.len() - 12], None).unwrap();
    let cut = read_text("a.jsonl", lines.as_bytes(), Some(whole[0].len() + 2)).unwrap();
    assert_eq!(cut, [whole[0].clone(), whole[1][..2].to_vec()]);
    assert_eq!(read_text("a.txt", b"one two three", Some(2)).unwrap()[0].len(), 2);
}

#[test]
fn all_bad_lines_are_named_with_file_and_number() {
    let lines = [
        "{\"text\": \"fine\"}",
        "{\"text\": 5}",
        "nonsense",
        "{\"messages\": []}",
        "{\"prompt\": \"x\"}",
        "{\"text\": \"x\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}",
        "{\"text\": \"x\", \"tools\": []}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}], \"tools\": {}}",
    ];
    let message = read_text("a.jsonl", lines.join("\n").as_bytes(), None).unwrap_err();
    assert!(message.contains("a.jsonl") && !message.contains("line 1:"), "{message}");
    for (number, part) in
        [(2, "invalid type"), (3, "column"), (4, "empty"), (5, "neither"), (6, "both"), (7, "tools"), (8, "list")]
    {
        let line = message.lines().find(|line| line.contains(&format!("line {number}: "))).unwrap();
        assert!(line.contains(part), "{line}");
    }
    let many = read_text("a.jsonl", "x\n".repeat(25).as_bytes(), None).unwrap_err();
    assert!(many.contains("line 10:") && !many.contains("line 11:") && many.contains("15 more"), "{many}");
    let bytes = read_text("a.jsonl", b"{\"text\": \"\xff\"}\n", None).unwrap_err();
    assert!(bytes.contains("line 1"), "{bytes}");
}

#[test]
fn files_without_a_text_are_told() {
    assert!(read_text("a.jsonl", b"\n \n", None).unwrap_err().contains("holds no text"));
    assert!(read_text("a.txt", b"\xff\xfe", None).unwrap_err().contains("UTF-8"));
    let (tokenizer, template) = tools();
    let missing = read(Path::new("nowhere.txt"), &tokenizer, Some(&template), None).unwrap_err().to_string();
    assert!(missing.contains("nowhere.txt"), "{missing}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.jsonl");
    fs::write(&file, "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}").unwrap();
    let message = read(&file, &tokenizer, None, None).unwrap_err().to_string();
    assert!(message.contains("no chat template"), "{message}");
}
