"""The released DLP code's steps in PyTorch, timed: what `espalier prune` is compared with.

    python reference.py MODEL_DIR WINDOWS.json [--method wanda|sparsegpt] [--sparsity 0.7] [--alpha 0.15]
                        [--threads 2]

WINDOWS.json holds `{"windows": [[token id, …], …]}`, all windows of one length. The model may be any
Llama-like one (`model.model.layers`, the same keyword arguments for every block).

Two phases, each with the repeats that the released code has:

  scores  The hidden states that enter block 0 are captured. Every block then runs twice over all
          windows: once with hooks that gather the input norms of its linears, once for its outputs.
          A block's score is the mean of |W|·‖X‖₂ over all its weights, and the scores give the
          densities.
  prune   The same again with wanda between a block's two runs, so that the second run and all later
          blocks see the pruned weights; or with SparseGPT, whose hooks gather a Hessian a linear.

Weights are float32, attention is `sdpa`, there is no KV cache, and a forward call takes one window.
Loading the model is not timed. Left out: the in × in matrix a linear that the released code allocates
and never uses (its peak memory is above this script's), and the files it writes its ratios to.

Prints one line of JSON. `seconds` covers both phases; `peakMiB` is the process's peak resident memory,
loading included, and `loadedPeakMiB` what that peak was just before the first phase; `densities` are
the kept fractions of the blocks; `linears` names a block's linears, with their numbers of weights;
`zeros` counts the weights that are 0 at the end, `[block][linear]`.
"""

import argparse
import json
import platform
import resource
import sys
import time

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

LEAST_SPARSITY = 0.01  # what the released code puts in the place of a sparsity of 0 or less


class ReachedFirstBlock(Exception):
    """Ends a forward pass of the whole model once the inputs of block 0 are known."""


class InputNorms:
    """Mean over windows of the squared L2 norms of a linear's input columns (`scaler_row`)."""

    def __init__(self, linear):
        self.windows = 0
        self.scaler_row = torch.zeros(linear.in_features)

    def add(self, inputs):
        columns = inputs.reshape(-1, inputs.shape[-1]).float()
        squared = torch.linalg.vector_norm(columns, dim=0) ** 2
        self.scaler_row *= self.windows / (self.windows + 1)
        self.windows += 1
        self.scaler_row += squared / self.windows


def linears_of(block):
    return [module for module in block.modules() if isinstance(module, nn.Linear)]


def capture_block_inputs(model, windows):
    """The hidden states entering block 0, [windows, tokens, hidden], and the block's other arguments."""
    states = torch.zeros(len(windows), len(windows[0]), model.config.hidden_size)
    seen = {"window": 0, "arguments": {}}

    def stop(_block, positional, arguments):
        arguments = dict(arguments)
        hidden = positional[0] if positional else arguments.pop("hidden_states")
        states[seen["window"]] = hidden[0]
        seen["arguments"] = arguments
        raise ReachedFirstBlock

    handle = model.model.layers[0].register_forward_pre_hook(stop, with_kwargs=True)
    for index, window in enumerate(windows):
        seen["window"] = index
        try:
            model(torch.tensor([window]), use_cache=False)
        except ReachedFirstBlock:
            pass
    handle.remove()
    return states, seen["arguments"]


def run_block(block, states, outputs, arguments):
    """One forward call a window; `outputs` is overwritten."""
    for index in range(states.shape[0]):
        result = block(states[index].unsqueeze(0), **arguments)
        outputs[index] = (result[0] if isinstance(result, tuple) else result)[0]


def run_block_with(statistics, block, states, outputs, arguments):
    """`run_block`, returning the statistics of the block's linears' inputs."""
    linears = linears_of(block)
    norms = [statistics(linear) for linear in linears]

    def hook_for(gathered):
        return lambda _linear, inputs, _output: gathered.add(inputs[0])

    handles = [
        linear.register_forward_hook(hook_for(gathered)) for linear, gathered in zip(linears, norms)
    ]
    run_block(block, states, outputs, arguments)
    for handle in handles:
        handle.remove()
    return norms


def weight_metric(linear, norms):
    """|W|·‖X‖₂, the column norms broadcast over the rows."""
    return linear.weight.abs() * norms.scaler_row.sqrt().unsqueeze(0)


def dlp_scores(model, windows):
    states, arguments = capture_block_inputs(model, windows)
    outputs = torch.zeros_like(states)
    scores = []
    for block in model.model.layers:
        norms = run_block_with(InputNorms, block, states, outputs, arguments)
        metrics = [weight_metric(linear, norm) for linear, norm in zip(linears_of(block), norms)]
        run_block(block, states, outputs, arguments)
        states, outputs = outputs, states
        scores.append(torch.cat([metric.flatten() for metric in metrics]).mean())
    return torch.stack(scores)


def dlp_densities(scores, sparsity, alpha):
    """Kept fractions whose mean is 1 − sparsity and whose range is 2·alpha: low scores keep most."""
    importance = 1 - scores / scores.sum()
    low, high = importance.min(), importance.max()
    if not low < high:
        sys.exit("the blocks' scores do not differ: the released formula divides by their range")
    spread = (importance - low) * (2 * alpha / (high - low))
    return spread - spread.mean() + (1 - sparsity)


