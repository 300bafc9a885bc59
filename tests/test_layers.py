"""The rules of the house: who may import whom, and who may import what."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ["plugins", "runtime", "export", "calibration", "demo", "cli"]  # each may import those before it
MODULES = [p for layer in LAYERS for p in sorted((ROOT / layer).rglob("*.py"))]

TORCH = (
    "export/network/",
    "export/trace/",
    "export/reference/",
    "export/export_bundle.py",
    "plugins/*/torch_op.py",
    "plugins/torch_common.py",
    "demo/train",
    "runtime/llm/tensorrt_llm.py",
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


def allowed(path: Path, patterns: tuple[str, ...]) -> bool:
    relative = path.relative_to(ROOT)
    return any(str(relative).startswith(p) or relative.match(p) for p in patterns)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_layers_above_its_own(path: Path) -> None:
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for module in imports(path):
        if module.startswith("storm_edge."):
            assert LAYERS.index(module.split(".")[1]) <= layer, f"{path} imports {module}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_torch_and_onnx_are_imported_only_where_the_design_says(path: Path) -> None:
    roots = {module.split(".")[0] for module in imports(path)}
    assert allowed(path, TORCH) or not roots & {"torch", "transformers"}
    assert allowed(path, ONNX) or not roots & {"onnx", "onnxscript"}


def test_an_import_against_the_layers_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("def f():\n    from storm_edge.cli import main\n    import torch.nn\n")
    assert imports(path) == {"storm_edge.cli", "torch.nn"}
