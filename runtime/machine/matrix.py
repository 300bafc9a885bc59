"""The support matrix of the README: `python -m storm_edge.runtime.machine.matrix README.md` writes it there.

What was built and verified by `make gpu-report` is read from the reports in docs/gpu, beside the README.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from storm_edge.runtime.machine.targets import PRECISIONS, TARGETS
from storm_edge.runtime.runners import RUNNERS

REPORTS = "docs/gpu"
_ENCODERS, _LANGUAGE = "vision, temporal", "language model"
_TABLE = re.compile(r"^\| target \|.*\n(?:\|.*\n)+", re.MULTILINE)
Seen = Mapping[tuple[str, str, str, str], str]  # target, part, runner, precision -> where and when it ran


def seen_on_gpus(folder: Path) -> dict[tuple[str, str, str, str], str]:
    """What the reports in a folder built and verified; of several, the newest counts."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    found: dict[tuple[str, str, str, str], str] = {}
    for report in sorted(reports, key=lambda report: str(report["date"])):
        words = f"run on {report['gpu']['name']}, {report['date'][:7]}"
        for step in report["steps"]:
            for engine in step["figures"].get("engines", ()):
                if engine["verified"]:
                    target, runners = engine["target"], engine["runners"]
                    found[target, _ENCODERS, runners["temporal"], engine["precision"]] = words
                    found[target, _LANGUAGE, runners["decoder"], engine["llm_precision"]] = words
    return found


def support_matrix(seen: Seen) -> str:
    """The README's table of targets, in Markdown: `-` what a target cannot do, `not yet` what it could."""
    lines = ["| target | hardware | part | engine | " + " | ".join(PRECISIONS) + " |"]
    lines.append("|---" * (4 + len(PRECISIONS)) + "|")
    for t in TARGETS.values():
        rows = (
            (_ENCODERS, (t.runner,), t.precisions, t.status),
            (_LANGUAGE, t.llm_runners, t.llm_precisions, t.llm_status),
            *((_LANGUAGE, (c,), tuple(t.chosen_status(c)), t.chosen_status(c)) for c in t.llm_choices),
        )
        for part, runners, can, status in rows:
            words = ", ".join(RUNNERS[name].words for name in runners)
            come = {p: status.get(p, "not yet") for p in can}
            come |= {p: seen[key] for p in can for r in runners if (key := (t.name, part, r, p)) in seen}
            cells = " | ".join(come.get(p, "-") for p in PRECISIONS)
            lines.append(f"| {t.name} | {t.hardware} | {part} | {words} | {cells} |")
    return "\n".join(lines)


def update(readme: Path) -> None:
    """Write the matrix, with what the reports beside it say, in place of a README's; ValueError where it has none."""
    table = support_matrix(seen_on_gpus(readme.parent / REPORTS)) + "\n"
    text, found = _TABLE.subn(lambda _: table, readme.read_text(encoding="utf-8"))
    if found != 1:
        raise ValueError(f"{readme} has {found} tables of targets instead of one")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1]))
