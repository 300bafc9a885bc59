"""Video input: frames of the model's size from a local file, an array or an iterable."""

from storm_edge.runtime.video.reading import FrameBatch, read_frames

__all__ = ["FrameBatch", "read_frames"]
