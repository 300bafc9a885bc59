"""All parts of one server, made from a loaded pipeline."""

from __future__ import annotations

import time
from typing import Any

from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.server.decoder import Decoder
from storm_edge.server.engine import Engine
from storm_edge.server.files import FileStore
from storm_edge.server.live_sources import LiveSources
from storm_edge.server.metrics import Metrics
from storm_edge.server.scheduler import Scheduler
from storm_edge.server.settings import Settings
from storm_edge.server.sources import Sources
from storm_edge.server.streams import Streams


class Service:
    """What the routes share. `start` it before the first request, `close` it after the last."""

    def __init__(self, pipeline: Pipeline, settings: Settings, model: str) -> None:
        self.settings, self.model = settings, model
        self.metrics = Metrics()
        self.files = FileStore(settings.storage)
        self.sources = Sources(settings, self.files)
        decoder, engine = Decoder(), Engine(pipeline, settings.parallel)
        self.scheduler = Scheduler(engine, decoder, settings, self.metrics)
        self.streams = Streams(engine, LiveSources(settings, self.sources, decoder, self.files), settings)
        self.tokens_per_frame = pipeline.bundle.config.tokens_per_frame
        self._begun = int(time.time())
        cache = self.scheduler.cache
        self.metrics.watch("questions", "Questions that wait or are answered.", lambda: self.scheduler.count)
        self.metrics.watch("video_cache_bytes", "Bytes of encoded videos.", lambda: cache.size)
        self.metrics.watch("video_cache_videos", "Encoded videos.", lambda: len(cache))
        self.metrics.watch("streams", "Live videos that are watched.", lambda: len(self.streams))
        self.metrics.watch("upload_bytes", "Bytes of uploaded files.", lambda: self.files.taken)

    def start(self) -> None:
        """Begin to take questions."""
        self.scheduler.start()

    def close(self) -> None:
        """End all answers, and remove the uploads."""
        self.streams.close()
        self.scheduler.close()
        self.files.close()

    def shown(self) -> dict[str, Any]:
        """OpenAI's model object."""
        return {"id": self.model, "object": "model", "created": self._begun, "owned_by": "storm-edge"}
