"""Checkpoint -> onnxruntime-genai's model, by its own builder. Needs onnxruntime-genai."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from prepare import Workplace

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.network.language import load_language_model

FORMS = ("int4",)


def main() -> None:
    """Make every form of the model named on the command line that is not there yet."""
    place = Workplace.of(sys.argv[1])
    missing = [form for form in FORMS if not (place.genai / form).exists()]
    if not missing:
        return
    with tempfile.TemporaryDirectory(dir=place.folder) as name:
        source = Path(name) / "model"
        checkpoint = Checkpoint.open(place.checkpoint)
        load_language_model(checkpoint).save_pretrained(source)
        for file in (place.checkpoint / "llm").glob("*token*"):
            shutil.copy(file, source)
        settings = source / "config.json"
        described = json.loads(settings.read_text(encoding="utf-8"))
        described |= {"bos_token_id": 0, "eos_token_id": 0, "architectures": ["Qwen2ForCausalLM"]}
        settings.write_text(json.dumps(described), encoding="utf-8")
        for form in missing:
            made = Path(name) / form
            words = (sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", made)
            subprocess.run([*words, "-p", form, "-e", "cpu", "-c", Path(name) / "cache"], check=True)
            place.genai.mkdir(exist_ok=True)
            made.rename(place.genai / form)


if __name__ == "__main__":
    main()
