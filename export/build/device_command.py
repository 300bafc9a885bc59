"""The command that makes on the device what was prepared elsewhere."""

from __future__ import annotations

import shlex

from storm_edge.export.build.goal import REPEATED, SHAPES, SWITCHES
from storm_edge.export.build.options import BuildOptions, flag
from storm_edge.runtime.bundle.manifest import Bundle


def device_command(bundle: Bundle, target: str, precision: str, llm_precision: str, options: BuildOptions) -> str:
    """The command that builds the same engine from the same prepared graphs on the device."""
    words = [f"storm build {shlex.quote(str(bundle.root))} --target {target} --precision {precision}"]
    words.append(f"--llm-precision {llm_precision}")
    for name in (*REPEATED, "workspace_gib", "decoder_profiles"):
        value = getattr(options, name)
        if value != getattr(BuildOptions, name):
            words.append(f"{flag(name)} {_text(name, value)}")
    words += [flag(name) for name in (*SWITCHES, "allow_mismatch") if getattr(options, name)]
    return " ".join(words)


def _text(name: str, value: object) -> object:
    """The value of an option as a command line says it."""
    if name in SHAPES and isinstance(value, tuple):
        return ",".join(f"{input}:{'x'.join(map(str, shape))}" for input, shape in value)
    return ",".join(value) if isinstance(value, tuple) else value
