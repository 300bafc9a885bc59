"""What it takes until a command works: `storm run` from the shell, and the tokenizer of a language model; Markdown.

    storm build BUNDLE --target cpu
    python benchmarks/startup.py BUNDLE VIDEO

Every row is the least of several rounds in which all rows take turns. "packages" is a Python that imports what no run
can do without (numpy, PyAV, ONNX Runtime, pydantic, tokenizers, safetensors, protobuf), so the rest is ours.
"""

from __future__ import annotations

import argparse
import datetime
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer

from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer
from storm_edge.runtime.llm.prompt import ChatPrompt
from storm_edge.runtime.machine.doctor import examine

ENTRIES = 151_936  # of Qwen2's vocabulary
PACKAGES = "import av, google.protobuf.message, numpy, onnxruntime, pydantic, safetensors, tokenizers"
STORM = "from storm_edge.cli import main; main()"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    question = ["run", str(given.bundle), str(given.video), "What happens?", "--max-tokens", "4", "--quiet"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_byte_tokenizer(folder, ENTRIES)
        rows: dict[str, Callable[[], object]] = {
            "Python": lambda: _python("pass"),
            "packages": lambda: _python(PACKAGES),
            "storm --help": lambda: _python(STORM, "--help"),
            "storm run": lambda: _python(STORM, *question),
            f"a tokenizer of {ENTRIES}, by its package": lambda: Tokenizer.from_file(str(folder / "tokenizer.json")),
            f"a tokenizer of {ENTRIES}, checked and read": lambda: ChatPrompt.open(folder),
        }
        seconds = dict.fromkeys(rows, float("inf"))
        for action in rows.values():
            action()  # what is compiled and cached once
        for _ in range(given.rounds):
            for title, action in rows.items():
                begun = time.perf_counter()
                action()
                seconds[title] = min(seconds[title], time.perf_counter() - begun)
    machine = examine()["machine"]
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, least of {given.rounds}.\n")
    print("| what | seconds |\n|---|---|")
    for title, took in seconds.items():
        print(f"| {title} | {took:.2f} |")


def _python(code: str, *words: str) -> None:
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", code, *words], env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    main()
