"""The support matrix of the README: `python -m storm_edge.runtime.machine.matrix` prints it."""

from __future__ import annotations

from storm_edge.runtime.machine.targets import PRECISIONS, TARGETS, EngineKind

_ENGINE_WORDS: dict[EngineKind, str] = {
    "onnxruntime-cpu": "ONNX Runtime",
    "onnxruntime-cuda": "ONNX Runtime CUDA",
    "tensorrt-rtx": "TensorRT for RTX",
    "tensorrt": "TensorRT",
}


def support_matrix() -> str:
    """The README's table of targets, in Markdown: two rows a target, `-` what it cannot do, `not yet` what it could."""
    lines = ["| target | hardware | part | engine | " + " | ".join(PRECISIONS) + " |"]
    lines.append("|---" * (4 + len(PRECISIONS)) + "|")
    for t in TARGETS.values():
        rows = (
            ("vision, temporal", (t.engine,), t.precisions, t.status),
            ("language model", t.llm_engines, t.llm_precisions, t.llm_status),
        )
        for part, engines, can, status in rows:
            words = ", ".join(_ENGINE_WORDS[e] for e in engines)
            cells = " | ".join(status.get(p, "not yet") if p in can else "-" for p in PRECISIONS)
            lines.append(f"| {t.name} | {t.hardware} | {part} | {words} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(support_matrix())
