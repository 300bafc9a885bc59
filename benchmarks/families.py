"""Figures for docs/families.md, one JSON line each: exports in full size, and a whole model beside transformers.

    python benchmarks/families.py export FOLDER      # BIMBA-7B and LLaVA-OneVision-0.5B: init and export, time and peak
    python benchmarks/families.py answer FOLDER      # LLaVA-OneVision-0.5B: 8 and 32 frames, three contestants in turns
    python benchmarks/families.py answer FOLDER --frames 32 --without "transformers bfloat16"

Weights are random: speed does not depend on them, and no accuracy is claimed. `export` needs 40 GB of disk in FOLDER
for the time of a model, 4 to 12 minutes a model on two cores. `answer` needs 12 GB of disk and 16 GB of memory, and
keeps what it made, so that a second run measures at once; `--small` tries everything with a tiny model in minutes.
The contestants are this project (int8 encoders, all their linear layers; int4 language model) and transformers in fp32
and bf16, all with as many threads as there are cores, each in a process of its own, taking turns at the same frames.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "side_by_side"))

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.memory import peak_memory_bytes, reset_peak_memory

STORM = Path(sys.executable).parent / "storm"
EXPORTED = ("bimba-7b", "llava-onevision-0.5b")
ENGINE, CALIBRATION, CLIPS = "cpu-int8-llm-int4", "demo", 8
CONTESTANTS = ("storm int8 + int4", "transformers float32", "transformers bfloat16")
GIB = 2**30


def say(**fields: Any) -> None:
    """Print a result."""
    print(json.dumps(fields), flush=True)


def export(folder: Path, models: list[str]) -> None:
    """`storm init` and `storm export` of presets in full size: seconds and the largest resident set of the command."""
    for name in models:
        checkpoint, bundle = folder / f"{name}.checkpoint", folder / f"{name}.bundle"
        commands = (("init", name, "-o", checkpoint), ("export", checkpoint, "-o", bundle, "--json"))
        for command, wrote in zip(commands, (checkpoint, bundle), strict=True):
            begun = time.perf_counter()
            process = subprocess.Popen([STORM, *map(str, command)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            took, code = time.perf_counter() - begun, os.waitstatus_to_exitcode(status)
            size = sum(p.stat().st_size for p in wrote.rglob("*") if p.is_file()) / GIB if wrote.exists() else 0
            steps = json.loads(output).get("seconds", {}) if command[0] == "export" and not code else {}
            peak = usage.ru_maxrss / 2**20
            say(model=name, command=command[0], exit=code, seconds=took, peak_gib=peak, wrote_gib=size, steps=steps)
        for made in (checkpoint, bundle):
            shutil.rmtree(made, ignore_errors=True)


def model_config(small: bool) -> StormConfig:
    """LLaVA-OneVision-0.5B, or a model of its parts that is made in seconds."""
    config = preset("llava-onevision-0.5b")
    if not small:
        return config
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}
    llm = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return config.model_copy(
        update={
            "vision": config.vision.model_copy(update=vision | {"image_size": 70}),
            "llm": config.llm.model_copy(update=llm | {"vocab_size": 4096}),
        }
    )


def make_checkpoint(config: StormConfig, root: Path) -> None:
    """Random weights, saved by transformers, with a tokenizer and a processor beside them."""
    import torch
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    from storm_edge.export.checkpoint.tokenizer import write_byte_tokenizer

    vision = config.vision.model_dump(exclude={"feature_layer", "image_mean", "image_std"})
    # transformers' files are without the block that does not run.
    vision |= {"num_hidden_layers": config.vision.layers_run, "vision_use_head": False}
    text = config.llm.model_dump(exclude={"rope_theta"})
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": config.llm.rope_theta}
    found = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **vision},
        text_config={"model_type": "qwen2", **text},
        tie_word_embeddings=config.llm.tie_word_embeddings,
    )
    torch.manual_seed(0)
    LlavaOnevisionForConditionalGeneration(found).to(torch.bfloat16).save_pretrained(root)
    write_byte_tokenizer(root, config.llm.vocab_size)
    side = config.vision.image_size
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": side, "width": side}}
    (root / "preprocessor_config.json").write_text(json.dumps(half))


def make(folder: Path, small: bool) -> None:
    """The checkpoint, its bundle with a calibration, and the engine; what is there is not made again."""
    from storm_edge.calibration.calibrate import calibrate
    from storm_edge.demo.dataset import samples
    from storm_edge.export.build.build import build
    from storm_edge.export.build.options import BuildOptions
    from storm_edge.export.export_bundle import export_bundle, synthetic_frames
    from storm_edge.runtime.bundle.engine import engine_names
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.machine.targets import target

    config = model_config(small)
    size = config.vision.image_size
    if not (folder / "checkpoint").exists():
        make_checkpoint(config, folder / "checkpoint")
    if not (folder / "bundle").exists():
        clips = [(synthetic_frames(4, size, seed=0), "What happens?")]
        export_bundle(folder / "checkpoint", folder / "bundle", clips=lambda _: clips)
    bundle = Bundle.open(folder / "bundle")
    if not (folder / "bundle" / "calibration" / CALIBRATION).exists():
        frames = [s.frames[::2] for s in islice(samples(frames=8, size=size, split="train"), CLIPS)]
        calibrate(bundle, lambda: iter(frames), CALIBRATION, samples=CLIPS, budget=math.inf)
    if ENGINE not in engine_names(bundle):
        build(bundle, target("cpu"), BuildOptions("int8", "int4", allow_mismatch=True))


def ours(folder: Path, tokens: int) -> Callable[[int], dict[str, Any]]:
    """Frames -> what a question took here; the frames are in memory and of the model's size, as the peers'."""
    from storm_edge.export.export_bundle import synthetic_frames
    from storm_edge.runtime import load
    from storm_edge.runtime.bench import ask_engine

    pipeline = load(folder / "bundle", ENGINE, trust_engines=True)  # the bundle is this report's own
    size = pipeline.bundle.config.vision.image_size

    def ask(frames: int) -> dict[str, Any]:
        run = asdict(ask_engine(pipeline, synthetic_frames(frames, size, 0), tokens, frames))
        decode = statistics.median(run["tokens"])
        kept = ("seconds", "first_token", "visual_tokens", "prompt_tokens", "peak_memory_bytes")
        return {key: run[key] for key in kept} | {"token": decode}

    return ask


def of_transformers(folder: Path, kind: str, tokens: int) -> Callable[[int], dict[str, Any]]:
    """The same by transformers' own model: eager, scaled_dot_product_attention, KV cache, greedy."""
    import torch
    from transformers import LlavaOnevisionForConditionalGeneration
    from transformers.generation.streamers import BaseStreamer

    from storm_edge.export.export_bundle import synthetic_frames
    from storm_edge.runtime.bench.measuring import FIRST
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.llm.prompt import ChatPrompt, Message

    config = Bundle.open(folder / "bundle").config
    dtype = getattr(torch, kind)
    model: Any = LlavaOnevisionForConditionalGeneration.from_pretrained(folder / "checkpoint", dtype=dtype).eval()
    video_id = config.llm.vocab_size - 1  # stands for visual tokens; no text has it
    model.config.video_token_index = model.config.video_token_id = video_id
    prompt = ChatPrompt.open(folder / "checkpoint").render([Message("user", FIRST, video=True)])

    looking: list[float] = []  # seconds that vision took
    get_video_features = model.model.get_video_features

    @functools.wraps(get_video_features)  # `generate` passes what its signature names
    def timed(*args: Any, **more: Any) -> Any:
        begun = time.perf_counter()
        found = get_video_features(*args, **more)
        looking.append(time.perf_counter() - begun)
        return found

    model.model.get_video_features = timed

    class Clock(BaseStreamer):  # type: ignore[misc]
        """When the prompt and every token of the answer were put out."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, value: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    @torch.inference_mode()
    def ask(frames: int) -> dict[str, Any]:
        reset_peak_memory()
        clip = torch.from_numpy(synthetic_frames(frames, config.vision.image_size, 0))
        pixels = ((clip.float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)[None].to(dtype)
        visual = config.visual_tokens(frames)
        ids = torch.tensor([[*prompt.before, *[video_id] * visual, *prompt.after]])
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values_videos": pixels}
        clock, begun = Clock(), time.perf_counter()
        model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, streamer=clock)
        vision, (_, *came) = looking.pop(), clock.times
        first = came[0] - begun
        return {
            "seconds": {"vision": vision, "prefill": first - vision},
            "first_token": first,
            "visual_tokens": visual,
            "prompt_tokens": ids.shape[1],
            "peak_memory_bytes": peak_memory_bytes(),
            "token": (came[-1] - came[0]) / max(1, tokens - 1),
        }

    return ask


def contestant(folder: Path, name: str, tokens: int) -> None:
    """Answer until stdin ends, see runtime/bench/peer.py."""
    answers, sys.stdout = sys.stdout, sys.stderr
    ask = ours(folder, tokens) if name == CONTESTANTS[0] else of_transformers(folder, name.split()[1], tokens)
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(ask(int(line))), file=answers, flush=True)


def answer(folder: Path, names: list[str], frames: list[int], tokens: int, rounds: int, small: bool) -> None:
    """Let the contestants take turns; print every answer and what they come to.

    A round that does not count comes first where several count.
    """
    from turns import Contestant, take_turns

    folder.mkdir(parents=True, exist_ok=True)
    make(folder, small)
    command = (sys.executable, __file__, "contestant", str(folder), "--tokens", str(tokens), "--name")
    peers = [Contestant(name, (*command, name)) for name in names]
    found = take_turns(peers, [str(n) for n in frames], rounds, warm_up=rounds > 1)
    say(others=found["others"], rounds=rounds, tokens=tokens, small=small)
    first: dict[tuple[str, int], float] = {}
    for name, tasks in found["answers"].items():
        for task, answers in tasks.items():
            first[name, int(task)] = statistics.median(a["first_token"] for a in answers)
            for one in answers:
                say(contestant=name, frames=int(task), **one)
    for count in frames:
        mine, *theirs = (first[name, count] for name in names)
        say(frames=count, first_token=dict(zip(names, [mine, *theirs], strict=True)), times=min(theirs) / mine)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "answer", "contestant"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", nargs="+", default=list(EXPORTED))
    parser.add_argument("--frames", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--without", choices=CONTESTANTS[1:], help="leave out a slow one")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--name", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "contestant":
        contestant(options.folder, options.name, options.tokens)
        return
    machine = examine()["machine"]
    say(processor=machine["processor"], cores=machine["cores"], memory=machine["memory"])
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "export":
        export(options.folder, options.models)
    else:
        names = [name for name in CONTESTANTS if name != options.without]
        answer(options.folder, names, options.frames, options.tokens, options.rounds, options.small)


if __name__ == "__main__":
    main()
