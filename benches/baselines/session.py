"""Run one package by plain ONNX Runtime, with states bound in place, and say what time and memory go where.

    python benches/baselines/session.py MODEL.onnx [--threads 2] [--set KEY=VALUE]... [--prompt 512] [--tokens 64]
        [--repetitions 1] [--no-arena] [--level all] [--load-only | --save FILE.onnx]

Prints one JSON object: seconds of loading, of a first run of 17 tokens (which also pays for pages that are touched the first
time), of every prefill and of every decode step behind it, and the memory of this process after each, anonymous and backed
by files apart. Python and numpy are in these numbers: `memory.start` is what they take alone. `decode_cpu_s` is the time that all
cores together spent on the decode steps. `--load-only` takes any ONNX file. `--save` writes the optimised model, with
`--set session.save_external_prepacked_constant_initializers=1` including packed weights, and leaves.
"""
import argparse, json, pathlib, time

import numpy
import onnxruntime


def memory():
    """Kilobytes of this process: peak of everything, then what is resident now, anonymous and from files."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {name: int(fields[name].split()[0]) for name in ("VmHWM", "RssAnon", "RssFile")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an entry of the session's configuration")
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--no-arena", action="store_true")
    parser.add_argument("--pattern", action="store_true", help="leave memory patterns on")
    parser.add_argument("--level", choices=["none", "basic", "extended", "all"], default="all")
    parser.add_argument("--load-only", action="store_true")
    parser.add_argument("--save", type=pathlib.Path)
    arguments = parser.parse_args()

    result = {"arguments": {key: str(value) for key, value in vars(arguments).items()}, "memory": {"start": memory()}}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = arguments.threads
    options.enable_mem_pattern = arguments.pattern
    options.enable_cpu_mem_arena = not arguments.no_arena
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL, "basic": levels.ORT_ENABLE_BASIC, "extended": levels.ORT_ENABLE_EXTENDED, "all": levels.ORT_ENABLE_ALL,
    }[arguments.level]
    for entry in arguments.set:
        options.add_session_config_entry(*entry.split("=", 1))
    if arguments.save:
        options.optimized_model_filepath = str(arguments.save)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", arguments.save.name + "_data")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(arguments.model), options, providers=["CPUExecutionProvider"])
    result["session_s"] = time.perf_counter() - start
    result["memory"]["session"] = memory()
    if not arguments.save and not arguments.load_only:
        run(session, arguments, result)
    print(json.dumps(result))


def run(session, arguments, result):
    contract = json.loads(session.get_modelmeta().custom_metadata_map["lfm2.contract"])
    capacity = arguments.prompt + arguments.tokens
    logits = contract["outputs"]["logits"]["name"]
    dtypes = {"float32": numpy.float32, "float16": numpy.float16, "int8": numpy.int8, "uint8": numpy.uint8}
    binding = session.io_binding()
    for state in contract["states"]:
        sizes = {"batch_size": 1, "past_sequence_length": capacity}
        shape = [sizes.get(dim, dim) for dim in state["past"]["shape"]]
        value = onnxruntime.OrtValue.ortvalue_from_numpy(numpy.zeros(shape, dtypes[state["past"]["dtype"]]))
        binding.bind_ortvalue_input(state["past"]["name"], value)
        binding.bind_ortvalue_output(state["present"]["name"], value)

    def step(ids, total):
        binding.bind_cpu_input(contract["inputs"]["input_ids"]["name"], ids)
        binding.bind_cpu_input(contract["inputs"]["attention_mask"]["name"], numpy.ones((1, total), numpy.int64))
        binding.bind_output(logits)
        begin = time.perf_counter()
        session.run_with_iobinding(binding)
        return time.perf_counter() - begin

    ids = numpy.random.default_rng(0).integers(600, contract["vocab_size"], (1, capacity)).astype(numpy.int64)
    result["first_run_s"] = step(ids[:, :17].copy(), 17)
    result["memory"]["first_run"] = memory()
    result["second_run_s"] = step(ids[:, :17].copy(), 17)
    result["prefill_s"], result["decode_s"], result["decode_cpu_s"] = [], [], []
    for _ in range(arguments.repetitions):
        if arguments.prompt:
            result["prefill_s"].append(step(ids[:, : arguments.prompt].copy(), arguments.prompt))
        depth = range(arguments.prompt, capacity)
        cpu = time.process_time()
        result["decode_s"].append([step(ids[:, at : at + 1].copy(), at + 1) for at in depth])
        result["decode_cpu_s"].append(time.process_time() - cpu)
    result["memory"]["end"] = memory()


if __name__ == "__main__":
    main()
