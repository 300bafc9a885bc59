"""The temporal encoder in its two forms: the whole graph for short clips, pieces of it for long ones.

The whole form holds every activation of the clip at once, the pieces those of a chunk. They compute the same.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from storm_edge.runtime.answer.chunked import ChunkedTemporal, Layer, bytes_of, chunk_frames
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import WHOLE_TEMPORAL_BYTES
from storm_edge.runtime.machine.memory import available_bytes
from storm_edge.runtime.runners import RUNNERS, function
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import Device, Tensor

# Arrays (tokens, channels) that the whole form holds in float32: x, its gate, step sizes and outputs of both scans.
_ACTIVATIONS = 6


@dataclass(frozen=True)
class Pieces:
    """What opens the pieces of an encoder, and the model they are of."""

    open: Callable[[], ChunkedTemporal]
    config: StormConfig


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

    def run(self, tokens: Tensor, *, overwrite: bool = False) -> Tensor:
        """Tokens (T, N, D) of whole groups of frames -> visual tokens (1, T / k, N / p, D).

        The pieces keep what lies between their layers in `tokens` with `overwrite`, else in a copy. Raises EngineError.
        """
        whole, pieces = self._whole, self._closed
        if pieces is not None and (whole is None or whole_bytes(pieces.config, len(tokens)) > WHOLE_TEMPORAL_BYTES):
            return self.in_chunks(tokens, chunk_frames(pieces.config), overwrite=overwrite)
        assert whole is not None
        return whole.run(tokens=tokens[None])["visual_tokens"]

    def in_chunks(self, tokens: Tensor, frames: int, *, overwrite: bool = False) -> Tensor:
        """The same by pieces, `frames` a chunk; raises ValueError for an engine without pieces."""
        if self._closed is None:
            raise ValueError("this engine has no pieces")
        with self._opening:
            if self._pieces is None:
                self._whole, self._pieces = None, self._closed.open()
        if not overwrite:
            copy = self.device.empty(tokens.shape, tokens.dtype)
            self.device.write(copy, tokens)
            tokens = copy
        # x of half a long clip, then: two arrays as long as the clip, of which the tokens are one.
        most = max(WHOLE_TEMPORAL_BYTES, bytes_of(tokens))
        return self._pieces.run(tokens, frames, lambda: min(available_bytes() // 2, most))


def whole_bytes(config: StormConfig, frames: int) -> int:
    """About what the whole form takes for a clip in float32."""
    return frames * config.tokens_per_frame * config.d_inner * 4 * _ACTIVATIONS


def load_temporal(bundle: Bundle, record: EngineRecord, device: Device, threads: int | None) -> TemporalEncoder:
    """The temporal encoder of an engine; raises EngineError, BundleError."""
    runner = RUNNERS[record.runners["temporal"]]
    whole: Session = function(runner.session)(bundle, record, "temporal", device, threads)
    if not record.pieces or not runner.piece:
        return TemporalEncoder(whole)
    open_piece = partial(function(runner.piece), bundle, record, device=device, threads=threads)

    def pieces() -> ChunkedTemporal:
        layers = [
            Layer(
                open_piece(f"{i}.enter"),
                open_piece(f"{i}.states") if f"{i}.states" in record.pieces else None,
                open_piece(f"{i}.mix"),
            )
            for i in range(bundle.config.temporal.num_layers)
        ]
        return ChunkedTemporal(layers, open_piece("pool"), bundle.config)

    return TemporalEncoder(whole, Pieces(pieces, bundle.config))
