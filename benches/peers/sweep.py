#!/usr/bin/env python3
"""Runs many plans on many examples with lesion's sweeps and with PyTorch's loops, and prints ratios. See README.md.

    benches/peers/sweep.py                       everything, and benches/record/
    benches/peers/sweep.py --quick               a small part of each work: does it run here? Writes nothing
    benches/peers/sweep.py --works S,T --rounds 3 --no-record
"""

import argparse
import datetime
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from run import BASE, HERE, ROOT, Setup, Unavailable, Worker
from run import machine, note, peaks, ratio, record_path, seconds, shown, table, target, tokens, write

WHAT = {
    "S": "the losses of 2-token answers to 20 prompts of 10 to 14 tokens, under all 4,096 subsets of the 12 layers",
    "E": "the losses of 8 x 64 tokens, at every position, under 78 corrupted orders",
    "T": "all 13 truncations, against one forward pass and 13 unembeddings",
    "L": "the time of sweeps of growing size, against their block evaluations; 12 x 16 tokens, the last one scored",
}
# The lengths of each set of examples, and how many tokens of each are scored: the last ones.
SETS = {"S": ([12 + i % 5 for i in range(20)], 2), "E": ([64] * 8, 63), "L": ([16] * 12, 1)}

# Peer: (programme, packages, what else it needs), as in run.py.
PEERS = {
    "lesion-f32": ("lesion-sweep", [], ["gpt2-f32"]),
    "lesion-bf16-compute": ("lesion-sweep", [], ["gpt2-bf16"]),
    "torch-plain-f32": ("python-sweep", ["torch", "safetensors"], ["gpt2-f32"]),
    "torch-tuned-f32": ("python-sweep", ["torch", "safetensors"], ["gpt2-f32"]),
    "torch-tuned-bf16": ("python-sweep", ["torch", "safetensors"], ["gpt2-bf16"]),
    "transformers-f32": ("python-sweep", ["torch", "transformers"], ["gpt2-f32"]),
    "transformers-bf16": ("python-sweep", ["torch", "transformers"], ["gpt2-bf16"]),
}
OWN = ["lesion-f32", "lesion-bf16-compute"]
RUNS = {
    "S": [*OWN, "torch-plain-f32", "torch-tuned-f32", "torch-tuned-bf16"],
    "E": [*OWN, "torch-tuned-f32", "transformers-f32", "transformers-bf16"],
    "T": [BASE],
    "L": [BASE],
}
# Of S, what PyTorch runs: so many subsets, drawn with this seed.
SAMPLE, SEED = 64, 0
ORDERS = ["drop-last", "drop-first", "skip-one", "repeat-one x2", "shuffle-window seeds 0..30"]
# The families of L, and how many of their plans: all that the text has, or the first ones.
GROWING = {
    "delete 4 seeds 0..192": [16, 48, 96, 192],
    "shuffle-window seeds 0..64": [8, 16, 32, 64],
    "subsets": [64, 128, 256, 512],
}
# What S takes with everything shared, as the project's goal counts it.
GOAL_FLOP = 23.1e12
# By how much a loss may differ from lesion-f32's, in nats: S, of an answer; E, a token's, mean of a sequence.
ALLOWED = {"S": {"f32": 1e-3, "bf16": 0.2}, "E": {"f32": 1e-4, "bf16": 5e-2}}


def examples():
    """The sets of examples, as the workers read them."""
    ids = tokens({name: lengths for name, (lengths, _) in SETS.items()})
    return {
        name: [{"ids": sequence, "scored": [len(sequence) - scored, len(sequence)]} for sequence in ids[name]]
        for name, (_, scored) in SETS.items()
    }


def sample(plans, n):
    """The numbers of so many plans, drawn again until they have as many blocks on average as all plans do: the time of all
    is then that of the sample times their numbers' ratio, whatever blocks and heads cost."""
    draw = random.Random(SEED)
    blocks = sum(map(len, plans))
    while True:
        numbers = draw.sample(range(len(plans)), n)
        if sum(len(plans[i]) for i in numbers) * len(plans) == blocks * n:
            return numbers


