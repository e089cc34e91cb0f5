#!/usr/bin/env python3
"""Runs lesion and its alternatives side by side on the same weights and tokens, and prints ratios. See README.md.

    benches/peers/run.py                 all of it: install, build, measure, write benches/record/
    benches/peers/run.py --setup-only    install and build
    benches/peers/run.py --peers lesion-f32,onnxruntime-f32 --rounds 3 --no-record
"""

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BASE = "lesion-f32"

# How often each work runs in one turn. The first short one of a turn is dropped: its caches are the last peer's.
TIMES = {"A": 1, "B": 1, "C": 9, "D": 1}
WHAT = {
    "A": "loss of 1 x 1024 tokens",
    "B": "loss of 8 x 128 tokens",
    "C": "loss of 1 x 16 tokens",
    "D": "64 greedy steps after 16 tokens, cached",
}

# Peer: (programme, packages, what else it needs). Programmes: lesion's own example, worker.py, candle/.
PEERS = {
    "lesion-f32": ("lesion", [], ["gpt2-f32"]),
    "lesion-f32-1-thread": ("lesion", [], ["gpt2-f32"]),
    "lesion-f16": ("lesion", [], ["gpt2-f16"]),
    "lesion-bf16": ("lesion", [], ["gpt2-bf16"]),
    "lesion-bf16-compute": ("lesion", [], ["gpt2-bf16"]),
    "transformers-f32": ("python", ["torch", "transformers"], ["gpt2-f32"]),
    "transformers-bf16": ("python", ["torch", "transformers"], ["gpt2-bf16"]),
    "onnxruntime-f32": ("python", ["onnxruntime", "onnx", "safetensors"], ["gpt2-f32", "gpt2-onnx"]),
    "ctranslate2-f32": ("python", ["ctranslate2", "torch", "transformers"], ["gpt2-f32", "gpt2-ct2-f32"]),
    "ctranslate2-int8": ("python", ["ctranslate2", "torch", "transformers"], ["gpt2-f32", "gpt2-ct2-int8"]),
    "llama.cpp-f32": ("python", ["llama-cpp-python", "gguf", "safetensors"], ["gpt2-f32", "gpt2-f32.gguf"]),
    "llama.cpp-bf16": ("python", ["llama-cpp-python", "gguf", "safetensors"], ["gpt2-f32", "gpt2-bf16.gguf"]),
    "candle-f32": ("candle", [], ["gpt2-f32"]),
}
# What a programme is: an example of lesion's, or a script.
EXAMPLES = {"lesion": "peer_worker", "lesion-sweep": "sweep_worker"}
SCRIPTS = {"python": "worker.py", "python-sweep": "sweep_worker.py", "python-grid": "grid_worker.py"}
# What else `import` of a package needs here.
EXTRA_ENVIRONMENT = {"llama-cpp-python": {"CMAKE_BUILD_PARALLEL_LEVEL": "1", "CMAKE_ARGS": "-DMTMD_BUILD=OFF -DLLAVA_BUILD=OFF"}}
# Mean losses differ from lesion's by at most this, in nats. llama.cpp looks GELU up in a table of f16, and keeps keys
# and values in f16.
LLAMA_CPP_TOLERANCE = 1e-2
TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 5e-2, "int8": 5e-2}


class Unavailable(Exception):
    """A peer that can't run here, and why."""


def anonymous(line):
    """The start of a line of a log, without this machine's paths."""
    return re.sub(r"(/[\w.@+-]+){2,}", lambda path: ".../" + path[0].rsplit("/", 1)[1], line)[:300]


def note(text):
    print(text, file=sys.stderr, flush=True)


def call(command, log, **kwargs):
    """Runs a command; its output goes to a log, whose end is the reason if it fails."""
    note(f"  {' '.join(map(str, command))}")
    with open(log, "a") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, **kwargs).returncode
    if code != 0:
        lines = [line for line in Path(log).read_text(errors="replace").splitlines() if line.strip()]
        raise Unavailable(f"{Path(command[0]).name} ended with {code}: {anonymous(lines[-1]) if lines else 'no output'}")


