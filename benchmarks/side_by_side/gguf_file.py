"""Checkpoint -> GGUF for llama.cpp: the language model alone, its tokenizer left out. Needs the gguf package."""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize
from prepare import Workplace

from storm_edge.export.checkpoint.folder import Checkpoint

FORMS = ("F16", "Q8_0", "Q4_0")
# Hugging Face's names of a layer's parts -> GGUF's.
_LAYER = {
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
_OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def name_of(name: str) -> str:
    """ "model.layers.3.mlp.up_proj.weight" -> "blk.3.ffn_up.weight"."""
    stem, _, kind = name.rpartition(".")
    if stem in _OTHERS:
        return f"{_OTHERS[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{_LAYER[part]}.{kind}"


def write_gguf(checkpoint: Checkpoint, path: Path, form: str) -> None:
    """Matrices in `form`, the rest in fp32, as llama.cpp's own converter does it."""
    llm, kind = checkpoint.config.llm, gguf.GGMLQuantizationType[form]
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(llm.max_position_embeddings)
    writer.add_embedding_length(llm.hidden_size)
    writer.add_block_count(llm.num_hidden_layers)
    writer.add_feed_forward_length(llm.intermediate_size)
    writer.add_head_count(llm.num_attention_heads)
    writer.add_head_count_kv(llm.num_key_value_heads)
    writer.add_rope_freq_base(llm.rope_theta)
    writer.add_layer_norm_rms_eps(llm.rms_norm_eps)
    writer.add_vocab_size(llm.vocab_size)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{form}"])
    writer.add_tokenizer_model("none")
    for name in checkpoint.llm.names:
        values = np.asarray(checkpoint.llm.read(name, "float32"), np.float32)
        if values.ndim == 2:
            # The embedding is the head too; llama.cpp's own Q4_0 files keep it in Q8_0 or wider.
            wide = form == "Q4_0" and "embed" in name
            made_of = gguf.GGMLQuantizationType.Q8_0 if wide else kind
            writer.add_tensor(name_of(name), quantize(values, made_of), raw_dtype=made_of)
        else:
            writer.add_tensor(name_of(name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Write every form of the model named on the command line that is not there yet."""
    place = Workplace.of(sys.argv[1])
    place.gguf.mkdir(exist_ok=True)
    for form in FORMS:
        path = place.gguf / f"{form}.gguf"
        if not path.exists():
            unfinished = path.with_suffix(".partial")
            write_gguf(Checkpoint.open(place.checkpoint), unfinished, form)
            unfinished.rename(path)


if __name__ == "__main__":
    main()
