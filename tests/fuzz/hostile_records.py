"""Attacks by records and tensors: engines, calibrations, configurations, reference clips, embedding tables."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from hostile import BUILDING, READING, Scene, attack, clear, seal, seal_engines
from mutate import EXTREMES, mutate_json, mutate_safetensors
from safetensors.numpy import load_file, save

CHOOSING = ("inspect", "verify", "run", "eval", "build", "rtx", "build-run")
CALIBRATED = ("inspect", "build-int8", "build-int4", "rtx-int8", "calibrate")
ENGINE = "engines/cpu-fp32/engine.json"


LARGE = (
    ["vision", "image_size", 8 * 10**6],
    ["vision", "image_size", 8 * 10**18],
    ["vision", "num_hidden_layers", 10**9],
    ["vision", "num_hidden_layers", 10**300],
    ["vision", "hidden_size", 2**40],
    ["vision", "patch_size", 1],
    ["vision", "layer_norm_eps", float("nan")],
    ["temporal", "num_layers", 10**8],
    ["temporal", "expand", 10**9],
    ["temporal", "downsample", 10**12],
    ["temporal", "d_conv", 10**9],
    ["temporal", "dt_rank", 10**12],
    ["reduction", "temporal_pool", 10**12],
    ["reduction", "sample", 10**15],
    ["reduction", "spatial_pool", 10**9],
    ["llm", "max_position_embeddings", 10**12],
    ["llm", "max_position_embeddings", 1],
    ["llm", "vocab_size", 10**12],
    ["llm", "num_hidden_layers", 10**9],
    ["llm", "hidden_size", 2**50],
    ["llm", "num_key_value_heads", 4],
    ["llm", "rope_theta", float("inf")],
    ["llm", "intermediate_size", 10**18],
    ["reduction", "newline_token", True],
)  # section, field, value


@attack("engines", CHOOSING)
def forged_engine(scene: Scene) -> str:
    """A record that says it is verified and new, or that names what no record names."""
    changes: list[dict[str, Any]] = [
        {"created": "9999-12-31T23:59:59+00:00"},
        {"created": scene.rng.choice(("", "tomorrow", "\x1b[2J", "9" * 100_000, "2026-13-45", "2026-01-01"))},
        {"precision": scene.rng.choice(("fp1", "", "\n", "x" * 100_000, "int8", "int4"))},
        {"llm_precision": scene.rng.choice(("fp1", "", "int4", "\x1b[31m"))},
        {"target": scene.rng.choice(("nowhere", "", "orin", "cpu\n", "rtx"))},
        {"name": scene.rng.choice(("../other", "", "\x07", "x" * 100_000))},
        {"graphs": {stage: "graphs/vision.onnx" for stage in ("vision", "temporal", "decoder")}},
        {"graphs": {"vision": str(scene.outside / "secret.data"), "temporal": "../outside/plain.txt"}},
        {"graphs": {}},
        {"files": {"../outside/secret.data": {"size": 65536, "sha256": "0" * 64}}},
        {"files": {f"graphs/{i}": {"size": 0, "sha256": "0" * 64} for i in range(50_000)}},
        {"simulated": True},
        {"verified": True, "verification": []},
        {"max_length": scene.rng.choice((-1, 0, 1, 2**62))},
        {"versions": {"onnxruntime": "\x1b]0;x\x07\n" * 1000}},
        {"state": scene.rng.choice(("prepared", "compiled"))},
        {"schema_version": scene.rng.choice((0, 1, 4, "2", 10**30, None))},
        {"calibration": "noise " + "\n" * 1000},
        {"build_seconds": {"vision": float("nan")}, "peak_memory_bytes": -1},
    ]
    which = scene.rng.choice(sorted({key for change in changes for key in change}))
    change = scene.rng.choice([change for change in changes if which in change])
    scene.write(ENGINE, scene.json(ENGINE) | {"verified": True} | change)
    return f"an engine with {str(change)[:60]}"


@attack("contract", READING)
def graphs_swapped(scene: Scene) -> str:
    """The file of one stage under the name of another."""
    one, other = scene.rng.sample(("vision", "temporal", "decoder"), 2)
    data = scene.json("manifest.json")
    data["graphs"][one], data["graphs"][other] = data["graphs"][other], data["graphs"][one]
    scene.write("manifest.json", data)
    for record in (scene.bundle / "engines").glob("*/engine.json"):
        name = record.relative_to(scene.bundle).as_posix()
        engine = scene.json(name)
        engine["graphs"] = {stage: data["graphs"][stage]["file"] for stage in engine["graphs"]}
        scene.write(name, engine)
    seal(scene.bundle)
    return f"{one} and {other} swapped"


@attack("engines", CHOOSING)
def tensorrt_plan(scene: Scene) -> str:
    """Plans for TensorRT that somebody else built: bytes that a runtime would make a program of."""
    target = scene.rng.choice(("rtx", "l4", "h100", "orin", "cpu"))
    name = f"{target}-fp16"
    graphs = {}
    for stage in ("vision", "temporal", "decoder"):
        graphs[stage] = f"engines/{name}/{stage}.engine"
        scene.write(graphs[stage], b"ftrt" + scene.rng.randbytes(4096))
    record = scene.json(ENGINE) | {"name": name, "target": target, "precision": "fp16", "llm_precision": "fp16"}
    runner = scene.rng.choice(("tensorrt", "tensorrt-rtx"))
    record |= {"runners": dict.fromkeys(graphs, runner), "sms": [89, 90], "graphs": graphs, "pieces": {}}
    record["versions"] |= {"tensorrt": "10.3.0"}
    record |= {"files": {name: {} for name in graphs.values()}, "state": "built", "verified": True}
    scene.write(f"engines/{name}/engine.json", record | {"created": "2099-01-01T00:00:00+00:00"})
    if scene.rng.choice(("alone", "beside another")) == "alone":
        clear(scene.bundle / "engines/cpu-fp32")
    seal_engines(scene.bundle)
    return f"a plan for {target}"


@attack("engines", CHOOSING)
def engine_json(scene: Scene) -> str:
    """An engine's record with odd values anywhere."""
    scene.write(ENGINE, mutate_json((scene.bundle / ENGINE).read_bytes(), scene.rng))
    return "odd values in engine.json"


