"""Golden values for what happens inside an execution: sites, modifiers, logit lens, attribution, patch grids.

    python tests/data/golden_inside.py MODEL_DIR > tests/data/golden_inside.json

MODEL_DIR holds the mini model. An independent reference: the blocks are transformers' GPT2LMHeadModel in float64 with
PyTorch hooks, on one thread; only the attention function is written here, because no hook reaches probabilities, and
the plan's order is walked here. `check` compares both with transformers' own model first; its errors go to stderr.

Activations are [tokens, width]. Sites have the notation's short names inside, TransformerLens's in the output.
"""

import json
import re
import sys

import tokenizers
import torch
import transformers
from transformers import GPT2LMHeadModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

LAYERS, HEADS, WIDTH = 12, 8, 128
SITES = {
    "pre": "hook_resid_pre", "ln1": "ln1.hook_scale", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v",
    "pattern": "attn.hook_pattern", "z": "attn.hook_z", "attn": "hook_attn_out", "mid": "hook_resid_mid",
    "ln2": "ln2.hook_scale", "neurons": "mlp.hook_post", "mlp": "hook_mlp_out", "post": "hook_resid_post",
}  # In the order in which a block passes them.
INTACT = "0..12"
TEXTS = {
    "clean": "When Tom and Jack went to the market, Tom gave a lamp to",
    "corrupted": "When Tom and Jack went to the market, Jack gave a lamp to",
    "other": "The capital of Spain is",
}
RULE = "v[i] = ((i * 37) % 11 - 5) / 10"
LOGIT_IDS = [0, 7, 100, 500, 2047]
AT = {"clean": {"prompt": "clean", "plan": INTACT}, "corrupted": {"prompt": "corrupted", "plan": INTACT},
      "other": {"prompt": "other", "plan": INTACT}, "ref": {"prompt": "other", "plan": INTACT},
      "joy": {"vector": RULE}, "skipped": {"prompt": "clean", "plan": "0..3,4..12"},
      "ablated": {"prompt": "corrupted", "plan": "0..5[zero h1],5..12"}}
ABOUT = (
    f"Hugging Face transformers {transformers.__version__} with hooks, torch {torch.__version__}, float64, made by "
    "golden_inside.py. Sites: the intact plan on clean; shape is [tokens, width], a pattern's row is heads × all keys. "
    "Cases: nll[i] is -ln p(ids[i+1] | ids[..=i]), logits are at the last position for logit_ids; "
    "f32_references_max_abs_error is how far these move where references and their means are rounded to f32. "
    "Lens: state 0 is the embedding, state k stands behind layer k - 1; kl is KL(final || here) in nats. Attribution "
    "and grid: logit(a) - logit(b) at the last position; the grid patches clean into corrupted: [layer][position], "
    "z [layer][head]."
)
SAME = "changes nothing: the prompts are the same up to there"

