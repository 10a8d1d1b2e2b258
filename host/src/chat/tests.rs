use std::path::Path;

use serde_json::json;

use super::*;

/// A package with a template and the usual special tokens.
fn load(template: &str) -> Result<ChatTemplate, ChatError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "unk_token": null}"#;
    std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    ChatTemplate::load(folder.path()).map(|template| template.unwrap())
}

fn render(template: &str, messages: &[Message]) -> String {
    load(template).unwrap().render(messages, None, true).unwrap()
}

#[test]
fn conversation_of_the_tiny_checkpoint() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat");
    let template = ChatTemplate::load(&folder).unwrap().unwrap();
    let prompt = template.render(&[Message::system("Be brief."), Message::user("Hi")], None, true).unwrap();
    let expected = "<|startoftext|><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt, expected);
}

#[test]
fn special_tokens_have_their_names() {
    assert_eq!(render("{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}", &[]), "<s></s>False");
    assert_eq!(
        render("{{ tools is none }} {{ documents is none }} {{ add_generation_prompt }}", &[]),
        "True True True"
    );
}

#[test]
fn absent_fields_are_undefined_and_thoughts_have_all_their_names() {
    let template = "{% for m in messages %}{{ m.content is defined }} {{ m.tool_calls is defined }} {{ m.reasoning_content }} {{ m.thinking }};{% endfor %}";
    let mut thinking = Message::assistant("x");
    thinking.extra.insert("reasoning".into(), "hm".into());
    let mut calling = Message::assistant(Value::Null);
    calling.tool_calls = Some(json!([]));
    assert_eq!(render(template, &[thinking, calling]), "True False hm hm;False True  ;");
}

#[test]
fn generation_tags_print_their_content_and_keep_their_dashes() {
    let cases = [
        ("a {% generation %}b{% endgeneration %} c", "a b c"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "abc"),
        ("a {%-generation-%} b\n{%endgeneration%}\nc", "ab\nc"),
        ("{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}", "21"),
        ("{% set generation = 3 %}{{ generation }}", "3"),
    ];
    for (template, text) in cases {
        assert_eq!(render(template, &[]), text, "{template}");
    }
}

#[test]
fn whitespace_loops_and_methods_are_those_of_jinja() {
    let cases = [
        ("  {% if true %}\nx\n  {% endif %}\ny\n", "x\ny"),
        (
            "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{{ 'a</think>b'.split('</think>')[-1] }}{{ {'k': 1}.get('x', 2) }}{{ ' x '.strip() }}", "b2x"),
        ("{% for k, v in {'z': 1, 'a': True}.items() %}{{ k }}={{ v }} {% endfor %}", "z=1 a=True "),
        ("{{ {'b': '<é>', 'a': [1.0, 1e-05, none]} | tojson }}", "{\"b\": \"<é>\", \"a\": [1.0, 1e-05, null]}"),
        ("{{ {'b': {'d': 1, 'c': 2}, 'a': 1} | tojson(sort_keys=true) }}", "{\"a\": 1, \"b\": {\"c\": 2, \"d\": 1}}"),
        ("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}", "[1,{\"a\":2}]"),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}", "3"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(['a', none]) }}{{ messages[1:] | length }}", "<['a', None]>0"),
        ("{{ '<b>' }}", "<b>"),
        ("a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n", "a\nb\n"),
        (
            "{{ 1e-05 }} {{ 1e16 }} {{ 0.5 }} {{ 3 }} {{ 1e-05 | string }} {{ true | string }}",
            "1e-05 1e+16 0.5 3 1e-05 True",
        ),
    ];
    for (template, text) in cases {
        assert_eq!(render(template, &[]), text, "{template}");
    }
}

#[test]
fn the_date_is_that_of_today() {
    let before = jiff::Zoned::now().date().to_string();
    let rendered = render("{{ strftime_now('%Y-%m-%d') }}", &[]);
    let after = jiff::Zoned::now().date().to_string();
    assert!([before, after].contains(&rendered), "{rendered}");
}

