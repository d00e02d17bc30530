"""Tunes a pruned checkpoint with LoRA, and leaves its zeros where they are.

    tune.py PRUNED_DIR TEXT OUTPUT_DIR [--steps 40]

LoRA adds a dense product of two thin matrices to each weight. Here that product is masked wherever the
pruned weight is 0, in training as in the merge: what is measured while training is what is written, and the
result compiles to as few bytes as before.
"""

import argparse
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as LoraLinear
from transformers import AutoModelForCausalLM, AutoTokenizer

LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seqlen", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    return parser.parse_args()


def keep_masks(model):
    """Masks what LoRA adds to each linear; gives the layers with their masks."""
    layers = []
    for layer in model.modules():
        if not isinstance(layer, LoraLinear):
            continue
        mask = (layer.base_layer.weight != 0).float()

        def forward(x, layer=layer, mask=mask):
            base = layer.base_layer
            weight = base.weight + mask * layer.get_delta_weight("default")
            return torch.nn.functional.linear(x, weight, base.bias)

        layer.forward = forward
        layers.append((layer, mask))
    return layers


def main():
    arguments = read_arguments()
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    model = get_peft_model(
        model, LoraConfig(r=arguments.rank, lora_alpha=arguments.rank, target_modules=LINEARS)
    )
    layers = keep_masks(model)

    ids = tokenizer(arguments.text.read_text(), return_tensors="pt").input_ids[0]
    optimizer = torch.optim.AdamW(
        [weight for weight in model.parameters() if weight.requires_grad], lr=arguments.rate
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.steps)
    for step in range(arguments.steps):
        starts = torch.randint(len(ids) - arguments.seqlen, (arguments.batch,))
        windows = torch.stack([ids[start : start + arguments.seqlen] for start in starts])
        loss = model(input_ids=windows, labels=windows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 10 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)

    with torch.no_grad():
        for layer, mask in layers:
            layer.base_layer.weight += mask * layer.get_delta_weight("default")
    tuned = model.unload().to(torch.float16)
    tuned.save_pretrained(arguments.output)
    # The tokenizer's files as they are.
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]:
        if (arguments.model / name).exists():
            shutil.copy(arguments.model / name, arguments.output / name)


main()
