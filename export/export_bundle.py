"""`storm export`: checkpoint -> bundle."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from storm_edge.export.checkpoint.head import check_tied_head
from storm_edge.export.checkpoint.shapes import NEWLINE
from storm_edge.export.checkpoint.tokenizer import copy_tokenizer
from storm_edge.export.checkpoint.weights import write_safetensors
from storm_edge.export.families.recognise import open_checkpoint
from storm_edge.export.graph_file import StreamedModel
from storm_edge.export.network.language import load_language_model, stream_language_model
from storm_edge.export.network.load import load_line_end, load_temporal, load_vision
from storm_edge.export.network.temporal import cast_for_export
from storm_edge.export.reference.record import ReferenceClip, record_clips
from storm_edge.export.reference.rounding import rounding_price
from storm_edge.export.trace.decoder import compose_decoder
from storm_edge.export.trace.embedding import write_embedding
from storm_edge.export.trace.temporal import trace_temporal
from storm_edge.export.trace.vision import trace_vision
from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.native_kernels import without_native_kernels
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.answer.pipeline import DEFAULT_FRAMES
from storm_edge.runtime.bundle.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    GraphSpec,
    Manifest,
    Stage,
    TensorSpec,
    describe_file,
)
from storm_edge.runtime.bundle.publish import staging
from storm_edge.runtime.bundle.records import ReferenceSpec, to_json
from storm_edge.runtime.config.schema import DType, ReductionConfig, StormConfig, parse_config
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.newline import newline_of_model
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.proof.figures import describe_reference

# Above this, the record is one short clip, computed with one layer of the language model in memory at a time.
WHOLE_MODEL_BYTES = 4 * 10**9
GREEDY_TOKENS, GREEDY_TOKENS_STREAMED = 64, 8
ANSWER_TOKENS = 64  # that should fit behind a clip of as many frames as are looked at by default
# What is asked about reference clips that bring no question of their own.
QUESTIONS = ("What happens in this video?", "Which way does the square move?", "Describe the first frame.")
# The model's image size -> clips uint8 (frames, size, size, 3), each with a question.
ClipSource = Callable[[int], Iterable[tuple[NDArray[np.uint8], str]]]
_PACKAGES = ("storm-edge", "torch", "transformers", "onnx", "onnxscript", "numpy")


def export_bundle(
    checkpoint_path: Path,
    output: Path,
    *,
    dtype: DType | None = None,
    temporal_pool: int | None = None,
    spatial_pool: int | None = None,
    clips: ClipSource | None = None,
    force: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Write the bundle of a checkpoint to the folder `output`; returns lines that its user should read.

    `dtype` is the type of weights and activations in the graphs, by default the checkpoint's; the pooling factors
    override the configuration's. `clips` gives what the reference record is made of, by default synthetic frames, for
    which a calibration's ranges may not hold. Raises UsageError where `output` exists and not `force`, for clips that
    are too short, of another size or beyond the model's context, and for weights beyond `dtype`; CheckpointError.
    """
    if output.exists() and not force:
        raise UsageError(f"{output} exists already: choose another folder or add --force to replace it.")
    family, checkpoint = open_checkpoint(checkpoint_path)
    progress(f"checkpoint of {family.words}")
    config = _with_pooling(checkpoint.config, temporal_pool, spatial_pool)
    dtype = dtype or config.dtype
    torch_dtype = getattr(torch, dtype)
    with staging(output) as folder:
        graphs = folder / "graphs"
        graphs.mkdir()
        progress("tokenizer")
        copy_tokenizer(checkpoint.tokenizer, folder / "tokenizer", config.llm.vocab_size, joined=checkpoint.joined)
        progress("load vision and temporal")
        check_tied_head(config.llm, checkpoint.llm)
        vision, temporal = load_vision(checkpoint, dtype), load_temporal(checkpoint, config, dtype)
        progress("reference record")
        streamed = checkpoint.nbytes > WHOLE_MODEL_BYTES
        asked = (clips or _synthetic_clips(config.reduction.temporal_pool))(config.vision.image_size)
        steps = GREEDY_TOKENS_STREAMED if streamed else GREEDY_TOKENS
        prompt = ChatPrompt.open(folder / "tokenizer")
        line_end = load_line_end(checkpoint, dtype)
        recorded = _reference_clips(config, prompt, asked, steps, line_end, short=streamed)
        load_llm = stream_language_model if streamed else load_language_model
        with without_native_kernels():
            records = list(record_clips(recorded, vision, temporal, load_llm(checkpoint, dtype), steps, progress))
        clip_files = [f"reference/clip{i}.safetensors" for i in range(len(records))]
        (folder / "reference").mkdir()
        for file, record in zip(clip_files, records, strict=True):
            write_safetensors(folder / file, record)
        specs: dict[Stage, GraphSpec] = {}
        progress("vision graph")
        model = trace_vision(vision.to(torch_dtype), config)
        specs["vision"] = _save(StreamedModel(model), graphs, "vision")
        progress("temporal graph")
        cast_for_export(temporal, torch_dtype)
        specs["temporal"] = _save(StreamedModel(trace_temporal(temporal, config, torch_dtype)), graphs, "temporal")
        progress("decoder graph")
        specs["decoder"] = _save(compose_decoder(config.llm, checkpoint.llm, dtype), graphs, "decoder")
        newline = None if line_end is None else checkpoint.temporal.read(NEWLINE, dtype)
        write_embedding(checkpoint.llm, graphs / "embedding.safetensors", dtype, newline)
        price = None
        if checkpoint.is_rounded_by(dtype):
            progress("price of rounding")
            del vision, temporal  # two of each would not fit where one just does
            own = load_vision(checkpoint), load_temporal(checkpoint, config), load_llm(checkpoint)
            with without_native_kernels():
                price = rounding_price(recorded, records, *own, progress)
        progress("manifest")
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            config=config,
            dtype=dtype,
            graphs=specs,
            embedding="graphs/embedding.safetensors",
            tokenizer="tokenizer",
            clips=clip_files,
            reference=ReferenceSpec(weights=dtype, rounding=price),
            operators={op.NAME: op.VERSION for op in (selective_scan, causal_conv1d)},
            checkpoint_sha256=checkpoint.sha256(),
            versions={name: importlib.metadata.version(name) for name in _PACKAGES},
            files={p.relative_to(folder).as_posix(): describe_file(p) for p in files},
        )
        (folder / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    said = [] if family.name == "storm" else [f"family: {family.words}"]
    return [*said, *describe_reference(manifest.reference), *_context_notes(config, prompt)]


def synthetic_frames(count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """A seeded clip (count, size, size, 3): a square moves over a noisy gradient, so that every frame differs."""
    rng = np.random.Generator(np.random.PCG64(seed))
    ramp = np.linspace(0, 160, size, dtype=np.float32)
    background = ramp[:, None, None] * rng.uniform(0.2, 1, 3) + ramp[None, :, None] * rng.uniform(0, 0.5, 3)
    background = background + rng.uniform(0, 40, (size, size, 3))  # (size, size, 3)
    frames = np.repeat(background[None], count, axis=0)
    side, start, end = max(size // 4, 1), *rng.integers(0, size - size // 4, (2, 2))
    for i, frame in enumerate(frames):
        top, left = (start + (end - start) * i // max(count - 1, 1)).tolist()
        frame[top : top + side, left : left + side] = rng.uniform(120, 255, 3)
    return frames.clip(0, 255).astype(np.uint8)


def _synthetic_clips(k: int) -> ClipSource:
    lengths = (max(2 * k, 4), k, 3 * k)
    return lambda size: [(synthetic_frames(n, size, i), QUESTIONS[i]) for i, n in enumerate(lengths)]


def _reference_clips(
    config: StormConfig,
    prompt: ChatPrompt,
    asked: Iterable[tuple[NDArray[np.uint8], str]],
    steps: int,
    line_end: torch.Tensor | None,
    *,
    short: bool,
) -> list[ReferenceClip]:
    """The clips, of whole groups of k frames; `short` keeps one of four frames or so. UsageError beyond the context."""
    k, size = config.reduction.temporal_pool, config.vision.image_size
    newline = newline_of_model(config, prompt)
    clips = []
    for frames, question in islice(asked, 1 if short else None):
        if frames.shape[1:] != (size, size, 3) or len(frames) < k:
            raise UsageError(
                f"a reference clip is {frames.shape}, but the model sees {size} x {size} pixels and pools {k} frames:"
                f" give clips (frames, {size}, {size}, 3) of {k} frames or more."
            )
        ids = prompt.render([Message("user", question, video=True)])
        groups = max(4 // k, 1) if short else len(frames) // k
        used = len(ids.before) + config.visual_tokens(groups * k, sample=1) + len(ids.after) + steps - 1
        if used > config.llm.max_position_embeddings:
            raise UsageError(
                f"a reference clip of {groups * k} frames takes {used} positions, but llm.max_position_embeddings is"
                f" {config.llm.max_position_embeddings}: give shorter clips with --clips, pool more, or correct it."
            )
        clips.append(ReferenceClip(frames[: groups * k], ids.before, ids.after, newline, line_end))
    return clips


def _context_notes(config: StormConfig, prompt: ChatPrompt) -> list[str]:
    """A line where the frames that a clip has by default leave no room for an answer."""
    ids, most = prompt.render([Message("user", QUESTIONS[0], video=True)]), config.llm.max_position_embeddings
    room = most - len(ids.before) - len(ids.after) - ANSWER_TOKENS
    if config.visual_tokens(DEFAULT_FRAMES) <= room:
        return []
    fitting = max((n for n in range(1, DEFAULT_FRAMES) if config.visual_tokens(n) <= room), default=0)
    return [
        f"warning: {DEFAULT_FRAMES} frames, the default, take {config.visual_tokens(DEFAULT_FRAMES)} positions, but"
        f" llm.max_position_embeddings is {most}: {fitting} leave room for a question and {ANSWER_TOKENS} tokens."
    ]


def _with_pooling(config: StormConfig, temporal_pool: int | None, spatial_pool: int | None) -> StormConfig:
    chosen = {"temporal_pool": temporal_pool, "spatial_pool": spatial_pool}
    reduction = config.reduction.model_dump() | {k: v for k, v in chosen.items() if v is not None}
    data = config.model_dump() | {"reduction": ReductionConfig.model_validate(reduction).model_dump()}
    return parse_config(data, "the requested pooling", UsageError)


def _save(streamed: StreamedModel, folder: Path, stage: Stage) -> GraphSpec:
    streamed.save(folder / f"{stage}.onnx", f"{stage}.data")
    model = streamed.model
    data = f"graphs/{stage}.data" if (folder / f"{stage}.data").exists() else None
    return GraphSpec(
        file=f"graphs/{stage}.onnx",
        data=data,
        opset=next(o.version for o in model.opset_import if o.domain == ""),
        inputs=[_spec(value) for value in model.graph.input],
        outputs=[_spec(value) for value in model.graph.output],
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(name=value.name, dtype=dtype, shape=[d.dim_param or d.dim_value for d in tensor.shape.dim])
