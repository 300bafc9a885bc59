"""Live video: cameras, streams, pipes, folders that get images, and iterators, followed for as long as they last."""

from storm_edge.runtime.video.live.base import LiveSource
from storm_edge.runtime.video.live.following import Following, LiveFrame
from storm_edge.runtime.video.live.pictures import picture_pixels
from storm_edge.runtime.video.live.source import WatchedSource, live_source

__all__ = ["Following", "LiveFrame", "LiveSource", "WatchedSource", "live_source", "picture_pixels"]
