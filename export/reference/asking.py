"""The same questions as `storm bench` asks, answered by PyTorch and transformers, as a peer of `runtime.bench.peer`.

    python -m storm_edge.export.reference.asking CHECKPOINT --video FILE --temporal-pool K --spatial-pool P

Eager by default, in the type that this machine multiplies fastest; on a GPU where PyTorch has one. The scan is
mamba_ssm's on a GPU that has it, else this project's native kernel: as a loop it would be all that is measured.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.network.language import load_language_model
from storm_edge.export.network.load import load_temporal, load_vision
from storm_edge.export.network.temporal import cast_for_export
from storm_edge.export.reference.mamba_ssm_scan import use_mamba_ssm
from storm_edge.runtime.bench.measuring import FIRST, SECOND, Run
from storm_edge.runtime.config.sizes import VISION_BATCH
from storm_edge.runtime.errors import StormError
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.machine.memory import peak_memory_bytes, reset_peak_memory
from storm_edge.runtime.video.reading import read_frames

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SIDE, _RUNS = 1024, 5  # of the products that choose a type


def fastest_type(device: str) -> torch.dtype:
    """float32 or bfloat16, whichever this machine multiplies faster; float16 is no faster than bfloat16 anywhere."""
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        a = torch.ones(_SIDE, _SIDE, dtype=kind, device=device)
        each = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            torch.sum(a @ a).item()
            each.append(time.perf_counter() - start)
        seconds[kind] = min(each)
    return min(seconds, key=lambda kind: seconds[kind])


class PyTorch:
    """A checkpoint, loaded; `ask` is a `runtime.bench.measuring.Ask`."""

    def __init__(self, checkpoint: Checkpoint, given: argparse.Namespace) -> None:
        reduction = {"temporal_pool": given.temporal_pool, "spatial_pool": given.spatial_pool}
        self._config = checkpoint.config.model_copy(
            update={"reduction": checkpoint.config.reduction.model_copy(update=reduction)}
        )
        self._video, self._tokens, self._sample = given.video, given.tokens, given.sample
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.type = TYPES.get(given.type) or fastest_type(self._device)
        vision, temporal = load_vision(checkpoint), load_temporal(checkpoint, self._config)
        cast_for_export(temporal, self.type)
        self._vision: Any = vision.to(self._device, self.type)
        self._temporal: Any = temporal.to(self._device)
        self._llm: Any = load_language_model(checkpoint).to(self._device, self.type)
        if given.compile:
            self._vision, self._temporal = torch.compile(self._vision), torch.compile(self._temporal, dynamic=True)
            self._llm.forward = torch.compile(self._llm.forward, dynamic=True)
        self._prompt = ChatPrompt.open(checkpoint.root / "llm")

    @torch.inference_mode()
    def ask(self, frames: int) -> Run:
        """One question about so many frames, and a second; raises StormError."""
        reset_peak_memory()
        start = time.perf_counter()
        config, decoded, vision = self._config, 0.0, 0.0
        tokens: list[Tensor] = []
        begun = time.perf_counter()
        for batch in read_frames(self._video, size=config.vision.image_size, frames=frames, batch=VISION_BATCH):
            decoded += time.perf_counter() - begun
            found, took = self._timed(lambda: self._vision(torch.from_numpy(batch.frames).to(self._device)))  # noqa: B023
            tokens.append(found)
            vision += took
            begun = time.perf_counter()
        clip = torch.cat(tokens)
        if missing := -len(clip) % config.reduction.temporal_pool:
            clip = torch.cat([clip, clip[-1:].expand(missing, -1, -1)])
        mixed, temporal = self._timed(lambda: self._temporal(clip[None]))
        visual = mixed[:, :: self._sample].flatten(1, 2)  # (1, rows, D)
        encoded = time.perf_counter()
        each, prompt = self._answer(visual, FIRST, self._tokens)
        total = time.perf_counter() - start
        again, _ = self._answer(visual, SECOND, 1)
        seconds = {"video decode": decoded, "vision": vision, "temporal": temporal, "prefill": each[0]}
        return Run(
            seconds=seconds,
            first_token=encoded - start + each[0],
            total=total,
            tokens=each[1:],
            again=again[0],
            visual_tokens=visual.shape[1],
            prompt_tokens=prompt,
            peak_memory_bytes=peak_memory_bytes(),
            peak_device_bytes=torch.cuda.max_memory_allocated() if self._device == "cuda" else 0,
        )

    def _timed(self, work: Callable[[], Tensor]) -> tuple[Tensor, float]:
        start = time.perf_counter()
        found = work()
        if self._device == "cuda":
            torch.cuda.synchronize()
        return found, time.perf_counter() - start

    def _answer(self, visual: Tensor, question: str, tokens: int) -> tuple[list[float], int]:
        """Seconds of the first token, with its prefill, and of every one after it; and the tokens of the prompt."""
        begun = time.perf_counter()
        ids = self._prompt.render([Message("user", question, video=True)])
        embed = self._llm.get_input_embeddings()
        before, after = (embed(torch.tensor([part], device=self._device)) for part in (ids.before, ids.after))
        inputs = torch.cat([before, visual, after], dim=1)  # (1, S, D)
        prompt, cache, each = inputs.shape[1], DynamicCache(), []
        for _ in range(tokens):
            found = self._llm(inputs_embeds=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            token = int(found.logits[0, -1].argmax())
            now = time.perf_counter()
            each.append(now - begun)
            begun = now
            inputs = embed(torch.tensor([[token]], device=self._device))
        return each, prompt


def main() -> None:
    """Answer on stdin's lines until it ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--temporal-pool", type=int, required=True)
    parser.add_argument("--spatial-pool", type=int, required=True)
    parser.add_argument("--sample", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer")
    parser.add_argument("--type", choices=list(TYPES), help="of weights and activations; default: the fastest here")
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--compile", action="store_true", help="with torch.compile")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(given.threads or torch.get_num_threads())
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    try:
        use_mamba_ssm()
        model = PyTorch(Checkpoint.open(given.checkpoint), given)
        print("{}", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(model.ask(int(line)))), file=answers, flush=True)
    except StormError as e:
        print(json.dumps({"error": str(e)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
