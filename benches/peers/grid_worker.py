"""PyTorch's side of grid.py in a process of its own: `python grid_worker.py PEER MODELS PAIR THREADS`.

A patch grid as a user of transformers writes it: the clean run's hidden states once, then a forward pass a cell with a hook
that puts one row of them into the corrupted run; the logits of the last position alone. PAIR is a file
`{"clean": [...], "corrupted": [...], "answer": 3, "other": 7}`. Speaks JSON lines: a line about itself, then for each
`{"work": "grid", "cells": [[layer, position], ...], "times": 1}` a line with `seconds`, those of the clean run apart, and
`values`, the logit differences of the cells.
"""

import json
import os
import sys
import time
from pathlib import Path


class Grid:
    def __init__(self, model, pair, threads):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.model = transformers.GPT2LMHeadModel.from_pretrained(model, dtype=torch.float32).eval()
        self.ids = {run: torch.tensor([pair[run]]) for run in ("clean", "corrupted")}
        self.answer, self.other = pair["answer"], pair["other"]

    def clean(self):
        """The states before each layer, [layer][1, tokens, width]."""
        return self.model(self.ids["clean"], use_cache=False, output_hidden_states=True, logits_to_keep=1).hidden_states

    def cell(self, states, layer, position):
        def patch(module, args):
            hidden = args[0].clone()
            hidden[:, position] = states[layer][:, position]
            return (hidden, *args[1:])

        hook = self.model.transformer.h[layer].register_forward_pre_hook(patch)
        logits = self.model(self.ids["corrupted"], use_cache=False, logits_to_keep=1).logits[0, -1]
        hook.remove()
        return (logits[self.answer] - logits[self.other]).item()


def main():
    name, models, pair, threads = sys.argv[1:]
    # Libraries print to stdout: the protocol keeps it for itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = Grid(Path(models) / f"gpt2-{name.rsplit('-', 1)[1]}", json.loads(Path(pair).read_text()), int(threads))
    print(json.dumps({"peer": name, "versions": peer.versions}), file=out, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        with peer.torch.inference_mode():
            peer.clean()  # wakes threads and clocks
            seconds, clean = [], []
            for _ in range(command["times"]):
                start = time.perf_counter()
                states = peer.clean()
                clean.append(time.perf_counter() - start)
                start = time.perf_counter()
                values = [peer.cell(states, *cell) for cell in command["cells"]]
                seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "clean": clean, "values": values}), file=out, flush=True)


if __name__ == "__main__":
    main()
