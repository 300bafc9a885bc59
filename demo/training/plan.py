"""What is trained when: the network's sizes, the stages, and the mix of lengths and token budgets."""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.config import LanguageConfig, StormConfig, VisionConfig
from storm_edge.runtime.presets import preset


@dataclass(frozen=True)
class Stage:
    """`steps` of `batch` clips; `lengths` are (frames, share of the steps). `frozen` keeps the vision tower as it is.

    Without `questions` only the labels of visual tokens are learned, and the language model stays as it is.
    `reuse` is the share of steps that take vision tokens of an earlier step again, with other questions.
    """

    name: str
    steps: int
    batch: int
    lengths: tuple[tuple[int, float], ...]
    questions: int
    controls: int
    frozen: bool = False
    reuse: float = 0.0


@dataclass(frozen=True)
class Budget:
    """One way to reduce tokens: k and p of the pooling, stride s of the sampling, and its share of the steps."""

    pool: int
    side: int
    sample: int
    share: float


STAGES = (
    Stage("images", 640, 64, ((1, 1.0),), questions=4, controls=4),
    Stage("places", 120, 96, ((1, 1.0),), questions=0, controls=0),
    Stage("short", 2000, 32, ((8, 1.0),), questions=7, controls=1, frozen=True, reuse=0.65),
    Stage(
        "long",
        2500,
        32,
        ((8, 0.25), (16, 0.55), (24, 0.05), (32, 0.15)),
        questions=7,
        controls=1,
        frozen=True,
        reuse=0.65,
    ),
)
BUDGETS = (Budget(4, 1, 1, 0.8), Budget(4, 1, 2, 0.07), Budget(4, 2, 1, 0.08), Budget(1, 1, 1, 0.05))

MATRIX_RATE, OTHER_RATE, SCAN_RATE = 0.01, 1e-3, 3e-3  # Muon's; AdamW's; AdamW's for what the scan alone reads
DECAY = 0.45  # share of the steps after the images over which the rates fall to zero


def demo_config(vocabulary: int) -> StormConfig:
    """storm-mini a size smaller, so that 90 minutes of two cores are enough: 96 wide, three layers."""
    mini = preset("storm-mini")
    language = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
    language["vocab_size"] = -(-vocabulary // 32) * 32
    vision = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 4}
    return mini.model_copy(
        update={
            "vision": VisionConfig.model_validate(mini.vision.model_dump() | vision),
            "llm": LanguageConfig.model_validate(mini.llm.model_dump() | language),
        }
    )


def rate(stage: Stage, step: int, done: int, total: int) -> float:
    """Factor of the learning rates: a short warm-up in every stage, then constant, at the end of all falling to zero.

    `step` counts within the stage, `done` over all steps after the images, of `total`.
    """
    warm = min(1.0, (step + 1) / 20)
    if stage.lengths[0][0] == 1:
        return warm * min(1.0, 3 * (1 - step / stage.steps) + 0.05)
    return warm * min(1.0, (1 - done / total) / DECAY)
