"""A command that is told to end does so within a second, whatever runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

# Runs in one call of native code for hours, with a folder begun and a child at work.
BUSY = """
import subprocess, sys
from pathlib import Path
import numpy as np
import onnxruntime
from storm_edge.cli.ending import end_when_told
from storm_edge.runtime.bundle.publish import staging
end_when_told()
session = onnxruntime.InferenceSession(sys.argv[1])
child = subprocess.Popen(["sleep", "600"])
with staging(Path(sys.argv[2])) as folder:
    (folder / "half").write_text("half")
    print(child.pid, flush=True)
    session.run(None, {"count": np.array(2**62)})
"""
# Is still importing what the command needs.
STARTING = """
import sys
from importlib import abc
class Slow(abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "storm_edge.cli.main":
            print("importing", flush=True)
            import time
            time.sleep(600)
sys.meta_path.insert(0, Slow())
from storm_edge.cli import main
main()
"""


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph that counts to its input."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.INT64, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.INT64, []),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["count", "", "one"], ["total"], body=body)],
        "endless",
        [helper.make_tensor_value_info("count", TensorProto.INT64, [])],
        [helper.make_tensor_value_info("total", TensorProto.INT64, [])],
        [helper.make_tensor("one", TensorProto.INT64, [], [1])],
    )
    path = tmp_path_factory.mktemp("endless") / "endless.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def is_running(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_inside_native_code_ends_with_its_children_and_leaves_nothing(
    endless: Path, tmp_path: Path, number: int
) -> None:
    command = [sys.executable, "-c", BUSY, str(endless), str(tmp_path / "made")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        assert busy.stderr is not None
        child = int(busy.stdout.readline())
        time.sleep(0.5)  # until the graph runs
        told = time.monotonic()
        busy.send_signal(number)
        assert busy.wait(10) == 130
        assert time.monotonic() - told < 1.5
        assert busy.stderr.read() == "stopped\n"
    assert not is_running(child)
    assert list(tmp_path.iterdir()) == []


def test_a_command_in_python_ends_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it waits for a writer
    code = (
        "import sys; from storm_edge.cli.ending import end_when_told; end_when_told(); print(flush=True)\n"
        "try: open(sys.argv[1])\nexcept KeyboardInterrupt: sys.exit(7)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pipe")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        time.sleep(0.1)
        told = time.monotonic()
        waiting.terminate()
        assert waiting.wait(10) == 7
        assert time.monotonic() - told < 0.7


def test_a_command_whose_native_code_lets_no_thread_run_is_ended_all_the_same() -> None:
    code = "from storm_edge.cli.ending import end_when_told; end_when_told(); print(flush=True); sum(range(10**14))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as locked:
        assert locked.stdout is not None
        locked.stdout.readline()
        time.sleep(0.2)
        told = time.monotonic()
        locked.terminate()
        assert locked.wait(10) == -signal.SIGKILL
        assert time.monotonic() - told < 1.5


def test_the_guard_ends_with_the_command() -> None:
    code = "from storm_edge.cli.ending import end_when_told; end_when_told()"
    # It would keep the pipes open, for which this waits.
    subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=10, check=True)
    guards = [p for p in Path("/proc").glob("[0-9]*/cmdline") if code in p.read_text(errors="replace")]
    assert guards == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_still_being_imported_ends_without_a_traceback(number: int) -> None:
    command = [sys.executable, "-c", STARTING, "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as starting:
        assert starting.stdout is not None
        assert starting.stderr is not None
        assert starting.stdout.readline() == "importing\n"
        starting.send_signal(number)
        assert starting.wait(10) == 130
        assert starting.stderr.read() == "stopped\n"
