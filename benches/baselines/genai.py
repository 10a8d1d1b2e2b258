"""Build LFM2 models with onnxruntime-genai's own builder, and time them with its own loop.

    python benches/baselines/genai.py build VARIANT CHECKPOINT OUT
    python benches/baselines/genai.py time MODEL [--threads 2] [--prompt 512] [--tokens 64] [--repetitions 1]

Both print one JSON object. `build` says how long the builder took and how much memory it had at most, in a process of its own.
`time` sets the number of threads in genai_config.json, because the default there is one, and leaves everything else as built.
"""
import argparse, json, os, pathlib, shutil, sys, tempfile, time

# The builder's int4 options. Accuracy level 4 and the shared quantized table are its defaults on the processor.
VARIANTS = {
    "b32": [],
    "b32-pruned": ["prune_lm_head=true"],
    "b128-pruned": ["block_size=128", "prune_lm_head=true"],
    "b128-pruned-fused": ["block_size=128", "prune_lm_head=true", "fuse_mlp_gate_up=true"],
    "k-quant-last": ["algo_config=k_quant_last", "prune_lm_head=true"],
    "k-quant-mixed": ["algo_config=k_quant_mixed", "prune_lm_head=true"],
    "k-quant-mixed-b128": ["algo_config=k_quant_mixed", "block_size=128", "prune_lm_head=true"],
}


def build(variant, checkpoint, out):
    """Runs the builder. Returns seconds, peak memory in bytes and the size of the graph with its weights in bytes."""
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out), "-p", "int4", "-e", "cpu",
                   "-c", cache]
        extra = VARIANTS[variant]
        seconds, peak, _ = child(command + (["--extra_options", *extra] if extra else []), show=True)
    size = sum(file.stat().st_size for file in pathlib.Path(out).glob("model.onnx*"))
    return {"variant": variant, "options": extra, "seconds": seconds, "peak_bytes": peak, "graph_bytes": size}


def child(command, show=False):
    """Runs a program. Returns seconds, peak of its resident memory in bytes, and standard output."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, 2 if show else output.fileno(), 1)]
        process = os.posix_spawnp(command[0], [str(word) for word in command], os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        seconds = time.perf_counter() - start
        if status:
            raise SystemExit(f"`{' '.join(str(word) for word in command)}` failed with {os.waitstatus_to_exitcode(status)}")
        output.seek(0)
        return seconds, usage.ru_maxrss * 1024, output.read().decode()


def measure(model, threads, prompt, tokens, repetitions):
    """Seconds of every prefill and of every decode step behind it. The first prefill, for warming up, is left out."""
    import numpy
    import onnxruntime_genai as genai

    file = pathlib.Path(model) / "genai_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    options = settings["model"]["decoder"]["session_options"]
    if options.get("intra_op_num_threads") != threads:
        options["intra_op_num_threads"] = threads
        file.write_text(json.dumps(settings, indent=4), encoding="utf-8")
    start = time.perf_counter()
    loaded = genai.Model(str(model))
    result = {"load_s": time.perf_counter() - start, "prefill_s": [], "decode_s": []}
    ids = numpy.random.default_rng(0).integers(600, settings["model"]["vocab_size"], prompt).astype(numpy.int32)
    for repetition in range(repetitions + 1):
        parameters = genai.GeneratorParams(loaded)
        # The penalties of generation_config.json are no part of the model's speed.
        parameters.set_search_options(do_sample=False, repetition_penalty=1.0, max_length=prompt + tokens + 2)
        generator = genai.Generator(loaded, parameters)
        start = time.perf_counter()
        generator.append_tokens(ids)
        prefill = time.perf_counter() - start
        generator.generate_next_token()  # takes the token that the prefill has computed
        steps = []
        for _ in range(tokens if repetition else 2):
            if generator.is_done():
                raise SystemExit(f"{model} ended its answer after {len(steps)} tokens")
            start = time.perf_counter()
            generator.generate_next_token()
            steps.append(time.perf_counter() - start)
        if repetition:
            result["prefill_s"].append(prefill)
            result["decode_s"].append(steps)
        del generator
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    builder = commands.add_parser("build")
    builder.add_argument("variant", choices=VARIANTS)
    builder.add_argument("checkpoint", type=pathlib.Path)
    builder.add_argument("out", type=pathlib.Path)
    timer = commands.add_parser("time")
    timer.add_argument("model", type=pathlib.Path)
    timer.add_argument("--threads", type=int, default=2)
    timer.add_argument("--prompt", type=int, default=512)
    timer.add_argument("--tokens", type=int, default=64)
    timer.add_argument("--repetitions", type=int, default=1)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    print(json.dumps(build(**arguments) if command == "build" else measure(**arguments)))


if __name__ == "__main__":
    main()