class Setup:
    """Everything under the work directory: environment, models, programmes. What is there is not made again."""

    def __init__(self, work, names, peers=PEERS):
        self.work = work
        self.peers = peers
        self.models = work / "models"
        self.python = work / "venv" / "bin" / "python"
        self.models.mkdir(parents=True, exist_ok=True)
        self.log = work / "setup.log"
        self.made, self.failed = {}, {}
        self.programmes = {}
        self.ready, self.skipped = [], {}
        for name in names:
            try:
                self.prepare(name)
                self.ready.append(name)
            except Unavailable as reason:
                self.skipped[name] = str(reason)
                note(f"skipped {name}: {reason}")

    def once(self, what, make):
        """Makes a thing once; what failed fails again with the same reason."""
        if what in self.failed:
            raise self.failed[what]
        try:
            if what not in self.made:
                self.made[what] = make()
            return self.made[what]
        except Unavailable as reason:
            self.failed[what] = reason
            raise

    def prepare(self, name):
        programme, packages, models = self.peers[name]
        for package in packages:
            self.once(package, lambda: self.install(package))
        if programme in SCRIPTS:
            self.programmes[name] = [self.python, HERE / SCRIPTS[programme]]
        else:
            self.programmes[name] = [self.once(programme, lambda: self.build(programme))]
        for model in models:
            self.once(model, lambda: self.model(model))

    def install(self, package):
        if not self.python.exists():
            call([sys.executable, "-m", "venv", self.work / "venv"], self.log)
        if self.version(package) is None:
            environment = os.environ | EXTRA_ENVIRONMENT.get(package, {})
            call([self.python, "-m", "pip", "install", package], self.log, env=environment)

    def version(self, package):
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    def build(self, programme):
        if programme in EXAMPLES:
            call(["cargo", "build", "--release", "--example", EXAMPLES[programme]], self.log, cwd=ROOT)
            return cargo_target(ROOT) / "release" / "examples" / EXAMPLES[programme]
        target = self.work / "cargo"
        call(["cargo", "build", "--release", "--target-dir", target, "--manifest-path", HERE / programme / "Cargo.toml"], self.log)
        return target / "release" / {"candle": "candle-worker", "gemm": "gemm-peers"}[programme]

    def model(self, name):
        path = self.models / name
        done = self.models / f"{name}.done"
        if done.exists():
            return
        tool = name.removeprefix("gpt2-")
        if tool in ("f32", "f16", "bf16"):
            shutil.rmtree(path, ignore_errors=True)
            lesion = ["cargo", "run", "--release", "--quiet", "--bin", "lesion", "--"]
            call([*lesion, "models", "synthesize", "--out", path, "--dtype", tool], self.log, cwd=ROOT)
        elif tool == "onnx":
            call([self.python, HERE / "onnx_graph.py", self.models / "gpt2-f32", path], self.log)
        elif tool.endswith(".gguf"):
            call([self.python, HERE / "convert.py", f"gguf-{tool.removesuffix('.gguf')}", self.models], self.log)
        else:
            call([self.python, HERE / "convert.py", tool, self.models], self.log)
        done.touch()


def cargo_target(root):
    command = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    return Path(json.loads(subprocess.run(command, cwd=root, capture_output=True, check=True).stdout)["target_directory"])


