"""The Qwen2 or Qwen3 decoder as one ONNX graph, composed straight from a checkpoint's tensors.

No model is built in PyTorch: the graph is small, and the weights stream from file to file. Initializers keep their
Hugging Face names; matrices are stored transposed, [in, out], as MatMul takes them and as weight quantizers expect.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.checkpoint.check import check_tensors
from storm_edge.export.checkpoint.head import EMBEDDING, HEAD, tied_head
from storm_edge.export.checkpoint.shapes import language_shapes
from storm_edge.export.checkpoint.weights import NUMPY_DTYPES, Array, LazyTensor, Weights, convert
from storm_edge.export.graph_file import Reader, StreamedModel, announce
from storm_edge.export.rotary import inverse_frequencies
from storm_edge.runtime.config.schema import DType, LanguageConfig

OPSET = 24
ONNX_TYPES: dict[DType, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
SEQUENCE, LENGTH = "sequence", "length"  # S: tokens of this call; M: tokens the key-value buffers have room for
FINAL_NORM = "model.norm.weight"


def compose_decoder(config: LanguageConfig, weights: Weights, dtype: DType) -> StreamedModel:
    """The graph (opset 24) with T = `dtype`, and readers of its weights; `weights` must stay open until it is saved.

    Inputs:  inputs_embeds T[1, S, D], position_ids int64[1, S], write_indices int64[1],
             past_key_i and past_value_i T[1, kv_heads, M, head]
    Outputs: logits float32[1, 1, vocabulary] of the last position, present_key_i and present_value_i as past
    The causal mask follows from position_ids: buffer slot j holds the token at position j.
    Raises CheckpointError naming every missing, unexpected and misshapen tensor.
    """
    check_tensors(weights.shapes, language_shapes(config), str(weights.path), tied_head(config))
    return _Composer(config, weights, dtype).compose()


class _Composer:
    """Collects nodes and initializers; a node's first output carries the node's name."""

    def __init__(self, config: LanguageConfig, weights: Weights, dtype: DType) -> None:
        self.config, self.weights, self.dtype = config, weights, dtype
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.readers: dict[str, Reader] = {}

    def compose(self) -> StreamedModel:
        """The whole graph."""
        config, T = self.config, ONNX_TYPES[self.dtype]
        cache: list[int | str] = [1, config.num_key_value_heads, LENGTH, config.head_dim]
        inputs = [
            _value("inputs_embeds", T, [1, SEQUENCE, config.hidden_size]),
            _value("position_ids", TensorProto.INT64, [1, SEQUENCE]),
            _value("write_indices", TensorProto.INT64, [1]),
        ]
        outputs = [_value("logits", TensorProto.FLOAT, [1, 1, config.vocab_size])]
        self.constant("heads.shape", np.array([0, 0, -1, config.head_dim]))
        self.constant("merged.shape", np.array([0, 0, config.heads_width]))
        cos, sin = self.rotary_tables()
        mask = self.causal_mask()
        x = "inputs_embeds"
        for i in range(config.num_hidden_layers):
            for kind in ("key", "value"):
                inputs.append(_value(f"past_{kind}_{i}", T, cache))
                outputs.append(_value(f"present_{kind}_{i}", T, cache))
            x = self.layer(i, x, cos, sin, mask)
        self.logits(x)
        # Inference cannot name what Range makes of a length; told once, it names the mask as well.
        named = [_value("mask.slots", TensorProto.INT64, [LENGTH])]
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.initializers, value_info=named)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets), producer_name="storm-edge"
        )
        return StreamedModel(model, self.readers)

    def rotary_tables(self) -> tuple[str, str]:
        """cos, sin: T[1, S, head / 2], from angles in float32 whatever T is."""
        self.constant("rotary.inv_freq", inverse_frequencies(self.config))
        self.constant("rotary.axes", np.array([2]))
        position = self.node("Cast", "rotary.position", ["position_ids"], to=TensorProto.FLOAT)  # (1, S)
        column = self.node("Unsqueeze", "rotary.column", [position, "rotary.axes"])  # (1, S, 1)
        angles = self.node("Mul", "rotary.angles", [column, "rotary.inv_freq"])  # (1, S, head / 2)
        cos, sin = (self.node(op, f"rotary.{op.lower()}", [angles]) for op in ("Cos", "Sin"))
        if self.dtype == "float32":
            return cos, sin
        T = ONNX_TYPES[self.dtype]
        return self.node("Cast", "rotary.cos.T", [cos], to=T), self.node("Cast", "rotary.sin.T", [sin], to=T)

    def causal_mask(self) -> str:
        """bool[1, 1, S, M]: a token sees the buffer up to its own position, so slots not written yet never count."""
        self.constant("mask.zero", np.array(0))
        self.constant("mask.one", np.array(1))
        self.constant("mask.axes", np.array([1, 3]))
        length = self.node("Shape", "mask.length", ["past_key_0"], start=2, end=3)  # (1)
        scalar = self.node("Squeeze", "mask.length.scalar", [length])
        slots = self.node("Range", "mask.slots", ["mask.zero", scalar, "mask.one"])  # (M)
        column = self.node("Unsqueeze", "mask.column", ["position_ids", "mask.axes"])  # (1, 1, S, 1)
        return self.node("LessOrEqual", "mask", [slots, column])  # (1, 1, S, M)

    def layer(self, i: int, x: str, cos: str, sin: str, mask: str) -> str:
        """One decoder layer: x T[1, S, D] -> T[1, S, D]."""
        at = f"model.layers.{i}"
        x = self.add(x, self.attention(i, self.norm(f"{at}.input_layernorm", x), cos, sin, mask), f"{at}.attended")
        return self.add(x, self.mlp(f"{at}.mlp", self.norm(f"{at}.post_attention_layernorm", x)), f"{at}.output")

    def attention(self, i: int, x: str, cos: str, sin: str, mask: str) -> str:
        """Grouped-query attention over the whole buffer, this call's keys and values written into it first."""
        at = f"model.layers.{i}.self_attn"
        heads = {}
        for name in ("q_proj", "k_proj", "v_proj"):
            flat = self.linear(f"{at}.{name}", x, bias=not self.config.head_norms)  # (1, S, heads * head)
            split = self.node("Reshape", f"{at}.{name}.split", [flat, "heads.shape"])  # (1, S, heads, head)
            if self.config.head_norms and name != "v_proj":
                split = self.norm(f"{at}.{name[0]}_norm", split)
            heads[name] = self.node("Transpose", f"{at}.{name}.heads", [split], perm=[0, 2, 1, 3])
        q = self.node("RotaryEmbedding", f"{at}.q_rotated", [heads["q_proj"], cos, sin])  # (1, heads, S, head)
        k = self.node("RotaryEmbedding", f"{at}.k_rotated", [heads["k_proj"], cos, sin])  # (1, kv_heads, S, head)
        keys, values = (
            self.node("TensorScatter", f"present_{kind}_{i}", [f"past_{kind}_{i}", update, "write_indices"], axis=2)
            for kind, update in (("key", k), ("value", heads["v_proj"]))
        )  # (1, kv_heads, M, head)
        mixed = self.node(
            "Attention", f"{at}.mixed", [q, keys, values, mask], softmax_precision=TensorProto.FLOAT
        )  # (1, heads, S, head)
        rows = self.node("Transpose", f"{at}.rows", [mixed], perm=[0, 2, 1, 3])  # (1, S, heads, head)
        merged = self.node("Reshape", f"{at}.merged", [rows, "merged.shape"])  # (1, S, heads * head)
        return self.linear(f"{at}.o_proj", merged)

    def mlp(self, at: str, x: str) -> str:
        """SwiGLU: down(silu(gate(x)) * up(x))."""
        gate = self.linear(f"{at}.gate_proj", x)  # (1, S, intermediate)
        sigmoid = self.node("Sigmoid", f"{at}.sigmoid", [gate])
        silu = self.node("Mul", f"{at}.silu", [gate, sigmoid])
        gated = self.node("Mul", f"{at}.gated", [silu, self.linear(f"{at}.up_proj", x)])
        return self.linear(f"{at}.down_proj", gated)

    def logits(self, x: str) -> None:
        """Final norm and vocabulary projection of the last position alone: prompts need no others."""
        self.constant("last.index", np.array(-1))
        self.constant("last.axes", np.array([1]))
        last = self.node("Gather", "last", [x, "last.index"], axis=1)  # (1, D)
        head = EMBEDDING if self.config.tie_word_embeddings else HEAD
        scores = self.linear(head.removesuffix(".weight"), self.norm(FINAL_NORM.removesuffix(".weight"), last))
        if self.dtype != "float32":
            scores = self.node("Cast", "logits.float32", [scores], to=TensorProto.FLOAT)
        self.node("Unsqueeze", "logits", [scores, "last.axes"])  # (1, 1, vocabulary)

    def linear(self, at: str, x: str, bias: bool = False) -> str:
        """x @ weight.T (+ bias)."""
        weight = self.weight(f"{at}.weight", transposed=True)
        product = self.node("MatMul", f"{at}.matmul", [x, weight])
        return self.node("Add", at, [product, self.weight(f"{at}.bias")]) if bias else product

    def norm(self, at: str, x: str) -> str:
        """RMS norm over the last axis, its statistics in float32 whatever T is."""
        inputs = [x, self.weight(f"{at}.weight")]
        return self.node("RMSNormalization", at, inputs, axis=-1, epsilon=self.config.rms_norm_eps, stash_type=1)

    def add(self, x: str, y: str, name: str) -> str:
        """Residual connection."""
        return self.node("Add", name, [x, y])

    def node(self, op: str, name: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node; returns its output."""
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{name}/{op}", **attributes))
        return name

    def constant(self, name: str, value: Array) -> None:
        """A small tensor that does not come from the checkpoint."""
        self.initializers.append(numpy_helper.from_array(value, name))

    def weight(self, name: str, transposed: bool = False) -> str:
        """A tensor of the checkpoint, converted to T when the graph is written."""

        def read() -> Array:
            tensor = self.weights.read(name)
            return convert(tensor.T if transposed else tensor, self.dtype, name)

        shape = self.weights.shape(name)
        lazy = LazyTensor(NUMPY_DTYPES[self.dtype], shape[::-1] if transposed else shape, read)
        self.initializers.append(announce(name, lazy))
        self.readers[name] = read
        return name


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)
