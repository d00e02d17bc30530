"""Checks compiled models with Python's ONNX tools, and runs them in stock ONNX Runtime.

    onnx_check.py --prompt 1,2,3 [--steps 8] COMPILED_DIR...

Prints {versions, models: [{model, operators, unfolded, tokens, top, mean}]}: our operators in the model;
what ONNX Runtime computes anew at every run though it is constant; the likeliest token after the prompt,
and after each of --steps cached steps; the logit of each; the mean of the step's logits. Ends with 1 and
says why when a model is refused. Needs onnx, onnxruntime and numpy.
"""

import argparse
import json
import os
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime


def check(path):
    """Raises what onnx raises of a model that is not valid; returns our operators in it."""
    onnx.checker.check_model(path)
    model = onnx.load(path, load_external_data=False)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    ours = {f.name for f in model.functions if f.domain == "ai.espalier"}
    used = {n.op_type for n in model.graph.node if n.domain == "ai.espalier"}
    if used != ours:
        raise ValueError(f"functions {sorted(ours)} are defined, {sorted(used)} are used")
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    for node in model.graph.node:
        # onnx knows no operators of Microsoft: nothing is inferred behind attention until a residual.
        if node.domain != "ai.espalier" or node.input[0] not in types:
            continue
        if types.get(node.output[0]) != onnx.TensorProto.FLOAT:
            raise ValueError(f"no float is inferred for what {node.name} gives")
    return sorted(used)


def load(path):
    """A session, and the operators that it was to fold and did not."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = os.path.join(folder, "optimized.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath, load_external_data=False)
    constant = {t.name for t in model.graph.initializer} | {""}
    unfolded = {n.op_type for n in model.graph.node if constant.issuperset(n.input)}
    return session, sorted(unfolded)


def run(session, prompt, steps):
    """The likeliest tokens after a prompt, from a cache after the first."""
    outputs = [o.name for o in session.get_outputs()]
    past = [i for i in session.get_inputs() if i.name.startswith("past_key_values.")]
    cache = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in past}
    tokens, top, mean = [], [], []
    given, seen = list(prompt), 0
    for _ in range(steps + 1):
        total = seen + len(given)
        values = session.run(None, {
            "input_ids": np.array([given], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(seen, total, dtype=np.int64)[None],
            **cache,
        })
        found = dict(zip(outputs, values))
        logits = found["logits"]
        if logits.shape[:2] != (1, len(given)) or not np.isfinite(logits).all():
            raise ValueError(f"logits of shape {logits.shape}, or not finite")
        last = logits[0, -1]
        tokens.append(int(last.argmax()))
        top.append(float(last.max()))
        mean.append(float(last.mean()))
        cache = {
            name: found[name.replace("past_key_values.", "present.")] for name in cache
        }
        given, seen = [tokens[-1]], total
    return {"tokens": tokens, "top": top, "mean": mean}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    prompt = [int(token) for token in arguments.prompt.split(",")]
    results = []
    for folder in arguments.folders:
        path = os.path.join(folder, "onnx", "model.onnx")
        try:
            operators = check(path)
            session, unfolded = load(path)
            found = run(session, prompt, arguments.steps)
        except Exception as error:
            print(f"{folder}: {type(error).__name__}: {error}", file=sys.stderr)
            return 1
        name = os.path.basename(os.path.normpath(folder))
        results.append({"model": name, "operators": operators, "unfolded": unfolded, **found})
    versions = {"onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    print(json.dumps({"versions": versions, "models": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
