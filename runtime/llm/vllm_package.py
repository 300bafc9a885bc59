"""The package vllm on this machine: whether it is there, of the line that the runner is written for, and its names."""

from __future__ import annotations

import importlib
import os
from types import SimpleNamespace
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import require_package
from storm_edge.runtime.runners import RUNNERS

RUNNER = "vllm"
PACKAGE = RUNNERS[RUNNER].package
NEEDED = "0.33.0"
# Where a user has not said otherwise. A process that has used CUDA cannot be forked; nothing is reported to anybody;
# standard output is the answer's.
_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
_NAMES = {
    "AsyncEngineArgs": "vllm.engine.arg_utils",
    "AsyncLLM": "vllm.v1.engine.async_llm",
    "SamplingParams": "vllm.sampling_params",
    "RequestOutputKind": "vllm.sampling_params",
    "embeds_input": "vllm.inputs",
}


def package_names() -> Any:
    """The classes and functions that the runner uses; raises EngineError where they cannot be loaded."""
    require_package(RUNNER)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return SimpleNamespace(**{n: getattr(importlib.import_module(m), n) for n, m in _NAMES.items()})
    except (ImportError, OSError, RuntimeError, AttributeError) as e:
        raise EngineError(
            f"{PACKAGE} cannot be loaded ({' '.join(str(e).split())}): its PyTorch and CUDA driver must be those of"
            f" {NEEDED}; see `storm doctor`."
        ) from e
