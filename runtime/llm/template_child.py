"""The child process in which a template runs: a job as JSON on standard input, text or fault as JSON on the output.

It limits itself, after its imports, before it has seen the template. SIGPROF ends it when its time is up.
"""

from __future__ import annotations

import json
import resource
import signal
import sys

from storm_edge.runtime.llm.sandbox import render
from storm_edge.runtime.llm.template_limits import MEMORY, SECONDS, TemplateFault, TemplateLimitFault


def main() -> None:
    """Render one job."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        result = {"text": render(**json.load(sys.stdin))}
    except TemplateFault as e:
        result = {"limit" if isinstance(e, TemplateLimitFault) else "fault": str(e)}
    json.dump(result, sys.stdout)
