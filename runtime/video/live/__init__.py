"""Live video: cameras, streams, pipes, folders that get images, and iterators, followed for as long as they last."""

from storm_edge.runtime.video.live.following import Following, LiveFrame
from storm_edge.runtime.video.live.source import WatchedSource, live_source

__all__ = ["Following", "LiveFrame", "WatchedSource", "live_source"]
