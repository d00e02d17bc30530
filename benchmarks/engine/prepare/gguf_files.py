"""Write a checkpoint as the GGUF files that llama.cpp's runtimes are measured with.

    gguf_files.py CHECKPOINT_DIR OUT_DIR

OUT_DIR gets q4_0.gguf and q8_0.gguf. As llama-quantize does it, norms stay float32, and the output head
of a Q4_0 file (so the embedding, where the two are tied) has more bits than the rest: 8, which
llama-quantize takes where the width is no multiple of 256; elsewhere it takes 6, which the gguf package
cannot write.

Printed is {"files": {name: {"bytes", "tokenBytes"}}, "versions"}; tokenBytes are those of the weights
that a token reads.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import gguf
import ml_dtypes  # noqa: F401, numpy learns bfloat16 from it
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from safetensors import safe_open

TYPES = {
    "q4_0.gguf": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q8_0.gguf": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
TOP_LEVEL = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
IN_BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`."""
    if name in TOP_LEVEL:
        return TOP_LEVEL[name]
    _, _, block, rest = name.split(".", 3)
    part, kind = rest.rsplit(".", 1)
    return f"blk.{block}.{IN_BLOCK[part]}.{kind}"


def permute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Interleave the two rotary halves of each head's rows, as llama.cpp has them."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def tensors(folder: Path, config: dict):
    """Every tensor of the checkpoint in float32, under llama.cpp's name."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():
                if name.endswith("rotary_emb.inv_freq"):
                    continue
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                weight = file.get_tensor(name).astype(np.float32)
                if ".q_proj." in name:
                    weight = permute(weight, config["num_attention_heads"])
                elif ".k_proj." in name:
                    weight = permute(weight, config["num_key_value_heads"])
                yield gguf_name(name), weight


def add_config(writer: gguf.GGUFWriter, config: dict) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise SystemExit(f"rotary embeddings of type {rope['rope_type']} are not converted")
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def split_name(pre_tokenizer: dict) -> str:
    """llama.cpp's name for the way in which text is cut before its bytes are merged."""
    steps = [step["type"] for step in pre_tokenizer.get("pretokenizers", [pre_tokenizer])]
    return {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}.get(tuple(steps), "default")


def add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: dict) -> None:
    """The vocabulary: wllama takes prompts as text."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    model = tokenizer["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise SystemExit("only tokenizers of byte-level BPE are converted")
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    types = [gguf.TokenType.UNUSED] * len(tokens)
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, gguf.TokenType.NORMAL
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], gguf.TokenType.CONTROL
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(tokenizer["pre_tokenizer"]))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for key, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if isinstance(config.get(key), int):
            add(config[key])


def write(folder: Path, config: dict, path: Path, kind, file_type) -> dict:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    add_config(writer, config)
    add_tokenizer(writer, folder, config)
    head = "token_embd.weight" if config.get("tie_word_embeddings") else "output.weight"
    sizes = {}
    for name, weight in tensors(folder, config):
        if weight.ndim == 1:
            writer.add_tensor(name, weight)
            continue
        used = GGMLQuantizationType.Q8_0 if name == head else kind
        packed = gguf.quantize(weight, used)
        writer.add_tensor(name, packed, raw_dtype=used)
        sizes[name] = packed.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if head == "output.weight":
        del sizes["token_embd.weight"]  # a token reads one row of it
    return {"bytes": path.stat().st_size, "tokenBytes": sum(sizes.values())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    config = json.loads((arguments.checkpoint / "config.json").read_text())
    if config["model_type"] != "llama":
        raise SystemExit(f"only llama checkpoints are converted to GGUF, not {config['model_type']}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {
        name: write(arguments.checkpoint, config, arguments.out / name, kind, file_type)
        for name, (kind, file_type) in TYPES.items()
    }
    print(json.dumps({"files": files, "versions": {"gguf": version("gguf")}}))


if __name__ == "__main__":
    main()
