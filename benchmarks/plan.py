"""Prints docs/plan.md: what storm-7b needs and takes on each device, and how the model of it was checked.

    .venv/bin/python benchmarks/plan.py > docs/plan.md

Everything is computed from published figures, so it prints the same on every machine.
"""

from __future__ import annotations

from dataclasses import replace

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.sizes import TEXT_TOKENS, WHOLE_TEMPORAL_BYTES, whole_frames
from storm_edge.runtime.machine.hardware import Device
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.plan.planning import SHOWN, SYSTEM, PlanOptions, make_plan
from storm_edge.runtime.plan.times import (
    FITTED,
    MODEL,
    NVILA_CONTEXT,
    NVILA_DECODE,
    PAPER_ROWS,
    efficiencies,
    nvila_floor,
    paper_floor,
)

TARGETS = ("orin", "thor", "l4", "a100", "h200")
FRAMES = ((32, 1), (128, 1), (256, 1), (512, 2))  # frames, sampling stride

HEAD = f"""# What {MODEL} needs and takes, before it is built

Printed by `.venv/bin/python benchmarks/plan.py > docs/plan.md`; computed, not measured, so the machine does not matter.
`storm plan {MODEL} --target orin --frames 128` prints one case with every stage.

**Memory** is the sum of all weights, the KV cache, what one stage hands to the next (the tokens of a clip, its visual
tokens, the prompt's embeddings), and the activations and workspace of the largest engine: TensorRT's run in turn and
share one block for them. Sessions of ONNX Runtime keep what they once took, so there they are added up. Clips whose
activations would take more than {WHOLE_TEMPORAL_BYTES >> 30} GiB in fp32, of {MODEL} those above
{whole_frames(preset(MODEL))} frames, go through the temporal encoder in chunks, so that only tokens grow; what it keeps
to save time where there is room is not counted. The plan assumes the operators' plugin (their ONNX function needs
several times more), fused attention, {TEXT_TOKENS} positions for question and answer, and the embedding table left on
disk. Usable is {SHOWN:.0%} of the memory a product is named after, less {SYSTEM[True]} GiB on a Jetson without a
desktop and {SYSTEM[False]} GiB elsewhere. No engine of ours has been weighed on a GPU against this yet.

**Floor**: every operation takes the longer of its arithmetic at the data sheet's dense rate and its traffic at the
data sheet's bandwidth. **Expected**: floor over an efficiency per stage. Video decoding comes on top. Jetsons are
taken at their highest power mode; lower modes are slower in proportion to their clocks.

## How good the expected times are

Fitted on one row of the paper's latency table ({FITTED.frames} frames, 25% of the tokens, A100 80GB, 16 bits) and,
for decode, on NVILA-Video-8B in 16 bits on AGX Orin 64GB (the same language model; its context is not published,
{NVILA_CONTEXT} is assumed).
"""
CAVEAT = """
No row misses by more than 35%; the widest is the temporal encoder at 512 frames, where the paper's time grows faster
than the number of tokens. These rows test how times grow with frames and tokens on ONE device in ONE precision. That
other devices reach the same share of their peaks, and that INT8, FP8 and int4 do, is an assumption until they are
measured: INT8 vision transformers have been seen slower than FP16 in TensorRT. Starting a kernel costs nothing here,
so that hundreds of tokens a second on the largest GPUs are floors, not forecasts. The paper states neither the number
of temporal layers nor the state size; two layers and 16 states are assumed, and the efficiency of the temporal stage
absorbs what that gets wrong.

## Devices
"""
AFTER = """
`needs ... of ...`: it does not fit, and `storm plan` says which option would make it fit. 512 frames are sampled by 2,
because 32,768 visual tokens leave no room for a question in Qwen2's 32,768 positions. The time is to the first word:
vision, temporal encoder and prefill. The last figure is tokens a second.
"""