#[test]
fn errors_name_file_and_line() {
    let cases = [
        ("a\nb\n{{ raise_exception('no system prompt, please') }}", ["line 3", "no system prompt, please"]),
        ("a\n{% if %}", ["line 2", "chat_template.jinja"]),
        ("{% generation %}\nx{% endgeneration %}\n{{ messages[0].content.nope() }}", ["line 3", "nope"]),
        ("\n{{ strftime_now('%!') }}", ["line 2", "strftime_now"]),
        ("\n{{ [] | tojson(separators=',') }}", ["line 2", "separators"]),
        ("{{ {} | tojson(depth=1) }}", ["line 1", "depth"]),
    ];
    for (template, parts) in cases {
        let result = load(template).and_then(|template| template.render(&[Message::user("hi")], None, true));
        let message = result.unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
}

#[test]
fn hostile_templates_are_errors() {
    let doubled = |what: &str| format!("{{% set ns = namespace(x={what}) %}}{{% for i in range(60) %}}{{% set ns.x = ");
    let list = doubled("[1]") + "[ns.x, ns.x] %}{% endfor %}";
    let cases = [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x".to_string(),
            "too many steps",
        ),
        (doubled("'x'") + "ns.x ~ ns.x %}{% endfor %}{{ ns.x }}", "too many steps"),
        (doubled("'x'") + "ns.x + ns.x %}{% endfor %}{{ ns.x }}", "too many steps"),
        (doubled("'xy'") + "ns.x.replace('x', ns.x) %}{% endfor %}{{ ns.x }}", "too many steps"),
        (list.clone() + "{{ ns.x }}", "too many steps"),
        (list.clone() + "{{ ns.x | string }}", "too many steps"),
        (list.clone() + "{{ ns.x | tojson }}", "too many steps"),
        (list.clone() + "{{ raise_exception(ns.x) }}", "too many steps"),
        (list.clone() + "{{ ''.join(ns.x) }}", "strings"),
        (list + "{{ '{}'.format(ns.x) }}", "tojson"),
        ("{{ '{:>9999999999}'.format('x') }}".into(), "too many steps"),
        ("{{ '%9999999999d' | format(1) }}".into(), "too many steps"),
        ("{{ 'x' | indent(9999999999, true) }}".into(), "too many steps"),
        ("{{ [[1]] | tojson(indent=9999999999) }}".into(), "indent"),
        (format!("{{{{ {}1 }}}}", "[".repeat(50_000)), "recursion"),
        ("x".repeat(65 << 10), "65536"),
        (format!("{{{{ 'x'{} }}}}", "~1".repeat(1001)), "1001"),
        ("{{ 'x' * 5000000000 }}".into(), "too"),
        ("{{ 'x' * 50000 * 50000 }}".into(), "too"),
        ("{{ bos_token }}\n".into(), "renders nothing"),
        ("{# empty #}".into(), "renders nothing"),
    ];
    for (template, part) in cases {
        let shown: String = template.chars().take(150).collect();
        let result = load(&template).and_then(|template| template.render(&[Message::user("hi")], None, true));
        let message = result.expect_err(&shown).to_string();
        assert!(message.contains(part) && message.contains("chat_template.jinja"), "{shown}: {message}");
    }
}

#[test]
fn deep_templates_do_not_exhaust_the_stack() {
    let deep = |before: &str, unit: &str, after: &str| {
        let room = (64 << 10) - before.len() - after.len();
        format!("{before}{}{after}", unit.repeat(room / unit.len()))
    };
    let templates = [
        deep("{{ ", "not ", "1 }}"),
        deep("{{ ", "-", "1 }}"),
        deep("{{ 1", "+1", " }}"),
        deep("{{ 'x'", "~1", " }}"),
        deep("{{ a", ".a", " }}"),
        deep("{{ a", "|e", " }}"),
        deep("{{ a", "[1]", " }}"),
        deep("{{ 1", " if 1 else 1", " }}"),
        deep("{% if 0 %}", "{%elif 0%}", "{% endif %}x"),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}x".into(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}".into(),
        "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}"
            .into(),
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}".into(),
    ];
    for template in templates {
        // A result or an error, but one that can be seen.
        if let Err(error) = load(&template).and_then(|template| template.render(&[], None, true)) {
            assert!(error.to_string().contains("chat_template.jinja"), "{error}");
        }
    }
}

#[test]
fn long_conversations_are_far_below_the_limits() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny-chat");
    let template = ChatTemplate::load(&folder).unwrap().unwrap();
    // 2000 turns and a megabyte of text.
    let turn = [Message::user("word ".repeat(100)), Message::assistant("word ".repeat(100))];
    let messages: Vec<Message> = turn.iter().cycle().take(4000).cloned().collect();
    assert!(template.render(&messages, None, true).unwrap().len() > 2_000_000);
}

#[test]
fn templates_are_found_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::load(folder.path()).unwrap().is_none());
    let config = |value: Value| {
        std::fs::write(folder.path().join("tokenizer_config.json"), json!({"chat_template": value}).to_string())
            .unwrap();
        ChatTemplate::load(folder.path())
    };
    let render = |template: Result<Option<ChatTemplate>, ChatError>, tools: Option<&Value>| {
        template.unwrap().unwrap().render(&[], tools, false).unwrap()
    };
    assert!(config(Value::Null).unwrap().is_none());
    assert_eq!(render(config(json!("one")), None), "one");
    let named = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]);
    assert_eq!(render(config(named.clone()), None), "plain");
    assert_eq!(render(config(named), Some(&json!([]))), "tools");
    let message = config(json!([{"name": "rag", "template": ""}])).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json") && message.contains("rag"), "{message}");
    assert!(config(json!(3)).is_err());
    let message =
        config(json!([{"name": "default", "template": ""}, {"name": "tool_use", "template": "{{"}])).unwrap_err();
    assert!(message.to_string().contains("tool_use"), "{message}");
    // The file wins, as in transformers.
    std::fs::write(folder.path().join("chat_template.jinja"), "file").unwrap();
    assert_eq!(render(config(json!("one")), None), "file");
}

#[test]
fn messages_are_read_from_and_written_to_json() {
    let json = json!({"role": "assistant", "tool_calls": [{"function": {"name": "f"}}], "name": "x"});
    let message: Message = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(message.content, Value::Null);
    assert_eq!(serde_json::to_value(&message).unwrap(), json);
}
