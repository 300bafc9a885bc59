"""The page of a GPU report, from its JSON; standard library only."""

from __future__ import annotations

from typing import Any


def page(made: dict[str, Any]) -> str:
    """The report in Markdown; see gpu_report.py for its fields."""
    gpu, machine = made["gpu"], made["machine"]
    lines = [
        f"# {gpu['name']}",
        "",
        f"Made by `make gpu-report`, {made['date']}, commit {made['commit']}. Compute capability {gpu['compute_cap']},"
        f" {gpu['memory.total']} MiB, driver {gpu['driver_version']}; {machine['processor']}, {machine['cores']} cores,"
        f" Python {machine['python']}. How it is measured: [README](README.md).",
        "",
        "| step | | seconds | |",
        "|---|---|---|---|",
    ]
    for step in made["steps"]:
        lines.append(
            f"| {step['name']} | {step['state']} | {step['seconds']:.1f} | {_cell(step['reason'] or _said(step))} |"
        )
    figures = {step["name"]: step["figures"] for step in made["steps"]}
    for name, found in figures.items():
        if "scans" in found:
            lines += ["", f"## {name}", "", *_scans(found)]
        if "engines" in found:
            lines += ["", f"## {name}", "", *_engines(found)]
    return "\n".join(lines) + "\n"


def _said(step: dict[str, Any]) -> str:
    """The plain figures of a step in a line."""
    plain = {key: value for key, value in step["figures"].items() if isinstance(value, int | float | str)}
    return ", ".join(f"{key} {value}" for key, value in plain.items())


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _scans(found: dict[str, Any]) -> list[str]:
    lines = [
        f"Measured limits: {found['exponentials'] / 1e12:.2f} T exponentials/s, {found['bandwidth'] / 1e12:.2f} TB/s."
        f" {found['batch']} x {found['channels']} channels, {found['state']} states, bf16. `floor` is the larger of the"
        " bytes over the bandwidth and the states' exponentials over their rate.",
        "",
        "| tokens | direction | ms | GB/s | floor ms | % of floor | mamba_ssm ms |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["scans"]:
        other = f"{1e3 * row['mamba_seconds']:.3f}" if row["mamba_seconds"] else "-"
        rate = row["bytes"] / row["seconds"] / 1e9
        lines.append(
            f"| {row['length']} | {row['direction']} | {1e3 * row['seconds']:.3f} | {rate:.0f}"
            f" | {1e3 * row['floor']:.3f} | {100 * row['floor'] / row['seconds']:.0f} | {other} |"
        )
    return lines


def _engines(found: dict[str, Any]) -> list[str]:
    """Verification, stage times and memory of every engine."""
    lines = []
    for engine in found["engines"]:
        what = f"{engine['name']}: " + ("verified" if engine["verified"] else "**differs from the checkpoint**")
        lines += [f"{what}, {engine['passed']} of {engine['checks']} checks passed.", ""]
        lines += ["| stage | worst cosine | worst max error |", "|---|---|---|"]
        lines += [f"| {s} | {w['cosine']:.7g} | {w['max error']:.2g} |" for s, w in engine["worst"].items()]
        stages = ", ".join(f"{stage} {1e3 * seconds:.1f} ms" for stage, seconds in engine["seconds"].items())
        counts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in engine["counts"].items())
        memory = ", ".join(
            f"{k.replace('_bytes', '').replace('_', ' ')} {v / 2**20:.0f} MiB" for k, v in engine["memory"].items()
        )
        lines += ["", f"The second answer of a process: {stages}; {counts}; {memory}.", ""]
    return lines[:-1]
