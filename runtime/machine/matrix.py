"""The support matrix of the README: `python -m storm_edge.runtime.machine.matrix` prints it."""

from __future__ import annotations

from storm_edge.runtime.machine.targets import PRECISIONS, TARGETS
from storm_edge.runtime.runners import RUNNERS


def support_matrix() -> str:
    """The README's table of targets, in Markdown: `-` what a target cannot do, `not yet` what it could."""
    lines = ["| target | hardware | part | engine | " + " | ".join(PRECISIONS) + " |"]
    lines.append("|---" * (4 + len(PRECISIONS)) + "|")
    for t in TARGETS.values():
        rows = (
            ("vision, temporal", (t.runner,), t.precisions, t.status),
            ("language model", t.llm_runners, t.llm_precisions, t.llm_status),
            *(("language model", (c,), tuple(t.chosen_status(c)), t.chosen_status(c)) for c in t.llm_choices),
        )
        for part, runners, can, status in rows:
            words = ", ".join(RUNNERS[name].words for name in runners)
            cells = " | ".join(status.get(p, "not yet") if p in can else "-" for p in PRECISIONS)
            lines.append(f"| {t.name} | {t.hardware} | {part} | {words} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(support_matrix())