# (plan, prompt, note); the references are the names behind `from`, looked up in AT.
CASES = [
    ("0..5,5[zero h1],6..12", "clean", "a head"),
    ("0..5,5[zero h1 h2],6..12", "clean", "two heads"),
    ("0[zero h0 h7],1..12", "clean", "in the first layer"),
    ("0..11,11[zero h3]", "clean", "in the last layer"),
    ("0..5,5[zero h1 h2 @2..5],6..12", "clean", "heads at some positions"),
    ("0..5,5[zero z],6..12", "clean", "all heads: c_proj's bias is left"),
    ("0..5,5[zero z @0],6..12", "clean", "all heads at the first position"),
    ("0..5,5[zero q h3],6..12", "clean", "a head's queries: its pattern is uniform"),
    ("0..5,5[zero q],6..12", "clean", "all queries"),
    ("0..5,5[zero k h3],6..12", "clean", "a head's keys"),
    ("0..5,5[zero k h3 @2..5],6..12", "clean", "keys at some positions, seen by all later queries"),
    ("0..5,5[zero v h3],6..12", "clean", "a head's values"),
    ("0..5,5[zero v h3 h4 @10],6..12", "clean", "values at one position"),
    ("0..5,5[zero attn],6..12", "clean", "attention's output with its bias"),
    ("0..2,2[zero attn @4],3..12", "clean", "attention's output at one position"),
    ("0..5,5[zero mlp],6..12", "clean", "the MLP's output with its bias"),
    ("0..5,5[zero attn,zero mlp],6..12", "clean", "the same as 0..5,6..12"),
    ("0..5,5[zero n17 n300],6..12", "clean", "two neurons"),
    ("0[zero n0 n511 @3..9],1..12", "clean", "the first and last neuron at some positions"),
    ("0..5,5[zero neurons @4..6],6..12", "clean", "all neurons at some positions: c_proj's bias is left"),
    ("0..5,5[zero neurons],6..12", "other", "all neurons"),
    ("0..5,5[zero pre @3],6..12", "clean", "the residual stream before a layer at one position"),
    ("0..5,5[zero mid],6..12", "clean", "the residual stream between the halves: rows differ no longer"),
    ("0..5,5[zero mid @2..4],6..12", "clean", "the same at some positions"),
    ("0..5,5[zero post @2],6..12", "clean", "the residual stream behind a layer at one position"),
    ("0..11,11[zero post @2]", "clean", "behind the last layer: ln_f of zero is its bias"),
    ("0..5,5[mean z from ref],6..12", "clean", "the mean over all tokens, the first among them"),
    ("0..5,5[mean h2 from ref],6..12", "clean", "a head's mean"),
    ("0..5,5[mean q h2 from ref],6..12", "clean", "a head's queries"),
    ("0..5,5[mean mlp from ref @3..9],6..12", "clean", "the MLP's mean at some positions"),
    ("0..5,5[mean neurons from ref],6..12", "clean", "all neurons"),
    ("0..5,5[mean n17 n300 from ref @10..15],6..12", "clean", "two neurons at some positions"),
    ("0..5,5[mean pre from ref @9],6..12", "clean", "the residual stream's mean at one position"),
    ("0..3,3[mean attn from clean],4..12", "corrupted", "of the longer prompt"),
    ("0..5,5[patch pre from clean @10],6..12", "corrupted", "only position 10 differs before layer 0"),
    ("0..5,5[patch pre from clean],6..12", "corrupted", "all positions: the end of the clean run"),
    ("0..5,5[patch ln1 from clean],6..12", "corrupted", "frozen LayerNorm scale"),
    ("0..5,5[patch ln1 from other @2..6],6..12", "corrupted", "the same of another prompt at some positions"),
    ("0..5,5[patch q h1 from clean],6..12", "corrupted", ""),
    ("0..5,5[patch k h1 from clean],6..12", "corrupted", ""),
    ("0..5,5[patch v h1 from clean],6..12", "corrupted", ""),
    ("0..5,5[patch v from clean @10],6..12", "corrupted", "all heads at one position"),
    ("0..5,5[patch pattern h1 from clean],6..12", "corrupted", "a head's frozen probabilities"),
    ("0..5,5[patch pattern from clean],6..12", "corrupted", "all heads' frozen probabilities"),
    ("0..5,5[patch pattern h0 h6 from other @1..6],6..12", "corrupted", "of a shorter prompt: later keys get 0"),
    ("0..5,5[patch z from clean],6..12", "corrupted", ""),
    ("0..5,5[patch h3 from clean],6..12", "corrupted", ""),
    ("0..5,5[patch h3 from clean @7],6..12", "corrupted", SAME),
    ("0..5,5[patch h3 from clean @10],6..12", "corrupted", "where the prompts differ"),
    ("0..5,5[patch h3 from other @2..5],6..12", "corrupted", "of another prompt at early positions"),
    ("0..9,9[patch h2 h5 from clean @14],10..12", "corrupted", "two heads at the last position"),
    ("0..5,5[patch attn from clean],6..12", "corrupted", ""),
    ("0..5,5[patch attn from clean @7],6..12", "corrupted", SAME),
    ("0..5,5[patch attn from clean @10..13],6..12", "corrupted", ""),
    ("0..5,5[patch mid from clean @10],6..12", "corrupted", ""),
    ("0..5,5[patch mid from other @1..4],6..12", "corrupted", "of another prompt"),
    ("0..5,5[patch ln2 from clean],6..12", "corrupted", "frozen LayerNorm scale"),
    ("0..3,3[patch ln1 from clean,patch ln2 from clean],4..12", "corrupted", "both scales"),
    ("0[patch ln2 from other @0..3],1..12", "clean", "of another prompt at some positions"),
    ("0..5,5[patch neurons from clean],6..12", "corrupted", ""),
    ("0..5,5[patch n5 from clean],6..12", "corrupted", "a neuron"),
    ("0..5,5[patch n5 n6 n7 from other @3..6],6..12", "corrupted", "neurons of another prompt"),
    ("0..5,5[patch mlp from clean],6..12", "corrupted", ""),
    ("0..5,5[patch mlp from clean @10],6..12", "corrupted", ""),
    ("0..5,5[patch post from clean @12],6..12", "corrupted", ""),
    ("0..11,11[patch post from clean]", "corrupted", "behind the last layer: the clean run's logits"),
    ("0..8,8[patch h1 from ablated],9..12", "corrupted", "from a run of another plan"),
    ("0..8,8[patch mid from skipped @5..11],9..12", "clean", "from a run without layer 3"),
    ("0..6,6[steer 4 post from joy],7..12", "clean", "at all positions"),
    ("0..6,6[steer 4 post from joy @5..8],7..12", "clean", "at some positions"),
    ("0..6,6[steer -2.5 mlp from joy @8],7..12", "clean", "along the MLP's output, backwards"),
    ("0[steer 0.5 pre from joy],1..12", "other", "at the embedding"),
    ("0..4,4[steer 1 attn from joy,steer 0.5 mid from joy],5..12", "clean", "at two sites"),
    ("0..5,5[knockout h3 keys 2..4 @9],6..12", "clean", "a head, a query, two keys"),
    ("0..5,5[knockout keys 0 @5..9],6..12", "clean", "all heads no longer see the first token"),
    ("0..5,5[knockout h0 h1 keys 1..3 @3..15],6..12", "clean", "two heads"),
    ("0..9,9[knockout keys 3..12 @14],10..12", "clean", "the last query"),
    ("0..5,5[knockout keys 10..13 @11],6..12", "clean", "a range of keys that reaches behind the query"),
    ("0..3,3[zero h1],4..12", "clean", "layer 3 once, changed"),
    ("0..4,3[zero h1],4..12", "clean", "layer 3 twice, the second changed"),
    ("0..3,3[zero h1],3,4..12", "clean", "layer 3 twice, the first changed"),
    ("0..3,3[patch h3 from other @1..5]*3,4..12", "clean", "layer 3 three times, each changed"),
    ("11..=6,5[zero mlp],4..=0", "clean", "reversed"),
    ("11..=6,5[patch mlp from clean @10],4..=0", "corrupted", "reversed; the reference is not"),
    ("0..4,(4[zero h1]|5),6..12", "clean", "side by side: the mean of the branches' ends"),
    ("0..4,(4[steer 2 post from joy]|5,6|none),7..12", "clean", "three branches, one of them empty"),
    ("0..6,6a[zero h0],7m[zero n3],8..12", "clean", "attention half of 6, MLP half of 7"),
    ("0..6,6a[patch pre from other @2..5,zero post @8],7m[steer 1 post from joy],8..12", "clean", "halves' ends"),
    ("0..3,3..6[zero h0],6..12", "clean", "modifiers of a range apply to each of its layers"),
    ("0..5,5[zero h1,patch mlp from clean @3,knockout h2 keys 1 @6],6..12", "corrupted",
     "three at once; the patch changes something as the head is zeroed before it"),
    ("0..5,5[zero h1,patch mlp from clean @11,knockout h2 keys 1 @6],6..12", "corrupted", "three at once"),
    ("0..5,5[knockout h1 keys 2 @10..15,patch pattern h1 from clean @12],6..12", "corrupted",
     "one head: keys are cut before the softmax, probabilities patched behind it"),
    ("0..5,5[zero post @2,steer 4 post from joy],6..12", "clean", "of one site, in the order written"),
    ("0..5,5[steer 4 post from joy,zero post @2],6..12", "clean", "the other order"),
    ("0..5,5[zero mlp @4,zero h1],6..12", "clean", "sites come in their own order"),
    ("0..5,5[patch ln1 from clean,zero pre @3,mean h4 from other,patch n5 from clean @12],6..12", "corrupted",
     "four sites"),
    ("0..2,2[zero h4],3..8,8[steer 1 post from joy @6..15],9..12", "corrupted", "two layers"),
]


