"""Golden values for path patching, the prompts and the metric being those of golden_inside.json.

    python tests/data/golden_path.py MODEL_DIR > tests/data/golden_path.json

MODEL_DIR holds the mini model. An independent reference: transformers' GPT2LMHeadModel in float64 with PyTorch hooks, on one
thread, a pass a sender and a pass a receiver, as Wang et al. 2022 (appendix B) describe it: the sender from the clean run in
the corrupted one, other heads (and MLPs, for the direct effect) held, what arrives at the receiver kept, and then put in.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

LAYERS, HEADS, WIDTH = 12, 8, 128
DIM = WIDTH // HEADS
# (receiver: the logits, or layer, input and heads; whether MLPs are held).
CASES = [("logits", True), ("logits", False), ((10, "v", [1]), True), ((9, "q", [0, 5]), False), ((6, "k", [2, 3]), True)]


def columns(site, heads):
    """Of c_attn's output."""
    first = {"q": 0, "k": WIDTH, "v": 2 * WIDTH}[site]
    return [first + head * DIM + i for head in heads for i in range(DIM)]


def run(model, ids, z={}, mlp={}, taken={}, keep=None):
    """Logits of the last position, with the heads' outputs, MLPs' outputs and c_attn's outputs replaced that are given, and
    what the run leaves there."""
    left = {"z": {}, "mlp": {}, "qkv": {}}
    hooks = []

    def put(x, given):
        """x with some columns replaced: (columns, values)."""
        if given is None:
            return x
        x = x.clone()
        x[..., given[0]] = given[1][..., given[0]]
        return x

    def hook(layer, block):
        def before_projection(module, args):
            x = put(args[0], z.get(layer))
            left["z"][layer] = x
            return (x,)

        def behind_mlp(module, args, x):
            x = put(x, mlp.get(layer))
            left["mlp"][layer] = x
            return x

        def behind_qkv(module, args, x):
            x = put(x, taken.get(layer))
            left["qkv"][layer] = x
            return x

        hooks.append(block.attn.c_proj.register_forward_pre_hook(before_projection))
        hooks.append(block.mlp.register_forward_hook(behind_mlp))
        hooks.append(block.attn.c_attn.register_forward_hook(behind_qkv))

    for layer, block in enumerate(model.transformer.h):
        hook(layer, block)
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    for one in hooks:
        one.remove()
    return logits, left


def main():
    torch.set_num_threads(1)
    model = GPT2LMHeadModel.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager").eval()
    given = json.loads((Path(__file__).parent / "golden_inside.json").read_text())
    clean, corrupted = given["prompts"]["clean"], given["prompts"]["corrupted"]
    difference = lambda logits: (logits[given["grid"]["a"]] - logits[given["grid"]["b"]]).item()
    everything = list(range(WIDTH))
    cases = []
    with torch.inference_mode():
        sent = run(model, clean)[1]["z"]
        logits, own = run(model, corrupted)
        for receiver, held in CASES:
            end = LAYERS if receiver == "logits" else receiver[0]
            grid = []
            for sender in range(end):
                row = []
                for head in range(HEADS):
                    mine = list(range(head * DIM, (head + 1) * DIM))
                    z = {layer: (everything, own["z"][layer]) for layer in range(sender + 1, end)} | {sender: (mine, sent[sender])}
                    mlp = {layer: (everything, own["mlp"][layer]) for layer in range(sender, end)} if held else {}
                    found, left = run(model, corrupted, z, mlp)
                    if receiver != "logits":
                        at = columns(*receiver[1:])
                        found, _ = run(model, corrupted, taken={end: (at, left["qkv"][end])})
                    row.append(difference(found))
                grid.append(row)
            name = "logits" if receiver == "logits" else {"layer": receiver[0], "site": receiver[1], "heads": receiver[2]}
            cases.append({"receiver": name, "through": "nothing" if held else "mlps", "values": grid})
    about = "logit(a) - logit(b) at the last position of the corrupted prompt, made by golden_path.py; values are [layer][head] of senders."
    text = json.dumps({"about": about, "corrupted": difference(logits), "cases": cases})
    print(text.replace('"cases": [', '"cases": [\n').replace('}, {"receiver": ', '},\n{"receiver": '))


if __name__ == "__main__":
    main()
