"""Compiling a prepared graph into an engine, in a child process, with failures told apart."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult, Failure
from storm_edge.plugins.libraries import build_command
from storm_edge.runtime.errors import BuildError

ADVICE: dict[Failure, str] = {
    "memory": "close other programs, lower --max-frames or --max-length, limit --workspace, or add swap",
    "plugin": f"build the operators' TensorRT plugin with `{build_command()}`, and check it with `storm doctor`",
    "tactic": "this GPU has no kernel for the layer: choose another --precision, or report it with the layer's name",
    "type": "this GPU has no such type: choose another --precision",
    "unused input": "the engine would ignore that input and answer wrongly: use another TensorRT version",
    "parse": "this TensorRT does not know the graph's operators: prepare for its version with --tensorrt",
    "build": "run again with `storm -v`, and report it with TensorRT's version",
    "disk": "free some space where the bundle lies",
    "missing package": "install it: the wheel `tensorrt` on a data-center GPU, JetPack's package on a Jetson,"
    " `pip install 'storm-edge[rtx]'` on an RTX PC",
}


def compile_graph(job: CompileJob, progress: Callable[[str], None] = lambda _: None) -> CompileResult:
    """Compile one graph; raises BuildError saying what failed and what to do. Nothing is left behind on failure."""
    name = Path(job.graph).name
    with tempfile.TemporaryDirectory() as folder:
        job_file, result_file = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(job.model_dump_json(), encoding="utf-8")
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "storm_edge.export.build.tensorrt.compile_child",
            job_file,
            result_file,
        ]
        # A file takes whatever a builder has to say; a pipe that nobody reads in time would stop it.
        with (
            open(Path(folder) / "stderr", "wb") as errors,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment(job, Path(folder))
            ) as child,
        ):
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    progress(f"{name}: {line.strip()}")
            except BaseException:
                child.kill()  # who stops the command wants the memory back, not an engine
                child.wait()
                Path(job.engine).unlink(missing_ok=True)
                raise
        said = (Path(folder) / "stderr").read_text(encoding="utf-8", errors="replace")
        try:
            result = CompileResult.model_validate_json(result_file.read_text(encoding="utf-8"))
        except (OSError, ValidationError):
            result = _of_dead_child(child.returncode, said)
    if result.failure:
        Path(job.engine).unlink(missing_ok=True)
        raise BuildError(
            f"{job.package} cannot compile {name} ({result.failure}: {result.message}): {ADVICE[result.failure]}."
        )
    return result


def _of_dead_child(code: int, errors: str) -> CompileResult:
    """A child that wrote no result was ended by the system (most often for its memory) or aborted itself."""
    words = " ".join(errors.split())[-300:]
    if code == -signal.SIGKILL:
        return CompileResult(failure="memory", message="the system ended the builder")
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit status {code}"
    return CompileResult(failure="build", message=f"the builder ended {how}; {words}")


def _environment(job: CompileJob, folder: Path) -> dict[str, str]:
    """TensorRT for RTX opens libtensorrt_rtx.so when plugins are used, and its wheel has only libtensorrt_rtx.so.1."""
    environment = dict(os.environ)
    if job.package == "tensorrt_rtx" and job.plugins:
        spec = importlib.util.find_spec("tensorrt_rtx_libs")
        for place in (spec.submodule_search_locations or []) if spec else []:
            library = Path(place) / "libtensorrt_rtx.so.1"
            if library.exists():
                (folder / "libtensorrt_rtx.so").symlink_to(library)
        paths = [str(folder), environment.get("LD_LIBRARY_PATH", "")]
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(p for p in paths if p)
    return environment