class Bench:
    """The workers of one work at a time, and what came out of all."""

    def __init__(self, setup, arguments):
        self.setup, self.arguments = setup, arguments
        self.examples = setup.work / "sweep-examples.json"
        self.examples.write_text(json.dumps(examples()))
        self.skipped = dict(setup.skipped)
        self.peers, self.parts, self.growth = {}, {}, []
        self.workers = {}
        setup.programmes["limits"] = [setup.once("lesion", lambda: setup.build("lesion"))]
        # A process of its own for the machine's limits; it does not read the examples.
        self.meter = Worker("limits", setup, self.examples, arguments.threads)

    def attempt(self, name, what):
        try:
            return what()
        except Unavailable as reason:
            note(f"dropped {name}: {reason}")
            self.skipped[name] = str(reason)
            if name in self.workers:
                self.workers.pop(name).close()
            return None

    def open(self, work, warm):
        """Starts the work's peers; each runs `warm` plans untimed."""
        for name in (name for name in RUNS[work] if name in self.setup.ready):
            worker = self.attempt(name, lambda: Worker(name, self.setup, self.examples, self.arguments.threads))
            if worker is None:
                continue
            self.workers[name] = worker
            self.peers.setdefault(name, {"versions": worker.about["versions"], "work": {}})
            if warm:
                self.attempt(name, lambda: self.sweep(name, work, warm))
        if BASE not in self.workers:
            raise Unavailable(f"{BASE}: {self.skipped.get(BASE, 'not ready')}")

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.workers = {}

    def turns(self, round):
        """The peers, another one first in each round, with a pause before each, for others' threads to stop spinning."""
        names = list(self.workers)
        shift = round % len(names)
        for name in names[shift:] + names[:shift]:
            time.sleep(self.arguments.pause)
            if name in self.workers:
                yield name

    def sweep(self, name, work, plans, losses=()):
        more = {"memory": self.arguments.memory << 20, "losses": list(losses)} if name in OWN else {}
        return self.workers[name].ask("sweep", examples=work, plans=plans, **more)

    def families(self, texts):
        """The plans of families, lists of layers."""
        return self.workers[BASE].ask("families", families=texts)["plans"]

    def rounds(self, work):
        for round in range(self.arguments.rounds):
            yield round
            note(f"{work}: round {round + 1} of {self.arguments.rounds}")

    def compared(self, work, plans, chosen, scale, per):
        """Rounds in which lesion runs all plans and the others those with the `chosen` numbers, whose time counts `scale`
        times. Losses of these are compared, sums over the scored tokens divided by `per`."""
        some = [plans[i] for i in chosen]
        losses = {}
        for round in self.rounds(work):
            for name in self.turns(round):
                before = self.meter.ask("limits")
                given = (plans, chosen) if name in OWN else (some,)
                answer = self.attempt(name, lambda: self.sweep(name, work, *given))
                if answer is None:
                    continue
                losses[name] = answer.pop("losses")
                row = self.peers[name]["work"].setdefault(work, {"seconds": [], "limits": []})
                row["seconds"].append(answer.pop("seconds")[0] * (1 if name in OWN else scale))
                row["limits"].append([before, self.meter.ask("limits")])
                row["memory"] = self.workers[name].memory()
                row.update({"plans": len(plans), "sample": len(some), "naive_blocks": sum(map(len, plans))} | answer)
        for name, found in losses.items():
            pairs = (pair for both in zip(found, losses[BASE], strict=True) for pair in zip(*both, strict=True))
            self.peers[name]["work"][work]["loss_difference"] = max(abs(a - b) for a, b in pairs) / per

    def run_S(self):
        self.open("S", [[0, 1]])
        family, n = ("subsets 6..12", 16) if self.arguments.quick else ("subsets", SAMPLE)
        (plans,) = self.families([family])
        self.compared("S", plans, sample(plans, n), len(plans) / n, 1)

    def run_E(self):
        self.open("E", [[0, 1]])
        families = self.families(ORDERS)
        # Nothing dropped is the intact model.
        plans = [*families[0][1:], *families[1][1:], *families[2], *families[3], *families[4]]
        plans = plans[::9] if self.arguments.quick else plans
        self.compared("E", plans, range(len(plans)), 1, SETS["E"][1])

    def run_T(self):
        self.open("T", None)
        for _ in self.rounds("T"):
            for kind in ("S", "E"):
                answer = self.workers[BASE].ask("truncations", 3, examples=kind, memory=self.arguments.memory << 20)
                row = self.parts.setdefault(kind, {key: [] for key in ("seconds", "pass", "together", "apart")})
                for key, value in answer.items():
                    row[key] = row[key] + value if isinstance(value, list) else value

    def run_L(self):
        self.open("L", [[0, 1]])
        for family, sizes in GROWING.items():
            (plans,) = self.families([family])
            sizes = sizes[:2] if self.arguments.quick else sizes
            self.growth += [{"family": family, "plans": n, "seconds": [], "given": plans[:n]} for n in sizes]
        for _ in self.rounds("L"):
            for point in self.growth:
                answer = self.sweep(BASE, "L", point["given"])
                point["seconds"] += answer.pop("seconds")
                point.update({key: answer[key] for key in ("blocks", "naive_blocks", "flop")})
        for point in self.growth:
            del point["given"]

    def run(self):
        for work in self.arguments.works:
            try:
                getattr(self, f"run_{work}")()
            except Unavailable as reason:
                note(f"skipped {work}: {reason}")
                self.skipped[work] = str(reason)
            self.close()
        self.meter.close()
        measured = {"peers": self.peers, "truncations": self.parts, "growth": self.growth, "skipped": self.skipped}
        if self.growth:
            measured["fits"] = {key: fit(self.growth, key) for key in ("blocks", "naive_blocks", "flop")}
            of = {family: [point for point in self.growth if point["family"] == family] for family in GROWING}
            measured["family_fits"] = {family: fit(points, "blocks") for family, points in of.items()}
        return measured


