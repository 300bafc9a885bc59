"""The training loop: stages in turn, resumable at any step."""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from storm_edge.demo.dataset import TYPES
from storm_edge.demo.questions import TIME_TYPES
from storm_edge.demo.training import plan
from storm_edge.demo.training.batches import Clips, Questioner, make_clips, make_images, make_questions
from storm_edge.demo.training.checkpoints import read_checkpoint, save_state, write_checkpoint
from storm_edge.demo.training.curves import draw_curves
from storm_edge.demo.training.model import StormModel, auxiliary_loss
from storm_edge.demo.training.muon import Muon
from storm_edge.demo.training.plan import Budget, Stage
from storm_edge.demo.training.scoring import score
from storm_edge.demo.training.workers import Workers
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.prompt import ChatPrompt

_AUXILIARY_WEIGHT = 1.0
_TEST_CLIPS = 200
_TEST_SEED = 10_000_000  # far from those that `storm eval` asks
_STOCK, _REUSES = 200, 2  # batches of vision tokens that are kept, and how often one is used again


class Run:
    """One training run in a folder: state.pt, log.jsonl, curves.png and checkpoint/."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        stages: tuple[Stage, ...],
        device: str,
        workers: Workers,
        say: Callable[[str], None],
        *,
        temporal: bool = True,
        start: Path | None = None,
    ):
        """`start` is a checkpoint of the same sizes, whose weights the run begins with."""
        keep_freed_memory()
        self.folder, self.seed, self.stages, self.workers, self.say = folder, seed, stages, workers, say
        self.device = torch.device(device)
        torch.manual_seed(seed)
        prompt = ChatPrompt.open(folder / "tokenizer")
        self.config = plan.demo_config(prompt.vocab_size, temporal=temporal)
        self.questioner = Questioner(prompt)
        self.model = StormModel(self.config).to(self.device)
        self.before = torch.tensor(self.questioner.before, device=self.device)
        self.optimizers = _optimizers(self.model)
        self.history: list[dict[str, Any]] = []
        self.step, self.seconds, self._total = 0, 0.0, sum(s.steps for s in stages)
        self._stock: list[tuple[Clips, Tensor, int]] = []  # and how often it may be used again
        if start:
            self._begin_with(start)
        self._resume()

    def _begin_with(self, start: Path) -> None:
        given = read_checkpoint(start)[0]
        if given.config != self.config:
            raise UsageError(f"{start} is a network of other sizes than this plan's: name one that this plan made.")
        self.model.load_state_dict(given.state_dict() | self.model.heads.state_dict(prefix="heads."))

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if json.loads(state["config"]) != self.config.model_dump(mode="json"):
            raise UsageError(f"{path} is of a run of another network: name another folder with -o, or delete this one.")
        self.model.load_state_dict(state["model"])
        for optimizer, held in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(held)
        self.step, self.seconds, self.history = state["step"], state["seconds"], json.loads(state["history"])
        self.say(f"resumed at step {self.step}, after {self.seconds / 60:.1f} minutes")

    def train(self, *, save_every: float, test_every: int) -> None:
        """Train what is left of all stages; saves every `save_every` seconds, tests every `test_every` steps."""
        total = self._total
        started, saved, recent = time.monotonic() - self.seconds, time.monotonic(), [0.0, 0.0, 0.0]
        while self.step < total:
            losses = self._train_step()
            self.step += 1
            self.seconds = time.monotonic() - started
            recent = [a + b for a, b in zip(recent, [*losses, 1.0], strict=True)]
            if self.step % 20 == 0 or self.step == total:
                entry: dict[str, Any] = {"step": self.step, "seconds": self.seconds}
                entry |= {"loss": recent[0] / recent[2], "auxiliary": recent[1] / recent[2]}
                if self.step == total or (self._place()[0].lengths[0][0] > 1 and self.step % test_every == 0):
                    entry["accuracy"] = self._score()
                    self.seconds = time.monotonic() - started
                recent = [0.0, 0.0, 0.0]
                self.history.append(entry)
                if self.workers.first:
                    self.say(_line(entry, total))
            if self.workers.first and (time.monotonic() - saved > save_every or self.step == total):
                self.save()
                saved = time.monotonic()

    def _score(self) -> dict[str, float]:
        """Held-out accuracy by type, each worker with clips of its own."""
        share = score(
            self.model,
            self.questioner,
            frames=8 if self.step < self._total and len(self._place()[0].lengths) == 1 else 16,
            clips=_TEST_CLIPS // self.workers.count,
            first=_TEST_SEED + self.workers.rank * _TEST_CLIPS,
        )
        mean = self.workers.average(torch.tensor([share[kind] for kind in TYPES]))
        return dict(zip(TYPES, mean.tolist(), strict=True))

    def save(self) -> None:
        """Write state, curves and a usable checkpoint."""
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
        }
        state |= {"step": self.step, "seconds": self.seconds, "history": json.dumps(self.history)}
        state["config"] = json.dumps(self.config.model_dump(mode="json"))
        save_state(self.folder / "state.pt", state)
        write_checkpoint(self.model, self.folder / "tokenizer", self.folder / "checkpoint")
        (self.folder / "log.jsonl").write_text("".join(json.dumps(h) + "\n" for h in self.history), encoding="utf-8")
        if self.history:
            draw_curves(self.history, self.folder / "curves.png")

    def _place(self) -> tuple[Stage, int]:
        """The stage of the next step, and how far it is into it."""
        step = self.step
        for stage in self.stages:
            if step < stage.steps:
                return stage, step
            step -= stage.steps
        raise IndexError(self.step)

    def _train_step(self) -> tuple[float, float]:
        stage, inside = self._place()
        common = np.random.default_rng([self.seed, self.step])  # what all workers choose alike
        rng = np.random.default_rng([self.seed, self.step, self.workers.rank])
        self._set_rates(stage, inside)
        images = stage.lengths[0][0] == 1
        budget = Budget(1, 1, 1, 1) if images else _drawn(common, plan.BUDGETS, [b.share for b in plan.BUDGETS])
        clips, tokens, fresh = self._tokens(stage, common, rng)
        if tokens.shape[1] < 2 * budget.pool and budget.sample > 1:
            budget = plan.BUDGETS[0]  # one pooled frame cannot be sampled
        auxiliary = tokens.new_zeros(())
        labels = {name: t.to(self.device) for name, t in clips.labels.items()}
        if not stage.frozen and fresh:
            auxiliary = auxiliary + auxiliary_loss(self.model.heads, tokens, labels, mixed=False)
        with torch.set_grad_enabled(bool(stage.questions)):
            mixed = self.model.mix(tokens)
        if not images:
            auxiliary = auxiliary + auxiliary_loss(self.model.heads, mixed, labels, mixed=True)
        if not stage.questions:
            self._learn(stage, _AUXILIARY_WEIGHT * auxiliary)
            return 0.0, float(auxiliary.detach())
        visual = self.model.reduce(mixed, budget.pool, budget.side, budget.sample)
        asked = make_questions(clips.scenes, rng, self.questioner, stage.questions, stage.controls)
        text, segments, targets = (t.to(self.device) for t in (asked.text, asked.segments, asked.targets))
        wanted = targets >= 0
        logits = self.model.answer_logits(visual, self.before, text, segments, wanted)
        loss = functional.cross_entropy(logits, targets[wanted])
        self._learn(stage, loss + _AUXILIARY_WEIGHT * auxiliary)
        return float(loss.detach()), float(auxiliary.detach())

    def _learn(self, stage: Stage, loss: Tensor) -> None:
        """One step of the optimizers with gradients from all workers."""
        loss.backward()  # type: ignore[no-untyped-call]
        still = ("vision.",) * stage.frozen + ("llm.", "temporal.") * (not stage.questions)
        trained = (p for n, p in self.model.named_parameters() if not n.startswith(still))
        self.workers.average_gradients(trained)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _tokens(
        self, stage: Stage, common: np.random.Generator, rng: np.random.Generator
    ) -> tuple[Clips, Tensor, bool]:
        """Clips with their vision tokens, from the stock or fresh."""
        if stage.frozen and len(self._stock) >= 20 and common.random() < stage.reuse:
            clips, kept, left = self._stock.pop(int(common.integers(len(self._stock))))
            if left > 1:
                self._stock.append((clips, kept, left - 1))
            return clips, kept.to(self.device, torch.float32), False
        frames = _drawn(common, [f for f, _ in stage.lengths], [share for _, share in stage.lengths])
        batch = (stage.batch * 16 // frames if frames > 16 else stage.batch) // self.workers.count
        size, grid = self.config.vision.image_size, self.config.token_grid
        clips = (
            make_images(rng, batch, size, grid)
            if frames == 1
            else make_clips(rng, batch, frames, size, grid, mixed=stage.mixed)
        )
        pictures = clips.frames.to(self.device)
        if not stage.frozen:
            return clips, self.model.see(pictures), True
        with torch.no_grad():
            tokens = self.model.see(pictures)
        bare = replace(clips, frames=clips.frames[:, :0])
        self._stock.append((bare, tokens.half().cpu(), _REUSES))
        if len(self._stock) > _STOCK:
            self._stock.pop(0)
        return clips, tokens, True

    def _set_rates(self, stage: Stage, inside: int) -> None:
        factor = plan.rate(stage, inside)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * factor


def _optimizers(model: StormModel) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the rest; what only the scan reads learns three times as fast."""
    matrices, scan, others = [], [], []
    for name, p in model.named_parameters():
        if name.endswith(("_log", ".D", ".D_b")) or "dt_proj" in name:
            scan.append(p)
        elif p.ndim == 2 and "embed" not in name and "heads." not in name and "lm_head" not in name:
            matrices.append(p)
        else:
            others.append(p)
    muon = Muon(matrices, plan.MATRIX_RATE)
    adam = torch.optim.AdamW(
        [{"params": others, "lr": plan.OTHER_RATE}, {"params": scan, "lr": plan.SCAN_RATE}],
        betas=(0.9, 0.98),
        weight_decay=0.0,
    )
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["base"] = group["lr"]
    return [muon, adam]


def _drawn(rng: np.random.Generator, things: Any, shares: list[float]) -> Any:
    return things[int(np.searchsorted(np.cumsum(shares), rng.random() * sum(shares)))]


def _line(entry: dict[str, Any], total: int) -> str:
    line = f"step {entry['step']}/{total}  {entry['seconds'] / 60:.1f} min"
    line += f"  loss {entry['loss']:.4f}  labels {entry['auxiliary']:.4f}"
    if accuracy := entry.get("accuracy"):
        timed = [v for k, v in accuracy.items() if k in TIME_TYPES]
        line += f"  held out: time {sum(timed) / len(timed):.3f}"
        line += "".join(f" {k} {v:.2f}" for k, v in accuracy.items())
    return line


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory: giving megabytes back and asking again costs more than the arithmetic."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28)):  # mmap threshold, trim threshold, top pad
        mallopt(option, value)