def prune_linear(linear, norms, sparsity):
    """Zeroes the ⌊in · sparsity⌋ weights with the lowest metric in every row (wanda)."""
    metric = weight_metric(linear, norms)
    order = torch.sort(metric, dim=-1, stable=True).indices
    lowest = order[:, : int(metric.shape[1] * sparsity)]
    mask = torch.zeros_like(metric, dtype=torch.bool).scatter_(1, lowest, True)
    linear.weight[mask] = 0


def prune_wanda(model, windows, densities):
    states, arguments = capture_block_inputs(model, windows)
    outputs = torch.zeros_like(states)
    for block, density in zip(model.model.layers, densities):
        sparsity = 1 - density
        if sparsity <= 0:
            sparsity = LEAST_SPARSITY
        norms = run_block_with(InputNorms, block, states, outputs, arguments)
        for linear, norm in zip(linears_of(block), norms):
            prune_linear(linear, norm, sparsity)
        run_block(block, states, outputs, arguments)
        states, outputs = outputs, states


class Hessian:
    """2·XᵀX of a linear's inputs, divided by the number of windows."""

    def __init__(self, linear):
        self.windows = 0
        self.sum = torch.zeros(linear.in_features, linear.in_features)

    def add(self, inputs):
        columns = inputs.reshape(-1, inputs.shape[-1]).float().t()
        self.sum *= self.windows / (self.windows + 1)
        self.windows += 1
        columns = (2 / self.windows) ** 0.5 * columns
        self.sum += columns.matmul(columns.t())


def reconstruct_linear(linear, gathered, sparsity, width=128, damping=0.01):
    """SparseGPT: prunes in blocks of columns; columns further on make up for what was cut."""
    weight = linear.weight.clone()
    hessian = gathered.sum
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    count = weight.shape[1]
    diagonal = torch.arange(count)
    hessian[diagonal, diagonal] += damping * torch.diag(hessian).mean()
    factor = torch.linalg.cholesky(hessian)
    factor = torch.linalg.cholesky(torch.cholesky_inverse(factor), upper=True)
    for start in range(0, count, width):
        end = min(start + width, count)
        part = weight[:, start:end].clone()
        errors = torch.zeros_like(part)
        own = factor[start:end, start:end]
        metric = part**2 / torch.diag(own).reshape(1, -1) ** 2
        threshold = metric.flatten().sort()[0][int(metric.numel() * sparsity)]
        pruned = metric <= threshold
        for i in range(end - start):
            column = part[:, i]
            kept = column.clone()
            kept[pruned[:, i]] = 0
            error = (column - kept) / own[i, i]
            part[:, i:] -= error.unsqueeze(1).matmul(own[i, i:].unsqueeze(0))
            part[:, i] = kept
            errors[:, i] = error
        weight[:, start:end] = part
        weight[:, end:] -= errors.matmul(factor[start:end, end:])
    linear.weight.copy_(weight)


def prune_sparsegpt(model, windows, densities):
    states, arguments = capture_block_inputs(model, windows)
    outputs = torch.zeros_like(states)
    for block, density in zip(model.model.layers, densities):
        sparsity = max(LEAST_SPARSITY, 1 - density)
        hessians = run_block_with(Hessian, block, states, outputs, arguments)
        for linear, gathered in zip(linears_of(block), hessians):
            reconstruct_linear(linear, gathered, sparsity)
        run_block(block, states, outputs, arguments)
        states, outputs = outputs, states


def peak_mib():
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description="The released DLP code's steps in PyTorch, timed.")
    parser.add_argument("model")
    parser.add_argument("windows")
    parser.add_argument("--method", choices=["wanda", "sparsegpt"], default="wanda")
    parser.add_argument("--sparsity", type=float, default=0.7)
    parser.add_argument("--alpha", type=float, default=0.15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    with open(options.windows, encoding="utf-8") as file:
        windows = json.load(file)["windows"]
    if not windows or len({len(window) for window in windows}) != 1:
        sys.exit(f"{options.windows}: expected one or more windows of one length")

    model = AutoModelForCausalLM.from_pretrained(
        options.model, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()
    model.config.use_cache = False
    loaded_peak = peak_mib()

    with torch.no_grad():
        started = time.perf_counter()
        scores = dlp_scores(model, windows)
        densities = dlp_densities(scores, options.sparsity, options.alpha).tolist()
        scored = time.perf_counter()
        prune = prune_wanda if options.method == "wanda" else prune_sparsegpt
        prune(model, windows, densities)
        ended = time.perf_counter()
        zeros = [
            [int((linear.weight == 0).sum()) for linear in linears_of(block)]
            for block in model.model.layers
        ]
    named = [
        (name, module.weight.numel())
        for name, module in model.model.layers[0].named_modules()
        if isinstance(module, nn.Linear)
    ]

    print(
        json.dumps(
            {
                "seconds": round(ended - started, 3),
                "phases": {
                    "scores": round(scored - started, 3),
                    "prune": round(ended - scored, 3),
                },
                "peakMiB": peak_mib(),
                "loadedPeakMiB": loaded_peak,
                "densities": densities,
                "linears": named,
                "zeros": zeros,
                "threads": options.threads,
                "tokens": sum(len(window) for window in windows),
                "versions": {
                    "Python": platform.python_version(),
                    "PyTorch": torch.__version__,
                    "transformers": transformers.__version__,
                },
            }
        )
    )


if __name__ == "__main__":
    main()
