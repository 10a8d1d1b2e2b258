"""Renders chat templates with transformers.

    pip install -r tests/reference/requirements.txt && python tests/reference/templates.py

Writes tests/reference/data/templates.json: a list of cases, each with the template, a file under tests/fixtures, the
messages, the tools, whether the beginning of an answer is added, and the prompt or the message with which the template
refuses, empty if it fails otherwise.
"""

from __future__ import annotations

import json

import jinja2
from transformers import AutoTokenizer

from models import DATA, FIXTURES
from questions import WEATHER, assistant, user

TEMPLATES = ["tiny-chat/chat_template.jinja", "templates/calls.jinja", "templates/features.jinja"]
SEARCH = {
    "type": "function",
    "function": {
        "name": "search",
        "description": 'Looks for "text" in <documents> & notes: größer, 検索, 🔎\n\tSecond line.',
        "parameters": {
            "type": "object",
            "properties": {"limit": {"type": "integer", "default": 10, "minimum": 0.5}, "deep": {"type": ["boolean", "null"]}},
            "required": [],
        },
    },
}


def system(text: str) -> dict:
    """A message that holds throughout."""
    return {"role": "system", "content": text}


def tool(text: str) -> dict:
    """What a tool has returned."""
    return {"role": "tool", "content": text}


def calls(*functions: tuple[str, dict], content: str | None = None, **fields) -> dict:
    """A message of the assistant with tool calls."""
    tool_calls = [{"type": "function", "function": {"name": name, "arguments": arguments}} for name, arguments in functions]
    return {"role": "assistant", "content": content, "tool_calls": tool_calls, **fields}


# Name, messages, tools.
CONVERSATIONS = [
    ("one question", [user("What is C. elegans?")], None),
    ("system prompt", [system("  Be brief. \n"), user("Hi")], None),
    ("tools", [user("What is the weather in Paris?")], [WEATHER]),
    ("system prompt and tools", [system("Be brief."), user("Find it.")], [WEATHER, SEARCH]),
    ("no tools", [user("Hi")], []),
    ("several turns", [user("a b"), assistant("<think>\nhm\n</think>\n\nx"), user("c"), assistant("<think>so</think>y"), user("d\n")], None),
    ("answer at the end", [user("a"), assistant("<think>kept</think>x")], None),
    (
        "tool calls",
        [
            user("Weather and more?"),
            calls(
                ("get_weather", {"city": "L'Aquila\\\n"}),
                ("search", {"limit": 3, "deep": True, "text": None, "nested": {"é": [1.5, None, False]}, "list": ["plain", "has'single"]}),
                ("stop", {}),
            ),
            tool('{"temperature": -3}'),
            assistant("Cold."),
            user("And now?"),
            calls(("get_weather", {"city": "東京"}), content="Let me see. ", reasoning=" I should look. "),
            tool("warm"),
        ],
        [WEATHER],
    ),
    ("parts", [user([{"type": "image"}, {"type": "text", "text": "What is this? 👋🏽"}])], None),
    ("hidden message", [user("a"), {**assistant("b"), "hidden": True}, {**user("c"), "name": "Ada"}], None),
    ("unicode", [user("مرحبا こんにちは 👩‍👩‍👧 \u200b\u2028 <|im_end|>"), assistant("안녕하세요")], None),
    ("unknown role", [user("a"), {"role": "critic", "content": "b"}], None),
    ("unknown part", [user([{"type": "audio"}])], None),
]


def main() -> None:
    """Writes the file."""
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "tiny-chat")
    cases = []
    for template in TEMPLATES:
        source = (FIXTURES / template).read_text(encoding="utf-8")
        for name, messages, tools in CONVERSATIONS:
            for add_generation_prompt in (False, True):
                case = {"name": name, "template": template, "messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
                try:
                    case["prompt"] = tokenizer.apply_chat_template(
                        messages, tools=tools, chat_template=source, add_generation_prompt=add_generation_prompt, tokenize=False
                    )
                except jinja2.exceptions.TemplateError as error:
                    # The words are the template's own only if it has chosen to refuse.
                    case["error"] = error.message if type(error) is jinja2.exceptions.TemplateError else ""
                except (TypeError, AttributeError) as error:
                    # Errors of Python and not of the template: there is nothing to compare.
                    print(f"left out: {template}, {name}: {error}")
                    continue
                cases.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (DATA / "templates.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(cases)} renderings")


if __name__ == "__main__":
    main()