# --- plans ---------------------------------------------------------------------------------------------------------

def split(text, by):
    """Parts of `text` between `by`s outside brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "[(") - (c in "])")
        if c == by and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def span(text):
    """`3` or `2..5` as a range."""
    first, _, end = text.partition("..")
    return range(int(first), int(end) if end else int(first) + 1)


def modifier(text):
    """`verb [times] [site] {unit} [keys K] [from name] [@positions]`"""
    words = text.split()
    found = {"verb": words.pop(0), "site": None, "units": [], "from": None, "keys": None, "at": None, "times": None}
    if found["verb"] == "steer":
        found["times"] = float(words.pop(0))
    if found["verb"] == "knockout":
        found["site"] = "pattern"
    while words:
        word = words.pop(0)
        if word in SITES:
            found["site"] = word
        elif word[0] == "@":
            found["at"] = span(word[1:])
        elif word == "from":
            found["from"] = words.pop(0)
        elif word == "keys":
            found["keys"] = span(words.pop(0))
        else:
            assert re.fullmatch(r"[hn]\d+", word), word
            found["site"] = found["site"] or {"h": "z", "n": "neurons"}[word[0]]
            found["units"].append(int(word[1:]))
    return found


def steps(text):
    """A plan as steps: (layer, half or "", modifiers), or a list of branches, each a list of steps."""
    plan = []
    for item in split(text, ","):
        if item == "none":
            continue
        if item[0] == "(":
            plan.append([steps(branch) for branch in split(item[1:-1], "|")])
            continue
        first, to, last, half, mods, count = re.fullmatch(
            r"(\d+)(?:(\.\.=?)(\d+))?([am]?)(?:\[(.*)\])?(?:\*(\d+))?", item).groups()
        first = int(first)
        layers = range(first, first + 1)
        if to == "..":
            layers = range(first, int(last))
        elif to:
            down = -1 if int(last) < first else 1
            layers = range(first, int(last) + down, down)
        mods = [modifier(m) for m in split(mods, ",")] if mods else []
        plan += [(layer, half, mods) for layer in layers] * int(count or 1)
    return plan


# --- the model with hooks --------------------------------------------------------------------------------------------

class Inside:
    """transformers' blocks, with what stands at each site of the running execution read and changed by hooks."""

    def __init__(self, model):
        self.model, self.mods, self.references, self.seen, self.narrow = model, [], {}, {}, False
        ALL_ATTENTION_FUNCTIONS.register("inside", self.attention)
        model.config._attn_implementation = "inside"
        for layer, block in enumerate(model.transformer.h):
            self.hook(layer, block)

    def hook(self, layer, block):
        """Sets the hooks of one block. A hook that returns something replaces the module's input or output by it."""
        block.register_forward_pre_hook(lambda _, x: (self.at(layer, "pre", x[0]),) + x[1:])
        block.register_forward_hook(lambda _, x, y: self.at(layer, "post", y))
        block.ln_1.register_forward_hook(lambda norm, x, y: self.norm(layer, "ln1", norm, x[0]))
        block.ln_2.register_forward_hook(lambda norm, x, y: self.norm(layer, "ln2", norm, x[0]))
        block.ln_2.register_forward_pre_hook(lambda _, x: self.middle(layer, x[0]))
        block.attn.c_attn.register_forward_hook(lambda _, x, y: torch.cat(
            [self.at(layer, site, part) for site, part in zip("qkv", y.split(WIDTH, dim=-1))], dim=-1))
        block.attn.c_proj.register_forward_pre_hook(lambda _, x: (self.at(layer, "z", x[0]),))
        block.attn.c_proj.register_forward_hook(lambda _, x, y: self.at(layer, "attn", y))
        block.mlp.act.register_forward_hook(lambda _, x, y: self.at(layer, "neurons", y))
        block.mlp.c_proj.register_forward_hook(lambda _, x, y: self.at(layer, "mlp", y))

    def middle(self, layer, x):
        """The stream between the halves, changed in place: the block adds the MLP's output to this same tensor."""
        if self.half == "":
            x.copy_(self.at(layer, "mid", x))

    def changes(self, site):
        return [mod for mod in self.mods if mod["site"] == site]

    def reference(self, layer, site, mod):
        """What the reference has there: [tokens, width], its mean [width], or the direction [width]."""
        found = self.references[mod["from"]]
        narrow = (lambda x: x.float().double()) if self.narrow else (lambda x: x)
        if mod["verb"] == "steer":
            return narrow(found)
        found = narrow(found[layer, site])
        return narrow(found.mean(dim=0)) if mod["verb"] == "mean" else found

    def at(self, layer, site, x):
        """Changes x, [1, tokens, width], and keeps it."""
        x = x.clone()
        tokens, width = x.shape[1:]
        for mod in self.changes(site):
            unit = 1 if site == "neurons" else WIDTH // HEADS
            columns = [u * unit + i for u in mod["units"] for i in range(unit)] or list(range(width))
            for row in mod["at"] or range(tokens):
                if mod["verb"] == "zero":
                    x[0, row, columns] = 0.0
                elif mod["verb"] == "mean":
                    x[0, row, columns] = self.reference(layer, site, mod)[columns]
                elif mod["verb"] == "patch":
                    x[0, row, columns] = self.reference(layer, site, mod)[row, columns]
                elif mod["verb"] == "steer":
                    x[0, row] += mod["times"] * self.reference(layer, site, mod)
                else:
                    raise ValueError(mod)
        self.seen[layer, site] = x[0].clone()
        return x

    def norm(self, layer, site, norm, x):
        """LayerNorm, its scale √(variance + ε) taken from a reference where a modifier says so."""
        centred = x - x.mean(dim=-1, keepdim=True)
        scale = ((centred**2).mean(dim=-1, keepdim=True) + norm.eps).sqrt()
        for mod in self.changes(site):
            for row in mod["at"] or range(x.shape[1]):
                scale[0, row] = self.reference(layer, site, mod)[row]
        self.seen[layer, site] = scale[0].clone()
        return centred / scale * norm.weight + norm.bias

    def attention(self, module, query, key, value, attention_mask, scaling=None, **_):
        """softmax(q kᵀ · scaling) v over the keys up to each query; q, k and v are [1, heads, tokens, head width]."""
        layer, tokens = module.layer_idx, query.shape[2]
        scores = query[0] @ key[0].transpose(-1, -2) * scaling
        scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -torch.inf)
        changes = self.changes("pattern")
        for mod in (mod for mod in changes if mod["verb"] == "knockout"):
            for head in mod["units"] or range(HEADS):
                for row in mod["at"] or range(tokens):
                    scores[head, row, list(mod["keys"])] = -torch.inf
        pattern = scores.softmax(dim=-1)
        for mod in (mod for mod in changes if mod["verb"] == "patch"):
            frozen = self.reference(layer, "pattern", mod)
            keys = frozen.shape[1] // HEADS
            for head in mod["units"] or range(HEADS):
                for row in mod["at"] or range(tokens):
                    pattern[head, row] = 0.0
                    pattern[head, row, :keys] = frozen[row, head * keys:(head + 1) * keys]
        self.seen[layer, "pattern"] = pattern.transpose(0, 1).flatten(1).clone()
        return (pattern @ value[0]).transpose(0, 1)[None], pattern[None]

    def walk(self, plan, x):
        for step in plan:
            if isinstance(step, list):
                x = sum(self.walk(branch, x) for branch in step) / len(step)
                continue
            layer, self.half, self.mods = step
            block = self.model.transformer.h[layer]
            if self.half == "":
                x = block(x)
            else:
                x = self.at(layer, "pre", x)
                x = x + (block.attn(block.ln_1(x))[0] if self.half == "a" else block.mlp(block.ln_2(x)))
                x = self.at(layer, "post", x)
        self.mods = []
        return x

    def run(self, text, ids, references=None, narrow=False):
        """Logits [tokens, vocabulary] and {(layer, site): activations}."""
        self.references, self.narrow, self.seen = references or {}, narrow, {}
        body = self.model.transformer
        x = body.wte(torch.tensor([ids])) + body.wpe(torch.arange(len(ids)))[None]
        logits = self.model.lm_head(body.ln_f(self.walk(steps(text), x)))[0]
        return logits, self.seen


