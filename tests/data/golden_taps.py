"""Golden values of the taps that nothing changes: what LayerNorms leave, scores, neurons before the GELU, embeddings.

    python tests/data/golden_taps.py MODEL_DIR > tests/data/golden_taps.json

MODEL_DIR holds the mini model; the prompt is golden_inside.json's `clean`. An independent reference: transformers'
GPT2LMHeadModel in float64 with PyTorch hooks. Rows are as in golden_inside.json; of scores, which are -inf behind the query,
sums are those of the finite ones.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel

HEADS, WIDTH = 8, 128
DIM = WIDTH // HEADS


def main():
    torch.set_num_threads(1)
    model = GPT2LMHeadModel.from_pretrained(sys.argv[1], dtype=torch.float64, attn_implementation="eager").eval()
    ids = json.loads((Path(__file__).parent / "golden_inside.json").read_text())["prompts"]["clean"]
    found, gpt = {}, model.transformer

    def left(name):
        return lambda module, args, x: found.__setitem__(name, x[0] if x.dim() == 3 else x)

    def taken(name):
        return lambda module, args: found.__setitem__(name, args[0][0])

    gpt.wte.register_forward_hook(left("hook_embed"))
    gpt.wpe.register_forward_hook(left("hook_pos_embed"))
    gpt.ln_f.register_forward_hook(left("ln_final.hook_normalized"))
    gpt.ln_f.register_forward_pre_hook(taken("final"))
    for layer in (0, 5, 11):
        block = gpt.h[layer]
        block.ln_1.register_forward_hook(left(f"blocks.{layer}.ln1.hook_normalized"))
        block.ln_2.register_forward_hook(left(f"blocks.{layer}.ln2.hook_normalized"))
        block.mlp.c_fc.register_forward_hook(left(f"blocks.{layer}.mlp.hook_pre"))
        block.attn.c_attn.register_forward_hook(left(f"qkv {layer}"))
    with torch.inference_mode():
        model(torch.tensor([ids]), use_cache=False)
        final = found.pop("final")
        found["ln_final.hook_scale"] = (final.var(1, unbiased=False, keepdim=True) + model.config.layer_norm_epsilon).sqrt()
        for layer in (0, 5, 11):
            q, k, _ = (x.reshape(len(ids), HEADS, DIM) for x in found.pop(f"qkv {layer}").split(WIDTH, 1))
            scores = torch.einsum("qhd,khd->qhk", q, k) / DIM**0.5
            scores.masked_fill_(torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)[:, None], -torch.inf)
            found[f"blocks.{layer}.attn.hook_attn_scores"] = scores.flatten(1)
    taps = []
    for name, x in sorted(found.items()):
        rows = []
        for p in (0, 3, len(ids) - 1):
            finite = x[p][x[p].isfinite()]
            rows.append({"position": p, "first": x[p, : 1 if "scores" in name else 5].tolist(), "finite": len(finite),
                         "sum": finite.sum().item(), "sum_of_squares": (finite**2).sum().item()})  # fmt: skip
        taps.append({"name": name, "shape": list(x.shape), "rows": rows})
    print(json.dumps({"about": "made by golden_taps.py", "taps": taps}).replace('{"name"', '\n{"name"'))


if __name__ == "__main__":
    main()
