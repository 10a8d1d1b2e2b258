"""Write an LFM2 checkpoint of a real shape with random weights, to measure speed, start-up and memory without a download.

    python benches/baselines/checkpoint.py OUT [--shape 350m|700m|1.2b] [--seed N]

The weights are made by transformers' own initialisation in bfloat16; norms are then varied around one, and the last one is
scaled so that logits spread like those of a trained model (standard deviation 3) instead of being almost flat. The tokenizer
is synthetic but whole: LFM2's pre-tokenizer and special tokens, 65,536 entries, 64,780 merges, every byte in its alphabet,
so any text can be encoded and comes back as it was. The same arguments give the same files.
"""
import argparse, json, math, pathlib, random

SHAPES = {  # hidden size, feed-forward size as computed, heads; the rest is the same in all three.
    "350m": (1024, 4608, 16),
    "700m": (1536, 6912, 24),
    "1.2b": (2048, 8192, 32),
}
ATTENTION_LAYERS = [2, 5, 8, 10, 12, 14]
LAYERS, KV_HEADS, VOCABULARY, RESERVED = 16, 8, 65536, 500
LOGIT_DEVIATION = 3.0

SPECIAL = ["<|pad|>", "<|startoftext|>", "<|endoftext|>", "<|fim_pre|>", "<|fim_mid|>", "<|fim_suf|>", "<|im_start|>", "<|im_end|>",
           "<|tool_list_start|>", "<|tool_list_end|>", "<|tool_call_start|>", "<|tool_call_end|>", "<|tool_response_start|>",
           "<|tool_response_end|>"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = pathlib.Path(__file__).parents[2] / "tests/fixtures/tiny-chat/chat_template.jinja"
COMMON = """the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were all her
she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could
these two may first then do any like my now over such our man me even most made after also did many off before must well back through years much
where your way down should because long each just state those people too mr how little good world make very year still see own work men day get
here between both life being under three never know same last another while us might great old since against go came right used take""".split()
STARTS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sl sp st str t th tr v w wh z".split()
VOWELS = "a e i o u ai ea ee ie oa oo ou ow y".split()
ENDS = "b ck ct d ft g l ld ll lt m mp n nce nd ng nt p r rd rm rn rt s sh ss st t th tion ve x".split() + [""] * 12


def words(rnd):
    """Common words, then words of one to four made-up syllables, without end."""
    yield from COMMON
    while True:
        syllables = rnd.choices((1, 2, 3, 4), (2, 5, 4, 1))[0]
        word = "".join(rnd.choice(STARTS) + rnd.choice(VOWELS) for _ in range(syllables)) + rnd.choice(ENDS)
        yield word.capitalize() if rnd.random() < 0.15 else word


def merges(alphabet, space, count, rnd):
    """`count` merges, each of which appends one character to a known token, so that the prefixes of every word are tokens."""
    known, out = set(alphabet), []
    for run in [["Ċ"] * n for n in range(2, 17)] + [[space] * n for n in range(2, 33)]:
        out.append(("".join(run[:-1]), run[-1]))
    for word in words(rnd):
        for text in ([space + word, word] if rnd.random() < 0.3 else [space + word]):
            for end in range(1, len(text)):
                if text[: end + 1] not in known and len(out) < count:
                    known.add(text[: end + 1])
                    out.append((text[:end], text[end]))
        if len(out) == count:
            return out


def write_tokenizer(out, seed):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL + [f"<|reserved_{index}|>" for index in range(4, 4 + RESERVED - len(SPECIAL))]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = merges(alphabet, "Ġ", VOCABULARY - RESERVED - len(alphabet), random.Random(seed))
    entries = special + alphabet + [left + right for left, right in pairs]
    vocabulary = {text: index for index, text in enumerate(entries)}
    if len(vocabulary) != VOCABULARY:
        raise SystemExit(f"the tokenizer has {len(vocabulary)} entries, not {VOCABULARY}")

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A", pair="<|startoftext|> $A <|startoftext|> $B", special_tokens=[("<|startoftext|>", 1)])
    for text in ["The capital of France?", "αβγ 你好 👋\n\n\tx  y\r\n", "it's 12345 <|im_end|>"]:
        if tokenizer.decode(tokenizer.encode(text).ids[1:], skip_special_tokens=False) != text:
            raise SystemExit(f"the tokenizer does not give back {text!r}")

    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|startoftext|>", eos_token="<|im_end|>", pad_token="<|pad|>",
                                   clean_up_tokenization_spaces=False)
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    fast.save_pretrained(out)


def write_model(out, shape, seed):
    import torch
    from transformers import GenerationConfig, Lfm2Config, Lfm2ForCausalLM

    hidden, feed_forward, heads = SHAPES[shape]
    config = Lfm2Config(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=feed_forward, block_auto_adjust_ff_dim=False,
        num_hidden_layers=LAYERS, num_attention_heads=heads, num_key_value_heads=KV_HEADS, max_position_embeddings=128000,
        norm_eps=1e-5, conv_L_cache=3, conv_bias=False, block_multiple_of=256, block_ffn_dim_multiplier=1.0,
        full_attn_idxs=ATTENTION_LAYERS,
        layer_types=["full_attention" if index in ATTENTION_LAYERS else "conv" for index in range(LAYERS)],
        bos_token_id=1, eos_token_id=7, pad_token_id=0, tie_word_embeddings=True)
    torch.manual_seed(seed)
    torch.set_default_dtype(torch.bfloat16)
    model = Lfm2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.1 * torch.randn_like(parameter))
        table = model.get_input_embeddings().weight
        table[0] = torch.randn_like(table[0]) * 0.02  # transformers writes zeros for the padding token
        model.model.embedding_norm.weight.mul_(LOGIT_DEVIATION / (0.02 * math.sqrt(hidden)))
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=7, pad_token_id=0, do_sample=True, temperature=0.3,
                                               min_p=0.15, repetition_penalty=1.05)
    model.save_pretrained(out)
    return sum(parameter.numel() for parameter in model.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder to write")
    parser.add_argument("--shape", choices=SHAPES, default="350m")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(arguments.out, arguments.seed)
    parameters = write_model(arguments.out, arguments.shape, arguments.seed)
    print(json.dumps({"shape": arguments.shape, "seed": arguments.seed, "parameters": parameters, "out": str(arguments.out)}))


if __name__ == "__main__":
    main()
