"""The pieces of an engine's temporal graph, beside it, for clips that are too long to be computed at once."""

from __future__ import annotations

import hashlib

import onnx

from storm_edge.export.passes.cut_temporal import VERSION, cut_temporal
from storm_edge.runtime.bundle.manifest import Bundle, FileSpec, describe_file
from storm_edge.runtime.bundle.publish import publish_files


def temporal_pieces(bundle: Bundle, engine: str, graph: str) -> tuple[dict[str, str], dict[str, FileSpec]]:
    """The paths in the bundle of the pieces of the temporal graph `graph` by name, and those files.

    None where there is nothing to cut: the model has no temporal layers, or its bundle was exported before x and its
    gate had weights of their own. And none of a selector, whose queries are made of the whole clip.
    """
    if bundle.config.temporal.queries:
        return {}, {}
    text = bundle.located(graph).read_bytes()
    model = onnx.load_model_from_string(text)
    try:
        cut = cut_temporal(model, bundle.config)
    except ValueError:
        return {}, {}
    key = hashlib.sha256(f"cut {VERSION}\n".encode() + text).hexdigest()[:12]
    paths = {name: f"graphs/{engine}.{key}.temporal.{name}.onnx" for name in cut}
    with publish_files(bundle.root, "graphs") as folder:
        for name, path in paths.items():
            (folder / path.removeprefix("graphs/")).write_bytes(cut[name].SerializeToString(deterministic=True))
    return paths, {path: describe_file(bundle.located(path)) for path in paths.values()}
