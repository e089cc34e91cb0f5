#!/usr/bin/env python3
"""Two builds of lesion against each other: the only way to see 2 % on a shared machine.

    benches/ab.py OLD NEW --models DIR [--peer lesion-f32] [--works ABCD] [--rounds 15]

OLD and NEW are `peer_worker` executables (`cargo build --release --example peer_worker`, copied aside between builds).
Give each working tree a build folder of its own (`CARGO_TARGET_DIR`): where two share one, cargo takes the other's
kernels for this one's. DIR holds the synthetic models that `benches/peers/run.py --setup-only` writes
(`target/peers/models`). Both live through all rounds and take turns within each, another one first each time; the
figure is the median of the rounds' own ratios, with half their interquartile range. The losses must be equal to the last
bit, or the run says so.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
from pathlib import Path

from peers.run import TIMES, spread, tokens


class Worker:
    """A build at work in its own process."""

    def __init__(self, binary, peer, models, tokens_file, threads):
        command = [binary, peer, models, tokens_file, str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()

    def read(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, work):
        self.process.stdin.write(json.dumps({"work": work, "times": TIMES.get(work, 1)}) + "\n")
        self.process.stdin.flush()
        return self.read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--peer", default="lesion-f32", help="weights and arithmetic, as in benches/peers (default lesion-f32)")
    parser.add_argument("--works", default="ABCD", help="default ABCD")
    parser.add_argument("--rounds", type=int, default=15, help="after one to warm up (default 15)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(tokens(), file)
        file.flush()
        models = arguments.models.resolve()
        both = {n: Worker(getattr(arguments, n).resolve(), arguments.peer, models, file.name, arguments.threads) for n in ("old", "new")}
        meter = Worker(arguments.new.resolve(), "limits", models, file.name, arguments.threads)
        for work in arguments.works:
            seconds, answers, limits, counted = {"old": [], "new": []}, {}, [], None
            for round in range(arguments.rounds + 1):
                limits.append(meter.ask("limits"))
                for name in ("old", "new") if round % 2 else ("new", "old"):
                    answer = both[name].ask(work)
                    seconds[name].append(statistics.median(answer["seconds"][1:] or answer["seconds"]))
                    answers[name] = answer.get("loss", answer.get("tokens"))
                    counted = answer["work"]
            old, new = seconds["old"][1:], seconds["new"][1:]
            ratio, half = spread([a / b for a, b in zip(old, new)])
            best = lambda kind: max(statistics.median(one[kind][isa] for one in limits) for isa in limits[0][kind])
            of_fma = counted["flop"] / statistics.median(new) / best("fma")
            of_read = counted["bytes"] / statistics.median(new) / statistics.median(one["read"] for one in limits)
            same = "same results" if answers["old"] == answers["new"] else f"DIFFERENT: {answers['old']} against {answers['new']}"
            print(
                f"{work}: old {1e3 * statistics.median(old):.2f} ms, new {1e3 * statistics.median(new):.2f} ms, "
                f"old / new {ratio:.4f} ± {half:.4f}; new: {100 * of_fma:.1f} % of FMA, {100 * of_read:.1f} % of read; {same}",
                flush=True,
            )


if __name__ == "__main__":
    main()
