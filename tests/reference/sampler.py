"""Computes the distributions that `generate()` of transformers draws tokens from.

    pip install -r tests/reference/requirements.txt && python tests/reference/sampler.py

Writes tests/reference/data/sampler.safetensors, with

| tensor | type and shape | meaning |
|---|---|---|
| `V.logits` | float32 [vocab_size] | scores from a model |
| `V.observed` | int64 [S] | the tokens before |
| `V.S.distribution` | float32 [vocab_size] | probability of each token with setting S |

and in its metadata, under `settings`, the list of settings in JSON. The processors and their order are taken from the
library itself. Every distribution is computed in float64 too: a case where rounding decides about a token is an error.
"""

from __future__ import annotations

import json

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LogitsProcessorList

from models import DATA, FIXTURES, load

OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
LFM2 = {"temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.05}
SETTINGS = [
    OFF,
    OFF | LFM2,
    OFF | {"temperature": 0.1, "top_k": 50, "top_p": 0.1, "repetition_penalty": 1.05},
    OFF | {"temperature": 0.0},
    OFF | {"temperature": 0.0, "repetition_penalty": 1.7},
    OFF | {"temperature": 2.5},
    OFF | {"top_k": 1},
    OFF | {"top_k": 9},
    OFF | {"top_p": 0.0},
    OFF | {"top_p": 0.37},
    OFF | {"top_p": 0.95},
    OFF | {"min_p": 1.0},
    OFF | {"min_p": 0.02},
    OFF | {"repetition_penalty": 0.8},
    # All at once, and pairs whose order matters.
    OFF | {"temperature": 1.5, "top_k": 20, "top_p": 0.8, "min_p": 0.1, "repetition_penalty": 1.3},
    OFF | {"top_k": 15, "top_p": 0.6},
    OFF | {"temperature": 0.7, "top_p": 0.9, "min_p": 0.05},
]
SMALL, LARGE = 96, 1000


def main() -> None:
    """Writes the file."""
    torch.set_num_threads(1)
    model = load(FIXTURES / "tiny-random" / "original")
    tensors = {}
    for name, logits in vectors().items():
        observed = torch.randint(0, len(logits), (40,), generator=torch.Generator().manual_seed(len(name)))
        tensors[f"{name}.logits"], tensors[f"{name}.observed"] = logits, observed
        for index, setting in enumerate(SETTINGS):
            exact = distribution(model, setting, logits.double(), observed)
            found = distribution(model, setting, logits, observed)
            # Probabilities too small for float32 are not a decision.
            same = ((exact > 0) == (found > 0)) | ((exact > 0) & (exact < 1e-30))
            assert same.all(), f"rounding decides in {name} with {setting}"
            tensors[f"{name}.{index}.distribution"] = found
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, DATA / "sampler.safetensors", metadata={"settings": json.dumps(SETTINGS)})
    print(f"{len(tensors)} tensors")


def vectors() -> dict[str, torch.Tensor]:
    """Scores of all kinds, by name."""
    generator = torch.Generator().manual_seed(1)
    normal = lambda count: torch.randn(count, generator=generator)
    impossible = normal(SMALL) * 3
    impossible[::3] = -torch.inf
    return {
        "usual": normal(LARGE) * 2,
        "peaked": normal(SMALL) * 6,
        "flat": normal(SMALL) * 0.01,
        # Few distinct scores, so that equal ones have to be treated as there.
        "equal": (normal(SMALL) * 2).round() / 2,
        "impossible": impossible,
        "negative": normal(SMALL) - 40,
        "large": normal(SMALL) * 20 + 300,
    }


def distribution(model, setting: dict, logits: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Probability of each token, as `generate()` computes it."""
    sample = setting["temperature"] > 0
    config = GenerationConfig(do_sample=sample, **(setting if sample else {"repetition_penalty": setting["repetition_penalty"]}))
    processors = model._get_logits_processor(
        generation_config=config, input_ids_seq_length=len(observed), logits_processor=LogitsProcessorList()
    )
    scores = processors(observed[None], logits[None])[0]
    if sample:
        return scores.softmax(-1)
    return torch.nn.functional.one_hot(scores.argmax(), len(scores)).to(scores.dtype)


if __name__ == "__main__":
    main()