def check() -> list[str]:
    """The fit and its test, as Markdown."""
    share = efficiencies()
    lines = ["| stage | efficiency | fitted on |", "|---|---|---|"]
    fitted = {"vision": FITTED.vision, "temporal": FITTED.temporal, "prefill": FITTED.llm}
    for stage, milliseconds in fitted.items():
        lines.append(f"| {stage} | {share[stage]:.2f} | {milliseconds} ms |")
    lines += [f"| decode | {share['decode']:.2f} | {NVILA_DECODE['fp16']} tokens a second |", ""]
    lines += ["| frames, tokens kept | vision ms: paper, expected | temporal | prefill |", "|---|---|---|---|"]
    for row in PAPER_ROWS:
        floors = paper_floor(row)
        measured = {"vision": row.vision, "temporal": row.temporal, "prefill": row.llm}
        cells = []
        for stage, paper in measured.items():
            expected = floors[stage] * 1e3 / share[stage]
            cells.append(f"{paper:.0f}, {expected:.0f} ({deviation(expected, paper)})")
        note = " (fitted)" if row is FITTED else ""
        lines.append(f"| {row.frames}, {100 / row.reduction:g}%{note} | {' | '.join(cells)} |")
    expected = share["decode"] / nvila_floor("int4")
    measured_int4 = NVILA_DECODE["int4"]
    lines.append("")
    lines.append(
        f"NVILA's decode with 4-bit weights on AGX Orin: published {measured_int4} tokens a second,"
        f" expected {expected:.1f} ({deviation(expected, measured_int4)})."
    )
    return lines


def deviation(expected: float, measured: float) -> str:
    """In percent of what was measured, without a negative zero."""
    return f"{round(expected / measured - 1, 2) + 0.0:+.0%}"


def devices(title: str, precision: str, llm_precision: str) -> list[str]:
    """A table of devices by frames, as Markdown."""
    heads = " | ".join(f"{n} frames" + (f", sampled by {s}" if s > 1 else "") for n, s in FRAMES)
    lines = ["", f"### {title}", "", f"| device | {heads} |", "|---" * (1 + len(FRAMES)) + "|"]
    for name in TARGETS:
        for device in target(name).devices:
            cells = []
            for frames, sample in FRAMES:
                cells.append(cell(name, device, PlanOptions(frames, precision, llm_precision, sample=sample)))
            lines.append(f"| {device.name} | {' | '.join(cells)} |")
    return lines


def cell(name: str, device: Device, options: PlanOptions) -> str:
    """Peak, time to the first word, tokens a second; or what is missing."""
    plan = make_plan(preset(MODEL), target(name), device, options)
    assert plan.usable is not None
    if not plan.fits:
        return f"needs {plan.peak / 2**30:.1f} of {plan.usable / 2**30:.1f} GiB"
    decode = plan.stages["decode"].expected
    assert plan.first_token is not None
    assert decode is not None
    return f"{plan.peak / 2**30:.1f} GiB, {plan.first_token:.1f} s, {1 / decode:.1f}/s"


def stages() -> list[str]:
    """One case by stage: AGX Orin 64GB, 16 bits, 128 frames."""
    where, options = target("orin"), PlanOptions(128, "fp16", "bf16")
    lines = ["", "### By stage: AGX Orin 64GB, fp16 and bf16", ""]
    lines += ["| frames | stage | weights | activations | outputs | KV cache | floor | expected |", "|---" * 8 + "|"]
    for frames, sample in FRAMES:
        plan = make_plan(preset(MODEL), where, where.devices[-1], replace(options, frames=frames, sample=sample))
        for name, s in plan.stages.items():
            assert s.floor is not None
            assert s.expected is not None
            held = [f"{x / 2**30:.2f} GiB" if x else "-" for x in (s.weights, s.activations, s.outputs, s.kv_cache)]
            lines.append(f"| {frames} | {name} | {' | '.join(held)} | {s.floor:.3f} s | {s.expected:.3f} s |")
    return lines


def main() -> None:
    """Print the page."""
    parts = [HEAD, *check(), CAVEAT]
    parts += devices("16 bits: fp16, language model bf16", "fp16", "bf16")
    parts += devices("Smallest: int8, language model int4", "int8", "int4")
    parts += [AFTER, *stages()]
    print("\n".join(parts).replace("\n\n\n", "\n\n"))


if __name__ == "__main__":
    main()
