"""Attacks on a bundle one by one; `make fuzz` has them in hundreds of combinations."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("bundle_worker.py")
Try = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def attempt() -> Iterator[Try]:
    """Attack a sound bundle, run a command on it, and see that nothing outside was touched, in one line, in time."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, WORKER], text=True, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()

        def attack(name: str | None, command: str, *want: object, seed: int = 0) -> dict[str, Any]:
            process.stdin.write(json.dumps({"attack": name, "command": command, "seed": seed, "want": want}) + "\n")
            process.stdin.flush()
            result: dict[str, Any] = json.loads(process.stdout.readline())
            assert result["faults"] == [], result
            return result

        yield attack
        process.stdin.close()


COMMANDS = ("inspect", "inspect-json", "files", "verify", "run", "eval", "plan", "build", "build-int4", "build-int8")
COMMANDS += ("build-run", "rtx", "rtx-int8", "calibrate", "calibrate-llm")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_sound_bundle_of_somebody_else_does_all_it_can(attempt: Try, command: str) -> None:
    assert attempt(None, command)["code"] == 0


# Item 1: writes.


@pytest.mark.parametrize("kind", ["link to a writable file", "dangling link", "hard link", "FIFO", "folder", "socket"])
@pytest.mark.parametrize("command", ["build-int4", "rtx"])
def test_a_build_writes_through_nothing_that_lies_under_its_names(attempt: Try, command: str, kind: str) -> None:
    attempt("staging_name", command, kind, "partial", "every")


@pytest.mark.parametrize("kind", ["link", "FIFO"])
def test_a_calibration_touches_nothing_that_lies_under_its_names(attempt: Try, kind: str) -> None:
    attempt("staging_name", "calibrate", kind, "observed", "every")


@pytest.mark.parametrize("folder", ["engines", "graphs", "calibration"])
@pytest.mark.parametrize("command", ["build-int4", "calibrate"])
def test_nothing_is_written_into_a_folder_outside(attempt: Try, command: str, folder: str) -> None:
    assert attempt("folder_link", command, folder, "copy outside")["code"] == 1


# Item 2: reads.


BESIDE = {kind: ("beside",) for kind in ("link", "relative link", "FIFO", "link to /dev/zero")}


@pytest.mark.parametrize("place", ["../../outside/secret.data", "absolute", *BESIDE])
@pytest.mark.parametrize("stage", ["vision", "decoder"])
def test_no_weight_is_read_from_outside(attempt: Try, stage: str, place: str) -> None:
    assert attempt("location_of_a_weight", "rtx", stage, place, *BESIDE.get(place, ()))["code"] == 1


@pytest.mark.parametrize("attack", ["location_of_nothing", "location_in_a_node"])
@pytest.mark.parametrize("place", ["../../outside/secret.data", "link"])
def test_no_tensor_that_nothing_uses_is_read_from_outside(attempt: Try, attack: str, place: str) -> None:
    assert attempt(attack, "rtx", "vision", place, *BESIDE.get(place, ()), "sub-graph")["code"] == 1


@pytest.mark.parametrize("number", ["-1", "nan", "9223372036854775808", "1073741824", ""])
def test_an_offset_that_is_none_is_refused_in_one_line(attempt: Try, number: str) -> None:
    assert attempt("place_of_a_weight", "build-int4", "decoder", number, "offset")["code"] == 1


@pytest.mark.parametrize("dims", [[-1], [2**62, 4], [10**9]])
def test_a_shape_that_is_none_is_refused_in_one_line(attempt: Try, dims: list[int]) -> None:
    assert attempt("dims_of_a_weight", "build-int4", "decoder", dims, "external")["code"] == 1


@pytest.mark.parametrize("command", ["inspect", "files"])
def test_what_the_manifest_does_not_list_is_named(attempt: Try, command: str) -> None:
    result = attempt("unlisted_template", command)
    assert "tokenizer/chat_template.jinja" in result["out"] + result["said"]


def test_a_template_that_the_manifest_does_not_list_is_not_read(attempt: Try) -> None:
    plain = attempt(None, "run-json")
    attacked = attempt("unlisted_template", "run-json", "OBEY {{ messages }}")
    assert json.loads(attacked["out"])["prompt_tokens"] == json.loads(plain["out"])["prompt_tokens"]


