"""docs/benchmarks.md and its pictures, from the rows that were measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prepare import Workplace
from rows import FRAMES, LENGTHS, TOKENS
from scaling_plot import draw_scaling

from storm_edge.runtime.bench.measuring import Run
from storm_edge.runtime.plan.times import PAPER_ROWS

CLEAN = 0.1  # the most that others may take of the processors' time
BUDGETS = (1, 2, 4, 8, 16)  # how many times fewer tokens
CLIPS = (32, 64, 128, 256, 512)
Rows = dict[str, Any]

INTRODUCTION = """# storm-edge beside others

Made by `make bench BENCH_MODEL={model}` and, for the long rows, `make bench-full`; a row of it by
`python benchmarks/side_by_side/main.py {model} --only ROW`. What `storm bench` measures of an engine alone, and
how it is to be read: [bench.md](bench.md).

One checkpoint of random weights: SigLIP-base's widths at 224 x 224 ({blocks} blocks that run, {n} visual tokens a
frame; the whole tower runs 11), {mamba} bidirectional Mamba layer{s}, Qwen2-0.5B's widths ({layers} layers of its 24,
a vocabulary of {vocabulary:,} of 151,936); frames are averaged in fours. The video has 512 frames, 1280 x 720 in H.264.
Everybody has the same weights and the same frames, and all cores. Who is compared in a row takes turns in one run, each
in a process of its own, after a turn that does not count. Times are medians, with the least and the most behind them.
"Others" is the share of the processors' time that programs outside the row took meanwhile; rows of which others took
more than {most:.0%} are left out.
"""


def write_page(place: Workplace, rows: Rows, deep: Rows, docs: Path) -> None:
    """Write the page, and the pictures where their rows are there; `deep` are rows of the model at its full depth."""
    config = place.config
    about = {"model": place.model, "n": config.tokens_per_frame, "blocks": config.vision.layers_run}
    about |= {"mamba": config.temporal.num_layers, "s": "s" * (config.temporal.num_layers > 1)}
    about |= {"layers": config.llm.num_hidden_layers, "vocabulary": config.llm.vocab_size, "most": CLEAN}
    noisy = sorted(name for name, row in rows.items() if row["others"] > CLEAN)
    rows, deep = ({name: x for name, x in found.items() if x["others"] <= CLEAN} for found in (rows, deep))
    parts = [INTRODUCTION.format(**about), *_machines(rows, noisy), *_questions(rows), *_deep(deep)]
    parts += [*_language(rows), *_budget(place, rows), *_scaling(rows, docs), *_gpu()]
    (docs / "benchmarks.md").write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")


def _machines(rows: Rows, noisy: list[str]) -> list[str]:
    found = sorted({f"{r['date']}, {r['machine']['processor']}, {r['machine']['cores']} cores" for r in rows.values()})
    words = [f"Measured on: {'; '.join(found)}." if found else "**No row has been measured on a quiet machine yet.**"]
    return [*words, *([f"Left out: {', '.join(noisy)}."] if noisy else []), ""]


def _questions(rows: Rows) -> list[str]:
    parts = [
        "## A whole question",
        "",
        f'{FRAMES} frames, an answer of {TOKENS} tokens. "Second" is another question about the same clip, to its'
        " first token: PyTorch computes the visual tokens' keys and values again, storm-edge does not. PyTorch is eager"
        " unless it says compiled, with transformers' SigLIP and Qwen2 and this project's native scan: as a loop over"
        " tokens the scan would be all that is measured.",
        "",
    ]
    return parts + _question_tables(rows)


def _deep(rows: Rows) -> list[str]:
    if not rows:
        return []
    text = (
        "All 11 blocks of the tower, two Mamba layers, all 24 layers and the whole vocabulary of the language model, so"
        ' that decoding the video weighs less: `python benchmarks/side_by_side/main.py edge --only "question*"`, then'
        " the page of the smaller model again."
    )
    return ["### At full depth", "", text, "", *_question_tables(rows)]


def _question_tables(rows: Rows) -> list[str]:
    parts = []
    for name in ("question", "question int8", "question compiled", "question bfloat16"):
        if name not in rows:
            continue
        parts += _head(
            "", "decode video", "vision", "temporal", "prefill", "each token", "first token", "all", "second", "peak"
        )
        runs = {who: [Run(**x) for x in answers[str(FRAMES)]] for who, answers in rows[name]["answers"].items()}
        for who, each in runs.items():
            stages = [_seconds(x.seconds[s] for x in each) for s in ("video decode", "vision", "temporal", "prefill")]
            tokens = _seconds(t for x in each for t in x.tokens)
            whole = [
                _seconds(f(x) for x in each) for f in (lambda x: x.first_token, lambda x: x.total, lambda x: x.again)
            ]
            parts.append(_line(who, *stages, tokens, *whole, _gib(max(x.peak_memory_bytes for x in each))))
        parts += ["", *_ratios(runs), _others(rows[name]), ""]
    return parts


def _ratios(runs: dict[str, list[Run]]) -> list[str]:
    """How much sooner each of ours comes to its first token than the best of the others."""
    first = {who: statistics.median(x.first_token for x in each) for who, each in runs.items()}
    theirs = [seconds for who, seconds in first.items() if not who.startswith("storm")]
    if not theirs or len(theirs) == len(first):
        return []
    words = []
    for who, each in runs.items():
        if who.startswith("storm"):
            again = statistics.median(x.again for x in each)
            words.append(
                f"{who}: first token {min(theirs) / first[who]:.2f} times as soon, second question"
                f" {first[who] / again:.0f} times sooner than the first"
            )
    return [f"{'; '.join(words)}."]


def _language(rows: Rows) -> list[str]:
    parts = [
        "## The language model alone",
        "",
        "A prompt of random tokens, then 16 tokens one by one. llama.cpp is compiled on this machine for it and reads"
        " GGUF files written of the same weights (Q4_0: embedding and head in Q8_0); onnxruntime-genai's model is made"
        " by its own builder.",
        "",
        *_head("prompt", "", "prefill", "tokens a second", "each token after it", "peak", "others"),
    ]
    for bits in ("int4", "int8", "floating"):
        for length in (512, 2048):
            row = rows.get(f"language {bits} {length}")
            for who, answers in row["answers"].items() if row else ():
                each = answers[f"{length} 16"]
                prefill = statistics.median(x["prefill"] for x in each)
                parts.append(
                    _line(
                        str(length),
                        who,
                        _seconds(x["prefill"] for x in each),
                        f"{length / prefill:.0f}",
                        _seconds(x["decode"] for x in each),
                        _gib(max(x["peak_memory_bytes"] for x in each)),
                        f"{row['others']:.0%}",
                    )
                )
    return [*parts, ""]


def _budget(place: Workplace, rows: Rows) -> list[str]:
    """Prefill by frames and share of the tokens, with what comes before it, and the paper's."""
    prefill = {
        length: statistics.median(
            x["prefill"] for x in next(iter(rows[f"prefill {length}"]["answers"].values()))[f"{length} 0"]
        )
        for length in LENGTHS
        if f"prefill {length}" in rows
    }
    before = {
        frames: sum(_of_scaling(rows, frames, s) for s in ("video decode", "vision", "temporal"))
        for frames in CLIPS
        if f"scaling {frames}" in rows
    }
    shares = [f"{100 / b:g}%" for b in BUDGETS]
    parts = [
        "## The token budget",
        "",
        "Seconds of prefill, and in brackets of everything to the first token, by the share of the visual tokens that"
        " the language model sees (int4; decoding, vision and temporal encoder in fp32, from the longer clips below)."
        " Without brackets: the encoders were not run at that length.",
        "",
        *_head("frames", *shares),
    ]
    for frames in CLIPS:
        cells = []
        for budget in BUDGETS:
            seconds = prefill.get(frames * place.config.tokens_per_frame // budget)
            whole = f" ({seconds + before[frames]:.1f})" if seconds is not None and frames in before else ""
            cells.append("not run" if seconds is None else f"{seconds:.2f}{whole}")
        parts.append(_line(str(frames), *cells))
    full = {row.frames: row for row in PAPER_ROWS if row.reduction == 1}
    parts += [
        "",
        "Beside it, how many times less the language model takes, and the whole, than with all tokens:",
        "",
        *_head(
            "frames",
            "tokens kept",
            "here: language model",
            "here: whole",
            "paper, A100, 7B: language model",
            "paper: whole",
        ),
    ]
    for row in PAPER_ROWS:
        if row.reduction == 1 or row.frames not in full:
            continue
        whole = full[row.frames]
        all_, kept = (prefill.get(row.frames * place.config.tokens_per_frame // b) for b in (1, row.reduction))
        ours, total = "not run", "not run"
        if all_ is not None and kept is not None:
            ours = f"{all_ / kept:.1f}"
            if row.frames in before:
                total = f"{(all_ + before[row.frames]) / (kept + before[row.frames]):.2f}"
        theirs = (whole.llm + whole.vision + whole.temporal) / (row.llm + row.vision + row.temporal)
        parts.append(
            _line(
                str(row.frames), f"{100 / row.reduction:g}%", ours, total, f"{whole.llm / row.llm:.1f}", f"{theirs:.2f}"
            )
        )
    return [*parts, ""]


def _of_scaling(rows: Rows, frames: int, stage: str) -> float:
    answers = next(iter(rows[f"scaling {frames}"]["answers"].values()))[str(frames)]
    return statistics.median(x["seconds"][stage] for x in answers)


def _scaling(rows: Rows, docs: Path) -> list[str]:
    """Time and memory by the length of the clip."""
    found: dict[int, list[Run]] = {}
    for name, row in rows.items():
        if name.startswith("scaling "):
            frames = int(name.split()[1])
            found[frames] = [Run(**x) for x in next(iter(row["answers"].values()))[str(frames)]]
    if not found:
        return []
    parts = [
        "## Longer clips",
        "",
        "A question by the engine cpu-fp32-llm-int4; every length is a process of its own.",
        "",
    ]
    parts += _head(
        "frames",
        "visual tokens",
        "first token",
        "seconds a frame",
        "vision",
        "temporal",
        "prefill",
        "each token",
        "peak",
        "others",
    )
    for frames in sorted(found):
        each = found[frames]
        first = statistics.median(x.first_token for x in each)
        stages = [_seconds(x.seconds[s] for x in each) for s in ("vision", "temporal", "prefill")]
        parts.append(
            _line(
                str(frames),
                f"{each[0].visual_tokens:,}",
                _seconds(x.first_token for x in each),
                f"{first / frames:.3f}",
                *stages,
                _seconds(t for x in each for t in x.tokens),
                _gib(max(x.peak_memory_bytes for x in each)),
                f"{rows[f'scaling {frames}']['others']:.0%}",
            )
        )
    draw_scaling(found, docs / "scaling.png")
    return [*parts, "", "![seconds and memory by frames](scaling.png)", ""]


def _gpu() -> list[str]:
    return [
        "## On a GPU",
        "",
        "The same command measures on a GPU: PyTorch runs there where it finds one, and `storm bench` compares with the"
        " GPU's own limits. Nothing has been run there yet (written). Beside it belongs the paper's table, milliseconds"
        " on one A100 of 80 GB for its 7B model:",
        "",
        *_head("frames", "tokens kept", "language model", "vision", "temporal"),
        *(
            _line(str(r.frames), f"{100 / r.reduction:g}%", f"{r.llm:g}", f"{r.vision:g}", f"{r.temporal:g}")
            for r in PAPER_ROWS
        ),
    ]


def _head(*titles: str) -> list[str]:
    return [_line(*titles), f"|{'---|' * len(titles)}"]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _others(row: dict[str, Any]) -> str:
    return f"Others took {row['others']:.0%} of the processors' time."


def _seconds(values: Iterable[float]) -> str:
    each = sorted(values)
    if not each:
        return ""
    shown: Callable[[float], str] = (lambda x: f"{x * 1e3:.0f}") if each[-1] < 1 else (lambda x: f"{x:.2f}")
    unit = " ms" if each[-1] < 1 else " s"
    several = f" ({shown(each[0])} to {shown(each[-1])})" if len(each) > 1 else ""
    return f"{shown(statistics.median(each))}{unit}{several}"


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
