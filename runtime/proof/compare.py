"""`storm compare`: the first layer at which an engine goes another way than the same stage elsewhere.

Both run on a reference clip with Polygraphy's runners, and its comparator puts beside each other what they compute in
between. Tensors are matched by their names, which the passes keep; figures and limits are verify's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.bundle.calibration import find_calibration
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.bundle.records import Difference
from storm_edge.runtime.bundle.reference import Clip, read_clip
from storm_edge.runtime.config.sizes import CHUNK, VISION_BATCH
from storm_edge.runtime.errors import BuildError, EngineError, StormError, UsageError
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual, splice
from storm_edge.runtime.machine.packages import import_polygraphy
from storm_edge.runtime.proof.figures import difference
from storm_edge.runtime.proof.layer_runners import onnxruntime_runner, tensorrt_runner
from storm_edge.runtime.proof.stage_graph import StageGraph, Tensor
from storm_edge.runtime.proof.verify import LIMITS, LLM_LIMITS, Limits, looser, newline_of
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.device import HOST

_AT_ONCE = 64  # tensors given out in one run: of storm-7b's vision tower a gigabyte on each side


@dataclass(frozen=True)
class Row:
    """A tensor that both sides computed, and how far the engine's is from the other's."""

    tensor: Tensor
    figures: Difference
    limits: Limits

    @property
    def passed(self) -> bool:
        """Whether it is as near as the precision allows; a NaN never is."""
        d, limits = self.figures, self.limits
        return d.cosine >= limits.cosine and d.norm_ratio <= limits.norm_ratio and d.error <= limits.error

    def __bool__(self) -> bool:
        return self.passed  # what Polygraphy's comparator asks of a result


@dataclass(frozen=True)
class Comparison:
    """`rows` in the graph's order, to the end of the run in which one failed; `left_out`: tensor -> the reason."""

    rows: list[Row]
    left_out: dict[str, str]

    @property
    def first(self) -> Row | None:
        """The first row beyond its limits."""
        return next((row for row in self.rows if not row.passed), None)


