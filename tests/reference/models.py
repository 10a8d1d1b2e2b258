"""Makes tiny random LFM2 checkpoints, and what transformers computes from them.

    pip install -r tests/reference/requirements.txt && python tests/reference/models.py

Writes, byte for byte the same on every run on one machine,

- tests/fixtures/tiny-random/CASE/: `config.json` in one of the spellings found in the wild, and the weights;
- tests/reference/data/CASE.safetensors: inputs and outputs, from the saved checkpoint loaded in float32. The same for
  the trained checkpoint tests/fixtures/tiny-chat, on a rendered chat prompt.

| tensor | type and shape | meaning |
|---|---|---|
| `input_ids` | int64 [S] | one prompt |
| `logits` | float32 [S, vocab_size] | scores at every position |
| `past_conv.I` | float32 [hidden_size, conv_L_cache - 1] | after the prompt: last columns of B*x, zeros where the prompt is shorter |
| `past_key_values.I.key`, `.value` | float32 [kv_heads, S, head_dim] | after the prompt: rotated keys, and values |
| `padded.input_ids`, `padded.attention_mask`, `padded.position_ids` | int64 [3, P] | prompts of different lengths, padded left |
| `padded.logits` | float32 [3, vocab_size] | scores at the last position of each, computed without padding |

I is the index of the layer in the whole stack. Every file is checked while it is made: token by token equals one shot,
the written config equals the same model described by the library's own config class, and padded rows equal single ones.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Lfm2Config, Lfm2ForCausalLM

TESTS = Path(__file__).resolve().parents[1]
FIXTURES = TESTS / "fixtures"
DATA = TESTS / "reference" / "data"
TOKENS = 24
PADDED_LENGTHS = (9, 4, 1)
TOLERANCE = 1e-5


@dataclass
class Case:
    """One checkpoint. `written` is its config.json; the other fields are the same facts, independent of the spelling."""

    name: str
    layers: str
    """One letter per layer: `a` for attention, `c` for convolution."""
    feed_forward: int
    """Inner width, after all adjustments."""
    written: dict
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    vocab: int = 96
    width: int = 3
    bias: bool = False
    theta: float = 1e6
    tied: bool = True
    stored: torch.dtype = torch.bfloat16
    shards: int = 1
    settings: dict = field(init=False)

    def __post_init__(self) -> None:
        self.settings = dict(
            vocab_size=self.vocab,
            hidden_size=self.hidden,
            intermediate_size=self.feed_forward,
            block_auto_adjust_ff_dim=False,
            num_hidden_layers=len(self.layers),
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim or self.hidden // self.heads,
            layer_types=layer_types(self.layers),
            conv_L_cache=self.width,
            conv_bias=self.bias,
            norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": self.theta},
            tie_word_embeddings=self.tied,
            max_position_embeddings=512,
        )


def layer_types(layers: str) -> list[str]:
    """The names that configs use."""
    return [{"a": "full_attention", "c": "conv"}[layer] for layer in layers]


def common(hidden: int, layers: int, heads: int, kv_heads: int, vocab: int, width: int = 3, bias: bool = False) -> dict:
    """The part of a config.json that has been spelled the same way in every generation."""
    return {
        "architectures": ["Lfm2ForCausalLM"],
        "model_type": "lfm2",
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 512,
        "norm_eps": 1e-5,
        "conv_L_cache": width,
        "conv_bias": bias,
        "bos_token_id": 1,
        "eos_token_id": 7,
        "pad_token_id": 0,
        "use_cache": True,
    }


def cases() -> list[Case]:
    """Every checkpoint: between them, all spellings and all sizes that a reader or a graph may get wrong."""
    adjusted = {"block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.0, "block_multiple_of": 32}
    unadjusted = {"block_auto_adjust_ff_dim": False}
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    return [
        # The first published checkpoints: attention layers by index, no tie key, names that mean nothing (block_dim,
        # conv_dim, num_heads, block_norm_eps), a flat theta. int(2 * 100 / 3) = 66, rounded up to 96.
        Case("original", "ccaca", 96, hidden=64, vocab=160, stored=torch.bfloat16, written={
            **common(64, 5, 4, 2, 160), **adjusted, "block_ff_dim": 100, "full_attn_idxs": [2, 4], "rope_theta": 1e6,
            "torch_dtype": "bfloat16", "block_dim": 1024, "block_mlp_init_scale": 1.0, "block_norm_eps": 1e-6, "conv_dim": 1024,
            "conv_dim_out": 1024, "num_heads": 16, "use_pos_enc": True, "transformers_version": "4.54.0.dev0"}),
        # The generation after it: both keys for the feed-forward width, of which block_ff_dim wins; tie_embedding.
        Case("both-widths", "caca", 64, theta=5e5, written={
            **common(64, 4, 4, 2, 96), **adjusted, "block_ff_dim": 96, "intermediate_size": 64, "layer_types": layer_types("caca"),
            "rope_theta": 5e5, "tie_embedding": True, "dtype": "bfloat16", "transformers_version": "4.57.2"}),
        # Saved by transformers 5: full_attn_idxs null beside layer_types, and the adjustment still to be applied.
        # int(2 * 90 / 3) = 60, times 1.5 = 90, rounded up to 96.
        Case("resaved", "cacc", 96, stored=torch.float32, theta=1e4, written={
            **common(64, 4, 4, 2, 96), "block_auto_adjust_ff_dim": True, "block_ffn_dim_multiplier": 1.5, "block_multiple_of": 16,
            "intermediate_size": 90, "layer_types": layer_types("cacc"), "full_attn_idxs": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_theta": 1e4,
            "tie_word_embeddings": True, "tie_embedding": True, "dtype": "float32", "transformers_version": "5.24.0"}),
        Case("width-2", "cac", 72, width=2, kv_heads=1, stored=torch.float16, written={
            **common(64, 3, 4, 1, 96, width=2), **unadjusted, **rope, "intermediate_size": 72, "layer_types": layer_types("cac"),
            "dtype": "float16"}),
        Case("width-4", "cca", 64, width=4, kv_heads=4, stored=torch.float16, written={
            **common(64, 3, 4, 4, 96, width=4), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("cca"),
            "dtype": "float16"}),
        Case("width-5", "acac", 64, width=5, kv_heads=1, written={
            **common(64, 4, 4, 1, 96, width=5), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("acac"),
            "dtype": "bfloat16"}),
        Case("bias", "ccac", 64, bias=True, stored=torch.float16, written={
            **common(64, 4, 4, 2, 96, bias=True), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("ccac"),
            "dtype": "float16"}),
        Case("bias-width-4", "cac", 64, bias=True, width=4, kv_heads=4, written={
            **common(64, 3, 4, 4, 96, width=4, bias=True), **unadjusted, **rope, "intermediate_size": 64,
            "layer_types": layer_types("cac"), "dtype": "bfloat16"}),
        Case("eight-heads", "cac", 64, hidden=128, heads=8, kv_heads=8, vocab=128, written={
            **common(128, 3, 8, 8, 128), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("cac"),
            "dtype": "bfloat16"}),
        # 48 is no multiple of 32, so blocks of weights end in the middle.
        Case("head-dim-24", "cac", 80, hidden=48, heads=4, kv_heads=2, head_dim=24, vocab=100, written={
            **common(48, 3, 4, 2, 100), **unadjusted, **rope, "intermediate_size": 80, "head_dim": 24,
            "layer_types": layer_types("cac"), "dtype": "bfloat16"}),
        Case("untied", "cacc", 64, tied=False, vocab=112, written={
            **common(64, 4, 4, 2, 112), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("cacc"),
            "tie_word_embeddings": False, "dtype": "bfloat16"}),
        Case("sharded", "cca", 64, shards=2, written={
            **common(64, 3, 4, 2, 96), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("cca"),
            "dtype": "bfloat16"}),
        Case("all-conv", "cccc", 64, written={
            **common(64, 4, 4, 2, 96), **unadjusted, **rope, "intermediate_size": 64, "layer_types": layer_types("cccc"),
            "dtype": "bfloat16"}),
        # Without layer_types and full_attn_idxs, every layer is attention.
        Case("all-attention", "aaa", 64, written={
            **common(64, 3, 4, 2, 96), **unadjusted, **rope, "intermediate_size": 64, "dtype": "bfloat16"}),
    ]  # fmt: skip


def main() -> None:
    """Writes every fixture and every reference."""
    # One thread, so that sums are taken in one order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    shutil.rmtree(FIXTURES / "tiny-random", ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    for seed, case in enumerate(cases()):
        generator = torch.Generator().manual_seed(seed)
        folder = FIXTURES / "tiny-random" / case.name
        described = random_model(case, generator)
        save_checkpoint(case, described, folder)
        model = load(folder)
        input_ids = torch.randint(case.vocab, (TOKENS,), generator=generator)
        check_same(case.name, described, model, input_ids)
        write_reference(case.name, model, input_ids, generator, masks_exactly=not case.bias)
    folder = FIXTURES / "tiny-chat"
    question = [{"role": "user", "content": "What is the capital of Norway?"}]
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(question, add_generation_prompt=True, return_dict=True)
    input_ids = torch.tensor(prompt["input_ids"])
    write_reference("tiny-chat", load(folder), input_ids, torch.Generator().manual_seed(0), masks_exactly=True)


def random_model(case: Case, generator: torch.Generator) -> Lfm2ForCausalLM:
    """A model whose every tensor matters: no zero bias, no norm of ones, attention that looks at some tokens more than at others."""
    model = Lfm2ForCausalLM(Lfm2Config(**case.settings)).eval()
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith("q_layernorm.weight"):
            value = 2.0 + 0.5 * noise
        elif "norm" in name:
            value = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.5 * noise
        elif "embed_tokens" in name or "lm_head" in name:
            value = noise / 2
        else:
            # The last dimension is what one output sums over, in products and in convolutions.
            value = noise / parameter.shape[-1] ** 0.5
        # The described model computes with the numbers that the checkpoint will hold.
        parameter.data = value.to(case.stored).float()
    return model


def save_checkpoint(case: Case, model: Lfm2ForCausalLM, folder: Path) -> None:
    """Writes config.json as spelled by the case, and the weights in as many files as the case wants."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(case.written, indent=2) + "\n", encoding="utf-8")
    tensors = {name: parameter.detach().to(case.stored) for name, parameter in model.named_parameters()}
    if case.shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map, total = {}, 0
    for shard in range(case.shards):
        file = f"model-{shard + 1:05}-of-{case.shards:05}.safetensors"
        # Neighbouring tensors of one layer end up in different files.
        part = {name: tensors[name] for name in sorted(tensors)[shard :: case.shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
        total += sum(tensor.nbytes for tensor in part.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Lfm2ForCausalLM:
    """The checkpoint in float32. Casting a loaded model instead would leave its rotary tables in the stored precision."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def check_same(name: str, described: Lfm2ForCausalLM, loaded: Lfm2ForCausalLM, input_ids: torch.Tensor) -> None:
    """The config as written must mean the same as the settings that the weights were made for."""
    described.set_attn_implementation("eager")
    with torch.no_grad():
        logits = [model(input_ids=input_ids[None], use_cache=False).logits for model in (described, loaded)]
    difference = (logits[0] - logits[1]).abs().max().item()
    assert difference == 0, f"{name}: config.json and settings differ by {difference}"


@torch.no_grad()
def write_reference(name: str, model: Lfm2ForCausalLM, input_ids: torch.Tensor, generator: torch.Generator, masks_exactly: bool) -> None:
    """Runs the model and writes DATA/name.safetensors.

    `masks_exactly`: whether transformers computes left-padded rows exactly. With biases it does not: it sets the input
    of the projection to zero, not B*x, so that a padded position contributes the product of two biases.
    """
    tensors = {"input_ids": input_ids, **run_once(model, input_ids)}
    # Its caches need an attention layer, to know how many tokens they hold.
    if "full_attention" in model.config.layer_types:
        check_token_by_token(name, model, input_ids, tensors)

    rows = [torch.randint(model.config.vocab_size, (length,), generator=generator) for length in PADDED_LENGTHS]
    tensors["padded.logits"] = torch.stack([model(input_ids=row[None], use_cache=False).logits[0, -1] for row in rows])
    longest = max(PADDED_LENGTHS)
    padded = torch.stack([torch.cat([row.new_zeros(longest - len(row)), row]) for row in rows])
    mask = torch.stack([torch.arange(longest) >= longest - len(row) for row in rows]).long()
    # As generate() makes them: positions count real tokens, and padded ones get 1.
    positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)
    if masks_exactly:
        batch = model(input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=False).logits[:, -1]
        assert_close(f"{name}: left-padded batch", batch, tensors["padded.logits"])
    tensors |= {"padded.input_ids": padded, "padded.attention_mask": mask, "padded.position_ids": positions}

    largest = tensors["logits"].abs().max().item()
    assert name == "tiny-chat" or 1 < largest < 40, f"{name}: logits up to {largest} are not of the intended size"
    save_file({key: value.contiguous() for key, value in tensors.items()}, DATA / f"{name}.safetensors")
    print(f"{name:16} {len(tensors):3} tensors, logits up to {largest:.1f}")


def run_once(model: Lfm2ForCausalLM, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """Logits and states of one run over the whole sequence. The columns of B*x are read off where they arise, not from a cache."""
    columns = {}

    def keep(index: int):
        def hook(_module, _inputs, output: torch.Tensor) -> None:
            b, _c, x = output[0].T.chunk(3)
            columns[index] = b * x

        return hook

    convolutions = [(index, layer.conv) for index, layer in enumerate(model.model.layers) if not layer.is_attention_layer]
    hooks = [conv.in_proj.register_forward_hook(keep(index)) for index, conv in convolutions]
    cached = "full_attention" in model.config.layer_types
    run = model(input_ids=input_ids[None], use_cache=cached)
    for hook in hooks:
        hook.remove()
    kept = model.config.conv_L_cache - 1
    padded = {index: torch.nn.functional.pad(column, (kept, 0)) for index, column in columns.items()}
    result = {f"past_conv.{index}": column[:, -kept:] for index, column in padded.items()}
    if cached:
        result |= {name: state for name, state in states(model, run.cache).items() if name not in result}
    return {"logits": run.logits[0], **result}


def states(model: Lfm2ForCausalLM, cache) -> dict[str, torch.Tensor]:
    """The cache of one sequence under the names and in the shapes of the graphs' states."""
    found = {}
    for index, kind in enumerate(model.config.layer_types):
        layer = cache.layers[index]
        if kind == "conv":
            # The cache keeps conv_L_cache columns, of which the first is never read.
            found[f"past_conv.{index}"] = layer.conv_states[0][0, :, 1:]
        else:
            found[f"past_key_values.{index}.key"] = layer.keys[0]
            found[f"past_key_values.{index}.value"] = layer.values[0]
    return found


def check_token_by_token(name: str, model: Lfm2ForCausalLM, input_ids: torch.Tensor, expected: dict[str, torch.Tensor]) -> None:
    """Feeding one token at a time must give the same logits and states."""
    cache, logits = None, []
    for token in input_ids:
        run = model(input_ids=token[None, None], cache=cache, use_cache=True)
        cache = run.cache
        logits.append(run.logits[0, 0])
    found = {"logits": torch.stack(logits), **states(model, cache)}
    for key, value in found.items():
        assert_close(f"{name}: {key} token by token", value, expected[key])


def assert_close(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compares relative to the largest expected value."""
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    assert error <= TOLERANCE, f"{what}: relative error {error}"


if __name__ == "__main__":
    main()
