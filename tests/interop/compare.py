"""Exports tests/fixtures/tiny-chat and lets three runtimes answer the same questions with the package.

    pip install -r requirements.txt && npm ci && python compare.py --export BIN --host BIN --work DIR

The host, Transformers.js and onnxruntime-genai decode greedily from the same files. In float32 all must give the tokens that
transformers gave (tests/reference/questions.py); with quantized weights, whose kernels differ between versions of ONNX
Runtime, they must give the same tokens as the host, except behind a step at which the two best tokens are nearly equal:
those are reported. Exits with 1 and the differences if there are others.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy
import onnxruntime

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE.parent / "fixtures" / "tiny-chat"
QUESTIONS = HERE.parent / "reference" / "data" / "tiny-chat-questions.json"
MAX_NEW_TOKENS = 64
# Seconds that one program may take for all questions; it takes some.
PATIENCE = 600


class Case(NamedTuple):
    """One export and how it is judged."""

    precision: str
    dtype: str
    """What Transformers.js calls the precision."""
    graph: str
    near: float
    """Distance of the two best logits below which another token is no fault."""
    options: tuple[str, ...] = ()
    name: str | None = None
    """Name of the graph for Transformers.js where it does not follow from the type."""
    batch: bool = False
    """All questions at once in Transformers.js, which pads them on the left."""

    def __str__(self) -> str:
        return " ".join([self.precision, *self.options])


CASES = [
    Case("fp32", "fp32", "onnx/model.onnx", near=0.0),
    Case("fp32", "fp32", "onnx/model.onnx", near=0.0, options=("--padding", "left"), batch=True),
    Case("fp32", "fp32", "onnx/model.onnx", near=0.0, options=("--dialect", "portable")),
    Case("fp16", "fp16", "onnx/model_fp16.onnx", near=1e-2),
    Case("q8", "q8", "onnx/model_quantized.onnx", near=5e-2),
    Case("q4", "q4", "onnx/model_q4.onnx", near=5e-2),
    # No runtime knows this precision by name, so that the graph is named.
    Case("q4-mixed", "fp32", "onnx/model_q4-mixed.onnx", near=5e-2, name="model_q4-mixed"),
    Case("q4f16", "q4f16", "onnx/model_q4f16.onnx", near=5e-2),
]


class Mismatch(Exception):
    """What a runtime did that it should not."""


def main() -> int:
    """Runs every case. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Compares the host with Transformers.js and onnxruntime-genai.")
    parser.add_argument("--export", type=Path, required=True, help="the exporter")
    parser.add_argument("--host", type=Path, required=True, help="the host")
    parser.add_argument("--work", type=Path, required=True, help="folder for the packages")
    options = parser.parse_args()
    questions = json.loads(QUESTIONS.read_text(encoding="utf-8"))
    faults = []
    for case in CASES:
        try:
            print(f"{case}: {compare(case, questions, options)}", flush=True)
        except Mismatch as fault:
            print(f"{case}: FAILED", flush=True)
            faults.append(f"{case}: {fault}")
    if faults:
        print("\n".join(["", *faults]), file=sys.stderr)
    return 1 if faults else 0


def compare(case: Case, questions: list[dict], options: argparse.Namespace) -> str:
    """Exports, asks all three, and returns a line of result."""
    package = options.work / "-".join(part.strip("-") for part in (case.precision, *case.options))
    run([options.export, CHECKPOINT, "--out", f"{package}/", "--precision", case.precision, *case.options])
    graph = package / case.graph
    request = package / "request.json"
    asked = {"max_new_tokens": MAX_NEW_TOKENS, "model_file_name": case.name, "batch": case.batch, "questions": questions}
    request.write_text(json.dumps(asked), encoding="utf-8")

    host = [ask_host(options.host, graph, question) for question in questions]
    others = {
        "Transformers.js": json.loads(run(["node", HERE / "run.mjs", package, case.dtype, request])),
        "onnxruntime-genai": json.loads(run([sys.executable, HERE / "run_genai.py", package, request])),
    }
    answers = {"the host": host, **{name: other["answers"] for name, other in others.items()}}
    faults, near = [], 0
    for name, other in others.items():
        faults += [
            f"{name} makes other tokens of the prompt {question['name']}: {found}, expected {question['prompt_ids']}"
            for question, found in zip(questions, other["prompts"], strict=True)
            if found != question["prompt_ids"]
        ]
    end = json.loads((package / "genai_config.json").read_text(encoding="utf-8"))["model"]["eos_token_id"]
    expected = [question["answer_ids"] for question in questions] if case.near == 0.0 else host
    for name, found in answers.items():
        for question, tokens, wanted in zip(questions, found, expected, strict=True):
            tokens, wanted = answered(tokens, end), answered(wanted, end)
            at = first_difference(tokens, wanted)
            if at is None:
                continue
            margin = margin_behind(graph, question["prompt_ids"] + wanted[:at])
            if margin < case.near:
                near += 1
                continue
            faults.append(
                f"{name} answers {question['name']} with {tokens}, expected {wanted}; "
                f"at token {at} the two best logits are {margin:.4f} apart"
            )
    if faults:
        raise Mismatch("\n  ".join([f"{len(faults)} differences", *faults]))
    same = sum(answer == question["answer_ids"] for answer, question in zip(host, questions, strict=True))
    return f"{len(answers)} runtimes agree on {len(questions)} answers, {near} near ties; {same} are those of transformers in float32"


def ask_host(host: Path, graph: Path, question: dict) -> list[int]:
    """The host's greedy answer to a rendered prompt."""
    settings = ["--temperature", "0", "--repetition-penalty", "1", "--max-new-tokens", str(MAX_NEW_TOKENS)]
    output = json.loads(run([host, "--model", graph, "--raw", "--prompt", question["prompt"], "--json", *settings]))
    return output["tokens"]


def answered(tokens: list[int], end: int) -> list[int]:
    """The tokens before the one that ends the turn: onnxruntime-genai leaves it out, and in a batch Transformers.js goes on
    behind it until the longest answer is done."""
    return tokens[: tokens.index(end)] if end in tokens else tokens


def first_difference(tokens: list[int], wanted: list[int]) -> int | None:
    """Index of the first token that differs, a missing one included."""
    if tokens == wanted:
        return None
    pairs = enumerate(zip(tokens, wanted, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(tokens), len(wanted)))


def margin_behind(graph: Path, ids: list[int]) -> float:
    """Distance of the two best logits of the token that follows `ids`."""
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    feeds = {}
    for port in session.get_inputs():
        if port.name in ("input_ids", "attention_mask"):
            feeds[port.name] = numpy.array([ids if port.name == "input_ids" else [1] * len(ids)], dtype=numpy.int64)
        else:
            # An empty state: one row, and no tokens yet.
            shape = [1 if dim == "batch_size" else 0 if isinstance(dim, str) else dim for dim in port.shape]
            feeds[port.name] = numpy.zeros(shape, dtype=numpy.float16 if "float16" in port.type else numpy.float32)
    logits = numpy.sort(session.run(["logits"], feeds)[0][0, -1])
    return float(logits[-1] - logits[-2])


def run(command: list) -> str:
    """Standard output of a program, which must succeed."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Mismatch(f"{words[0]} cannot be run: {error}") from None
    if done.returncode != 0:
        raise Mismatch(f"`{' '.join(words)}` failed with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
