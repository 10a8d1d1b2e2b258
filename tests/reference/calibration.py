"""Takes the statistics of activations with transformers.

    pip install -r tests/reference/requirements.txt && python tests/reference/calibration.py

Writes tests/reference/data/CASE-calibration.safetensors for two checkpoints in float32: tiny-chat over the dialogues of
tests/fixtures/tiny-chat/calibration.jsonl, and the random checkpoint `untied` over the prompt of its other reference.

| tensor | type and shape | meaning |
|---|---|---|
| `input_ids` | int64 [T] | all tokens, document after document |
| `lengths` | int64 [D] | number of tokens of each document |
| NAME of a weight | float32 [inputs] | mean of the squares of what each of its columns is multiplied with |
| `present.I.key` | float32 [kv_heads * head_dim] | largest length of the pair of channels that is rotated together |
| `present.I.value` | float32 [kv_heads * head_dim] | largest magnitude of each channel |

The head's entry has the name of the token table if the model ties the two.
"""

from __future__ import annotations

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from fidelity import FOLDER, texts, token_ids
from models import DATA, FIXTURES, load, states


@torch.no_grad()
def statistics(model, documents: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Runs every document by itself and sums up what goes into each linear layer."""
    squares, largest = {}, {}

    def watch(name: str):
        def hook(_module, inputs) -> None:
            total = inputs[0][0].double().square().sum(0)
            squares[name] = squares.get(name, 0) + total

        return hook

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            tied = name == "lm_head" and model.config.tie_word_embeddings
            module.register_forward_pre_hook(watch("model.embed_tokens.weight" if tied else f"{name}.weight"))
    for ids in documents:
        cache = model(input_ids=ids[None], use_cache=True).cache
        for name, state in states(model, cache).items():
            if name.startswith("past_key_values"):
                # [kv_heads, tokens, head_dim]
                half = state.shape[-1] // 2
                partner = torch.cat([state[..., half:], state[..., :half]], -1)
                length = torch.hypot(state, partner) if name.endswith("key") else state.abs()
                magnitude = length.amax(1).flatten()
                name = name.replace("past_key_values", "present")
                largest[name] = torch.maximum(largest.get(name, magnitude), magnitude)
    tokens = sum(len(ids) for ids in documents)
    means = {name: (total / tokens).float() for name, total in squares.items()}
    assert len(means) == sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    return means | largest


def write(name: str, folder, documents: list[torch.Tensor]) -> None:
    """Writes the file of one checkpoint."""
    tensors = {
        "input_ids": torch.cat(documents),
        "lengths": torch.tensor([len(ids) for ids in documents]),
        **statistics(load(folder), documents),
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, DATA / f"{name}-calibration.safetensors")
    print(f"{name}: {len(tensors)} tensors over {len(tensors['input_ids'])} tokens")


def main() -> None:
    """Writes both files."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    write("tiny-chat", FOLDER, [token_ids(tokenizer, text) for text in texts(tokenizer, "calibration.jsonl")])
    write("untied", FIXTURES / "tiny-random" / "untied", [load_file(DATA / "untied.safetensors")["input_ids"]])


if __name__ == "__main__":
    main()
