from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from storm_edge.runtime import load
from storm_edge.runtime.bundle.contents import unlisted_files
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.prompt import Message


def test_what_no_record_lists_is_named_and_never_read(calibrated: Path, copy_of: Callable[[Path], Path]) -> None:
    path = copy_of(calibrated)
    assert unlisted_files(Bundle.open(path)) == []
    asked = [Message("user", "Which way?", video=True)]
    before = load(path).prompt.render(asked)
    extra = ["engines/cpu-fp32/note.txt", "graphs/other.data", "readme", "tokenizer/chat_template.jinja"]
    for name in extra:
        (path / name).write_text("{{ raise_exception('read') }}")
    assert unlisted_files(Bundle.open(path)) == extra
    assert load(path).prompt.render(asked) == before
