"""Prunes a checkpoint with llmcompressor by a recipe, and counts what became 0.

    llm_compressor.py --model DIR --recipe FILE --windows FILE --output DIR [--m M] [--against DIR]

FILE of --windows is {"windows": [[ids] ...]}, one batch each. Everything is computed in float32 on the
CPU, the modifiers together, block by block. Prints {versions, linears: {name: {rows, columns, zeros,
fewest, most, group, agree}}}: zeros in all, in the row with the fewest and the most of them, and in the
M neighbours with the fewest; and which part of the weights is 0 in both or in neither of this model and
that of --against. Needs llmcompressor and torch.
"""

import argparse
import contextlib
import json
import os
import re
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["CUDA_VISIBLE_DEVICES"] = ""


def linears_of(folder):
    """The weights of the blocks' linears that a checkpoint holds, by name."""
    from safetensors.torch import load_file

    names = [name for name in sorted(os.listdir(folder)) if name.endswith(".safetensors")]
    tensors = {}
    for name in names:
        tensors.update(load_file(os.path.join(folder, name)))
    linear = re.compile(r".*layers\.\d+\..*(proj|fc\d)\.weight$")
    return {name: tensor for name, tensor in tensors.items() if linear.match(name)}


def count(weight, m):
    """How many weights of a matrix are 0, and how they are spread."""
    zero = weight == 0
    rows = zero.sum(dim=1)
    found = {
        "rows": weight.shape[0],
        "columns": weight.shape[1],
        "zeros": int(zero.sum()),
        "fewest": int(rows.min()),
        "most": int(rows.max()),
    }
    if m:
        found["group"] = int(zero.reshape(weight.shape[0], -1, m).sum(dim=2).min())
    return found


def prune(arguments):
    """Runs the recipe; the result is in the output folder."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    with open(arguments.windows) as file:
        windows = json.load(file)["windows"]
    batches = [
        {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
        for ids in windows
    ]
    # None: each of them is a batch already.
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    oneshot(
        model=model,
        recipe=arguments.recipe,
        dataset=loader,
        pipeline="sequential",
        output_dir=arguments.output,
        save_compressed=False,
    )


def main():
    parser = argparse.ArgumentParser()
    for name in ("model", "recipe", "windows", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--m", type=int, default=0)
    parser.add_argument("--against")
    arguments = parser.parse_args()
    # Standard output is for the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        import llmcompressor
        import torch

        prune(arguments)
    pruned = linears_of(arguments.output)
    other = linears_of(arguments.against) if arguments.against else {}
    linears = {}
    for name, weight in pruned.items():
        linears[name] = count(weight, arguments.m)
        if name in other:
            agree = (weight == 0) == (other[name] == 0)
            linears[name]["agree"] = float(agree.float().mean())
    versions = {"llmcompressor": llmcompressor.__version__, "torch": torch.__version__}
    print(json.dumps({"versions": versions, "linears": linears}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
