#!/usr/bin/env python3
"""Draws the rows of `lfm2-host bench -o jsonl` as SVG files.

    python3 benches/plot.py ROWS.jsonl [ROWS.jsonl ...] --out FOLDER [--title TEXT]

decode.svg   tokens per second over the depth of the context, with the limit that memory sets
prefill.svg  tokens per second over the length of the prompt
memory.svg   largest resident memory over the context in use

Every combination of model, recipe and setting is a line. What the rows do not have is not drawn. Needs requirements.txt.
"""

import argparse
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("svg")
# The same rows give the same file.
matplotlib.rcParams["svg.hashsalt"] = "lfm2"
import matplotlib.pyplot as plt  # noqa: E402

# What tells one line from another; only those that differ between rows are named.
SERIES = ["model_filename", "precision", "provider", "n_threads", "spinning", "chunk", "prefill", "speculate", "kv"]
# What every row must have.
NEEDED = ["model_filename", "n_prompt", "n_gen", "n_depth", "median_ts", "roofline_tokens_per_second", "peak_memory"]


def read(paths):
    """All rows of the files. A line that is no row ends the program with its place."""
    rows = []
    for path in paths:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    sys.exit(f"{path}:{number}: is no JSON: {error}")
                missing = [name for name in NEEDED if not isinstance(row, dict) or name not in row]
                if missing:
                    sys.exit(f"{path}:{number}: is no row of `lfm2-host bench -o jsonl`: it has no {', '.join(missing)}")
                rows.append(row)
    if not rows:
        sys.exit("there are no rows in " + ", ".join(map(str, paths)))
    return rows


def lines(rows, x, y):
    """The points of every line, by its name: x ascending, and of several rows at one x the median of y."""
    named = [name for name in SERIES if len({json.dumps(row.get(name)) for row in rows}) > 1]
    found = {}
    for row in rows:
        if y(row) is not None:
            values = [(name, row.get(name)) for name in named]
            label = ", ".join(value if isinstance(value, str) else f"{name} {value}" for name, value in values)
            found.setdefault(label or row["model_filename"], {}).setdefault(x(row), []).append(y(row))
    middle = {label: {at: statistics.median(values) for at, values in points.items()} for label, points in found.items()}
    return {label: sorted(points.items()) for label, points in middle.items()}


def draw(path, title, rows, x, y, labels, limit=None, log=True):
    """One figure with a line for every series; nothing if no row has a value."""
    series = lines(rows, x, y)
    if not series:
        return
    figure, axes = plt.subplots(figsize=(8, 5))
    limits = lines(rows, x, limit) if limit else {}
    limit_label = "limit of memory"
    for label, points in series.items():
        (drawn,) = axes.plot(*zip(*points), marker="o", label=label)
        if limits.get(label):
            axes.plot(*zip(*limits[label]), linestyle=":", color=drawn.get_color(), label=limit_label)
            # Once for all dotted lines.
            limit_label = "_nolegend_"
    if log:
        # Depth 0 has to have a place too.
        axes.set_xscale("symlog", base=2, linthresh=64)
        ticks = sorted({at for points in series.values() for at, _ in points})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(title=title, xlabel=labels[0], ylabel=labels[1])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    print(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+", type=pathlib.Path, metavar="ROWS.jsonl")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("."), metavar="FOLDER")
    parser.add_argument("--title", default="", help="put before the title of every figure")
    arguments = parser.parse_args()
    rows = read(arguments.rows)
    arguments.out.mkdir(parents=True, exist_ok=True)

    decode = [row for row in rows if not row["n_prompt"] and row["n_gen"]]
    prefill = [row for row in rows if row["n_prompt"] and not row["n_gen"] and not row["n_depth"]]
    title = f"{arguments.title}: " if arguments.title else ""
    draw(
        arguments.out / "decode.svg",
        title + "decoding",
        decode,
        lambda row: row["n_depth"],
        lambda row: row["median_ts"],
        ("tokens in the context", "tokens per second"),
        limit=lambda row: row["roofline_tokens_per_second"],
    )
    draw(
        arguments.out / "prefill.svg",
        title + "prefill",
        prefill,
        lambda row: row["n_prompt"],
        lambda row: row["median_ts"],
        ("tokens of the prompt", "tokens per second"),
    )
    draw(
        arguments.out / "memory.svg",
        title + "largest resident memory",
        decode or prefill,
        lambda row: row["n_depth"] + row["n_prompt"] + row["n_gen"],
        lambda row: row["peak_memory"] and row["peak_memory"] / 2**20,
        ("tokens in the context", "MiB"),
    )


if __name__ == "__main__":
    main()
