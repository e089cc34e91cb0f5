"""One peer in a process of its own: `python worker.py PEER MODELS TOKENS THREADS`.

Speaks JSON lines. After loading the model and computing the first logits it prints a line about itself; then, for each
line `{"work": "A", "times": 3}` on stdin, one line `{"seconds": [...], "loss": ...}` (`"tokens"` instead of a loss for D).
The driver, run.py, says what the works are.
"""

import json
import os
import sys
import time
from pathlib import Path

STEPS = 64


class Torch:
    """transformers on PyTorch, as its documentation says to run it."""

    def __init__(self, models, threads, dtype):
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.torch = torch
        self.versions = {"torch": torch.__version__, "transformers": transformers.__version__}
        self.model = transformers.GPT2LMHeadModel.from_pretrained(
            models / f"gpt2-{dtype}", dtype={"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        ).eval()

    def ids(self, sequences):
        return self.torch.tensor(sequences)

    def loss(self, ids):
        with self.torch.inference_mode():
            logits = self.model(ids, use_cache=False).logits[:, :-1]
            return self.torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten()).item()

    def decode(self, ids):
        with self.torch.inference_mode():
            out = self.model(ids, use_cache=True, logits_to_keep=1)
            tokens = [out.logits[0, -1].argmax()]
            start = time.perf_counter()
            for _ in range(STEPS):
                out = self.model(tokens[-1].view(1, 1), past_key_values=out.past_key_values, use_cache=True)
                tokens.append(out.logits[0, -1].argmax())
            seconds = time.perf_counter() - start
            return seconds, [int(t) for t in tokens]


class OnnxRuntime:
    """ONNX Runtime on the graphs of onnx_graph.py, which use its own fused operators."""

    def __init__(self, models, threads):
        import numpy
        import onnxruntime

        self.np = numpy
        self.versions = {"onnxruntime": onnxruntime.__version__}
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Its threads would spin on into the next peer's turn.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = lambda name: onnxruntime.InferenceSession(
            models / "gpt2-onnx" / name, options, providers=["CPUExecutionProvider"]
        )
        self.ort = onnxruntime
        self.losses = session("loss.onnx")
        # The second session holds the weights again: opened when decoding is first asked for.
        self.open_step = lambda: session("step.onnx")
        self.step = None

    def ids(self, sequences):
        return self.np.array(sequences, dtype=self.np.int64)

    def loss(self, ids):
        targets = self.np.roll(ids, -1, axis=1)
        (nll,) = self.losses.run(None, {"ids": ids, "targets": targets})
        return float(nll.reshape(ids.shape)[:, :-1].mean(dtype=self.np.float64))

    def decode(self, ids):
        if self.step is None:
            self.step = self.open_step()
        names = [output.name for output in self.step.get_outputs()]
        past = [i for i in self.step.get_inputs() if i.name.startswith("past")]
        shape = [2, 1, past[0].shape[2], 0, past[0].shape[4]]
        values = [self.ort.OrtValue.ortvalue_from_shape_and_type(shape, self.np.float32) for _ in past]

        def step(ids, position, values):
            feed = {"ids": ids, "positions": self.np.arange(position, position + ids.shape[1], dtype=self.np.int64)[None]}
            feed = {name: self.ort.OrtValue.ortvalue_from_numpy(value) for name, value in feed.items()}
            feed |= {i.name: value for i, value in zip(past, values)}
            logits, *present = self.step.run_with_ort_values(names, feed)
            return int(logits.numpy()[0, -1].argmax()), present

        token, values = step(ids, 0, values)
        tokens = [token]
        start = time.perf_counter()
        for position in range(ids.shape[1], ids.shape[1] + STEPS):
            token, values = step(self.np.array([[token]], dtype=self.np.int64), position, values)
            tokens.append(token)
        return time.perf_counter() - start, tokens


class CTranslate2:
    def __init__(self, models, threads, kind):
        import ctranslate2

        self.versions = {"ctranslate2": ctranslate2.__version__}
        compute = {"f32": "float32", "int8": "int8_float32"}[kind]
        self.model = ctranslate2.Generator(
            str(models / f"gpt2-ct2-{kind}"), device="cpu", inter_threads=1, intra_threads=threads, compute_type=compute
        )

    def ids(self, sequences):
        # Its vocabulary is made of the ids as text.
        return [[str(id) for id in sequence] for sequence in sequences]

    def loss(self, ids):
        results = self.model.score_batch(ids)
        losses = [p for result in results for p in result.log_probs]
        return -sum(losses) / len(losses)

    def decode(self, ids):
        # It has no step of its own: the time of 65 new tokens less that of the first.
        def run(n):
            start = time.perf_counter()
            (result,) = self.model.generate_batch(
                ids, max_length=n, min_length=n, beam_size=1, sampling_topk=1, include_prompt_in_result=False
            )
            return time.perf_counter() - start, result.sequences_ids[0]

        first, _ = run(1)
        all, tokens = run(1 + STEPS)
        return all - first, tokens


