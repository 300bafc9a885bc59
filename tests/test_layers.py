"""The rules of the house: who may import whom, who may import what, and how long a module may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each may import those before it.
LAYERS = ["plugins", "runtime", "export", "calibration", "demo", "server", "batch", "cli"]
ON_RUNTIME = ("server", "batch")  # layers that import nothing but the runtime, and are imported by the command alone
# Inside a layer each room may import those before it. runtime/__init__.py, the public face, may import all of them.
ROOMS = {
    "runtime": [
        "errors",
        "config",
        "runners",
        "machine",
        "plan",
        "bundle",
        "video",
        "sessions",
        "llm",
        "answer",
        "proof",
        "bench",
    ],
    "export": [
        "checkpoint",
        "families",
        "graph_file",
        "rotary",
        "passes",
        "network",
        "trace",
        "reference",
        "build",
        "initialize",
        "export_bundle",
    ],
}
LONGEST = 260  # lines of a module of runtime/, export/ or server/
MODULES = [p for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py"))]

TORCH = (
    "export/checkpoint/state_dict.py",
    "export/network/",
    "export/trace/",
    "export/reference/",
    "export/export_bundle.py",
    "plugins/*/torch_op.py",
    "plugins/torch_common.py",
    "demo/train",
    "runtime/llm/tensorrt_llm.py",
    "runtime/llm/vllm.py",
)
ONNX = ("export/", "calibration/", "plugins/*/onnx_function.py", "plugins/onnx_common.py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def name_of(path: Path) -> str:
    """runtime/bundle/engine.py is runtime.bundle.engine, and a package's __init__.py the package."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def needed(path: Path) -> set[str]:
    """The modules of ours that a file imports; of `from package import name` the module `name`, if it is one."""
    names = {name_of(p) for p in MODULES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("storm_edge."):
            module = node.module.removeprefix("storm_edge.")
            within = {f"{module}.{alias.name}" for alias in node.names} & names
            found |= within or {module} & names
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle of imports; empty where there is none."""
    done: set[str] = set()

    def walk(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph.get(module, ())):
            if found := walk(other, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := walk(module, []))), [])


def room(layer: str, module: str) -> int:
    """The place of a module's room in its layer."""
    return ROOMS[layer].index(module.split(".")[1])


def allowed(path: Path, patterns: tuple[str, ...]) -> bool:
    relative = path.relative_to(ROOT)
    return any(str(relative).startswith(p) or relative.match(p) for p in patterns)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_layers_above_its_own(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for module in imports(path):
        if module.startswith("storm_edge."):
            assert LAYERS.index(module.split(".")[1]) <= layer, f"{path} imports {module}"


@pytest.mark.parametrize("layer", ON_RUNTIME)
def test_server_and_batch_stand_on_the_runtime_alone(layer: str) -> None:
    for path in MODULES:
        own = path.relative_to(ROOT).parts[0]
        others = {module.split(".")[1] for module in imports(path) if module.startswith("storm_edge.")}
        assert own != layer or others <= {layer, "runtime"}, path
        assert own in (layer, "cli") or layer not in others, path


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_and_onnx_are_imported_only_where_the_design_says(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports(path)}
    assert allowed(path, TORCH) or not roots & {"torch", "transformers"}
    assert allowed(path, ONNX) or not roots & {"onnx", "onnxscript"}


@pytest.mark.parametrize("layer", ROOMS)
def test_a_module_imports_only_rooms_above_its_own(layer: str) -> None:
    for path in MODULES:
        module = name_of(path)
        if not module.startswith(f"{layer}."):
            continue
        for other in needed(path):
            if other.startswith(f"{layer}."):
                assert room(layer, other) <= room(layer, module), f"{path} imports {other}"


@pytest.mark.parametrize("layer", ROOMS)
def test_every_room_has_its_place(layer: str) -> None:
    there = {p.stem for p in (ROOT / layer).iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert there - {"__init__"} <= set(ROOMS[layer])


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle({name_of(path): needed(path) - {name_of(path)} for path in MODULES}) == []


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_modules_can_be_read_in_one_sitting() -> None:
    long = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.relative_to(ROOT).parts[0] in {*ROOMS, *ON_RUNTIME}
        and len(path.read_text(encoding="utf-8").splitlines()) > LONGEST
    }
    assert long == set()


def test_an_import_against_the_layers_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("def f():\n    from storm_edge.cli import main\n    import torch.nn\n")
    assert imports(path) == {"storm_edge.cli", "torch.nn"}
