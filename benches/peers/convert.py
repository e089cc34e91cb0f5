"""The synthetic weights in the formats of peers that don't read safetensors: `python convert.py FORMAT MODELS`."""

import json
import sys
from pathlib import Path


def ctranslate2(models, kind):
    import transformers
    from ctranslate2.converters.transformers import GPT2Loader

    model = transformers.GPT2LMHeadModel.from_pretrained(models / "gpt2-f32").eval()
    spec = GPT2Loader().get_model_spec(model)
    # Its API speaks tokens: they are the ids as text.
    spec.register_vocabulary([str(id) for id in range(model.config.vocab_size)])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = str(model.config.bos_token_id)
    spec.validate()
    spec.optimize(quantization={"f32": "float32", "int8": "int8"}[kind])
    out = models / f"gpt2-ct2-{kind}"
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))


def gguf(models, dtype):
    """Names and layouts as llama.cpp's own converter writes them: matrices [out, in], norms and biases in f32."""
    import gguf as g
    import numpy as np
    from safetensors.numpy import load_file

    model = models / "gpt2-f32"
    config = json.loads((model / "config.json").read_text())
    d, layers = config["n_embd"], config["n_layer"]
    out = g.GGUFWriter(models / f"gpt2-{dtype}.gguf", "gpt2")
    out.add_block_count(layers)
    out.add_context_length(config["n_positions"])
    out.add_embedding_length(d)
    out.add_feed_forward_length(4 * d)
    out.add_head_count(config["n_head"])
    out.add_layer_norm_eps(config["layer_norm_epsilon"])
    out.add_vocab_size(config["vocab_size"])
    out.add_tokenizer_model("none")
    kind = {"f32": g.GGMLQuantizationType.F32, "bf16": g.GGMLQuantizationType.BF16}[dtype]
    out.add_file_type({"f32": g.LlamaFileType.ALL_F32, "bf16": g.LlamaFileType.MOSTLY_BF16}[dtype])
    names = {
        "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    }  # fmt: skip
    for name, value in load_file(model / "model.safetensors").items():
        *place, part, last = name.split(".")
        if name.endswith(".attn.bias"):
            continue
        if place[:1] == ["h"]:
            part = f"{'.'.join(place[2:] + [part])}"
            new = f"blk.{place[1]}.{names[part]}.{last}"
            if value.ndim == 2:
                value = np.ascontiguousarray(value.T)
        else:
            new = f"{names[part]}.{last}"
        # Positions are added, not multiplied: llama.cpp wants them in f32.
        if value.ndim == 2 and part != "wpe" and dtype != "f32":
            out.add_tensor(new, g.quants.quantize(value, kind), raw_dtype=kind)
        else:
            out.add_tensor(new, value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main():
    format, models = sys.argv[1], Path(sys.argv[2])
    tool, kind = format.split("-")
    {"ct2": ctranslate2, "gguf": gguf}[tool](models, kind)


if __name__ == "__main__":
    main()
