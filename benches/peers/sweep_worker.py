"""PyTorch's side of sweep.py in a process of its own: `python sweep_worker.py PEER MODELS EXAMPLES THREADS`.

Speaks JSON lines: a line about itself, then for each `{"work": "sweep", "examples": "S", "plans": [[0, 1], ...], "times": 1}`
on stdin a line with `seconds` and `losses`: for each plan (a list of layers) and example the summed loss of its scored
tokens, nats. EXAMPLES is a file of sets of examples: `{"S": [{"ids": [...], "scored": [11, 13]}, ...], ...}`. Scored
tokens are the last ones of their example. Nothing is shared between plans but, in a tuned loop, the unembedding.
"""

import json
import os
import sys
import time
from pathlib import Path

# Rows that a tuned loop unembeds at once, at most.
UNEMBEDDED_ROWS = 4096


class Transformers:
    """The model of transformers, its layers re-ordered as a user would: logits at all positions, then cross entropy."""

    def __init__(self, model, threads, dtype):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        self.model = transformers.GPT2LMHeadModel.from_pretrained(model, dtype=dtype).eval()
        self.layers = list(self.model.transformer.h)

    def prepare(self, examples):
        """One batch: these are examples of equal length."""
        (scored,) = {tuple(example["scored"]) for example in examples}
        return self.torch.tensor([example["ids"] for example in examples]), scored

    def sweep(self, prepared, plans):
        ids, (start, end) = prepared
        losses = []
        with self.torch.inference_mode():
            for plan in plans:
                self.model.transformer.h = self.torch.nn.ModuleList([self.layers[layer] for layer in plan])
                logits = self.model(ids, use_cache=False).logits[:, start - 1 : end - 1].float()
                nll = self.torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, start:end], reduction="none")
                losses.append(nll.double().sum(1).tolist())
        return losses


class Matrix:
    """A linear map in the kinds of products that PyTorch has: its own, and those on packed weights to which torch.compile
    turns a frozen model. Which is the fastest is measured once for each shape, and holds for all layers."""

    fastest = {}

    def __init__(self, torch, weight, bias, tuned):
        self.torch, self.weight, self.bias, self.tuned = torch, weight, bias, tuned
        self.ready = {}

    def kinds(self):
        own = ["own"]
        if self.tuned:
            own += ["onednn"] if self.torch.backends.mkldnn.is_available() else []
            own += ["mkl"] if self.torch.backends.mkl.is_available() and self.weight.dtype == self.torch.float32 else []
        return own

    def packed(self, kind, rows, gelu):
        """The map for so many rows."""
        torch, weight, bias = self.torch, self.weight, self.bias
        functional, onednn, mkl = torch.nn.functional, torch.ops.mkldnn, torch.ops.mkl
        after = (lambda y: functional.gelu(y, approximate="tanh")) if gelu else (lambda y: y)
        if kind == "own":
            return lambda x: after(functional.linear(x, weight, bias))
        if kind == "onednn":
            blocked = onednn._reorder_linear_weight(weight, rows)
            fused = ("gelu", [], "tanh") if gelu else ("none", [], "")
            return lambda x: onednn._linear_pointwise(x, blocked, bias, *fused)
        blocked = mkl._mkl_reorder_linear_weight(weight, rows)
        return lambda x: after(mkl._mkl_linear(x, blocked, weight, bias, rows))

    def choose(self, x, gelu):
        multiply = {kind: self.packed(kind, x.shape[0], gelu) for kind in self.kinds()}
        seconds = dict.fromkeys(multiply, float("inf"))
        # In turns, the first ones untimed.
        for turn in range(10 if len(multiply) > 1 else 0):
            for kind, product in multiply.items():
                taken = timed(lambda: product(x))
                seconds[kind] = min(seconds[kind], taken) if turn > 1 else seconds[kind]
        return min(seconds, key=seconds.get)

    def __call__(self, x, gelu=False):
        rows = x.shape[0]
        if (rows, gelu) not in self.ready:
            shape = (rows, *self.weight.shape, gelu)
            if shape not in Matrix.fastest:
                Matrix.fastest[shape] = self.choose(x, gelu)
            self.ready[rows, gelu] = self.packed(Matrix.fastest[shape], rows, gelu)
        return self.ready[rows, gelu](x)


