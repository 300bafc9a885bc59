"""What is trained when: the network's sizes, the stages, and the mix of lengths and token budgets."""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import LanguageConfig, StormConfig, VisionConfig


@dataclass(frozen=True)
class Stage:
    """`steps` of `batch` clips; `lengths` are (frames, share of the steps). `frozen` keeps the vision tower as it is.

    The learning rates' factor is `rates[0]` for the share `hold` of the steps and then goes to `rates[1]`. Without
    `questions` only the labels of visual tokens are learned, and the language model stays as it is; with the vision
    tower frozen too, only the heads that read the labels learn. `reuse` is the
    share of steps that take vision tokens of an earlier step again, with other questions. So many of the clips as
    `mixed` says are of the theme with bounces and blinks; the others are drawn as usual.
    """

    name: str
    steps: int
    batch: int
    lengths: tuple[tuple[int, float], ...]
    questions: int
    controls: int
    rates: tuple[float, float] = (1.0, 1.0)
    hold: float = 0.0
    frozen: bool = False
    reuse: float = 0.0
    mixed: float = 0.0


@dataclass(frozen=True)
class Budget:
    """One way to reduce tokens: k and p of the pooling, stride s of the sampling, and its share of the steps."""

    pool: int
    side: int
    sample: int
    share: float


_CLIP_LENGTHS = ((8, 0.25), (16, 0.55), (24, 0.05), (32, 0.15))
STAGES = (
    Stage("images", 640, 64, ((1, 1.0),), questions=4, controls=4, rates=(1.0, 0.05), hold=0.68),
    Stage("places", 120, 96, ((1, 1.0),), questions=0, controls=0, rates=(1.0, 0.05), hold=0.68),
    Stage("short", 2000, 32, ((8, 1.0),), questions=7, controls=1, frozen=True, reuse=0.65),
    Stage(
        "long",
        1568,
        32,
        _CLIP_LENGTHS,
        questions=7,
        controls=1,
        rates=(1.0, 0.460),
        hold=0.303,
        frozen=True,
        reuse=0.65,
    ),
    Stage(
        "counts", 3000, 32, _CLIP_LENGTHS, questions=7, controls=1, rates=(0.6, 0.0), frozen=True, reuse=0.65, mixed=0.5
    ),
)
# For a checkpoint that knows clips of up to 32 frames: heads for it (no checkpoint has them), then longer clips.
LENGTHEN = (
    Stage("heads", 160, 32, ((16, 1.0),), questions=0, controls=0, rates=(3.0, 0.3), frozen=True),
    Stage(
        "lengthen",
        3600,
        32,
        ((8, 0.08), (16, 0.2), (32, 0.2), (64, 0.24), (128, 0.28)),
        questions=7,
        controls=1,
        rates=(0.6, 0.0),
        hold=0.15,
        frozen=True,
        reuse=0.65,
        mixed=0.4,
    ),
)
BUDGETS = (Budget(4, 1, 1, 0.8), Budget(4, 1, 2, 0.07), Budget(4, 2, 1, 0.08), Budget(1, 1, 1, 0.05))

MATRIX_RATE, OTHER_RATE, SCAN_RATE = 0.01, 1e-3, 3e-3  # Muon's; AdamW's; AdamW's for what the scan alone reads
_WARM_UP = 20  # steps of a stage over which the rates rise


def demo_config(vocabulary: int, *, temporal: bool = True) -> StormConfig:
    """storm-mini a size smaller, so that 90 minutes of two cores are enough: 96 wide, three layers.

    Without `temporal` no Mamba layer stands between the vision tower and the pooling.
    """
    mini = preset("storm-mini")
    language = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
    language["vocab_size"] = -(-vocabulary // 32) * 32
    vision = {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 4}
    return mini.model_copy(
        update={
            "vision": VisionConfig.model_validate(mini.vision.model_dump() | vision),
            "temporal": mini.temporal if temporal else mini.temporal.model_copy(update={"num_layers": 0}),
            "llm": LanguageConfig.model_validate(mini.llm.model_dump() | language),
        }
    )


def rate(stage: Stage, step: int) -> float:
    """Factor of the learning rates at a stage's `step`, from 0."""
    start, end = stage.rates
    gone = max(0.0, step / stage.steps - stage.hold) / (1 - stage.hold)
    return min(1.0, (step + 1) / _WARM_UP) * (start + (end - start) * gone)