def nll(logits, ids):
    return -logits[:-1].log_softmax(dim=-1)[torch.arange(len(ids) - 1), ids[1:]]


# --- what is compared ------------------------------------------------------------------------------------------------

def references(inside, prompts, names):
    found = {}
    for name in names:
        at = AT[name]
        if "vector" in at:
            found[name] = torch.tensor([((i * 37) % 11 - 5) / 10 for i in range(WIDTH)])
        else:
            found[name] = inside.run(at["plan"], prompts[at["prompt"]])[1]
    return found


def sites(seen, tokens):
    rows = []
    for layer in (0, 5, 11):
        for site, hook in SITES.items():
            x = seen[layer, site]
            values = [{"position": p, "first": x[p, :5].tolist(), "last": x[p, -3:].tolist(),
                       "sum": x[p].sum().item(), "sum_of_squares": (x[p]**2).sum().item()} for p in (0, 3, tokens - 1)]
            rows.append({"layer": layer, "site": hook, "shape": list(x.shape), "rows": values})
    return rows


def cases(inside, prompts):
    rows = []
    for plan, prompt, note in CASES:
        ids = prompts[prompt]
        names = sorted(set(re.findall(r"from (\w+)", plan)))
        found = references(inside, prompts, names)
        logits, _ = inside.run(plan, ids, found)
        assert logits.isfinite().all(), plan
        bare, _ = inside.run(re.sub(r"\[.*?\]", "", plan), ids)
        moved = (logits - bare).abs().max().item()
        assert (moved < 1e-10) if note == SAME else (moved > 1e-3), (plan, moved)
        rounded, _ = inside.run(plan, ids, found, narrow=True)
        selected = [logits[-1, i].item() for i in LOGIT_IDS]
        rows.append({
            "plan": plan, "prompt": prompt, "references": {name: AT[name] for name in names},
            "nll": nll(logits, ids).tolist(), "logits": selected,
            "f32_references_max_abs_error": max((nll(rounded, ids) - nll(logits, ids)).abs().max().item(),
                                                (rounded - logits)[-1, LOGIT_IDS].abs().max().item()),
            "note": f"{RULE}; {note}" if "joy" in names else note})
    return rows