def fit(growth, key):
    """The least-squares line of the median seconds over what `key` counts."""
    x, y = [point[key] for point in growth], [statistics.median(point["seconds"]) for point in growth]
    slope, intercept = statistics.linear_regression(x, y)
    residuals = [b - (intercept + slope * a) for a, b in zip(x, y)]
    return {
        "slope": slope,
        "intercept": intercept,
        "r2": statistics.correlation(x, y) ** 2,
        "worst": max(abs(r) for r in residuals) / max(y),
    }


def truncation_bounds(row, way):
    """For each time, one forward pass and the unembeddings of all truncations: the intact pass has one of them."""
    return [a + b for a, b in zip(row["pass"], row[way])]


def kind_of(name):
    return "bf16" if "bf16" in name else "f32"


def disagreements(measured):
    found = []
    for name, peer in measured["peers"].items():
        for work, row in peer["work"].items():
            difference, allowed = row.get("loss_difference", 0.0), ALLOWED[work][kind_of(name)] if work in ALLOWED else 0.0
            if not difference <= allowed:
                found.append(f"{name}, {work}: a loss is {difference:.2g} from {BASE}'s (allowed {allowed:g})")
    return found


def shares(row, kind):
    """Of each round, the FLOP/s as a share of the peak measured before and after."""
    return [row["flop"] / s / peaks(limits)[kind] for s, limits in zip(row["seconds"], row["limits"])]


def best(peers, work, beginning):
    """The fastest of the measured peers whose names begin so."""
    names = [name for name in peers if name.startswith(beginning) and seconds(peers, name, work)]
    return min(names, key=lambda name: statistics.median(seconds(peers, name, work)), default=None)


def targets(measured):
    """What sweeps shall reach, as rows of a table; what was not measured is left out."""
    peers, rows = measured["peers"], []

    def against(work, other, own, bound, said=""):
        value = ratio(peers, other, work, own)
        if value is not None:
            rows.append(target(f"{work}: time of {other}{said} / {own}", value, "≥", bound, "", 1))

    own = peers.get(BASE, {"work": {}})["work"].get("S")
    if own:
        rows.append(target(f"S: {BASE}, of the f32 FMA peak", 100 * statistics.median(shares(own, "f32")), "≥", 80, " %", 0))
        if own["plans"] == 4096:
            what = f"S: time of {BASE} / that of {GOAL_FLOP / 1e12:.1f} TFLOP at the peak"
            times = [s * peaks(limits)["f32"] / GOAL_FLOP for s, limits in zip(own["seconds"], own["limits"])]
            rows.append(target(what, statistics.median(times), "≤", 1.25))
        against("S", best(peers, "S", "torch"), BASE, 5, ", the fastest loop,")
    against("E", "transformers-f32", BASE, 2)
    against("E", "transformers-bf16", "lesion-bf16-compute", 1.6)
    for kind, row in measured["truncations"].items():
        times = [a / b for a, b in zip(row["seconds"], truncation_bounds(row, "together"))]
        rows.append(target(f"T: sweep of the examples of {kind} / pass and unembeddings", statistics.median(times), "≤", 1.15))
    return rows


