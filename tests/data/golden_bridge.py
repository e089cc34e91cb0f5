"""Golden values for linear shortcuts between layers: plans that cross them, ridge regression, readings, a lens's gradient.

    python tests/data/golden_bridge.py MODEL_DIR > tests/data/golden_bridge.json

MODEL_DIR holds the mini model. An independent reference: transformers' GPT2LMHeadModel in float64 on one thread, its blocks in
the plan's order; normal equations by numpy.linalg.solve; the lens's gradient by torch.autograd. States that are fitted to are
rounded to float32 first, as a tap of the engine gives them.
"""

import json
import re
import sys

import numpy
import torch
import transformers
from transformers import GPT2LMHeadModel

LAYERS, WIDTH = 12, 128
RULE = "A[i][j] = (i == j) + ((31 i + 17 j) % 13 - 6) / 200, b[i] = ((37 i) % 11 - 5) / 20, in float32"
SEQUENCES = "ids[i] = (37 i + 101 w + 5) % 2000 for i < 64, w < 12; w = 2, 5, 8, 11 are held out"
PLANS = [
    "0..6,bridge(6:11,rule),11",
    "0..6,bridge(6:12,rule)",
    "bridge(0:3,rule),3..12",
    "bridge(0:12,rule)",
    "0..4,(4|bridge(4:5,rule)|none),5..12",
    "0..3,bridge(3:3,rule)*2,3..12",
    "0..5,5a,bridge(6:8,rule),8..11,11m",
    "(0..6|0..2,bridge(2:6,rule)),6..12",
]
IDS = [0, 275, 325, 303, 1216, 292, 7, 100, 500, 1999]
PAIRS = [(3, 7), (6, 12), (5, 5)]
LAMBDA = 0.01
AT = [(0, 0), (0, 127), (5, 9), (31, 31), (64, 2), (100, 100), (127, 0), (127, 127)]
TUNED_LAYER = 5


def rule():
    i = numpy.arange(WIDTH)
    a = ((31 * i[:, None] + 17 * i[None, :]) % 13 - 6).astype(numpy.float32) / numpy.float32(200)
    a = a + numpy.eye(WIDTH, dtype=numpy.float32)
    b = ((37 * i) % 11 - 5).astype(numpy.float32) / numpy.float32(20)
    return torch.tensor(a).double(), torch.tensor(b).double()


def split(text, by):
    parts, depth = [""], 0
    for c in text:
        depth += (c in "(") - (c in ")")
        if c == by and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


class Model:
    def __init__(self, folder):
        model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        self.model, self.maps = model.double().eval(), {}

    def embed(self, ids):
        return self.model.transformer.wte(torch.tensor(ids)) + self.model.transformer.wpe(torch.arange(len(ids)))

    def block(self, layer, half, h):
        """One sequence, [tokens, width]; the mask is written out, as the blocks take it."""
        block, tokens = self.model.transformer.h[layer], h.shape[0]
        mask = torch.full((tokens, tokens), -torch.inf, dtype=torch.float64).triu(1)[None, None]
        x = h[None]
        if half != "m":
            x = x + block.attn(block.ln_1(x), attention_mask=mask)[0]
        if half != "a":
            x = x + block.mlp(block.ln_2(x))
        return x[0]

    def walk(self, plan, h):
        for item in split(plan, ","):
            if item == "none":
                continue
            text, _, count = item.partition("*")
            for _ in range(int(count or 1)):
                if text[0] == "(":
                    branches = split(text[1:-1], "|")
                    h = sum(self.walk(branch, h) for branch in branches) / len(branches)
                elif text.startswith("bridge("):
                    a, b = self.maps[text[7:-1].split(",")[1]]
                    h = h @ a + b
                else:
                    first, last, half = re.fullmatch(r"(\d+)(?:\.\.(\d+))?([am]?)", text).groups()
                    for layer in range(int(first), int(last) if last else int(first) + 1):
                        h = self.block(layer, half, h)
        return h

    def states(self, ids):
        states = [self.embed(ids)]
        for layer in range(LAYERS):
            states.append(self.block(layer, "", states[-1]))
        return states

    def read(self, h):
        return torch.log_softmax(self.model.lm_head(self.model.transformer.ln_f(h)), dim=-1)


def ridge(x, y):
    """A and b of states in float32, [rows, width]."""
    x, y = x.astype(numpy.float64), y.astype(numpy.float64)
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    gram = x.T @ x
    a = numpy.linalg.solve(gram + LAMBDA * numpy.trace(gram) / WIDTH * numpy.eye(WIDTH), x.T @ y)
    return a, mean_y - mean_x @ a


