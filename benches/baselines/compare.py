"""Time this project's programs, plain ONNX Runtime and onnxruntime-genai on the same checkpoint, in the same run.

    python benches/baselines/compare.py --checkpoint DIR --export target/release/lfm2-export --host target/release/lfm2-host

Builds what is not there yet (packages by lfm2-export, int4 models by onnxruntime-genai's builder), then goes round all systems
--rounds times, each time in a process of its own: a machine that becomes slower for a while slows all of them. Times are those of
a prefill of --prompt tokens, and of --tokens single tokens behind it; a first run is left out by every system, no system
samples inside the window but onnxruntime-genai, which takes the best token. Every raw sample goes to OUT/samples.jsonl, one
line for each system and round; the table on standard output has the best of all, and for one column the ratio to the best of
onnxruntime-genai's. Peak memory is that of the process, Python included where the system is a Python program.
"""
import argparse, json, pathlib, statistics, sys, time

from genai import VARIANTS, build, child

HERE = pathlib.Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=pathlib.Path, required=True, help="for instance what checkpoint.py wrote")
    parser.add_argument("--export", type=pathlib.Path, required=True, help="the exporter")
    parser.add_argument("--host", type=pathlib.Path, required=True, help="the host")
    parser.add_argument("--work", type=pathlib.Path, help="folder for models and samples; CHECKPOINT with -compare behind it unless given")
    parser.add_argument("--package", action="append", default=[], metavar="NAME=FLAGS",
                        help="a package, by the flags of its export, such as `q4=--precision q4`; that one unless given")
    parser.add_argument("--genai", default="b32,b128-pruned", help=f"builds of onnxruntime-genai, of {', '.join(VARIANTS)}, or none")
    parser.add_argument("--host-flags", default="", help="more flags for `lfm2-host bench`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    work = arguments.work or arguments.checkpoint.with_name(arguments.checkpoint.name + "-compare")
    work.mkdir(parents=True, exist_ok=True)

    samples = []
    with open(work / "samples.jsonl", "a", encoding="utf-8") as file:
        def record(row):
            samples.append(row)
            print(json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%S"), **row}), file=file, flush=True)

        systems = prepare(arguments, work, record)
        for turn in range(arguments.rounds):
            for name, run in systems.items():
                print(f"round {turn + 1} of {arguments.rounds}: {name}", file=sys.stderr)
                record({"system": name, "threads": arguments.threads, "prompt": arguments.prompt, "tokens": arguments.tokens, **run()})
    print(table(systems, samples))


def prepare(arguments, work, record):
    """What to run, by name. Models that are missing are made, and how that went is recorded."""
    size = ["--threads", arguments.threads, "--prompt", arguments.prompt, "--tokens", arguments.tokens]
    systems = {}
    for text in arguments.package or ["q4=--precision q4"]:
        name, flags = text.split("=", 1)
        model = work / f"package-{name}" / "lfm2.onnx"
        if not model.exists():
            command = [arguments.export, arguments.checkpoint, "--out", model, *flags.split()]
            seconds, peak, _ = child(command)
            record({"system": f"lfm2-export {flags}", "build_s": seconds, "build_peak_bytes": peak, "graph_bytes": graph_bytes(model)})
        systems[f"lfm2-host, {name}"] = lambda model=model: host(arguments, model)
        systems[f"ONNX Runtime, {name}"] = lambda model=model: worker([HERE / "session.py", model, *size])
    for variant in [] if arguments.genai == "none" else arguments.genai.split(","):
        model = work / f"genai-{variant}"
        if not (model / "genai_config.json").exists():
            built = build(variant, arguments.checkpoint, model)
            record({"system": f"onnxruntime-genai builder, {variant}", "build_s": built["seconds"], "build_peak_bytes": built["peak_bytes"],
                    "graph_bytes": built["graph_bytes"]})
        systems[f"onnxruntime-genai, {variant}"] = lambda model=model: worker([HERE / "genai.py", "time", model, *size])
    return systems


def graph_bytes(model):
    return sum(file.stat().st_size for file in model.parent.glob("*.onnx*"))


def worker(command):
    """Runs a script that prints {load_s, prefill_s, decode_s}."""
    _, peak, output = child([sys.executable, *command])
    result = json.loads(output)
    keep = {key: result[key] for key in ("prefill_s", "decode_s")}
    return {"load_s": result["load_s" if "load_s" in result else "session_s"], **keep, "peak_bytes": peak}


def host(arguments, model):
    """Runs `lfm2-host bench`: a prefill from nothing, and decoding at the depth of the prompt."""
    rows = []
    for test in (["-p", arguments.prompt, "-n", 0, "-d", 0], ["-p", 0, "-n", arguments.tokens, "-d", arguments.prompt]):
        command = [arguments.host, "bench", "--model", model, *test, "-t", arguments.threads, "-r", 1, "-o", "jsonl", *arguments.host_flags.split()]
        output = child(command)[2]
        rows += [json.loads(line) for line in output.splitlines()]
    prefill, decode = rows
    steps = [ns / 1e9 for ns in decode["inter_token_samples_ns"]]
    return {"load_s": prefill["session_ns"] / 1e9, "prefill_s": [ns / 1e9 for ns in prefill["samples_ns"]],
            "decode_s": [steps], "peak_bytes": max(row["peak_memory"] for row in rows)}


def table(systems, samples):
    """The best of all rounds as Markdown."""
    rows = []
    for name in systems:
        own = [sample for sample in samples if sample["system"] == name]
        prefill = min(seconds for sample in own for seconds in sample["prefill_s"])
        # The best round, not the best step: single steps may be short by luck.
        decode = min(statistics.mean(steps) for sample in own for steps in sample["decode_s"])
        peak = min(sample["peak_bytes"] for sample in own)
        rows.append((name, own[0]["prompt"] / prefill, 1 / decode, peak / 1e6, min(sample["load_s"] for sample in own)))
    others = [row for row in rows if row[0].startswith("onnxruntime-genai")]
    best_prefill, best_decode = (max((row[at] for row in others), default=None) for at in (1, 2))

    def ratio(value, best):
        return f" ({value / best:.2f})" if best else ""

    prompt = samples[-1]["prompt"]
    lines = [f"| system | prefill {prompt}, tokens/s | decode at {prompt}, tokens/s | peak MB | load s |", "|---|---|---|---|---|"]
    for name, prefill, decode, peak, load in rows:
        lines.append(f"| {name} | {prefill:.0f}{ratio(prefill, best_prefill)} | {decode:.1f}{ratio(decode, best_decode)} | {peak:.0f} | {load:.2f} |")
    if others:
        lines += ["", "In brackets: times the best of onnxruntime-genai's in that column."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