class LlamaCpp:
    """llama.cpp's C API through llama-cpp-python. It has no loss: that is numpy's, and not in the time."""

    def __init__(self, models, threads, dtype):
        import ctypes

        import llama_cpp as c
        import numpy

        self.c, self.np, self.ctypes = c, numpy, ctypes
        self.versions = {"llama-cpp-python": c.__version__}
        self.quiet = c.llama_log_callback(lambda level, text, data: None)
        c.llama_log_set(self.quiet, None)
        c.llama_backend_init()
        self.model = c.llama_model_load_from_file(
            str(models / f"gpt2-{dtype}.gguf").encode(), c.llama_model_default_params()
        )
        if not self.model:
            raise RuntimeError("llama.cpp refuses the GGUF file")
        params = c.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 1024, 1024, 1024, 8
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        self.context = c.llama_init_from_model(self.model, params)
        self.vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(self.model))
        self.batch = c.llama_batch_init(1024, 0, 1)

    def ids(self, sequences):
        return sequences

    def run(self, sequences, start, scored):
        """Decodes; `scored` says whether every row's logits are wanted, or the last one's."""
        n = 0
        for s, sequence in enumerate(sequences):
            for i, id in enumerate(sequence):
                self.batch.token[n], self.batch.pos[n] = id, start + i
                self.batch.n_seq_id[n], self.batch.seq_id[n][0] = 1, s
                self.batch.logits[n] = scored or i + 1 == len(sequence)
                n += 1
        self.batch.n_tokens = n
        if self.c.llama_decode(self.context, self.batch) != 0:
            raise RuntimeError("llama_decode failed")
        self.c.llama_synchronize(self.context)

    def clear(self):
        self.c.llama_memory_clear(self.c.llama_get_memory(self.context), True)

    def loss(self, ids):
        np = self.np
        self.clear()
        start = time.perf_counter()
        self.run(ids, 0, True)
        self.apart = time.perf_counter() - start
        rows = sum(map(len, ids))
        logits = np.ctypeslib.as_array(self.c.llama_get_logits(self.context), (rows, self.vocab))
        losses, row = [], 0
        for sequence in ids:
            for next in sequence[1:]:
                x = logits[row].astype(np.float64)
                top = x.max()
                losses.append(top + np.log(np.exp(x - top).sum()) - x[next])
                row += 1
            row += 1
        return float(np.mean(losses))

    def likeliest(self):
        logits = self.c.llama_get_logits_ith(self.context, -1)
        return int(self.np.ctypeslib.as_array(logits, (self.vocab,)).argmax())

    def decode(self, ids):
        self.clear()
        self.run(ids, 0, False)
        tokens = [self.likeliest()]
        start = time.perf_counter()
        for position in range(len(ids[0]), len(ids[0]) + STEPS):
            self.run([[tokens[-1]]], position, False)
            tokens.append(self.likeliest())
        return time.perf_counter() - start, tokens


PEERS = {
    "transformers-f32": lambda m, t: Torch(m, t, "f32"),
    "transformers-bf16": lambda m, t: Torch(m, t, "bf16"),
    "onnxruntime-f32": OnnxRuntime,
    "ctranslate2-f32": lambda m, t: CTranslate2(m, t, "f32"),
    "ctranslate2-int8": lambda m, t: CTranslate2(m, t, "int8"),
    "llama.cpp-f32": lambda m, t: LlamaCpp(m, t, "f32"),
    "llama.cpp-bf16": lambda m, t: LlamaCpp(m, t, "bf16"),
}


def main():
    name, models, tokens, threads = sys.argv[1:]
    # Libraries print to stdout: the protocol keeps it for itself.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(line):
        print(json.dumps(line), file=out, flush=True)

    os.environ.setdefault("OMP_NUM_THREADS", threads)
    peer = PEERS[name](Path(models), int(threads))
    works = {work: peer.ids(ids) for work, ids in json.loads(Path(tokens).read_text()).items()}
    peer.loss(works["C"])
    say({"peer": name, "versions": peer.versions})
    for line in sys.stdin:
        command = json.loads(line)
        ids, times, answer = works[command["work"]], [], {}
        peer.loss(works["C"])  # wakes threads and clocks
        for _ in range(command["times"]):
            if command["work"] == "D":
                seconds, answer["tokens"] = peer.decode(ids)
            else:
                peer.apart = None
                start = time.perf_counter()
                answer["loss"] = peer.loss(ids)
                seconds = peer.apart or time.perf_counter() - start
            times.append(seconds)
        say(answer | {"seconds": times})


if __name__ == "__main__":
    main()
