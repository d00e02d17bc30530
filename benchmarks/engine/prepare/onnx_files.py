"""Write the ONNX files that stock runtimes are measured with, and print what they hold.

    onnx_files.py COMPILED_DIR OUT_DIR

COMPILED_DIR is a dense checkpoint as `compile --values f32 --logits last` writes it. OUT_DIR becomes a
folder that transformers.js loads, with

    onnx/model.onnx            float32, its linears the way exporters store them: already transposed
    onnx/model_quantized.onnx  int8 as quantize_dynamic makes it, a scale a channel
    onnx/model_q4.onnx         MatMulNBits: 4 bits, symmetric blocks of 32, accuracy level 4

Printed is {"files": {name: {"bytes", "tokenBytes"}}, "versions"}; tokenBytes are those of the weights
that a token reads.
"""

import argparse
import json
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

PRODUCTS = ("MatMul", "MatMulInteger", "MatMulNBits")
# What may stand between a stored weight and the product that reads it.
BETWEEN = ("Transpose", "Cast")


def folded(model: onnx.ModelProto, head: bool) -> onnx.ModelProto:
    """The model with its constant weights transposed. A tied head stays as it is unless `head`."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    made_by = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    looked_up = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    for node in graph.node:
        if node.op_type != "MatMul":
            continue
        steps, name = [], node.input[1]
        while name not in stored and name in made_by and made_by[name].op_type in BETWEEN:
            steps.append(made_by[name])
            name = steps[-1].input[0]
        if name not in stored or (name in looked_up and not head):
            continue
        weight = numpy_helper.to_array(stored[name])
        if any(step.op_type == "Transpose" for step in steps):
            weight = np.ascontiguousarray(weight.T)
        node.input[1] = f"{name}.transposed"
        graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), node.input[1]))
    drop_unused(graph)
    return result


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that nothing reads any more."""
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    weights = [tensor for tensor in graph.initializer if tensor.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)


def save(model: onnx.ModelProto, path: Path) -> None:
    """With the weights in a file beside the graph, under the name that transformers.js looks for."""
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=f"{path.name}_data",
        size_threshold=1024,
    )


def token_bytes(path: Path) -> int:
    """Bytes of the weights, scales and zero points that products read."""
    graph = onnx.load(path, load_external_data=False).graph
    made_by = {name: node for node in graph.node for name in node.output}
    sizes = {tensor.name: tensor_bytes(tensor) for tensor in graph.initializer}
    read = set()
    for node in graph.node:
        if node.op_type in PRODUCTS:
            for name in node.input[1:]:
                while name in made_by and made_by[name].op_type in BETWEEN:
                    name = made_by[name].input[0]
                read.add(name)
    return sum(sizes.get(name, 0) for name in read)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims, dtype=np.int64)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("compiled", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)

    onnx_dir = arguments.out / "onnx"
    onnx_dir.mkdir(parents=True)
    for path in arguments.compiled.iterdir():
        if path.is_file():
            shutil.copyfile(path, arguments.out / path.name)
    names = ("model.onnx", "model_quantized.onnx", "model_q4.onnx")
    dense, int8, int4 = (onnx_dir / name for name in names)

    model = onnx.load(arguments.compiled / "onnx" / "model.onnx")
    save(folded(model, head=False), dense)
    with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
        source = Path(folder) / "model.onnx"
        save(folded(model, head=True), source)
        # ONNX infers no types behind GroupQueryAttention.
        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(
            source, int8, per_channel=True, weight_type=QuantType.QInt8, extra_options=options
        )
        quantizer = MatMulNBitsQuantizer(
            onnx.load(source), bits=4, block_size=32, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        quantizer.model.save_model_to_file(str(int4))

    files = {}
    for path in (dense, int8, int4):
        data = path.with_name(f"{path.name}_data")
        size = path.stat().st_size + (data.stat().st_size if data.exists() else 0)
        files[path.name] = {"bytes": size, "tokenBytes": token_bytes(path)}
    versions = {"onnx": onnx.__version__, "onnxruntime (Python)": onnxruntime.__version__}
    print(json.dumps({"files": files, "versions": versions}))


if __name__ == "__main__":
    main()