@attack("calibrations", CALIBRATED)
def forged_ranges(scene: Scene) -> str:
    """Ranges and scales that are none, of tensors that are none."""
    name = "calibration/noise/ranges.safetensors"
    data = (scene.bundle / name).read_bytes()
    length = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + length])["__metadata__"]
    arrays = load_file(scene.bundle / name)
    key = scene.rng.choice(sorted(arrays))
    how = scene.rng.choice(
        ("nan", "inf", "negative", "zero", "tiny", "huge", "shape", "type", "names", "more", "damage")
    )
    values = {"nan": np.nan, "inf": np.inf, "negative": -1, "zero": 0, "tiny": 1e-45, "huge": 3e38}
    if how in values:
        arrays[key] = np.full_like(arrays[key], values[how])
    elif how == "shape":
        arrays[key] = np.zeros((3, 0, 5), np.float32)
    elif how == "type":
        arrays[key] = arrays[key].astype(np.int64)
    elif how == "names":
        arrays |= {x: arrays[key] for x in ("smooth/vision/../../x", "vision/\x1b[2J\n", "/etc/passwd", "decoder/x")}
    elif how == "more":
        arrays |= {f"smooth/vision/{i}": np.ones(4, np.float32) for i in range(20_000)}
    written = save(arrays, about)
    scene.write(name, mutate_safetensors(written, scene.rng) if how == "damage" else written)
    return f"ranges: {how}"


@attack("calibrations", CALIBRATED)
def forged_layers(scene: Scene) -> str:
    """Layers that are none, or everywhere, with names of any kind."""
    name = "calibration/noise/layers.json"
    data = scene.json(name)
    layers = data["stages"]["vision"]
    odd = {"input": "\x1b[2J", "weight": "../../x", "shape": [2**70, -1], "module": "m" * 100_000, "quantize": True}
    how = scene.rng.choice(("all", "odd", "many", "decoder", "values", "report"))
    if how == "all":
        for layer in layers.values():
            layer["quantize"] = True
    elif how == "odd":
        layers["n\x00\n"] = odd
    elif how == "many":
        layers |= {f"n{i}": next(iter(layers.values())) for i in range(50_000)}
    elif how == "decoder":
        data["stages"]["decoder"] = layers
    text = json.dumps(data).encode()
    scene.write(name, mutate_json(text, scene.rng) if how == "values" else text)
    if how == "report":
        scene.write("calibration/noise/report.json", mutate_json(b'{"samples": 1, "tensors": {"a": {}}}', scene.rng))
    return f"layers: {how}"