def states(inside, seen):
    """The residual stream before layer 0 and behind each layer."""
    return [seen[0, "pre"]] + [seen[layer, "post"] for layer in range(LAYERS)]


def lens(inside, seen, tokens):
    rows = []
    read = [inside.model.lm_head(inside.model.transformer.ln_f(x)).log_softmax(dim=-1) for x in states(inside, seen)]
    for state, here in enumerate(read):
        for position in (3, tokens - 1):
            first, second = here[position].topk(2).values.tolist()
            assert first - second > 1e-4, "the first is hard to tell from the second"
            final = read[-1][position]
            rows.append({"state": state, "position": position, "top1": here[position].argmax().item(),
                         "probability": here[position].max().exp().item(),
                         "kl": (final.exp() * (final - here[position])).sum().item()})
    return {"prompt": "clean", "rows": rows}


def attribution(inside, seen, logits, a, b):
    body, last = inside.model.transformer, -1
    direction = inside.model.lm_head.weight[a] - inside.model.lm_head.weight[b]
    final = seen[LAYERS - 1, "post"][last]
    scale = (final.var(correction=0) + body.ln_f.eps).sqrt()

    def through(x):
        return ((x - x.mean()) / scale * body.ln_f.weight @ direction).item()

    def head(layer, h):
        columns = slice(h * WIDTH // HEADS, (h + 1) * WIDTH // HEADS)
        return through(seen[layer, "z"][last, columns] @ body.h[layer].attn.c_proj.weight[columns])

    parts = {
        "embedding": through(seen[0, "pre"][last]),
        "heads": [[head(layer, h) for h in range(HEADS)] for layer in range(LAYERS)],
        "attn_bias": [through(block.attn.c_proj.bias) for block in body.h],
        "mlp": [through(seen[layer, "mlp"][last]) for layer in range(LAYERS)],
        "constant": (body.ln_f.bias @ direction).item(),
    }
    total = parts["embedding"] + sum(map(sum, parts["heads"])) + sum(parts["attn_bias"]) + sum(parts["mlp"])
    total += parts["constant"]
    difference = (logits[last, a] - logits[last, b]).item()
    told("the sum of the attribution against the logit difference", abs(total - difference), 1e-9)
    return {"prompt": "clean", "position": logits.shape[0] - 1, "a": a, "b": b, "scale": scale.item(), **parts,
            "sum": total, "logit_difference": difference}


def grid(inside, prompts, a, b):
    clean, corrupted = prompts["clean"], prompts["corrupted"]

    def metric(logits):
        return (logits[-1, a] - logits[-1, b]).item()

    logits, seen = inside.run(INTACT, clean)
    found = {"clean": seen}

    def patched(layer, what):
        plan = ",".join(f"{i}[patch {what}]" if i == layer else str(i) for i in range(LAYERS))
        return metric(inside.run(plan, corrupted, found)[0])

    def by_position(site):
        return [[patched(layer, f"{site} from clean @{p}") for p in range(len(clean))] for layer in range(LAYERS)]

    return {
        "clean": metric(logits), "corrupted": metric(inside.run(INTACT, corrupted)[0]), "a": a, "b": b,
        "hook_resid_pre": by_position("pre"),
        "attn.hook_z": [[patched(layer, f"h{h} from clean") for h in range(HEADS)] for layer in range(LAYERS)],
        "hook_attn_out": by_position("attn"), "hook_mlp_out": by_position("mlp"),
    }


# --- checks of this file ---------------------------------------------------------------------------------------------

def told(what, error, limit):
    print(f"{what}: {error:.1e}", file=sys.stderr)
    assert error <= limit, what


def apart(a, b):
    return (a - b).abs().max().item()


def stock(directory):
    """transformers' own model, nothing of this file in it."""
    model = GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float64, attn_implementation="eager").eval()
    return model.double()