def compare(
    bundle: Bundle,
    record: EngineRecord,
    against: EngineRecord | None,
    stage: Stage,
    clip: str,
    *,
    every: bool = False,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Comparison:
    """Compare a stage of an engine with the same of `against`, or with the bundle's own graph in ONNX Runtime.

    `clip` is a file of the manifest's clips. The outputs of layers are compared, or with `every` those of all nodes
    that give floating numbers. Raises EngineError where one side cannot run here, or Polygraphy is not installed;
    UsageError for a stage that an engine has not.
    """
    sides = (_Side(bundle, record, stage, threads), _Side(bundle, against, stage, threads))
    shared, left_out = _match(*sides)
    wanted = [t for t in shared if every or t.is_layers]
    limits = looser(sides[0].limits, sides[1].limits)
    feed = _feed(bundle, read_clip(bundle, clip), stage, [side.graph for side in sides])
    rows: list[Row] = []
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        progress(f"{stage}, {start + len(some)} of {len(wanted)} tensors")
        rows += _compare_some(sides, some, feed, limits)
        if not all(row.passed for row in rows):
            break
    return Comparison(rows, left_out)


class _Side:
    """A stage's graph of an engine, or the bundle's own, and what runs it here."""

    def __init__(self, bundle: Bundle, record: EngineRecord | None, stage: Stage, threads: int | None) -> None:
        self._record, self._stage, self._threads = record, stage, threads
        self.name = record.name if record else "the bundle's own graph"
        self.limits = LIMITS["fp32"]
        self.scaled: set[str] = set()
        if record is None:
            self.graph = StageGraph(bundle.graph(stage))
            return
        if stage not in record.graphs:
            raise UsageError(f"engine {record.name} has no {stage}: choose one of {', '.join(record.graphs)}.")
        made_of = record.model_copy(update={"graphs": record.prepared_graphs or record.graphs})
        self.graph = StageGraph(engine_graph(bundle, made_of, stage))
        self.limits = LLM_LIMITS[record.llm_precision] if stage == "decoder" else LIMITS[record.precision]
        self.scaled = _scaled(bundle, record, stage, self.graph)

    def runner(self, given: list[str]) -> Any:
        """Polygraphy's runner that gives out these tensors."""
        record = self._record
        name = f"{self.name} {self._stage}"
        if record is None:
            return onnxruntime_runner(name, self.graph, given, self._threads, literal=False, cuda=False)
        row = RUNNERS[record.runners[self._stage]]
        if row.compiles and record.state == "built":
            return tensorrt_runner(name, self.graph, given, row, record.profiles[self._stage][-1])
        literal = record.simulated or (row.compiles and record.precision in ("int8", "fp8"))
        cuda = row.device == "cuda" and not row.compiles and record.state == "built"
        return onnxruntime_runner(name, self.graph, given, self._threads, literal=literal, cuda=cuda)


def _scaled(bundle: Bundle, record: EngineRecord, stage: Stage, graph: StageGraph) -> set[str]:
    """The tensors that a calibration's smoothing divides, so that they differ and nothing is wrong."""
    if not record.calibration:
        return set()
    try:
        scales = find_calibration(bundle, record.calibration.split()[0]).scales[stage]
    except BuildError:  # it is gone, or damaged: what it divided is compared, and may be the first to differ
        return set()
    products = [graph.tensors[name] for name in scales if name in graph.tensors and graph.tensors[name].op == "Mul"]
    return set(scales) | {factor for product in products for factor in product.inputs}


def _match(ours: _Side, theirs: _Side) -> tuple[list[Tensor], dict[str, str]]:
    """The tensors of both sides in our order, and why the others are left out."""
    mine, yours = ours.graph.tensors, theirs.graph.tensors
    left_out = {name: f"only in {ours.name}" for name in mine if name not in yours}
    left_out |= {name: f"only in {theirs.name}" for name in yours if name not in mine}
    smoothed = ours.scaled ^ theirs.scaled
    left_out |= {name: "scaled by smoothing" for name in mine if name in smoothed and name in yours}
    # Beyond the tokens there are, nothing was written into the key-value buffers.
    left_out |= {name: "a buffer" for name in mine if name.startswith("present_")}
    return [tensor for name, tensor in mine.items() if name not in left_out], left_out


def _feed(bundle: Bundle, clip: Clip, stage: Stage, graphs: list[StageGraph]) -> Mapping[str, NDArray[Any]]:
    """A stage's inputs of one run, as verify gives them: a batch of frames, a clip's tokens, a prompt's beginning."""
    if stage == "vision":
        return {"frames": clip["frames"][:VISION_BATCH]}  # (T, H, W, 3)
    if stage == "temporal":
        return {"tokens": clip["tokens"][None]}  # (1, T, N, D)
    embed = EmbeddingTable.open(bundle.file(bundle.manifest.embedding)).rows
    rows = flatten_visual(HOST, embed, clip["visual_tokens"], newline_of(bundle, clip))
    prompt = SplicedPrompt(clip["before"].tolist(), rows, clip["after"].tolist())
    embeds = HOST.host(splice(HOST, embed, prompt))[:CHUNK]  # (S, D)
    llm = bundle.config.llm
    length = next((n for graph in graphs if (n := graph.size("past_key_0", 2))), len(embeds))
    empty = np.zeros((1, llm.num_key_value_heads, length, llm.head_dim), np.float32)
    feed: dict[str, NDArray[Any]] = {
        "inputs_embeds": embeds[None],
        "position_ids": np.arange(len(embeds), dtype=np.int64)[None],
        "write_indices": np.zeros(1, np.int64),
    }
    names = (f"past_{kind}_{i}" for i in range(llm.num_hidden_layers) for kind in ("key", "value"))
    return feed | dict.fromkeys(names, empty)


def _compare_some(
    sides: tuple[_Side, _Side], some: list[Tensor], feed: Mapping[str, NDArray[Any]], limits: Limits
) -> Iterator[Row]:
    """Run both sides once and compare some tensors."""
    comparator = import_polygraphy("comparator").Comparator
    logger = import_polygraphy("logger").G_LOGGER
    names = [t.name for t in some]
    tensors = {t.name: t for t in some}

    def rows(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> OrderedDict[str, Row]:
        both = (name for name in names if name in ours and name in theirs)
        pairs = ((name, np.asarray(ours[name]), np.asarray(theirs[name])) for name in both)
        floats = ((name, a, b) for name, a, b in pairs if _is_float(a) and _is_float(b))
        return OrderedDict((name, Row(tensors[name], _figures(a, b), limits)) for name, a, b in floats)

    try:
        with logger.verbosity(logger.CRITICAL + 1), np.errstate(all="ignore"):
            results = comparator.run([side.runner(names) for side in sides], data_loader=[feed])
            compared = comparator.compare_accuracy(results, compare_func=rows)
    except StormError:
        raise
    except Exception as e:  # the runtimes' own, which have no common base
        raise EngineError(
            f"{sides[0].name} cannot be compared with {sides[1].name} here ({' '.join(str(e).split())[:300]})."
        ) from e
    ((found,),) = compared[0].values()
    yield from found.values()


def _is_float(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _figures(ours: NDArray[Any], theirs: NDArray[Any]) -> Difference:
    """`difference`, but what is infinite on both sides counts as equal, and tensors of other shapes as no numbers."""
    if ours.shape != theirs.shape:
        return Difference(cosine=float("nan"), norm_ratio=float("nan"), error=float("nan"))
    a, b = ours.astype(np.float32), theirs.astype(np.float32)
    if np.array_equal(a, b):
        return Difference(cosine=1.0, norm_ratio=0.0, error=0.0)  # zeros have no angle
    same = np.isinf(a) & (a == b)  # masked attention scores
    return difference(np.where(same, 0, a), np.where(same, 0, b))
