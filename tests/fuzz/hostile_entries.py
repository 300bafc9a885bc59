"""Attacks by directory entries: links, FIFOs, devices, names, and files that nothing lists."""

from __future__ import annotations

import json
import os

from hostile import BUILDING, KINDS, READING, Scene, attack, clear, seal, seal_engines, special

FOLDERS = ("graphs", "reference", "tokenizer", "engines", "calibration", "engines/cpu-fp32", "calibration/noise")
ODD_NAMES = {
    "break": b"line\nbreak", "title": b"\x1b]0;title\x07", "bytes": b"\xff\xfe", "long": b"a" * 255, "space": b" ",
    "option": b"-rf", "direction": b"\xe2\x80\xae.txt", "accent": b"con\xcc\x81", "dots": b"..data", "home": b"~",
    "shell": b"$(id)", "format": b"%s%n",
}  # fmt: skip


@attack("entries", BUILDING)
def staging_name(scene: Scene) -> str:
    """Entries under every name that a build would write to first."""
    stems = dict.fromkeys(name.rpartition(".")[0] for name in scene.prepared)
    which = scene.rng.choice(("partial", "partial", "data", "onnx", "record", "observed", "all"))
    names = [f"{stem}.{end}" for stem in stems for end in ("partial", "data", "onnx") if which in (end, "all")]
    if which in ("record", "all"):
        names += ["engines/timing.cache", "engines/timing.cache.partial", "engines/cpu-fp32/engine.partial"]
        names += [f"engines/.cpu-fp32.partial-{pid}-0123abcd" for pid in (1, 999999)]
    if which in ("observed", "all"):
        names += [f"calibration/.fuzz.observed.{end}" for end in ("safetensors", "partial")]
    kind = scene.rng.choice(KINDS)
    chosen = names if scene.rng.choice(("every", "some")) == "every" else scene.rng.sample(names, 2)
    for name in chosen:
        if (scene.bundle / name).parent.is_dir():
            special(scene.bundle / name, kind, scene.outside)
    return f"{len(chosen)} names of {which} are a {kind}"


@attack("entries")
def listed_file(scene: Scene) -> str:
    """A file that the manifest lists becomes something else; its entry says what the other end holds."""
    name = scene.rng.choice(sorted(scene.json("manifest.json")["files"]))
    kind = special(scene.bundle / name, scene.rng.choice(KINDS), scene.outside)
    if scene.rng.random() < 0.8 and "dev" not in kind and "proc" not in kind:
        seal(scene.bundle)
    return f"{name} is a {kind}"


@attack("entries")
def record_file(scene: Scene) -> str:
    """A file that the manifest does not list becomes something else."""
    names = ["manifest.json", "engines/cpu-fp32/engine.json"]
    names += [f"calibration/noise/{name}" for name in ("layers.json", "ranges.safetensors", "report.json")]
    name = scene.rng.choice(names)
    return f"{name} is a {special(scene.bundle / name, scene.rng.choice(KINDS), scene.outside)}"


@attack("entries")
def folder_link(scene: Scene) -> str:
    """A folder becomes a link: to one outside, to itself, or to a copy of what was there."""
    name = scene.rng.choice(FOLDERS)
    path = scene.bundle / name
    moved = scene.outside / "folder" / path.name
    how = scene.rng.choice(("outside", "copy outside", "itself", "FIFO", "file", "bundle"))
    if how == "copy outside":
        path.rename(moved)
        path.symlink_to(moved)
        return f"{name} is a link to a copy outside"
    clear(path)
    if how == "FIFO":
        os.mkfifo(path)
    elif how == "file":
        path.write_bytes(b"x")
    else:
        path.symlink_to({"outside": scene.outside / "folder", "itself": path, "bundle": scene.bundle}[how])
    return f"{name} is {how}"


@attack("entries")
def bundle_link(scene: Scene) -> str:
    """A folder below engines or calibration that is a link to a whole one elsewhere."""
    name = scene.rng.choice(("engines/cpu-int8", "engines/.hidden", "calibration/other", "graphs/more"))
    (scene.bundle / name).symlink_to(scene.rng.choice((scene.outside / "folder", scene.bundle / "engines/cpu-fp32")))
    return f"{name} is a link"


@attack("entries")
def hard_links(scene: Scene) -> str:
    """Two names of one file: allowed, and writing to one must not change the other."""
    os.link(scene.bundle / "graphs/decoder.data", scene.bundle / "graphs/again.data")
    for name in scene.rng.sample(scene.prepared, min(2, len(scene.prepared))):
        clear(scene.bundle / name)
        os.link(scene.bundle / "graphs/temporal.data", scene.bundle / name)
    return "hard links inside"


@attack("unlisted")
def unlisted_template(scene: Scene) -> str:
    """A chat template beside the listed ones: must not be read."""
    text = scene.rng.choice(
        ("OBEY {{ messages }}", "{{ 'a' * 2000000000 }}", "{% for m in messages %}OBEY{% endfor %}")
    )
    scene.write("tokenizer/chat_template.jinja", text)
    return "tokenizer/chat_template.jinja is not listed"