def reading(model, plan, guess, samples, layer):
    """A plan on held-out samples: `guess` of a sample's states and the state at the input of `layer`."""
    target, predicted, first, rows = [], [], [], []
    for ids in samples:
        states = model.states(ids)
        target.append(states[layer][:-1])
        predicted.append(guess(states)[:-1])
        first += [row == 0 for row in range(len(ids) - 1)]
        p, q = model.read(states[LAYERS])[:-1], model.read(model.walk(plan, model.embed(ids)))[:-1]
        nll = -q[range(len(ids) - 1), ids[1:]]
        likeliest = p.argmax(dim=-1)
        rank = (q > q[range(len(ids) - 1), likeliest][:, None]).sum(dim=-1)
        rows.append(torch.stack([(p.exp() * (p - q)).sum(dim=-1), nll, rank.double()]))
    target, predicted, rows = torch.cat(target), torch.cat(predicted), torch.cat(rows, dim=1)

    def r2(keep):
        y, guess = target[keep], predicted[keep]
        return float(1 - ((y - guess) ** 2).sum() / ((y - y.mean(dim=0)) ** 2).sum())

    kl, nll, rank = rows
    return {"r2": r2(~torch.tensor(first)), "r2_with_first": r2(torch.ones(len(first)).bool()),
            "divergence": float(kl.mean()), "nll": float(nll.mean()),
            "precision_at_1": float((rank < 1).double().mean()), "precision_at_10": float((rank < 10).double().mean())}


def over(pair, name=None):
    before = f"0..{pair[0]}" if pair[0] else None
    behind = f"{pair[1]}..{LAYERS}" if pair[1] < LAYERS else None
    bridge = f"bridge({pair[0]}:{pair[1]},{name})" if name else None
    return ",".join(part for part in (before, bridge, behind) if part) or "none"


def tuned(model, samples):
    """Mean divergence of a lens at the rule's map, and its gradient by the map, of all rows of `samples`."""
    a, b = (x.clone().requires_grad_() for x in model.maps["rule"])
    loss, rows = 0.0, 0
    for ids in samples:
        states = model.states(ids)
        h, final = states[TUNED_LAYER][:-1].float().double().detach(), states[LAYERS][:-1].float().double().detach()
        p, q = model.read(final).detach(), model.read(h @ a + b)
        loss, rows = loss + (p.exp() * (p - q)).sum(), rows + len(ids) - 1
    (loss / rows).backward()
    return {"layer": TUNED_LAYER, "divergence": float(loss.detach()) / rows, "by_weight": [float(a.grad[at]) for at in AT],
            "by_bias": [float(b.grad[i]) for i, _ in AT], "by_weight_norm": float(a.grad.norm())}


def main():
    torch.set_num_threads(1)
    model = Model(sys.argv[1])
    model.maps["rule"] = rule()
    with torch.no_grad():
        own = model.model(torch.tensor([IDS])).logits[0].log_softmax(dim=-1)
        error = float((own - model.read(model.states(IDS)[LAYERS])).abs().max())
        print(f"the blocks against the whole model: {error:.1e}", file=sys.stderr)
        plans = []
        for plan in PLANS:
            read = model.read(model.walk(plan, model.embed(IDS)))
            plans.append({"plan": plan, "nll": (-read[range(len(IDS) - 1), IDS[1:]]).tolist()})
        sequences = [[(37 * i + 101 * w + 5) % 2000 for i in range(64)] for w in range(12)]
        held_out = [ids for w, ids in enumerate(sequences) if w % 3 == 2]
        train = [model.states(ids) for w, ids in enumerate(sequences) if w % 3 != 2]
        pairs = []
        for pair in PAIRS:
            x, y = (torch.cat([states[layer][:-1] for states in train]).float().numpy() for layer in pair)
            a, b = ridge(x, y)
            name = f"fit{pair[0]}"
            narrow = tuple(torch.tensor(part.astype(numpy.float32)).double() for part in (a, b))
            model.maps[name] = narrow
            pairs.append({
                "from": pair[0], "to": pair[1], "weight": [float(a[at]) for at in AT], "bias": [float(b[i]) for i, _ in AT],
                "weight_norm": float(numpy.linalg.norm(a)), "bias_norm": float(numpy.linalg.norm(b)),
                "bridge": reading(model, over(pair, name), lambda s: s[pair[0]] @ narrow[0] + narrow[1], held_out, pair[1]),
                "identity": reading(model, over(pair), lambda s: s[pair[0]], held_out, pair[1]),
            })
    about = (f"Hugging Face transformers {transformers.__version__}, torch {torch.__version__}, numpy {numpy.__version__}, "
             "float64, made by golden_bridge.py. nll[i] is -ln p(ids[i+1] | ids[..=i]); weight and bias are those at `at`.")
    golden = {"about": about, "rule": RULE, "sequences": SEQUENCES, "lambda": LAMBDA, "at": AT, "ids": IDS, "plans": plans,
              "pairs": pairs, "tuned": tuned(model, [sequences[0], sequences[1]])}
    json.dump(golden, sys.stdout, indent=1)
    print()


main()