@pytest.mark.parametrize("kind", ["link", "FIFO", "link to /dev/zero", "socket", "sparse file"])
@pytest.mark.parametrize("attack", ["listed_file", "record_file"])
def test_an_entry_that_is_no_file_is_refused(attempt: Try, attack: str, kind: str) -> None:
    assert attempt(attack, "verify", kind, "graphs/decoder.data", "engines/cpu-fp32/engine.json")["code"] == 1


def test_hard_links_are_files_like_others(attempt: Try) -> None:
    assert attempt("hard_links", "build-int4")["code"] == 0


# Item 3: graphs.


@pytest.mark.parametrize("how", ["few", "many", "empty", "type", "rank", "attribute", "outputs"])
@pytest.mark.parametrize("operator", ["SelectiveScan", "CausalConv1d"])
def test_an_operator_with_odd_inputs_ends_in_one_line(attempt: Try, operator: str, how: str) -> None:
    attempt("operator_inputs", "build", how, operator, "bodiless")


@pytest.mark.parametrize("how", ["name", "type", "rank", "more", "less", "none"])
@pytest.mark.parametrize("side", ["input", "output"])
def test_a_graph_with_another_contract_is_refused(attempt: Try, side: str, how: str) -> None:
    assert attempt("odd_inputs", "verify", "temporal", side, how, "renamed", 7)["code"] == 1


# Item 5: time, memory, and engines of others.


@pytest.mark.parametrize("stage", ["vision", "decoder"])
@pytest.mark.parametrize("node", ["Loop", "ConstantOfShape", "Expand", "Range", "Tile", "Pad", "Resize"])
def test_a_node_without_end_is_ended(attempt: Try, node: str, stage: str) -> None:
    assert attempt("endless_node", "build", stage, node, "used")["code"] == 1


@pytest.mark.parametrize("begin", range(4))
def test_a_template_is_bounded(attempt: Try, begin: int) -> None:
    assert attempt("template", "run", begin, "config")["code"] == 1


@pytest.mark.parametrize("how", ["replace", "chain", "pattern", "prepend", "many added", "huge id"])
def test_a_tokenizer_is_bounded(attempt: Try, how: str) -> None:
    attempt("tokenizer", "run", how)


@pytest.mark.parametrize("command", ["run", "plan", "calibrate"])
def test_sizes_that_no_model_has_are_refused(attempt: Try, command: str) -> None:
    assert attempt("large_numbers", command, ["vision", "image_size", 8 * 10**6])["code"] == 1


@pytest.mark.parametrize("change", ["created", "verification"])
def test_an_engine_of_somebody_else_does_not_run_unasked(attempt: Try, change: str) -> None:
    result = attempt("forged_engine", "run-untrusted", change)
    assert result["code"] == 1
    assert "storm build" in result["said"]


def test_a_plan_of_somebody_else_is_not_loaded(attempt: Try) -> None:
    result = attempt("tensorrt_plan", "run-untrusted", "cpu", "alone")
    assert result["code"] == 1
    assert "--trust-engines" in result["said"]


# Item 7: what is printed.


@pytest.mark.parametrize("how", ["versions", "inputs", "key"])
def test_what_a_file_says_is_printed_short_and_plain(attempt: Try, how: str) -> None:
    attempt("manifest_size", "inspect", how)


@pytest.mark.parametrize("how", ["nested", "number", "spaces", "sparse", "files"])
def test_a_manifest_of_any_size_ends_in_one_line(attempt: Try, how: str) -> None:
    attempt("manifest_size", "inspect", how)


@pytest.mark.parametrize("how", ["nan", "inf", "empty", "type", "tokens", "wide", "missing", "zero frames"])
def test_a_reference_clip_of_any_kind_ends_in_one_line(attempt: Try, how: str) -> None:
    attempt("forged_clip", "build", how, "reference/clip0.safetensors", "tokens")


@pytest.mark.parametrize("seed", range(4))
def test_a_precision_that_is_none_ends_in_one_line(attempt: Try, seed: int) -> None:
    attempt("forged_engine", "verify", "precision", seed=seed)


@pytest.mark.parametrize("command", ["inspect", "files", "build"])
@pytest.mark.parametrize("where", ["engines", "calibration", "graphs"])
def test_a_name_with_control_characters_is_shown_as_text(attempt: Try, where: str, command: str) -> None:
    attempt("odd_name", command, where, "title")