def check(inside, directory, prompts):
    """Compares with transformers' own model, which has no hooks: intact, at the sites that it shows, and with weights
    changed so that they do what a modifier does."""
    own = stock(directory)
    for name, ids in prompts.items():
        out = own(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
        logits, seen = inside.run(INTACT, ids)
        told(f"logits of {name}", apart(logits, out.logits[0]), 1e-12)
        patterns = [p[0].transpose(0, 1).flatten(1) for p in out.attentions]
        told("patterns", max(apart(seen[i, "pattern"], p) for i, p in enumerate(patterns)), 1e-12)
        told("states", max(apart(seen[i, "pre"], out.hidden_states[i]) for i in range(LAYERS)), 1e-12)
        for i in range(LAYERS):
            assert torch.equal(seen[i, "mid"], seen[i, "pre"] + seen[i, "attn"])
            assert torch.equal(seen[i, "post"], seen[i, "mid"] + seen[i, "mlp"])
        same = {"same": seen}
        plans = ["0..5,5[" + ",".join(f"patch {site} from same" for site in SITES) + "],6..12"]
        plans += [f"0..5,5[patch {site} from same],6..12" for site in SITES]
        told("patched from itself", max(apart(inside.run(plan, ids, same)[0], logits) for plan in plans), 1e-12)

    ids = prompts["clean"]
    found = references(inside, prompts, AT)

    def mine(plan, prompt="clean"):
        return inside.run(plan, prompts[prompt], found)[0]

    def edited(plan, edit, layer=5):
        """The plan against transformers' own model with edited weights."""
        model = stock(directory)
        edit(model.transformer.h[layer])
        told(plan, apart(mine(plan), model(torch.tensor([ids])).logits[0]), 1e-12)

    def fill(tensor, rows=slice(None), columns=None):
        tensor[rows if columns is None else (rows, columns)] = 0.0

    def columns(block, first):
        fill(block.attn.c_attn.weight, columns=slice(first, first + 16))
        fill(block.attn.c_attn.bias, slice(first, first + 16))

    edited("0..5,5[zero h1 h2],6..12", lambda block: fill(block.attn.c_proj.weight, slice(16, 48)))
    edited("0..5,5[zero z],6..12", lambda block: fill(block.attn.c_proj.weight))
    edited("0..5,5[zero q h3],6..12", lambda block: columns(block, 48))
    edited("0..5,5[zero k h3],6..12", lambda block: columns(block, 128 + 48))
    edited("0..5,5[zero v h3],6..12", lambda block: columns(block, 256 + 48))
    edited("0..5,5[zero n17 n300],6..12", lambda block: fill(block.mlp.c_proj.weight, [17, 300]))
    edited("0..5,5[zero attn],6..12",
           lambda block: (fill(block.attn.c_proj.weight), fill(block.attn.c_proj.bias)))
    edited("0..5,5[zero mlp],6..12", lambda block: (fill(block.mlp.c_proj.weight), fill(block.mlp.c_proj.bias)))

    def mean(projection, site, rows):
        values = found["ref"][5, site].mean(dim=0)[rows]
        projection.bias += values @ projection.weight[rows]
        fill(projection.weight, rows)

    edited("0..5,5[mean h2 from ref],6..12", lambda block: mean(block.attn.c_proj, "z", slice(32, 48)))
    edited("0..5,5[mean neurons from ref],6..12", lambda block: mean(block.mlp.c_proj, "neurons", slice(None)))
    edited("0..6,6[steer 4 post from joy],7..12", lambda block: block.mlp.c_proj.bias.add_(4 * found["joy"]), layer=6)

    def blocks(plan, layers):
        """The plan against transformers' own blocks, called one after the other; a layer may bring a mask."""
        body = own.transformer
        causal = torch.full((len(ids), len(ids)), -torch.inf).triu(1).expand(1, HEADS, -1, -1)
        x = body.wte(torch.tensor([ids])) + body.wpe(torch.arange(len(ids)))[None]
        for layer, cut in layers:
            mask = causal.clone()
            for heads, queries, keys in [cut] if cut else []:
                mask[0, heads, queries, keys] = -torch.inf
            x = body.h[layer](x, attention_mask=mask)
        told(plan, apart(mine(plan), own.lm_head(body.ln_f(x))[0]), 1e-12)

    def cut(heads, queries, keys):
        return [(i, (heads, queries, keys) if i == 5 else None) for i in range(LAYERS)]

    blocks("0..5,5[zero attn,zero mlp],6..12", [(i, None) for i in range(LAYERS) if i != 5])
    blocks("11..=6,5,4..=0", [(i, None) for i in reversed(range(LAYERS))])
    blocks("0..4,3,4..12", [(i, None) for i in (0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
    blocks("0..5,5[knockout h3 keys 2..4 @9],6..12", cut(3, 9, slice(2, 4)))
    blocks("0..5,5[knockout keys 0 @5..9],6..12", cut(slice(None), slice(5, 9), 0))
    blocks("0..5,5[knockout h0 h1 keys 1..3 @3..15],6..12", cut(slice(0, 2), slice(3, 15), slice(1, 3)))

    clean = mine(INTACT)
    for site in ("pre", "mid", "post"):
        told(f"all of {site} patched", apart(mine(f"0..5,5[patch {site} from clean],6..12", "corrupted"), clean), 1e-12)
    told("two halves are a block", apart(mine("0..6,6a,6m,7..12"), clean), 1e-12)
    by_hand(own.transformer, own.lm_head, found, mine)


def by_hand(body, lm_head, found, mine):
    """What no edit of weights does, from the formulas and the states that transformers' own model has."""
    mask = torch.full((15, 15), -torch.inf).triu(1)[None, None]
    tokens = found["corrupted"][5, "pre"][None]

    def rest(x, first):
        for block in body.h[first:]:
            x = block(x, attention_mask=mask)
        return lm_head(body.ln_f(x))[0]

    def rescaled(norm, x, scale):
        own = (x.var(dim=-1, correction=0, keepdim=True) + norm.eps).sqrt()
        return (norm(x) - norm.bias) * own / scale + norm.bias

    block = body.h[5]
    x = tokens + block.attn(rescaled(block.ln_1, tokens, found["clean"][5, "ln1"]), attention_mask=mask)[0]
    plan = "0..5,5[patch ln1 from clean],6..12"
    told(plan, apart(mine(plan, "corrupted"), rest(x + block.mlp(block.ln_2(x)), 6)), 1e-12)
    x = tokens + block.attn(block.ln_1(tokens), attention_mask=mask)[0]
    x = x + block.mlp(rescaled(block.ln_2, x, found["clean"][5, "ln2"]))
    plan = "0..5,5[patch ln2 from clean],6..12"
    told(plan, apart(mine(plan, "corrupted"), rest(x, 6)), 1e-12)

    # Head 1's part of the attention's output is its pattern times its values times its rows of c_proj.
    seen, rows = found["corrupted"], slice(16, 32)
    change = (found["clean"][5, "pattern"] - seen[5, "pattern"])[:, 15:30] @ seen[5, "v"][:, rows]
    x = seen[5, "mid"] + change @ block.attn.c_proj.weight[rows]
    plan = "0..5,5[patch pattern h1 from clean],6..12"
    told(plan, apart(mine(plan, "corrupted"), rest((x + block.mlp(block.ln_2(x)))[None], 6)), 1e-12)

    start = found["clean"][4, "pre"][None]
    branches = body.h[4](start, attention_mask=mask), body.h[5](start, attention_mask=mask)
    plan = "0..4,(4|5),6..12"
    told(plan, apart(mine(plan), rest((branches[0] + branches[1]) / 2, 6)), 1e-12)


def main(directory):
    torch.set_num_threads(1)
    transformers.logging.disable_progress_bar()
    torch.set_default_dtype(torch.float64)
    tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
    with torch.no_grad():
        model = stock(directory)
        bos = model.config.bos_token_id
        tokens = {text: tokenizer.encode(text, add_special_tokens=False).ids
                  for text in [*TEXTS.values(), " Jack", " Tom"]}
        prompts = {name: [bos] + tokens[text] for name, text in TEXTS.items()}
        assert len(prompts["clean"]) == len(prompts["corrupted"])
        assert len(tokens[" Jack"]) == len(tokens[" Tom"]) == 1
        a, b = tokens[" Jack"][0], tokens[" Tom"][0]
        inside = Inside(model)
        check(inside, directory, prompts)
        logits, seen = inside.run(INTACT, prompts["clean"])
        out = {
            "about": ABOUT,
            "prompts": prompts, "logit_ids": LOGIT_IDS,
            "sites": sites(seen, len(prompts["clean"])), "cases": cases(inside, prompts),
            "lens": lens(inside, seen, len(prompts["clean"])),
            "attribution": attribution(inside, seen, logits, a, b), "grid": grid(inside, prompts, a, b),
        }
    # A line for each part, and for each entry of the long ones.
    lines = []
    for name, value in out.items():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if name in ("sites", "cases"):
            text = "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in value) + "\n]"
        lines.append(f"{json.dumps(name)}: {text}")
    print("{\n" + ",\n".join(lines) + "\n}")
    moved = max(case["f32_references_max_abs_error"] for case in out["cases"])
    print(f"{len(out['sites'])} sites, {len(out['cases'])} cases, {len(out['lens']['rows'])} lens rows; "
          f"references in f32 move a case by up to {moved:.1e}", file=sys.stderr)


main(sys.argv[1])
