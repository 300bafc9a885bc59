"""Run a bundle's language model in fp32 on clips, questions and its own answers, and show what its layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from storm_edge.calibration.analysis import Asked
from storm_edge.calibration.decoder import fp32_decoder
from storm_edge.calibration.graphs import fp32_graph
from storm_edge.calibration.histogram import Histogram
from storm_edge.calibration.losses import AnswerLoss
from storm_edge.calibration.observe import Watcher, add_to, give_out
from storm_edge.export.build.tensorrt_llm.weights import kv_names
from storm_edge.export.graph_file import Reader, save_model
from storm_edge.export.passes.quantize import LinearLayer, linear_layers
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual, splice
from storm_edge.runtime.sessions.device import HOST
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Prompts:
    """Visual tokens of clips, the loss of answers to their questions, and whole prompts with answers, each (S, D)."""

    visual: list[Float32]
    loss: AnswerLoss
    rows: list[Float32]

    @classmethod
    def read(
        cls, bundle: Bundle, asked: Asked, number: int, threads: int | None, detail: Callable[[str], None]
    ) -> Prompts:
        """The first `number` of `asked`; raises BuildError where there are none."""
        some = list(islice(asked(), number))
        if not some:
            raise BuildError("the data gave no questions: give more videos.")
        visual = []
        with Watcher(bundle, threads) as watcher:
            for i, (clip, _) in enumerate(some):
                detail(f"{i + 1} of {len(some)} clips")
                visual.append(watcher.watch(clip, lambda *_: None))
        detail("answers")
        llm = fp32_decoder(bundle, threads)
        loss = AnswerLoss(bundle, llm, [question for _, question in some], visual)
        embed = EmbeddingTable.open(bundle.path(bundle.manifest.embedding)).rows
        rows = [
            HOST.host(
                splice(HOST, embed, SplicedPrompt(before, flatten_visual(HOST, embed, clip, loss.newline), after))
            )
            for clip, (before, after) in zip(visual, loss.tokens, strict=True)
        ]
        return cls(visual, loss, rows)


def watch_decoder(
    bundle: Bundle,
    model: onnx.ModelProto,
    readers: dict[str, Reader],
    names: Sequence[str],
    prompts: Sequence[Float32],
    threads: int | None,
    detail: Callable[[str], None],
) -> Iterator[dict[str, Float32]]:
    """The tensors `names` of an fp32 decoder graph, each prompt (S, D) run whole."""
    config = bundle.config.llm
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    give_out(watched, list(names))
    with TemporaryDirectory(prefix="storm-calibrate-") as folder:
        path = Path(folder) / "decoder.onnx"
        save_model(watched, path, "decoder.data", readers)
        session = OnnxRuntimeSession(path, threads)
        for i, rows in enumerate(prompts):
            detail(f"{i + 1} of {len(prompts)} prompts")
            past = np.zeros((1, config.num_key_value_heads, len(rows), config.head_dim), np.float32)
            cache = {f"past_{kind}_{j}": past for j in range(config.num_hidden_layers) for kind in ("key", "value")}
            made = session.run(
                inputs_embeds=rows[None],
                position_ids=np.arange(len(rows), dtype=np.int64)[None],
                write_indices=np.zeros(1, np.int64),
                **cache,
            )
            yield {name: made[name] for name in names}


@dataclass(frozen=True)
class Language:
    """What the language model is to be observed on: the first `prompts` of `asked`."""

    asked: Asked
    prompts: int = 64

    def run(
        self, bundle: Bundle, threads: int | None, detail: Callable[[str], None]
    ) -> tuple[list[LinearLayer], Mapping[str, Histogram]]:
        """The decoder's linear layers, and what their inputs and the keys and values hold, by the tensor's name.

        Raises BuildError for NaN and infinity.
        """
        prompts = Prompts.read(bundle, self.asked, self.prompts, threads, detail)
        model, readers = fp32_graph(bundle, "decoder", {})
        layers = linear_layers(model)
        cached = [name for i in range(bundle.config.llm.num_hidden_layers) for name in kv_names(i)]
        seen = {name: Histogram() for name in [*(layer.input for layer in layers), *cached]}
        for made in watch_decoder(bundle, model, readers, list(seen), prompts.rows, threads, detail):
            for name, values in made.items():
                add_to(seen[name], "decoder", name, values)
        return layers, seen


def describe_all(clips: Callable[[], Iterable[NDArray[np.uint8]]]) -> Asked:
    """Clips without questions of their own, with one that fits every video."""
    return lambda: ((clip, "Describe the video.") for clip in clips())
