from __future__ import annotations

import os
import pty
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from storm_edge.cli.printing import LONGEST, echo, one_line, visible

STORM = Path(sys.executable).parent / "storm"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words, Größe, 視頻, 🎬", "plain words, Größe, 視頻, 🎬"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\nb\tc\x00", "a\\nb\\tc\\x00"),
        ("\x9b1A", "\\x9b1A"),
        ("mp4.\u202egpj", "mp4.\\u202egpj"),
        ("a\u2028b", "a\\u2028b"),
        (os.fsdecode(b"a\xff"), "a\\udcff"),
    ],
)
def test_what_does_not_print_itself_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_message_keeps_its_beginning_and_its_end() -> None:
    for length in (600, 10_000, 36_000_000):
        line = one_line("what happened " + "x" * length + "\n\x1b what to do now.")
        assert len(line) <= LONGEST
        assert line.startswith("what happened xxx")
        assert line.endswith("\\x1b what to do now.")
    assert len(one_line("\x1b" * 36_000_000)) <= LONGEST


@pytest.mark.parametrize("verb", ["inspect", "verify", "plan", "build", "run", "eval", "calibrate", "export", "init"])
def test_a_name_is_one_visible_line_in_every_verb(verb: str, tmp_path: Path) -> None:
    name = "\x1b]0;title\x07a\nb\u202e" + os.fsdecode(b"\xff\xfe") + "x" * 230
    more = {
        "plan": ["--target", "orin"],
        "build": ["--target", "cpu"],
        "run": ["video", "What?"],
        "eval": ["--data", "demo"],
        "calibrate": ["--data", "demo"],
        "export": ["-o", "out"],
        "init": ["-o", "out"],
    }
    done = subprocess.run([STORM, verb, name, *more.get(verb, [])], capture_output=True, cwd=tmp_path)
    assert done.returncode in (1, 2)
    line = done.stderr.decode()
    assert line.startswith("error: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line) <= LONGEST + 1
    assert "unexpected" not in line


def terminal(*arguments: object) -> bytes:
    """What the command writes to a terminal that is its stdout."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, *map(str, arguments)], stdout=theirs) as command:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # its end
            pass
        assert command.wait(20) == 0
    os.close(ours)
    return shown


def test_an_answer_reaches_a_pipe_as_it_is_and_a_terminal_without_controls() -> None:
    code = "from storm_edge.cli.printing import answer; answer('a\\tb\\n\\x1b[2Jc\\r\\x9b1A\\x08 \\u202e')"
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.decode()
    assert piped == "a\tb\n\x1b[2Jc\r\x9b1A\x08 \u202e"
    shown = terminal("-c", code).decode().replace("\r\n", "\n")
    assert shown == "a\tb\n\\x1b[2Jc\\r\\x9b1A\\x08 \u202e"


def test_a_reader_that_goes_away_is_told_nothing() -> None:
    with subprocess.Popen([STORM, "doctor"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as command:
        assert command.stdout is not None
        assert command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == b""


def test_a_full_disk_is_said() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([STORM, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left" in done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_without_its_streams_works(closed: str, tmp_path: Path) -> None:
    quoted = f"exec '{STORM}' inspect '{tmp_path / 'none'}' {closed}"
    assert subprocess.run(["sh", "-c", quoted], check=False, capture_output=True).returncode == 1
    quoted = f"exec '{STORM}' init storm-mini -o '{tmp_path / 'made'}' {closed}"
    assert subprocess.run(["sh", "-c", quoted], check=False, capture_output=True).returncode == 0
    assert (tmp_path / "made" / "config.json").read_text().startswith("{")


def test_threads_are_bounded_alike_in_every_verb_that_has_them() -> None:
    for verb in ("build", "calibrate", "eval", "run", "verify"):
        command = import_module(f"storm_edge.cli.{verb}").command
        (option,) = (o for o in command.params if o.name == "threads")
        assert option.type.convert("1024", option, None) == 1024
        for threads in ("0", "1025", str(10**30), "two"):
            with pytest.raises(click.BadParameter):
                option.type.convert(threads, option, None)


def test_every_verb_prints_through_here_but_json() -> None:
    root = Path(__file__).parent.parent.parent / "cli"
    lines = [line for path in root.glob("*.py") if path.name != "printing.py" for line in path.read_text().splitlines()]
    raw = [line for line in lines if "click.echo(" in line or "print(" in line.replace("echo", "")]
    assert [line for line in raw if "json.dumps(" not in line] == []
    assert len(raw) >= 8  # of the verbs' JSON


def test_columns_keep_their_spaces_and_lose_their_controls(capsys: pytest.CaptureFixture[str]) -> None:
    echo("clip    \x1b[2Jvision            1")
    assert capsys.readouterr().out == "clip    \\x1b[2Jvision            1\n"
