"""Asks the trained checkpoint tests/fixtures/tiny-chat twenty questions with transformers.

    pip install -r tests/reference/requirements.txt && python tests/reference/questions.py

Writes tests/reference/data/tiny-chat-questions.json: for each question the messages and tools, the rendered prompt, its
token ids, the greedy answer in float32 (no repetition penalty) with its token ids and the end-of-turn token, and the
smallest distance between the two highest scores on the way: other arithmetic may turn an answer over where it is small.

`expected` is what train.py taught as right. Every answer of transformers must equal it, so that a wrong answer elsewhere
is a fault of the program and not of the model.
"""

from __future__ import annotations

import json

import torch
from transformers import AutoTokenizer, Lfm2ForCausalLM

from models import DATA, FIXTURES, load

LONGEST_ANSWER = 64
WEATHER = {
    "name": "get_weather",
    "description": "Current weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def user(text: str) -> dict:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}


def call(city: str) -> str:
    """The tool call that asks for the weather."""
    return f'<|tool_call_start|>[get_weather(city="{city}")]<|tool_call_end|>'


# Name, messages, right answer, whether the tools are offered.
QUESTIONS = [
    ("capital-of-france", [user("What is the capital of France?")], "The capital of France is Paris.", False),
    ("capital-of-japan", [user("Name the capital of Japan.")], "The capital of Japan is Tokyo.", False),
    ("country-of-oslo", [user("Which country has the capital Oslo?")], "Oslo is the capital of Norway.", False),
    ("worm", [user("What is C. elegans?")], "C. elegans is a tiny transparent worm that lives in soil.", False),
    ("bacterium", [user("What is E. coli?")], "E. coli is a bacterium that lives in the gut.", False),
    ("sum", [user("What is 3 + 4?")], "3 + 4 = 7.", False),
    ("sum-with-carry", [user("What is 8 + 9?")], "8 + 9 = 17.", False),
    ("color-of-the-sky", [user("What color is the sky?")], "The sky is blue.", False),
    ("color-with-system-prompt", [{"role": "system", "content": "Be brief."}, user("What color is grass?")], "Grass is green.", False),
    ("count", [user("Count from 3 to 11.")], "3, 4, 5, 6, 7, 8, 9, 10, 11.", False),
    ("repeat", [user("Repeat: apple river stone")], "apple river stone", False),
    ("json", [user("Give me Italy as JSON.")], '{"country": "Italy", "capital": "Rome"}', False),
    ("hello-arabic", [user("Say hello in Arabic.")], "مرحبا", False),
    ("hello-japanese", [user("Say hello in Japanese.")], "こんにちは", False),
    ("hello-emoji", [user("Say hello in Emoji.")], "👋😀", False),
    ("hello-korean", [user("Say hello in Korean.")], "안녕하세요", False),
    ("tool-call", [user("What is the weather in Paris?")], call("Paris"), True),
    (
        "tool-result",
        [user("What is the weather in Oslo?"), assistant(call("Oslo")), {"role": "tool", "content": '{"temperature": -3}'}],
        "It is -3 degrees in Oslo.",
        True,
    ),
    (
        "name-memory",
        [user("My name is Ada."), assistant("Nice to meet you, Ada."), user("What is my name?")],
        "Your name is Ada.",
        False,
    ),
    (
        "name-memory-after-a-question",
        [
            user("My name is Linus."),
            assistant("Nice to meet you, Linus."),
            user("What is the capital of Peru?"),
            assistant("The capital of Peru is Lima."),
            user("What is my name?"),
        ],
        "Your name is Linus.",
        False,
    ),
]


def main() -> None:
    """Asks everything and writes the file; a wrong answer is an error."""
    torch.set_num_threads(1)
    folder = FIXTURES / "tiny-chat"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load(folder)
    entries, wrong = [], []
    for name, messages, expected, with_tools in QUESTIONS:
        tools = [WEATHER] if with_tools else None
        prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True, tokenize=False)
        # The template has printed the first special token already.
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answer_ids, margin = answer_greedily(model, prompt_ids, tokenizer.eos_token_id)
        answer = tokenizer.decode(answer_ids[:-1], skip_special_tokens=False)
        if answer != expected or answer_ids[-1] != tokenizer.eos_token_id:
            wrong.append(f"{name}: {answer!r}, expected {expected!r}")
        entries.append(
            {
                "name": name,
                "messages": messages,
                "tools": tools,
                "expected": expected,
                "prompt": prompt,
                "prompt_ids": prompt_ids,
                "answer": answer,
                "answer_ids": answer_ids,
                "smallest_margin": round(margin, 4),
            }
        )
        print(f"{name:30} margin {margin:7.3f}  {answer}")
    assert not wrong, "wrong answers:\n" + "\n".join(wrong)
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
    (DATA / "tiny-chat-questions.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


@torch.no_grad()
def answer_greedily(model: Lfm2ForCausalLM, prompt_ids: list[int], end: int) -> tuple[list[int], float]:
    """The most probable token at each step, up to and with `end`, and the smallest distance to the runner-up."""
    answer, margin, cache, fed = [], float("inf"), None, prompt_ids
    while len(answer) < LONGEST_ANSWER and (not answer or answer[-1] != end):
        run = model(input_ids=torch.tensor([fed]), cache=cache, use_cache=True)
        cache = run.cache
        first, second = run.logits[0, -1].topk(2).values.tolist()
        margin = min(margin, first - second)
        answer.append(run.logits[0, -1].argmax().item())
        fed = answer[-1:]
    return answer, margin


if __name__ == "__main__":
    main()