class Worker:
    """A peer at work in its own process."""

    def __init__(self, name, setup, tokens, threads):
        self.name = name
        self.threads = 1 if name.endswith("-1-thread") else threads
        peer = name.removesuffix("-1-thread")
        self.stderr = open(setup.work / f"{name}.log", "w")
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false"}
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [*setup.programmes[name], peer, setup.models, tokens, str(self.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr, text=True, env=environment,
        )  # fmt: skip
        self.about = self.read()
        self.start_seconds = time.perf_counter() - start

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.stderr.flush()
            last = Path(self.stderr.name).read_text(errors="replace").strip().splitlines()
            raise Unavailable(f"ended with {self.process.returncode}: {anonymous(last[-1]) if last else 'no output'}")
        return json.loads(line)

    def ask(self, work, times=1, **more):
        try:
            self.process.stdin.write(json.dumps({"work": work, "times": times} | more) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.read()

    def memory(self):
        """Peak and anonymous resident memory, bytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        fields = {key: value for key, value in (line.split(":", 1) for line in lines)}
        size = lambda key: int(fields[key].split()[0]) * 1024
        return {"peak_rss": size("VmHWM"), "anonymous": size("RssAnon")}

    def close(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.stderr.close()


# The lengths of each work's sequences.
SHAPES = {"A": [1024], "B": [128] * 8, "C": [16], "D": [16]}


def tokens(shapes=SHAPES):
    """Ids for each work, from a generator that is the same everywhere."""
    state = 1

    def id():
        nonlocal state
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (state >> 33) % 50257

    return {work: [[id() for _ in range(n)] for n in lengths] for work, lengths in shapes.items()}


def measure(setup, arguments):
    """All rounds. Every peer lives through all of them; in a round they take turns at each work, another one first
    each time."""
    path = setup.work / "tokens.json"
    path.write_text(json.dumps(tokens()))
    skipped = dict(setup.skipped)
    workers, starts = {}, {}

    def attempt(name, what):
        try:
            return what()
        except Unavailable as reason:
            note(f"dropped {name}: {reason}")
            skipped[name] = str(reason)
            if name in workers:
                workers.pop(name).close()
            return None

    # Files come into the page cache, then the starts are timed.
    for turn in range(arguments.starts + 1):
        for name in list(setup.ready):
            if name in skipped:
                continue
            worker = attempt(name, lambda: Worker(name, setup, path, arguments.threads))
            if worker is not None:
                if turn > 0:
                    starts.setdefault(name, []).append(worker.start_seconds)
                worker.close()
    for name in setup.ready:
        if name not in skipped:
            worker = attempt(name, lambda: Worker(name, setup, path, arguments.threads))
            if worker is not None:
                workers[name] = worker

    rows = {name: {"versions": worker.about["versions"], "start": starts.get(name, []), "work": {}} for name, worker in workers.items()}
    # A process of its own for the machine's limits: its buffer is nobody's memory. None without lesion.
    threads = [n for n, name in [(arguments.threads, BASE), (1, "lesion-f32-1-thread")] if name in workers]
    if threads:
        setup.programmes["limits"] = next(setup.programmes[n] for n in setup.programmes if n.startswith("lesion"))
    meters = {n: Worker("limits", setup, path, n) for n in threads}
    limits = {str(n): [] for n in meters}
    for round in range(arguments.rounds + 1):
        for work in arguments.works:
            for threads, meter in meters.items():
                answer = meter.ask("limits")
                if round > 0:
                    limits[str(threads)].append(answer)
            names = list(workers)
            shift = round % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                time.sleep(arguments.pause)
                answer = attempt(name, lambda: workers[name].ask(work, TIMES[work]))
                if answer is None:
                    continue
                seconds = answer["seconds"]
                row = rows[name]["work"].setdefault(work, {"seconds": []})
                # The first round warms up.
                if round > 0:
                    row["seconds"].append(statistics.median(seconds[1:] or seconds))
                row.update({key: answer[key] for key in ("loss", "tokens", "work") if key in answer})
                if work == "A":
                    rows[name]["memory"] = workers[name].memory()
        note(f"round {round} of {arguments.rounds}" + (" (warm-up)" if round == 0 else ""))
    for worker in [*workers.values(), *meters.values()]:
        worker.close()
    return {"peers": {n: r for n, r in rows.items() if n in workers}, "skipped": skipped, "limits": limits}


def disagreements(peers):
    """Losses further from lesion's than the type of the numbers explains."""
    found = []
    for name, peer in peers.items():
        tolerance = TOLERANCE[name.removesuffix("-1-thread").removesuffix("-compute").rsplit("-", 1)[1]]
        if name.startswith("llama.cpp"):
            tolerance = max(tolerance, LLAMA_CPP_TOLERANCE)
        for work, row in peer["work"].items():
            if "loss" in row and BASE in peers:
                difference = abs(row["loss"] - peers[BASE]["work"][work]["loss"])
                row["loss_difference"] = difference
                if not difference <= tolerance:
                    found.append(f"{name}, {work}: loss {row['loss']:.6f} is {difference:.2g} from lesion's (allowed {tolerance:g})")
    return found


def spread(values):
    """Median and half the interquartile range."""
    if len(values) < 2:
        return statistics.median(values), 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return statistics.median(values), (high - low) / 2


def shown(values, scale=1.0, digits=3):
    middle, half = spread([value * scale for value in values])
    return f"{middle:.{digits}f} ± {half:.{digits}f}"


def peaks(limits):
    """FLOP/s of f32 and of bf16, the best instruction set's medians, and bytes/s."""
    best = lambda kind: max(statistics.median(one[kind][isa] for one in limits) for isa in limits[0][kind])
    # An f32 FMA multiplies bf16, too.
    return {"f32": best("fma"), "bf16": max(best("fma"), best("bf16")), "read": statistics.median(one["read"] for one in limits)}


def seconds(peers, name, work):
    """The times of all rounds; none if it was not measured."""
    return peers.get(name, {"work": {}})["work"].get(work, {"seconds": []})["seconds"]


def ratio(peers, other, work, own=BASE):
    """The median of the rounds' own ratios of times."""
    times, base = seconds(peers, other, work), seconds(peers, own, work)
    return statistics.median(a / b for a, b in zip(times, base)) if times and base else None


def thread_gain(measured, threads):
    """What A and the FMA peak gain from one thread to all."""
    one, many = measured["limits"].get("1"), measured["limits"].get(str(threads))
    own = ratio(measured["peers"], "lesion-f32-1-thread", "A")
    return (own, peaks(many)["f32"] / peaks(one)["f32"]) if own and one and many and threads > 1 else None


def target(what, value, sign, bound, unit="", digits=2):
    """A row of a table of targets."""
    met = {"≥": value >= bound, "≤": value <= bound, ">": value > bound}[sign]
    # A digit more than the target has, so that a near miss shows.
    return [what, f"{value:.{digits + 1}f}{unit}", f"{sign} {bound:.{digits}f}{unit}", "yes" if met else "no"]


def targets(measured, threads):
    """What the engine shall reach, as rows of a table; what was not measured is left out."""
    peers, limits, rows = measured["peers"], measured["limits"].get(str(threads)), []
    peak = peaks(limits) if limits else None

    def row(what, value, *rest):
        if value is not None:
            rows.append(target(what, value, *rest))

    def least(name, work, precision):
        """Seconds that compute and that memory take at least."""
        if not peak or not seconds(peers, name, work):
            return None
        count = peers[name]["work"][work]["work"]
        return {"compute": count["flop"] / peak[precision], "memory": count["bytes"] / peak["read"]}

    def share(what, name, work, limit, precision, bound):
        if times := least(name, work, precision):
            row(what, 100 * times[limit] / statistics.median(seconds(peers, name, work)), "≥", bound, " %", 0)

    def against(work, other, sign, bound, own=BASE):
        row(f"{work}: time of {other} / {own}", ratio(peers, other, work, own), sign, bound)

    share(f"A: {BASE}, of the f32 FMA peak", BASE, "A", "compute", "f32", 88)
    against("A", "onnxruntime-f32", "≥", 1.25)
    against("A", "transformers-f32", "≥", 1.5)
    share("A: lesion-bf16-compute, of the bf16 peak", "lesion-bf16-compute", "A", "compute", "bf16", 78)
    against("A", "transformers-bf16", "≥", 1.5, "lesion-bf16-compute")
    against("A", "ctranslate2-int8", ">", 1.0, "lesion-bf16-compute")
    against("B", "onnxruntime-f32", "≥", 1.12)
    for name, precision in [(BASE, "f32"), ("lesion-bf16-compute", "bf16")]:
        if bound := least(name, "C", precision):
            limit = max(bound, key=bound.get)
            row(f"C: time of {name} / limit ({limit})", statistics.median(seconds(peers, name, "C")) / bound[limit], "≤", 1.25)
    others = [name for name in peers if name.endswith("-f32") and not name.startswith("lesion") and seconds(peers, name, "C")]
    if others:
        against("C", min(others, key=lambda name: statistics.median(seconds(peers, name, "C"))), "≥", 1.35)
    for name in (BASE, "lesion-bf16"):
        share(f"D: {name}, of the streaming read", name, "D", "memory", "f32", 90)
    against("D", "llama.cpp-bf16", ">", 1.0, "lesion-bf16")
    own = peers.get(BASE, {})
    row(f"process start to first logits, {BASE}", statistics.median(own["start"]) if own.get("start") else None, "≤", 0.1, " s", 1)
    row(f"anonymous memory after A, {BASE}", own["memory"]["anonymous"] / 1e6 if "memory" in own else None, "≤", 80, " MB", 0)
    if gain := thread_gain(measured, threads):
        row(f"1 → {threads} threads: gain of A / gain of the FMA peak", gain[0] / gain[1], "≥", 0.96)
    return rows


def table(header, rows):
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def report(record):
    """The record as Markdown."""
    machine, measured, out = record["machine"], record.get("measured"), []
    out.append(f"# {record['date']}, {machine['cpu']}, {record['threads']} threads\n")
    out.append(
        "Written by `benches/peers/run.py`; times in seconds, median ± half the interquartile range of "
        f"{record['rounds']} interleaved rounds; ratios are medians of the rounds' own ratios to `{BASE}` "
        "(above 1: slower than lesion).\n"
    )
    out.append("\n".join(f"- {key}: {value}" for key, value in machine.items()) + "\n")
    if measured and measured["peers"]:
        peers, limits = measured["peers"], measured["limits"].get(str(record["threads"]))
        if limits:
            peak = peaks(limits)
            out.append(
                f"Limits, measured between the works: f32 FMA {peak['f32'] / 1e9:.0f} GFLOP/s, "
                f"bf16 {peak['bf16'] / 1e9:.0f} GFLOP/s, streaming read {peak['read'] / 1e9:.1f} GB/s.\n"
            )
        if rows := targets(measured, record["threads"]):
            out.append("## Targets\n")
            out.append(table(["work", "measured", "target", "met"], rows))
        works = record["works"]
        for work in works:
            out.append(f"## {work}: {WHAT[work]}\n")
            count = peers.get(BASE, {"work": {}})["work"].get(work, {}).get("work")
            header = ["peer", "s", "tokens/s", "time / lesion-f32"]
            header += ["GFLOP/s", "% of f32 FMA (or of bf16)", "% of read"] if limits and count else []
            header += ["loss"] if work != "D" else ["tokens as lesion's"]
            rows = []
            for name, peer in peers.items():
                row = peer["work"].get(work)
                if not row or not row["seconds"]:
                    continue
                middle = statistics.median(row["seconds"])
                base = peers.get(BASE, {"work": {}})["work"].get(work)
                ratio = shown([a / b for a, b in zip(row["seconds"], base["seconds"])], digits=2) if base else "–"
                given = {"A": 1024, "B": 1024, "C": 16, "D": 64}[work]
                line = [name, shown(row["seconds"], digits=4), f"{given / middle:.0f}", ratio]
                if limits and count:
                    rate = count["flop"] / middle
                    bf16 = name == "lesion-bf16-compute"
                    share = 100 * rate / peak["bf16" if bf16 else "f32"]
                    line += [f"{rate / 1e9:.0f}", f"{share:.0f} of bf16" if bf16 else f"{share:.0f}"]
                    # lesion counts its own bytes; those of f32 weights are read by all f32 peers.
                    own = row.get("work") or (count if "f32" in name else None)
                    line += [f"{100 * own['bytes'] / middle / peak['read']:.0f}" if own else "–"]
                if work == "D":
                    same = base and sum(1 for a, b in zip(row["tokens"], base["tokens"]) if a == b)
                    line.append(f"{same} of {len(row['tokens'])}" if base else "–")
                else:
                    line.append(f"{row['loss']:.6f}")
                rows.append(line)
            out.append(table(header, rows))
        if gain := thread_gain(measured, record["threads"]):
            own, fma = gain
            out.append(f"1 → {record['threads']} threads: A gains {own:.2f}, the FMA peak {fma:.2f} ({own / fma:.2f} of it).\n")
        out.append("## Start and memory\n")
        rows = []
        for name, peer in peers.items():
            memory = peer.get("memory")
            rows.append([
                name,
                shown(peer["start"]) if peer["start"] else "–",
                f"{memory['peak_rss'] / 1e6:.0f}" if memory else "–",
                f"{memory['anonymous'] / 1e6:.0f}" if memory else "–",
                ", ".join(f"{k} {v}" for k, v in peer["versions"].items()),
            ])  # fmt: skip
        out.append(table(["peer", "process start to first logits, s", "peak RSS after A, MB", "anonymous after A, MB", "versions"], rows))
    if record.get("gemm"):
        out.append("## f32 products alone, GFLOP/s\n")
        names = list(dict.fromkeys(name.rsplit(" [", 1)[0] for row in record["gemm"] for name in row["seconds"]))
        rows = []
        for row in record["gemm"]:
            line = [row["shape"], f"{statistics.median(row['fma']) / 1e9:.0f}"]
            for name in names:
                layouts = {key: times for key, times in row["seconds"].items() if key.startswith(f"{name} [")}
                key, times = min(layouts.items(), key=lambda item: statistics.median(item[1]))
                line.append(f"{shown([row['flop'] / t for t in times], 1e-9, 0)} {key.removeprefix(name).strip()}")
            rows.append(line)
        out.append("The better of the layouts of b, [k, n] or [n, k] row-major; lesion's is the file's.\n")
        out.append(table(["MxKxN", "FMA limit", *names], rows))
    if record["disagreements"]:
        out.append("## Disagreements\n\n" + "\n".join(f"- {line}" for line in record["disagreements"]) + "\n")
    skipped = measured["skipped"] if measured else {}
    if skipped:
        out.append("## Not measured\n\n" + "\n".join(f"- {name}: {why}" for name, why in skipped.items()) + "\n")
    return "\n".join(out)


def first_line(command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()[0] if done.returncode == 0 and done.stdout else ""
    except OSError:
        return ""


def machine():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = [line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name")]
    flags = next((line.split(":", 1)[1].split() for line in info.splitlines() if line.startswith("flags")), [])
    caches = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        read = lambda name: (index / name).read_text().strip()
        if read("type") != "Instruction":
            caches.append(f"L{read('level')} {read('size')}")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model[0] if model else platform.processor(),
        "cores": os.cpu_count(),
        "vectors": " ".join(f for f in ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if f in flags),
        "caches": ", ".join(caches),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "compiler": first_line(["rustc", "--version"]),
        "lesion": first_line(["git", "describe", "--always", "--dirty"]),
        "python": platform.python_version(),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def record_path(record, kind=""):
    """Where a record goes, without the ending."""
    slug = "-".join("".join(c if c.isalnum() else " " for c in record["machine"]["cpu"].lower()).split())
    return ROOT / "benches" / "record" / f"{record['date']}-{slug}-{record['threads']}t{kind}"


def write(record, text, path):
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".md").write_text(text)
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    note(f"written: {path.relative_to(ROOT)}.md and .json")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds, after one to warm up (default 7)")
    parser.add_argument("--starts", type=int, default=3, help="process starts timed for each peer (default 3)")
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated; default: all")
    parser.add_argument("--works", default="ABCD", help="default ABCD")
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between turns, for threads to stop spinning")
    parser.add_argument("--gemm-rounds", type=int, default=15, help="0 leaves the products out")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "target" / "peers", help="environment, models, builds: 12 GB")
    parser.add_argument("--setup-only", action="store_true")
    parser.add_argument("--no-record", action="store_true", help="print, write nothing")
    arguments = parser.parse_args()
    names = [name for name in arguments.peers.split(",") if name]
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"no peer {', '.join(unknown)}: there are {', '.join(PEERS)}")

    described = machine()
    setup = Setup(arguments.work_dir.resolve(), names)
    gemm = None
    if arguments.gemm_rounds:
        try:
            gemm = setup.build("gemm")
        except Unavailable as reason:
            setup.skipped["gemm"] = str(reason)
            note(f"skipped gemm: {reason}")
    if arguments.setup_only:
        note(f"ready: {', '.join(setup.ready)}")
        return 0
    if os.getloadavg()[0] > 0.5:
        note(f"warning: the machine is not idle (load {os.getloadavg()[0]:.1f}); figures will be low")

    record = {
        "date": datetime.date.today().isoformat(), "machine": described, "threads": arguments.threads,
        "rounds": arguments.rounds, "works": arguments.works,
    }  # fmt: skip
    record["measured"] = measure(setup, arguments)
    if gemm:
        note("products")
        done = subprocess.run([gemm, str(arguments.threads), str(arguments.gemm_rounds)], capture_output=True, text=True)
        if done.returncode == 0:
            record["gemm"] = json.loads(done.stdout)
        else:
            record["measured"]["skipped"]["gemm"] = (done.stderr.strip().splitlines() or ["failed"])[-1]
    record["disagreements"] = disagreements(record["measured"]["peers"])
    text = report(record)
    print(text)
    if not arguments.no_record:
        write(record, text, record_path(record))
    return 1 if record["disagreements"] else 0


if __name__ == "__main__":
    sys.exit(main())