def compared_table(measured, work):
    """The peers of S or E."""
    peers, rows = measured["peers"], []
    base = seconds(peers, BASE, work)
    for name in (name for name in RUNS[work] if seconds(peers, name, work)):
        row = peers[name]["work"][work]
        times = row["seconds"]
        own, kind = name in OWN, kind_of(name)
        rows.append([
            name,
            shown(times, digits=2),
            shown([a / b for a, b in zip(times, base)], digits=2),
            f"{row['blocks'] if own else row['naive_blocks']:,.0f}",
            f"{row['flop'] / 1e12:.2f}" if own else "–",
            f"{row['flop'] / statistics.median(times) / 1e9:.0f}" if own else "–",
            f"{100 * statistics.median(shares(row, kind)):.0f} of {kind}" if own else "–",
            f"{row['memory']['peak_rss'] / 1e6:.0f}",
            f"{row['loss_difference']:.1g}",
        ])  # fmt: skip
    header = ["peer", "s", f"time / {BASE}", "block evaluations", "TFLOP", "GFLOP/s", "% of the peak", "peak RSS, MB"]
    return table([*header, "largest difference of a loss"], rows)


def report(record, plot):
    """The record as Markdown."""
    described, measured, out = record["machine"], record["measured"], []
    peers = measured["peers"]
    out.append(f"# {record['date']}, {described['cpu']}, {record['threads']} threads: sweeps\n")
    out.append(
        "Written by `benches/peers/sweep.py`; times in seconds, median ± half the interquartile range of "
        f"{record['rounds']} interleaved rounds; ratios are medians of the rounds' own ratios. Sweeps may take "
        f"{record['memory']} MiB besides the weights.\n"
    )
    out.append("\n".join(f"- {key}: {value}" for key, value in described.items()) + "\n")
    limits = [limit for peer in peers.values() for row in peer["work"].values() for pair in row["limits"] for limit in pair]
    if limits:
        peak = peaks(limits)
        out.append(
            f"Limits, measured before and after each turn: f32 FMA {peak['f32'] / 1e9:.0f} GFLOP/s, "
            f"bf16 {peak['bf16'] / 1e9:.0f} GFLOP/s, streaming read {peak['read'] / 1e9:.1f} GB/s.\n"
        )
    if rows := targets(measured):
        out.append("## Targets\n")
        out.append(table(["work", "measured", "target", "met"], rows))
    for work in ("S", "E"):
        if not seconds(peers, BASE, work):
            continue
        out.append(f"## {work}: {WHAT[work]}\n")
        out.append(compared_table(measured, work))
        own = peers[BASE]["work"][work]
        out.append(f"Plan by plan, these {own['plans']:,} plans are {own['naive_blocks']:,.0f} block evaluations.\n")
        if work == "S":
            out.append(
                f"PyTorch runs {own['sample']} of the subsets, drawn so that they have as many blocks on average as all do; its time "
                "is that of the sample times the ratio of their numbers. Losses are those of the sample's answers.\n"
            )
        for name in RUNS[work]:
            about = peers.get(name, {"work": {}})["work"].get(work, {}).get("about")
            if about and "tuned" in name:
                products = ", ".join(f"{shape} {kind}" for shape, kind in about["products"].items())
                out.append(f"{name} unembeds {about['plans unembedded at once']} plans at once; products: {products}.\n")
    if measured["truncations"]:
        out.append(f"## T: {WHAT['T']}\n")
        rows = []
        for kind, row in measured["truncations"].items():
            times = [shown(row[key], digits=4) for key in ("seconds", "pass", "together", "apart")]
            ratios = [shown([a / b for a, b in zip(row["seconds"], truncation_bounds(row, way))]) for way in ("together", "apart")]
            rows.append([kind, f"{row['blocks']:g}", *times, *ratios])
        header = ["examples of", "block evaluations", "sweep, s", "intact pass, s", "12 unembeddings in one, s", "one by one, s"]
        out.append(table([*header, "sweep / pass and unembeddings", "… one by one"], rows))
        out.append(
            "The intact pass has the 13th unembedding. A sweep unembeds many plans at once: that is what the target compares "
            f"it with. {BASE}.\n"
        )
    if measured["growth"]:
        out.append(f"## L: {WHAT['L']}\n")
        if plot:
            out.append(f"![Seconds against block evaluations, shared and plan by plan]({plot})\n")
        rows = []
        for point in measured["growth"]:
            middle = statistics.median(point["seconds"])
            rows.append([
                point["family"], f"{point['plans']}", f"{point['blocks']:,.0f}", f"{point['naive_blocks']:,.0f}",
                f"{point['flop'] / 1e12:.3f}", shown(point["seconds"]), f"{1000 * middle / point['blocks']:.2f}",
                f"{point['flop'] / middle / 1e9:.0f}",
            ])  # fmt: skip
        header = ["the first plans of", "plans", "block evaluations", "plan by plan", "TFLOP", "s", "ms / evaluation", "GFLOP/s"]
        out.append(table(header, rows))
        said = {"blocks": "shared block evaluations", "naive_blocks": "block evaluations plan by plan (plans × layers)", "flop": "FLOP"}
        lines = [
            f"- {said[key]}: R² {line['r2']:.4f}; the point farthest from it is off by {100 * line['worst']:.1f} % of the longest time"
            for key, line in measured["fits"].items()
        ]
        out.append("Least-squares lines through all points, seconds over\n\n" + "\n".join(lines) + "\n")
        alone = ", ".join(f"{family} {line['r2']:.4f}" for family, line in measured["family_fits"].items())
        out.append(f"R² of lines over shared block evaluations through the points of one family: {alone}.\n")
    if record["disagreements"]:
        out.append("## Disagreements\n\n" + "\n".join(f"- {line}" for line in record["disagreements"]) + "\n")
    if measured["skipped"]:
        out.append("## Not measured\n\n" + "\n".join(f"- {name}: {why}" for name, why in measured["skipped"].items()) + "\n")
    versions = [f"- {name}: " + ", ".join(f"{k} {v}" for k, v in peer["versions"].items()) for name, peer in peers.items()]
    out.append("## Versions\n\n" + "\n".join(versions) + "\n")
    return "\n".join(out)


