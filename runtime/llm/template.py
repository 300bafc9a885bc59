"""A model's chat template: Jinja from a file that came with the model, so run in a sandbox, and that in a child.

Jinja's sandbox keeps a template from the machine, but not from its time and memory: `'a' * 2000000000`, a filter that
pads, nested loops, lists of lists and what the compiler computes beforehand are too many ways to forbid one by one.
So a template runs in a child process with limits that the system holds (`template_child`), which takes 0.1 s. Two
things keep that from every question: a template only sees placeholders, never what is asked, so equal shapes of a
conversation are rendered once; and templates that storm-edge wrote itself, known by their hash, need no child.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from storm_edge.runtime.llm.template_limits import MEMORY, SECONDS, TemplateFault, TemplateLimitFault

LARGEST_SOURCE = 2**18  # bytes; the longest in use with tools and reasoning are a tenth of it
# SHA-256 of templates that are known to end: those of `storm init` and of the demo.
KNOWN = {
    "b36ddf3d58c898fe2680289e4c8c667e6f73073dee518d7ae353e5607bd7b28a",
    "1914d797d7f12975996ef466459e2ecf1a1224f49f30c4f2cde877f92d65c6eb",
}
# Seconds by the clock. The child's own limit counts processor time; a busy machine may take long to give it.
_PATIENCE = 60
_CHILD = "import sys; sys.path[:1] = []; from storm_edge.runtime.llm.template_child import main; main()"


class ChatTemplate:
    """A template with the conveniences that Hugging Face's templates rely on; raises TemplateFault for a long one."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        encoded = source.encode(errors="surrogatepass")
        if len(encoded) > LARGEST_SOURCE:
            raise TemplateLimitFault(f"has {len(encoded)} bytes, more than the {LARGEST_SOURCE} of any that is in use")
        self.source = source
        self._job = {"source": source, "special_tokens": dict(special_tokens)}
        known = hashlib.sha256(encoded).hexdigest() in KNOWN
        self._render = lru_cache(maxsize=64)(_here if known else _in_child)

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The prompt for `messages` (Hugging Face's form), up to where the answer begins; raises TemplateFault."""
        return self._render(json.dumps(self._job | {"messages": list(messages)}))


def _here(job: str) -> str:
    from storm_edge.runtime.llm.sandbox import render  # Jinja, which most models' templates need in the child alone

    return render(**json.loads(job))


def _in_child(job: str) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD], input=job, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as e:
        raise TemplateLimitFault(f"did not end within {_PATIENCE} seconds") from e
    if done.returncode:
        raise TemplateLimitFault(f"takes more than {SECONDS} second or {MEMORY >> 20} MiB")
    result: dict[str, str] = json.loads(done.stdout)
    if "limit" in result:
        raise TemplateLimitFault(result["limit"])
    if "fault" in result:
        raise TemplateFault(result["fault"])
    return result["text"]
