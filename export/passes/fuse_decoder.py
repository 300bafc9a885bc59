"""Write the decoder in ONNX Runtime's own operators: faster, and releases too old for opset 24 have them as well.

The ones for Python 3.10, and so for JetPack 6.2, end at 1.23. Its GroupQueryAttention turns, caches and attends, in
proportion to the tokens there are instead of the buffer they lie in, and computes the same (docs/cpu.md). Heads that it
does not turn are turned before it, by an operator of opset 23.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.passes.step import Step
from storm_edge.export.rotary import inverse_frequencies
from storm_edge.runtime.config.schema import LanguageConfig
from storm_edge.runtime.config.sizes import TURNED_HEADS

DOMAIN = "com.microsoft"
OPSET, IR_VERSION = 20, 10
_FLAT = "heads.flat"
_TABLE_BYTES = 64 << 20  # those of Qwen2-7B have 16 MiB
_SEQLENS, _TOTAL, _COS, _SIN = "cache.last", "cache.total", "rotary.cos_cache", "rotary.sin_cache"


def can_fuse(config: LanguageConfig, length: int) -> bool:
    """Whether GroupQueryAttention takes the heads on a CPU, and rotary tables of `length` tokens stay small."""
    return config.head_dim % TURNED_HEADS == 0 and length * config.head_dim * 4 <= _TABLE_BYTES


def fuse_decoder(model: onnx.ModelProto, config: LanguageConfig, length: int) -> None:
    """Replace attention with its cache and rotation, and the norms, in place, and set opset 20.

    Inputs and outputs stay what they are; position_ids is no longer read. Rotary tables reach to `length` tokens. Where
    rotation stays outside, positions are read, and the opset is that of the graph.
    Raises ValueError where the graph is not the decoder that export composes.
    """
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    used_by = {name: node for node in graph.node for name in node.input}
    kind = next(v for v in graph.input if v.name == "inputs_embeds").type.tensor_type.elem_type
    fused = {n.name: _fused(n, made_by, used_by, config) for n in graph.node if n.op_type == "Attention"}
    replaced = {name for made in fused.values() for name in made[-1].output}
    nodes = _lengths(graph)
    for node in graph.node:
        if node.op_type == "Attention":
            nodes += fused[node.name]
        elif node.op_type == "RMSNormalization":
            nodes.append(_renamed(node, "SimplifiedLayerNormalization"))
        elif replaced.isdisjoint(node.output):
            nodes.append(node)
    turned = config.head_dim % TURNED_HEADS == 0
    if turned:
        _rotary_tables(graph, config, length, kind)
    graph.initializer.append(numpy_helper.from_array(np.array([0, 0, -1], np.int64), _FLAT))
    _keep_needed(graph, nodes)
    del graph.value_info[:]  # of tensors that are gone
    for entry in model.opset_import:
        if entry.domain == "" and turned:
            entry.version = OPSET
    if DOMAIN not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    if turned:
        model.ir_version = min(model.ir_version, IR_VERSION)


def fuse_decoder_step(config: LanguageConfig, length: int) -> Step:
    """The pass for a build."""
    return Step("fuse decoder", 2, lambda model, _: fuse_decoder(model, config, length), str(length))


def _lengths(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """What GroupQueryAttention is told of the cache: the tokens in it after this call, and the last one's index."""
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int32), "cache.one"))
    return [
        helper.make_node("Shape", ["inputs_embeds"], ["cache.new"], name="cache.new", start=1, end=2),  # (1)
        helper.make_node("Add", ["write_indices", "cache.new"], ["cache.tokens"], name="cache.tokens"),
        helper.make_node("Cast", ["cache.tokens"], ["cache.tokens32"], name="cache.tokens32", to=TensorProto.INT32),
        helper.make_node("Sub", ["cache.tokens32", "cache.one"], [_SEQLENS], name=_SEQLENS),  # (1)
        helper.make_node("Squeeze", ["cache.tokens32"], [_TOTAL], name=_TOTAL),  # scalar
    ]


def _fused(
    attention: onnx.NodeProto,
    made_by: dict[str, onnx.NodeProto],
    used_by: dict[str, onnx.NodeProto],
    config: LanguageConfig,
) -> list[onnx.NodeProto]:
    """One GroupQueryAttention from the projections (1, S, heads * head) to the merged heads, and before it what lays
    out heads that were turned or normalised already.
    """
    q, keys, values = attention.input[:3]
    scatters = [_expect(made_by, name, "TensorScatter") for name in (keys, values)]
    heads = [q, scatters[0].input[1]]  # each (1, heads, S, head), turned
    before = [_expect(made_by, name, "RotaryEmbedding").input[0] for name in heads]
    turned, nodes, flat = config.head_dim % TURNED_HEADS == 0, list[onnx.NodeProto](), list[str]()
    for name in (*before, scatters[1].input[1]):
        rows = _expect(made_by, name, "Transpose").input[0]  # (1, S, heads, head)
        if (norm := made_by.get(rows)) is not None and norm.op_type == "RMSNormalization":
            flat.append(f"{rows}/flat")
            if turned:
                nodes.append(helper.make_node("Reshape", [rows, _FLAT], [flat[-1]], name=flat[-1]))
        else:
            flat.append(_expect(made_by, rows, "Reshape").input[0])
    if not turned:
        for i, name in enumerate(heads):
            rows, flat[i] = f"{name}/rows", f"{name}/flat"
            nodes.append(helper.make_node("Transpose", [name], [rows], name=rows, perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [rows, _FLAT], [flat[i]], name=flat[i]))
    rows = _expect(used_by, attention.output[0], "Transpose").output[0]
    merged = _expect(used_by, rows, "Reshape").output[0]
    tables = [_COS, _SIN] if turned else []
    attending = helper.make_node(
        "GroupQueryAttention",
        [*flat, scatters[0].input[0], scatters[1].input[0], _SEQLENS, _TOTAL, *tables],
        [merged, keys, values],
        name=f"{merged}/GroupQueryAttention",
        domain=DOMAIN,
        num_heads=config.num_attention_heads,
        kv_num_heads=config.num_key_value_heads,
        do_rotary=int(turned),
    )
    return [*nodes, attending]


def _expect(nodes: dict[str, onnx.NodeProto], name: str, op_type: str) -> onnx.NodeProto:
    found = nodes.get(name)
    if found is None or found.op_type != op_type:
        raise ValueError(f"{name} belongs to {found.op_type if found else 'no node'} where the decoder has {op_type}")
    return found


def _renamed(node: onnx.NodeProto, op_type: str) -> onnx.NodeProto:
    """The same node under the name that ONNX Runtime had for it before the standard had one."""
    renamed = onnx.NodeProto()
    renamed.CopyFrom(node)
    renamed.op_type = op_type
    return renamed


def _rotary_tables(graph: onnx.GraphProto, config: LanguageConfig, length: int, kind: int) -> None:
    """cos and sin (length, head / 2), from angles in float32."""
    angles = np.arange(length, dtype=np.float32)[:, None] * inverse_frequencies(config)  # (length, head / 2)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for name, table in ((_COS, np.cos(angles)), (_SIN, np.sin(angles))):
        graph.initializer.append(numpy_helper.from_array(table.astype(dtype), name))


def _keep_needed(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Of `nodes` those that outputs depend on, in their order; the same of the initializers without a reader."""
    wanted = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [t for t in graph.initializer if t.name in wanted]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