def draw(setup, record, path):
    """The plot of L; its name, or none where it can't be drawn."""
    try:
        setup.once("matplotlib", lambda: setup.install("matplotlib"))
    except Unavailable as reason:
        record["measured"]["skipped"]["plot"] = str(reason)
        return None
    path = path.with_suffix(".svg")
    path.parent.mkdir(exist_ok=True)
    command = [setup.python, HERE / "sweep_plot.py", path]
    done = subprocess.run(command, input=json.dumps(record["measured"]), capture_output=True, text=True)
    if done.returncode != 0:
        record["measured"]["skipped"]["plot"] = (done.stderr.strip().splitlines() or ["failed"])[-1]
        return None
    return path.name


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds of each work (default 5)")
    parser.add_argument("--works", default="S,E,T,L", help="comma-separated; default S,E,T,L")
    parser.add_argument("--memory", type=int, default=2048, help="MiB that a sweep of lesion's may take (default 2048)")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between turns, for threads to stop spinning")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "target" / "peers", help="environment, models, builds; as run.py's")
    parser.add_argument("--quick", action="store_true", help="one round of a small part of each work; writes nothing")
    parser.add_argument("--setup-only", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    arguments.works = [work for work in arguments.works.split(",") if work]
    if unknown := [work for work in arguments.works if work not in WHAT]:
        parser.error(f"no work {', '.join(unknown)}: there are {', '.join(WHAT)}")
    if arguments.quick:
        arguments.rounds, arguments.no_record = 1, True

    described = machine()
    setup = Setup(arguments.work_dir.resolve(), [name for name in PEERS if any(name in RUNS[work] for work in arguments.works)], PEERS)
    if arguments.setup_only:
        note(f"ready: {', '.join(setup.ready)}")
        return 0
    if os.getloadavg()[0] > 0.5:
        note(f"warning: the machine is not idle (load {os.getloadavg()[0]:.1f}); figures will be low")

    record = {
        "date": datetime.date.today().isoformat(), "machine": described, "threads": arguments.threads,
        "rounds": arguments.rounds, "works": arguments.works, "memory": arguments.memory,
    }  # fmt: skip
    record["measured"] = Bench(setup, arguments).run()
    record["disagreements"] = disagreements(record["measured"])
    path = setup.work / "sweep" if arguments.no_record else record_path(record, "-sweep")
    plot = draw(setup, record, path) if record["measured"]["growth"] else None
    text = report(record, plot)
    print(text)
    if not arguments.no_record:
        write(record, text, path)
    return 1 if record["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
