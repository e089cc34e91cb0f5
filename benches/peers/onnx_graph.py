"""GPT-2 as ONNX graphs for ONNX Runtime, from a safetensors file: `python onnx_graph.py MODEL_DIR OUT_DIR`.

Written with ONNX Runtime's own fused operators (Attention, FastGelu), which is what its transformer optimiser makes of
an exported model. `loss.onnx`: ids and targets to losses; `step.onnx`: ids behind past keys and values to the last
row's logits and the present ones.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

F32, I64 = TensorProto.FLOAT, TensorProto.INT64
MS = "com.microsoft"


def graph(config, weights, past):
    d, heads, epsilon = config["n_embd"], config["n_head"], config["layer_norm_epsilon"]
    nodes, constants = [], dict(weights)
    constants["keep_d"] = np.array([-1, d], dtype=np.int64)

    def node(op, inputs, output, outputs=(), **attributes):
        nodes.append(helper.make_node(op, inputs, [output, *outputs], **attributes))
        return output

    def norm(x, name, output):
        return node("LayerNormalization", [x, f"{name}.weight", f"{name}.bias"], output, epsilon=epsilon)

    def linear(x, name, output):
        node("MatMul", [x, f"{name}.weight"], f"{output}.product")
        return node("Add", [f"{output}.product", f"{name}.bias"], output)

    if past:
        positions = "positions"
    else:
        node("Shape", ["ids"], "rows", start=1, end=2)
        constants |= {"zero": np.array(0, dtype=np.int64), "one": np.array(1, dtype=np.int64)}
        node("Squeeze", ["rows"], "row_count")
        positions = node("Range", ["zero", "row_count", "one"], "positions")
    h = node("Add", [node("Gather", ["wte.weight", "ids"], "token"), node("Gather", ["wpe.weight", positions], "place")], "h")
    presents = []
    for l in range(config["n_layer"]):
        p = f"h.{l}"
        x = norm(h, f"{p}.ln_1", f"{p}.x")
        inputs = [x, f"{p}.attn.c_attn.weight", f"{p}.attn.c_attn.bias", ""] + ([f"past.{l}"] if past else [])
        outputs = [f"present.{l}"] if past else []
        presents += outputs
        node("Attention", inputs, f"{p}.z", outputs, domain=MS, num_heads=heads, unidirectional=1)
        h = node("Add", [h, linear(f"{p}.z", f"{p}.attn.c_proj", f"{p}.attn")], f"{p}.h")
        x = norm(h, f"{p}.ln_2", f"{p}.y")
        node("MatMul", [x, f"{p}.mlp.c_fc.weight"], f"{p}.inner")
        node("FastGelu", [f"{p}.inner", f"{p}.mlp.c_fc.bias"], f"{p}.gelu", domain=MS)
        h = node("Add", [h, linear(f"{p}.gelu", f"{p}.mlp.c_proj", f"{p}.mlp")], f"{p}.out")

    value = helper.make_tensor_value_info
    if past:
        constants |= {"last": np.array([-1], dtype=np.int64)}
        h = node("Gather", [h, "last"], "last_h", axis=1)
    x = node("Reshape", [norm(h, "ln_f", "final"), "keep_d"], "rows_by_d")
    node("Gemm", [x, "wte.weight"], "logits", transB=1)
    if past:
        constants["as_row"] = np.array([1, 1, -1], dtype=np.int64)
        node("Reshape", ["logits", "as_row"], "last_logits")
        shape = [2, 1, heads, None, d // heads]
        inputs = [value("ids", I64, [1, None]), value("positions", I64, [1, None])]
        inputs += [value(f"past.{l}", F32, shape) for l in range(config["n_layer"])]
        outputs = [value("last_logits", F32, [1, 1, config["vocab_size"]])]
        outputs += [value(name, F32, shape) for name in presents]
    else:
        constants["column"] = np.array([-1, 1], dtype=np.int64)
        node("LogSoftmax", ["logits"], "log_p", axis=1)
        node("Reshape", ["targets", "column"], "target_column")
        node("GatherElements", ["log_p", "target_column"], "log_p_target", axis=1)
        node("Neg", ["log_p_target"], "nll")
        inputs = [value("ids", I64, [None, None]), value("targets", I64, [None, None])]
        outputs = [value("nll", F32, [None, 1])]
    used = {name for n in nodes for name in n.input}
    initializers = [numpy_helper.from_array(a, name) for name, a in constants.items() if name in used]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(MS, 1)]
    return helper.make_model(
        helper.make_graph(nodes, "gpt2", inputs, outputs, initializers), opset_imports=opsets, ir_version=10
    )


def main():
    model, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    config = json.loads((model / "config.json").read_text())
    weights = {k: v for k, v in load_file(model / "model.safetensors").items() if not k.endswith(".attn.bias")}
    for name, past in [("loss.onnx", False), ("step.onnx", True)]:
        (out / f"{name}.data").unlink(missing_ok=True)
        onnx.save_model(graph(config, weights, past), out / name, save_as_external_data=True, location=f"{name}.data")


if __name__ == "__main__":
    main()