@attack("configuration")
def large_numbers(scene: Scene) -> str:
    """A configuration whose numbers ask for memory and time."""
    data = scene.json("manifest.json")
    section, field, value = scene.rng.choice(LARGE)
    data["config"][section][field] = value
    scene.write("manifest.json", data)
    seal(scene.bundle)
    return f"{section}.{field} = {value:.3g}"


@attack("configuration")
def manifest_json(scene: Scene) -> str:
    """A manifest with odd values anywhere, or an extreme in each part of the configuration."""
    data = scene.json("manifest.json")
    if scene.rng.random() < 0.5:
        section = scene.rng.choice(sorted(data["config"]))
        if isinstance(data["config"][section], dict):
            data["config"][section][scene.rng.choice(sorted(data["config"][section]))] = scene.rng.choice(EXTREMES)
        scene.write("manifest.json", json.dumps(data))
    else:
        scene.write("manifest.json", mutate_json(json.dumps(data).encode(), scene.rng))
    seal(scene.bundle)
    return "odd values in the manifest"


@attack("reference", ("verify", "eval", "build", "build-int4", "rtx", "inspect", "calibrate"))
def forged_clip(scene: Scene) -> str:
    """Reference clips of other numbers, shapes, types, lengths and tokens."""
    name = scene.rng.choice(scene.json("manifest.json")["clips"])
    arrays = load_file(scene.bundle / name)
    key = scene.rng.choice(sorted(arrays))
    how = scene.rng.choice(
        ("nan", "inf", "empty", "zero frames", "one more", "type", "tokens", "missing", "wide", "huge")
    )
    array = arrays[key]
    if how in ("nan", "inf"):
        arrays[key] = np.full(array.shape, {"nan": np.nan, "inf": np.inf}[how], np.float32)
    elif how == "empty":
        arrays[key] = np.zeros((0,) * array.ndim, array.dtype)
    elif how == "zero frames":
        arrays["frames"] = arrays["frames"][:0]
    elif how == "one more":
        arrays[key] = array[None]
    elif how == "type":
        arrays[key] = array.astype(scene.rng.choice((np.int8, np.float64, np.uint64, np.bool_)))
    elif how == "tokens":
        wrong = scene.rng.choice((-1, 2**31, 2**62, 10**6))
        which = scene.rng.choice(("before", "after", "greedy", "newline"))
        arrays[which] = np.full(max(1, arrays[which].size), wrong, np.int64)
    elif how == "missing":
        del arrays[key]
    elif how == "wide":
        arrays["frames"] = np.zeros((4, 4000, 4000, 3), np.uint8)
    else:
        arrays["before"] = np.zeros(3_000_000, np.int64)
    scene.write(name, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    seal(scene.bundle)
    return f"{key} of a clip: {how}"


@attack("reference", (*READING, *BUILDING))
def forged_embedding(scene: Scene) -> str:
    """An embedding table of another type, shape or name."""
    name = "graphs/embedding.safetensors"
    array = load_file(scene.bundle / name)["embedding"]
    how = scene.rng.choice(("narrow", "short", "type", "rank", "name", "nan", "empty", "damage", "huge header"))
    changed = {
        "narrow": array[:, :-1], "short": array[:7], "type": array.astype(np.int32), "rank": array[None],
        "nan": np.full_like(array, np.nan), "empty": array[:0],
    }.get(how, array)  # fmt: skip
    data = save({"other" if how == "name" else "embedding": np.ascontiguousarray(changed)})
    if how == "damage":
        data = mutate_safetensors(data, scene.rng)
    elif how == "huge header":
        data = (2**40).to_bytes(8, "little") + data[8:]
    scene.write(name, data)
    seal(scene.bundle)
    return f"embedding: {how}"
