"""The temporal encoder in its two forms: the whole graph for short clips, pieces of it for long ones.

The whole form holds every activation of the clip at once, the pieces those of a chunk. They compute the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from storm_edge.runtime.answer.chunked import ChunkedTemporal, Layer, bytes_of
from storm_edge.runtime.answer.clip_tokens import LongClips
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import WHOLE_TEMPORAL_BYTES, chunk_frames, whole_frames
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.runners import RUNNERS, function
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import Device, Tensor


@dataclass(frozen=True)
class Pieces:
    """What opens the pieces of an encoder, the model they are of, and the type that long clips' tokens are held in: ""
    for the one they come in.
    """

    open: Callable[[], ChunkedTemporal]
    config: StormConfig
    held_as: str = ""


class TemporalEncoder:
    """A loaded encoder; pipelines that share it may run it at once.

    The pieces are opened for the first clip that needs them, and from then on take the whole form's place, so that the
    weights are in memory once.
    """

    def __init__(self, whole: Session, pieces: Pieces | None = None) -> None:
        """Without `pieces` every clip goes through the whole."""
        self.device: Device = whole.device
        self._whole: Session | None = whole
        self._closed = pieces
        self._pieces: ChunkedTemporal | None = None
        self._opening = threading.Lock()

    @property
    def has_pieces(self) -> bool:
        """Whether clips can go through in chunks."""
        return self._closed is not None

    @property
    def long(self) -> LongClips | None:
        """Which clips go through in chunks, and how they are held until then; None where none do."""
        if self._closed is None:
            return None
        config = self.config
        return LongClips(whole_frames(config), chunk_frames(config), self._closed.held_as)

    def run(self, blocks: Sequence[Tensor]) -> Tensor:
        """Tokens (T, N, D) in blocks of whole groups of frames, which may be lost -> visual tokens (1, T/k, N/p, D).

        Raises EngineError.
        """
        long = self.long
        if long is not None and (self._whole is None or sum(map(len, blocks)) > long.above):
            return self.in_chunks(blocks, long.block)
        whole = self._whole
        if whole is None:  # another pipeline has just opened the pieces
            return self.run(blocks)
        tokens = blocks[0] if len(blocks) == 1 else self.device.concatenate(blocks)
        return whole.run(tokens=tokens[None])["visual_tokens"]

    def in_chunks(self, blocks: Sequence[Tensor], frames: int) -> Tensor:
        """The same by pieces, `frames` a chunk; raises EngineError for an engine without pieces."""
        # x of half a long clip, then: two arrays as long as the clip, of which the tokens are one.
        most = max(WHOLE_TEMPORAL_BYTES, sum(map(bytes_of, blocks)))
        return self.pieces().run(blocks, frames, lambda: min(self.device.free_bytes() // 2, most))

    @property
    def config(self) -> StormConfig:
        """The model that the pieces are of; raises EngineError for an engine without them."""
        if self._closed is None:
            raise EngineError(
                "this engine has no pieces of its temporal encoder: open clips one by one where the model has a"
                " selector (BIMBA), else export the checkpoint again."
            )
        return self._closed.config

    def pieces(self) -> ChunkedTemporal:
        """The pieces, which take the whole's place; raises EngineError for an engine without them."""
        assert self.config
        with self._opening:
            if self._pieces is None and self._closed is not None:
                self._whole = None  # before, so that the weights are never there twice
                self._pieces = self._closed.open()
            assert self._pieces is not None
            return self._pieces


def load_temporal(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> TemporalEncoder:
    """The temporal encoder of an engine; raises EngineError, BundleError."""
    runner = RUNNERS[record.runners["temporal"]]
    whole: Session = function(runner.session)(bundle, record, "temporal", device, threads)
    if not record.pieces or not runner.piece:
        return TemporalEncoder(whole)
    open_piece = partial(function(runner.piece), bundle, record, device=device, threads=threads)
    return TemporalEncoder(
        whole, Pieces(partial(open_pieces, bundle, record, open_piece), bundle.config, held_as(bundle, record))
    )


def open_pieces(bundle: Bundle, record: EngineRecord, open_piece: Callable[[str], Session]) -> ChunkedTemporal:
    """The pieces of an engine as one, each opened by name."""
    layers = [
        Layer(
            open_piece(f"{i}.enter"),
            open_piece(f"{i}.states") if f"{i}.states" in record.pieces else None,
            open_piece(f"{i}.mix"),
        )
        for i in range(bundle.config.temporal.num_layers)
    ]
    return ChunkedTemporal(layers, open_piece("pool"), bundle.config)


def held_as(bundle: Bundle, record: EngineRecord) -> str:
    """The type in which an engine's tokens wait where they come in float32: that of its model, or of its products."""
    dtype = {"fp16": "float16", "bf16": "bfloat16"}.get(record.precision, bundle.manifest.dtype)
    return "" if dtype == "float32" else dtype
