"""`storm calibrate --analyze`: which clips, which loss, and which scheme the layers are measured in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from storm_edge.calibration.counting import Clips, Frames
from storm_edge.calibration.graphs import Scales, fp32_graph
from storm_edge.calibration.losses import AnswerLoss, Loss, Probe, TokenLoss
from storm_edge.calibration.sensitivity import Sensitivity, analyze
from storm_edge.calibration.switched import SwitchedEncoders
from storm_edge.export.graph_file import Reader, save_model
from storm_edge.export.passes.quantize import Scheme
from storm_edge.runtime.bundle.calibration import Range
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.embedding import EmbeddingTable
from storm_edge.runtime.llm.onnxruntime import OnnxRuntimeDecoder
from storm_edge.runtime.llm.stepwise import StepwiseGenerator

Asked = Callable[[], Iterable[tuple[Frames, str]]]  # clips uint8 [T, H, W, 3] with a question each


@dataclass(frozen=True)
class Analysis:
    """How to analyze: `max_loss` bounds the loss of what is chosen, None chooses everything.

    `scheme` is "int8" or "fp8", as TensorRT computes them. The loss is that of the visual tokens of the first `clips`
    clips, or with `asked` that of the answers to the first `clips` questions.
    """

    scheme: Scheme = "int8"
    max_loss: float | None = None
    clips: int = 4
    asked: Asked | None = None

    def run(
        self,
        bundle: Bundle,
        clips: Clips,
        ranges: Mapping[Stage, Mapping[str, Range]],
        scales: Scales,
        multiplications: Mapping[Stage, Mapping[str, int]],
        threads: int | None,
        detail: Callable[[str], None],
    ) -> Sensitivity:
        """Measure; raises BuildError where no layer fits into `max_loss`, or there are no questions."""
        with SwitchedEncoders(bundle, ranges, self.scheme, scales, threads) as encoders:
            if self.asked is None:
                probe = Probe(encoders, list(islice(clips(), self.clips)))
                loss: Loss = TokenLoss(probe.reference)
                number = self.clips
            else:
                asked = list(islice(self.asked(), self.clips))
                if not asked:
                    raise BuildError("the data has no questions: leave --questions out, or add a .jsonl file.")
                probe = Probe(encoders, [clip for clip, _ in asked])
                llm = fp32_decoder(bundle, threads)
                loss = AnswerLoss(bundle, llm, [question for _, question in asked], probe.reference)
                number = len(asked)
            return analyze(
                encoders,
                probe,
                loss,
                {(stage, node): x for stage, of_stage in multiplications.items() for node, x in of_stage.items()},
                clips=number,
                max_loss=self.max_loss,
                detail=detail,
            )


def fp32_decoder(bundle: Bundle, threads: int | None) -> Generator:
    """The bundle's language model in fp32."""
    if bundle.manifest.dtype == "float32":
        return _decoder(bundle, bundle.path(bundle.manifest.graphs["decoder"].file), threads)
    return decoder_of(bundle, *fp32_graph(bundle, "decoder", {}), threads)


def decoder_of(bundle: Bundle, model: onnx.ModelProto, readers: dict[str, Reader], threads: int | None) -> Generator:
    """A decoder graph, loaded."""
    with TemporaryDirectory(prefix="storm-calibrate-") as folder:
        save_model(model, Path(folder) / "decoder.onnx", "decoder.data", readers)
        return _decoder(bundle, Path(folder) / "decoder.onnx", threads)


def _decoder(bundle: Bundle, path: Path, threads: int | None) -> Generator:
    llm = bundle.config.llm
    embedding = EmbeddingTable.open(bundle.path(bundle.manifest.embedding))
    model = OnnxRuntimeDecoder(path, llm, embedding, max_length=llm.max_position_embeddings, threads=threads)
    return StepwiseGenerator(model)
