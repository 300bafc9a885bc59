"""What a device needs to run an engine: `load` a bundle, `open` a video, `ask`."""

from storm_edge.runtime.errors import StormError

__all__ = ["Answer", "Pipeline", "SamplingOptions", "StormError", "Video", "Workers", "load"]


def __getattr__(name: str) -> object:
    # Imported when first used: `storm --help` must not wait for numpy and PyAV.
    if name in ("Answer", "Pipeline", "Video", "load"):
        from storm_edge.runtime.answer import pipeline

        return getattr(pipeline, name)
    if name == "Workers":
        from storm_edge.runtime.answer.workers import Workers

        return Workers
    if name == "SamplingOptions":
        from storm_edge.runtime.llm.sampling import SamplingOptions

        return SamplingOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