@attack("unlisted")
def unlisted_file(scene: Scene) -> str:
    """Files that some library looks for by itself."""
    names = ("tokenizer/special_tokens_map.json", "tokenizer/added_tokens.json", "tokenizer/chat_template.json")
    names += ("config.json", "graphs/vision.onnx.data", "model.safetensors", "engines/engine.json", "pyproject.toml")
    name = scene.rng.choice(names)
    if scene.rng.random() < 0.5:
        special(scene.bundle / name, scene.rng.choice(KINDS), scene.outside)
    else:
        scene.write(name, '{"chat_template": "OBEY", "eos_token": "OBEY"}')
    return f"{name} is not listed"


@attack("unlisted")
def odd_name(scene: Scene) -> str:
    """Files, engines and calibrations with names that terminals, shells and decoders trip over."""
    name = ODD_NAMES[scene.rng.choice(sorted(ODD_NAMES))]
    where = scene.rng.choice(("", "graphs", "tokenizer", "engines", "calibration"))
    path = os.path.join(os.fsencode(scene.bundle / where), name)
    os.mkdir(path) if where in ("engines", "calibration") else os.mknod(path)
    if where == "engines":
        record = scene.json("engines/cpu-fp32/engine.json")
        with open(os.path.join(path, b"engine.json"), "w") as file:
            json.dump(record | {"name": os.fsdecode(name)}, file)
    elif where == "calibration":
        for file_name in ("ranges.safetensors", "layers.json", "report.json"):
            os.link(scene.bundle / "calibration/noise" / file_name, os.path.join(path, file_name.encode()))
    return f"{where}/{name!r}"


@attack("unlisted")
def many_entries(scene: Scene) -> str:
    """Thousands of entries, or folders in folders, where a command looks."""
    folder = scene.bundle / scene.rng.choice(("graphs", "engines", "calibration", "tokenizer", "reference"))
    if scene.rng.random() < 0.5:
        for i in range(5000):
            os.mkdir(folder / f"n{i}") if folder.name in ("engines", "calibration") else os.mknod(folder / f"n{i}")
        return f"5000 entries in {folder.name}"
    deep = os.fsencode(folder)
    before = os.open(".", os.O_RDONLY)
    os.chdir(deep)
    for _ in range(1500):  # deeper than a path can name
        os.mkdir("deep")
        os.chdir("deep")
    os.fchdir(before)
    os.close(before)
    return f"1500 folders deep in {folder.name}"


@attack("unlisted", READING)
def case_game(scene: Scene) -> str:
    """Names that are the same on another file system."""
    scene.write("Manifest.JSON", "{}")
    scene.write("GRAPHS/vision.onnx", b"x")
    scene.write("tokenizer/Tokenizer.json", "{}")
    return "names in another case"


@attack("manifest")
def manifest_path(scene: Scene) -> str:
    """A listed name, a graph's file, the embedding, the tokenizer or a clip that leads elsewhere."""
    outside = str(scene.outside)
    paths = (f"{outside}/secret.data", "../outside/secret.data", "graphs/../../outside/secret.data", "/etc/passwd", "")
    paths += (".", "./manifest.json", "graphs", "graphs//vision.onnx", "manifest.json", "a\x00b", "\ud800", "x" * 5000)
    paths += (
        "..\\outside\\secret.data",
        "\x1b[31mred",
        "line\nbreak",
        "engines/cpu-fp32/engine.json",
        "~/x",
        "/dev/zero",
    )
    path = scene.rng.choice(paths)
    data = scene.json("manifest.json")
    where = scene.rng.choice(("file", "data", "embedding", "tokenizer", "clips", "files"))
    if where in ("file", "data"):
        data["graphs"][scene.rng.choice(("vision", "temporal", "decoder"))][where] = path
    elif where == "clips":
        data["clips"] = [path]
    elif where != "files":
        data[where] = path
    if where != "tokenizer":
        data["files"][path] = {"size": scene.rng.choice((0, 1, 65536)), "sha256": "0" * 64}
    scene.write("manifest.json", data)
    seal(scene.bundle) if "dev" not in path else seal_engines(scene.bundle)
    return f"{where} is {path[:40]!r}"


@attack("manifest")
def manifest_size(scene: Scene) -> str:
    """A manifest, or a list in it, that is large."""
    how = scene.rng.choice(("files", "versions", "inputs", "spaces", "sparse", "nested", "clips", "number", "key"))
    data = scene.json("manifest.json")
    if how == "files":
        data["files"] |= {f"graphs/{i}": {"size": 0, "sha256": "0" * 64} for i in range(100_000)}
    elif how == "versions":
        data["versions"] = {f"p{i}": "1\n\x1b[2J" * 20 for i in range(20_000)}
    elif how == "inputs":
        shape = ["x" * 1000] * 300
        data["graphs"]["vision"]["inputs"] = [{"name": "a" * 100_000, "dtype": "b" * 100_000, "shape": shape}] * 100
    elif how == "clips":
        data["clips"] = data["clips"] * 5000
    elif how == "key":
        data["operators"] = {"o" * 3_000_000: 1}
    text = json.dumps(data)
    if how == "spaces":
        text += " " * (40 << 20)
    elif how == "nested":
        text = text.replace('"versions": {', '"versions": {"a": ' + "[" * 100_000 + "]" * 100_000 + ",", 1)
    elif how == "number":
        text = text.replace('"schema_version": 2', '"schema_version": ' + "1" * 100_000, 1)
    scene.write("manifest.json", text)
    if how == "sparse":
        with (scene.bundle / "manifest.json").open("r+b") as file:
            file.truncate(1 << 36)
    else:
        seal_engines(scene.bundle)
    return f"a manifest with large {how}"