class Loop:
    """GPT-2 in PyTorch's functions, a plan after another.

    Plain: all examples in one batch, padded on the right; only scored rows are unembedded. Tuned, besides: no padding (rows
    are packed, attention runs for each length), the fastest products (see Matrix), of a plan's last block only what scored
    rows need, and the scored rows of as many plans unembedded at once as is fastest.
    """

    def __init__(self, model, threads, tuned):
        import torch
        from safetensors.torch import load_file

        torch.set_num_threads(threads)
        self.torch, self.tuned = torch, tuned
        self.versions = {"torch": torch.__version__}
        config = json.loads((model / "config.json").read_text())
        self.n_layer, self.n_head, self.eps = config["n_layer"], config["n_head"], config["layer_norm_epsilon"]
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(model / "model.safetensors").items()}
        self.wte, self.wpe = tensors["wte.weight"], tensors["wpe.weight"]
        self.d = self.wte.shape[1]
        self.kept = {"head": Matrix(torch, self.wte, None, tuned)}
        for layer in range(self.n_layer):
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                # PyTorch's maps are [out, in], the file's matrices [in, out].
                weight = tensors[f"h.{layer}.{name}.weight"].t().contiguous()
                bias = tensors[f"h.{layer}.{name}.bias"]
                self.kept[layer, name] = Matrix(torch, weight, bias, tuned)
                if name == "attn.c_attn":
                    self.kept[layer, "query"] = Matrix(torch, weight[: self.d], bias[: self.d], tuned)
                    self.kept[layer, "key value"] = Matrix(torch, weight[self.d :], bias[self.d :], tuned)
            for name in ("ln_1", "ln_2"):
                self.kept[layer, name] = tensors[f"h.{layer}.{name}.weight"], tensors[f"h.{layer}.{name}.bias"]
        self.kept["ln_f"] = tensors["ln_f.weight"], tensors["ln_f.bias"]

    def norm(self, x, key):
        weight, bias = self.kept[key]
        return self.torch.nn.functional.layer_norm(x, (self.d,), weight, bias, self.eps)

    def prepare(self, examples):
        """The batch: rows of examples sorted by length, `groups` of equal ones."""
        torch = self.torch
        order = sorted(range(len(examples)), key=lambda i: len(examples[i]["ids"]))
        longest = max(len(example["ids"]) for example in examples)
        ids, positions, scored, targets, owners, groups = [], [], [], [], [], []
        for i in order:
            sequence, (start, end) = examples[i]["ids"], examples[i]["scored"]
            assert end == len(sequence), "scored tokens are the last ones"
            # The last token predicts nothing.
            sequence = sequence[:-1]
            if not self.tuned:
                sequence = sequence + [0] * (longest - end)
            scored += range(len(ids) + start - 1, len(ids) + end - 1)
            targets += examples[i]["ids"][start:end]
            owners += [i] * (end - start)
            shape = (len(sequence), end - start)
            if groups and groups[-1][1:] == shape:
                groups[-1] = (groups[-1][0] + 1, *shape)
            else:
                groups.append((1, *shape))
            ids += sequence
            positions += range(len(sequence))
        batch = {
            "x": self.wte[torch.tensor(ids)] + self.wpe[torch.tensor(positions)],
            "scored": torch.tensor(scored), "targets": torch.tensor(targets), "owners": torch.tensor(owners),
            "examples": len(examples), "groups": groups, "at_once": 1,
        }  # fmt: skip
        # Nothing else in the loop is chosen by its speed.
        if self.tuned:
            with torch.inference_mode():
                most = max(1, UNEMBEDDED_ROWS // len(scored))
                rows = self.norm(batch["x"][batch["scored"]], "ln_f")
                per_plan = {}
                for n in (n for n in (1, 4, 16, 64) if n <= most):
                    given = [rows] * n
                    per_plan[n] = min(timed(lambda: self.losses(batch, given)) for _ in range(3)) / n
                batch["at_once"] = min(per_plan, key=per_plan.get)
        # Each layer as the last and before: weights are packed when first used.
        self.sweep(batch, [[layer, layer] for layer in range(self.n_layer)])
        return batch

    def attention(self, batch, q, k, v, asking):
        """`q` of all rows, or of those asking; keys and values of all. Group by group of equal lengths."""
        torch, out, row, first = self.torch, [], 0, 0
        for n, length, scored in batch["groups"]:
            asked = scored if asking else length
            heads = lambda x, start, rows: x[start : start + n * rows].view(n, rows, self.n_head, -1).transpose(1, 2)
            whole = asked == length
            mask = None if whole else torch.ones(asked, length, dtype=torch.bool).tril(length - asked)
            z = torch.nn.functional.scaled_dot_product_attention(
                heads(q, first, asked), heads(k, row, length), heads(v, row, length), attn_mask=mask, is_causal=whole
            )
            out.append(z.transpose(1, 2).reshape(n * asked, self.d))
            row, first = row + n * length, first + n * asked
        return out[0] if len(out) == 1 else torch.cat(out)

    def block(self, batch, x, layer):
        q, k, v = self.kept[layer, "attn.c_attn"](self.norm(x, (layer, "ln_1"))).split(self.d, dim=1)
        return self.rest(x, self.attention(batch, q, k, v, False), layer)

    def last_block(self, batch, x, layer):
        """The scored rows of it."""
        normed = self.norm(x, (layer, "ln_1"))
        k, v = self.kept[layer, "key value"](normed).split(self.d, dim=1)
        q = self.kept[layer, "query"](normed[batch["scored"]])
        return self.rest(x[batch["scored"]], self.attention(batch, q, k, v, True), layer)

    def rest(self, x, z, layer):
        x = x + self.kept[layer, "attn.c_proj"](z)
        inner = self.kept[layer, "mlp.c_fc"](self.norm(x, (layer, "ln_2")), gelu=True)
        return x + self.kept[layer, "mlp.c_proj"](inner)

    def final(self, batch, plan):
        """What a plan makes of the scored rows, behind the final LayerNorm."""
        x = batch["x"]
        trimmed = self.tuned and len(plan) > 0
        for layer in plan[:-1] if trimmed else plan:
            x = self.block(batch, x, layer)
        x = self.last_block(batch, x, plan[-1]) if trimmed else x[batch["scored"]]
        return self.norm(x, "ln_f")

    def losses(self, batch, finals):
        """For each plan, given its final rows, the losses of the examples."""
        torch = self.torch
        logits = self.kept["head"](finals[0] if len(finals) == 1 else torch.cat(finals)).float()
        nll = torch.nn.functional.cross_entropy(logits, batch["targets"].repeat(len(finals)), reduction="none")
        sums = torch.zeros(len(finals), batch["examples"], dtype=torch.float64)
        return sums.index_add_(1, batch["owners"], nll.double().view(len(finals), -1)).tolist()

    def sweep(self, batch, plans):
        with self.torch.inference_mode():
            losses, finals = [], []
            for plan in plans:
                finals.append(self.final(batch, plan))
                if len(finals) == batch["at_once"]:
                    losses += self.losses(batch, finals)
                    finals = []
            # One by one: of fewer at once, the fastest product is not known.
            return losses + [self.losses(batch, [final])[0] for final in finals]

    def about(self, batch):
        chosen = {f"{rows}x{k}x{n}{' gelu' if gelu else ''}": kind for (rows, n, k, gelu), kind in Matrix.fastest.items()}
        return {"plans unembedded at once": batch["at_once"], "products": chosen}


def timed(what):
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


def make(name, models, threads):
    kind, dtype = name.rsplit("-", 1)
    model = models / f"gpt2-{dtype}"
    if kind == "transformers":
        return Transformers(model, threads, dtype)
    return Loop(model, threads, {"torch-plain": False, "torch-tuned": True}[kind])


def main():
    name, models, examples, threads = sys.argv[1:]
    # Libraries print to stdout: the protocol keeps it for itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        print(json.dumps(line), file=out, flush=True)

    peer = make(name, Path(models), int(threads))
    sets, batches = json.loads(Path(examples).read_text()), {}
    say({"peer": name, "versions": peer.versions})
    for line in sys.stdin:
        command = json.loads(line)
        if command["examples"] not in batches:
            batches[command["examples"]] = peer.prepare(sets[command["examples"]])
        batch = batches[command["examples"]]
        peer.sweep(batch, command["plans"][:1])  # wakes threads and clocks
        answer = {"seconds": []}
        for _ in range(command["times"]):
            start = time.perf_counter()
            answer["losses"] = peer.sweep(batch, command["plans"])
            answer["seconds"].append(time.perf_counter() - start)
        if hasattr(peer, "about"):
            answer["about"] = peer.about(batch)
        say(answer)


if __name__ == "__main__":
    main()
