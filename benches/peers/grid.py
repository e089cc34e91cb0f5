#!/usr/bin/env python3
"""A patch grid with lesion, as one sweep, and with transformers, cell by cell; prints the ratio. See README.md.

    benches/peers/grid.py                        five rounds, and benches/record/
    benches/peers/grid.py --rounds 1 --no-record
"""

import argparse
import datetime
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path

from run import BASE, ROOT, Setup, Worker
from run import machine, note, record_path, shown, table, target, tokens, write

PEERS = {
    BASE: ("lesion-sweep", [], ["gpt2-f32"]),
    "transformers-f32": ("python-grid", ["torch", "transformers"], ["gpt2-f32"]),
}
TOKENS, LAYERS = 20, 12
# Of the cells, what PyTorch runs: so many, drawn with this seed, two of each layer.
EACH, SEED = 2, 0
# By how much a logit difference may differ.
ALLOWED = 2e-3


def pair():
    """Two prompts of random tokens that differ in one place, and two tokens to compare."""
    ids = tokens({"grid": [TOKENS, 3]})["grid"]
    clean, (other, answer, wrong) = ids
    corrupted = [*clean]
    corrupted[TOKENS // 3] = other
    return {"clean": clean, "corrupted": corrupted, "answer": answer, "other": wrong}


def measure(setup, arguments):
    path = setup.work / "grid.json"
    path.write_text(json.dumps(pair()))
    workers = {name: Worker(name, setup, path, arguments.threads) for name in PEERS}
    cells = [[layer, position] for layer in range(LAYERS) for position in range(TOKENS)]
    draw = random.Random(SEED)
    some = [[layer, position] for layer in range(LAYERS) for position in sorted(draw.sample(range(TOKENS), EACH))]
    measured = {name: {"versions": worker.about["versions"], "seconds": []} for name, worker in workers.items()}
    for round in range(arguments.rounds + 1):
        names = list(workers)
        for name in names if round % 2 else names[::-1]:
            time.sleep(arguments.pause)
            own = name == BASE
            answer = workers[name].ask("grid", **({"pair": pair(), "memory": arguments.memory << 20} if own else {"cells": some}))
            scale = 1 if own else len(cells) / len(some)
            measured[name]["values"] = answer["values"]
            # The first round warms up.
            if round > 0:
                measured[name]["seconds"].append(answer["seconds"][0] * scale + sum(answer.get("clean", [])))
                measured[name].update({key: answer[key] for key in ("blocks", "naive_blocks") if key in answer})
        note(f"round {round} of {arguments.rounds}" + (" (warm-up)" if round == 0 else ""))
    for worker in workers.values():
        worker.close()
    whole = measured[BASE]["values"]
    pairs = zip(measured["transformers-f32"]["values"], (whole[layer][position] for layer, position in some))
    measured["difference"] = max(abs(a - b) for a, b in pairs)
    measured["spread"] = max(map(max, whole)) - min(map(min, whole))
    return measured | {"cells": len(cells), "sample": len(some)}


def report(record):
    measured = record["measured"]
    own, other = measured[BASE], measured["transformers-f32"]
    ratio = statistics.median(a / b for a, b in zip(other["seconds"], own["seconds"]))
    out = [f"# {record['date']}, {record['machine']['cpu']}, {record['threads']} threads: a patch grid\n"]
    out.append(
        "Written by `benches/peers/grid.py`. Full GPT-2 small shape, synthetic weights, f32: the residual stream before each of 12 layers, "
        f"at each of {TOKENS} positions, patched from a clean run into a corrupted one; {measured['cells']} cells, the logit difference behind the "
        f"last token. transformers runs {measured['sample']} of them, each as its own forward pass with a hook (hidden states of the clean run kept, "
        "logits of the last position alone); its time is that times the ratio of the numbers, and the clean run's. Median ± half the "
        f"interquartile range of {record['rounds']} interleaved rounds.\n"
    )
    out.append("\n".join(f"- {key}: {value}" for key, value in record["machine"].items()) + "\n")
    out.append(table(["what", "measured", "target", "met"], [target("grid: time of transformers-f32 / lesion-f32", ratio, "≥", 10, "", 1)]))
    rows = [[name, shown(measured[name]["seconds"]), f"{1000 * statistics.median(measured[name]['seconds']) / measured['cells']:.2f}"] for name in PEERS]
    out.append(table(["peer", "s", "ms a cell"], rows))
    out.append(
        f"Block evaluations of whole sequences: {own['blocks']:.0f} shared, {own['naive_blocks']:.0f} plan by plan; of each, rows before the patched "
        f"position are not computed again. Values differ by {measured['difference']:.1g} at most (they range over {measured['spread']:.2g}).\n"
    )
    out.append("\n".join(f"- {name}: " + ", ".join(f"{k} {v}" for k, v in measured[name]["versions"].items()) for name in PEERS) + "\n")
    return "\n".join(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds, after one to warm up (default 5)")
    parser.add_argument("--memory", type=int, default=1024, help="MiB that lesion may take besides the weights (default 1024)")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between turns, for threads to stop spinning")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "target" / "peers", help="environment, models, builds; as run.py's")
    parser.add_argument("--no-record", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    described = machine()
    setup = Setup(arguments.work_dir.resolve(), list(PEERS), PEERS)
    if setup.skipped:
        parser.error(f"not here: {setup.skipped}")
    record = {"date": datetime.date.today().isoformat(), "machine": described, "threads": arguments.threads, "rounds": arguments.rounds}
    record["measured"] = measure(setup, arguments)
    text = report(record)
    print(text)
    if not arguments.no_record:
        write(record, text, record_path(record, "-grid"))
    if not record["measured"]["difference"] <= ALLOWED:
        note(f"values differ by {record['measured']['difference']:g} (allowed {ALLOWED:g})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
