"""Measure storm-edge beside PyTorch, llama.cpp and onnxruntime-genai, and write docs/benchmarks.md.

    python benchmarks/side_by_side/main.py edge                    what `make bench` runs
    python benchmarks/side_by_side/main.py edge --full             and the long rows
    python benchmarks/side_by_side/main.py edge --only "scaling *"   rows of that name, again
    python benchmarks/side_by_side/main.py edge --page             the page alone

Every row that is finished is kept in build/bench/MODEL/rows.json, so that a run that was ended goes on where it was.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from page import write_page
from prepare import MODELS, ROOT, Workplace
from rows import Row, rows
from turns import take_turns

from storm_edge.runtime.errors import StormError
from storm_edge.runtime.machine.doctor import examine

DEEP = "edge"  # the model of full depth


def machine() -> dict[str, str]:
    """What a row was measured on."""
    facts = examine()["machine"]
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {"processor": facts["processor"], "cores": facts["cores"], "commit": commit.stdout.strip()}


def measured(row: Row) -> dict[str, Any]:
    """A row's answers with where and when; raises StormError."""
    found = take_turns(row.contestants, row.tasks, row.rounds, row.warm_up)
    return {"date": datetime.date.today().isoformat(), "machine": machine(), **found}


def read(cache: Path) -> dict[str, Any]:
    """The rows that were measured."""
    found: dict[str, Any] = json.loads(cache.read_text(encoding="utf-8")) if cache.exists() else {}
    return found


def main() -> int:
    """Run what is missing and write the page; 1 where a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--full", action="store_true", help="the long rows too")
    parser.add_argument("--only", action="append", help="measure rows of this name, again; * for any")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    given = parser.parse_args()
    place = Workplace.of(given.model)
    cache = place.folder / "rows.json"
    done = read(cache)
    failed = 0
    for row in [] if given.page else rows(place):
        chosen = any(fnmatch(row.name, name) for name in given.only or ())
        if not (chosen if given.only else row.name not in done and (given.full or not row.full)):
            continue
        print(row.name, file=sys.stderr, flush=True)
        try:
            found = measured(row)
        except StormError as e:
            print(f"{row.name}: {e}", file=sys.stderr)
            failed += 1
            continue
        done = read(cache) | {row.name: found}  # another run may have added to it
        cache.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    deep = {} if place.model == DEEP else read(Workplace.of(DEEP).folder / "rows.json")
    write_page(place, done, deep, ROOT / "docs")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
