"""Answers prompts with onnxruntime-genai.

    python run_genai.py PACKAGE REQUEST

REQUEST is a JSON file: {"max_new_tokens": N, "questions": [{"prompt", "prompt_ids"}]}. Prints {"prompts": [ids...], "answers":
[ids...]}: what the package's tokenizer makes of each prompt, and the greedy answers to `prompt_ids`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnxruntime_genai as genai


def main(package: str, request: str) -> None:
    """Answers everything."""
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    model = genai.Model(package)
    tokenizer = genai.Tokenizer(model)
    prompts = [tokenizer.encode(question["prompt"]).tolist() for question in asked["questions"]]
    answers = [answer(model, question["prompt_ids"], asked["max_new_tokens"]) for question in asked["questions"]]
    print(json.dumps({"prompts": prompts, "answers": answers}))


def answer(model: genai.Model, prompt: list[int], max_new_tokens: int) -> list[int]:
    """The most probable token at each step, up to and with the end of the turn."""
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(do_sample=False, repetition_penalty=1.0, max_length=len(prompt) + max_new_tokens)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    while not generator.is_done():
        generator.generate_next_token()
    return generator.get_sequence(0).tolist()[len(prompt) :]


if __name__ == "__main__":
    main(*sys.argv[1:])
