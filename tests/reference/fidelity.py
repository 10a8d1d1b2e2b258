"""Scores held-out dialogues with transformers, token by token.

    pip install -r tests/reference/requirements.txt && python tests/reference/fidelity.py

Writes tests/reference/data/tiny-chat-fidelity.json:

- `documents`: for each line of tests/fixtures/tiny-chat/held-out.jsonl the SHA-256 of the rendered text, the number of its
  tokens, and the sum of the negative log-likelihoods of all tokens but the first, in nats;
- `windows`: the same sums when every document is cut into windows of `context` tokens, of which all but the first begin
  with the token that every text begins with: the number of windows, of scored tokens, and the sum.

The rendered text is compared with that of train.py, which the model was trained on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json

import torch
from transformers import AutoTokenizer

from models import DATA, FIXTURES, load

FOLDER = FIXTURES / "tiny-chat"
CONTEXT = 64


def dialogues():
    """The script that wrote the dialogues."""
    specification = importlib.util.spec_from_file_location("dialogues", FOLDER / "dialogues.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def texts(tokenizer, name: str) -> list[str]:
    """Every dialogue of a file, rendered; each must be what train.py would have made of it."""
    trained = dialogues().generator(0)
    rendered = []
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        text = tokenizer.apply_chat_template(entry["messages"], tools=entry.get("tools"), tokenize=False)
        messages = [(message["role"], message["content"]) for message in entry["messages"]]
        pieces = trained["pieces"](messages, trained["TOOL"] if "tools" in entry else None)
        assert text == "".join(piece for piece, _ in pieces), line
        rendered.append(text)
    return rendered


def token_ids(tokenizer, text: str) -> torch.Tensor:
    """Token ids of a rendered text: the template has printed the first special token already."""
    return torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])


def cut(ids: torch.Tensor, bos: int) -> list[torch.Tensor]:
    """The windows of a document."""
    rest = ids[CONTEXT:].split(CONTEXT - 1) if len(ids) > CONTEXT else []
    return [ids[:CONTEXT]] + [torch.cat([torch.tensor([bos]), part]) for part in rest]


@torch.no_grad()
def score(model, ids: torch.Tensor) -> float:
    """Sum of the negative log-likelihoods of all tokens but the first."""
    logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double()
    return -logits.log_softmax(-1).gather(-1, ids[1:, None]).sum().item()


def main() -> None:
    """Writes the file."""
    torch.set_num_threads(1)
    tokenizer, model = AutoTokenizer.from_pretrained(FOLDER), load(FOLDER)
    documents, windows = [], []
    for text in texts(tokenizer, "held-out.jsonl"):
        ids = token_ids(tokenizer, text)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        documents.append({"sha256": sha256, "tokens": len(ids), "nll": score(model, ids)})
        windows += cut(ids, tokenizer.bos_token_id)
    summary = {
        "context": CONTEXT,
        "windows": len(windows),
        "scored": sum(len(window) - 1 for window in windows),
        "nll": sum(score(model, window) for window in windows),
    }
    lines = ",\n".join(json.dumps(document) for document in documents)
    text = f'{{"documents": [\n{lines}\n],\n"windows": {json.dumps(summary)}}}\n'
    (DATA / "tiny-chat-fidelity.json").write_text(text, encoding="utf-8")
    scored = sum(document["tokens"] - 1 for document in documents)
    mean = sum(document["nll"] for document in documents) / scored
    print(f"{scored} tokens, longest {max(d['tokens'] for d in documents)}, {mean:.6f} nats; windows: {summary}")


if __name__ == "__main__":
    main()
