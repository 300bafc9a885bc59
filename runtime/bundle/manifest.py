"""The bundle: the folder that is passed from export to calibration, build and run.

manifest.json is written once, by export, and describes everything that is in the folder at that moment: graphs,
reference record, tokenizer. It holds no time, path or host, so that exporting twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from storm_edge.runtime.config.schema import DType, StormConfig
from storm_edge.runtime.errors import BundleError, StormError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
SMALL_FILE = 1 << 20  # files up to this size are hashed whenever a bundle is opened
Stage = Literal["vision", "temporal", "decoder"]
STAGES: tuple[Stage, ...] = ("vision", "temporal", "decoder")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Record):
    """A graph input or output; a dynamic axis is a name."""

    name: str
    dtype: str
    shape: list[int | str]


class GraphSpec(_Record):
    """One canonical graph. `file` and `data` (its external weights) are paths in the bundle."""

    file: str
    data: str | None
    opset: int
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class FileSpec(_Record):
    """Size in bytes and SHA-256 of a file in the bundle."""

    size: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Difference(_Record):
    """How far one tensor is from another: cosine, distance of the norms' ratio from 1, largest error over largest."""

    cosine: float
    norm_ratio: float
    error: float


class RoundingPrice(_Record):
    """What the rounded weights give beside the checkpoint's own, both computed in fp32: the worst reference clip.

    `tokens` is the share of greedy tokens that both choose, given the same tokens before.
    """

    visual_tokens: Difference
    logits: Difference
    tokens: float


class ReferenceSpec(_Record):
    """Which weights the reference was made of, and the price of rounding them; None where nothing was rounded."""

    weights: DType
    rounding: RoundingPrice | None


class Manifest(_Record):
    """What manifest.json says."""

    schema_version: int
    config: StormConfig
    dtype: DType
    graphs: dict[Stage, GraphSpec]
    embedding: str
    tokenizer: str
    clips: list[str]
    reference: ReferenceSpec
    operators: dict[str, int]
    checkpoint_sha256: str
    versions: dict[str, str]
    files: dict[str, FileSpec]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(f)


def _digest(stream: Any) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def describe_file(path: Path) -> FileSpec:
    """The record of a file as it is on disk now."""
    return FileSpec(size=path.stat().st_size, sha256=file_sha256(path))


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its manifest, and the manifest's own hash, which is the bundle's identity."""

    root: Path
    manifest: Manifest
    sha256: str

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read the manifest, check that every file is there with its size, and hash the small ones.

        Raises BundleError naming the file and what to do.
        """
        root = Path(path)
        bundle = cls(root, _read_manifest(root), file_sha256(root / MANIFEST))
        for name, spec in bundle.manifest.files.items():
            bundle._check(name, spec, hashed=spec.size <= SMALL_FILE)
        return bundle

    @property
    def config(self) -> StormConfig:
        """The model's configuration."""
        return self.manifest.config

    def path(self, name: str) -> Path:
        """The file or folder called `name` in this bundle; raises BundleError where the name leads out of it."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name:
            raise BundleError(f"{self.root}: the path {name!r} leads out of the bundle: do not use this bundle.")
        path = self.root
        for part in pure.parts:
            path = path / part
            if path.is_symlink():
                raise BundleError(f"{path} is a symbolic link: a bundle holds only files; copy it with `cp -rL`.")
        return path

    def check_hashes(self, progress: Callable[[str], None] | None = None) -> None:
        """Hash every file of the manifest; raises BundleError naming the first that changed."""
        for name, spec in self.manifest.files.items():
            if progress:
                progress(name)
            self._check(name, spec, hashed=True)

    def _check(self, name: str, spec: FileSpec, *, hashed: bool) -> None:
        path = self.path(name)
        advice = "copy the bundle again or repeat `storm export`"
        try:
            size = path.stat().st_size
            if size != spec.size:
                raise BundleError(f"{path} has {size} bytes instead of {spec.size}: {advice}.")
            if hashed and file_sha256(path) != spec.sha256:
                raise BundleError(f"{path} is damaged (its SHA-256 is not the manifest's): {advice}.")
        except FileNotFoundError as e:
            raise BundleError(f"{path} is missing from the bundle: {advice}.") from e
        except OSError as e:
            raise BundleError(f"{path} cannot be read ({e.strerror}): check its permissions or {advice}.") from e


def read_record(path: Path, what: str, error: type[StormError] = BundleError) -> dict[str, Any]:
    """Decode a JSON object of ours; raises `error` that names `what` where it is damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise error(f"{path} cannot be read ({e.strerror}): is this {what}?") from e
    except (ValueError, RecursionError) as e:
        raise error(f"{path} is damaged, it is no valid JSON: make {what} again.") from e
    if not isinstance(data, dict):
        raise error(f"{path} is damaged, it holds no JSON object: make {what} again.")
    return data


def _read_manifest(root: Path) -> Manifest:
    if not root.exists():
        raise BundleError(f"{root} does not exist: `storm export CHECKPOINT -o {root}` makes a bundle.")
    path = root / MANIFEST
    if not path.is_file():
        raise BundleError(f"{root} is no bundle, it has no {MANIFEST}: `storm export CHECKPOINT -o BUNDLE` makes one.")
    data = read_record(path, "the bundle")
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = "update storm-edge" if newer else "repeat `storm export` with this version"
        raise BundleError(f"{path} has schema version {version}, this storm-edge reads {SCHEMA_VERSION}: {advice}.")
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as e:
        wrong = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
        raise BundleError(f"{path} is damaged ({wrong}): copy the bundle again or repeat `storm export`.") from e
    named = [manifest.embedding, *manifest.clips, *(g.file for g in manifest.graphs.values())]
    named += [g.data for g in manifest.graphs.values() if g.data]
    absent = [name for name in named if name not in manifest.files]
    if absent or set(manifest.graphs) != set(STAGES):
        raise BundleError(f"{path} is incomplete ({', '.join(absent) or 'graphs'}): repeat `storm export`.")
    if wrong := _other_sizes(manifest):
        raise BundleError(f"{path}: its config is not that of its graphs ({wrong}): repeat `storm export`.")
    return manifest


def _other_sizes(manifest: Manifest) -> str:
    """Where the graphs' fixed sizes are not what the config says, from which buffers are made; "" where they are."""
    c, llm = manifest.config, manifest.config.llm
    side, width, cache = c.vision.image_size, llm.hidden_size, [1, llm.num_key_value_heads, None, llm.head_dim]
    pasts = {f"past_{kind}_{i}": cache for i in range(llm.num_hidden_layers) for kind in ("key", "value")}
    wanted: dict[Stage, dict[str, list[int | None]]] = {
        "vision": {"frames": [None, side, side, 3], "tokens": [None, c.tokens_per_frame, width]},
        "temporal": {"visual_tokens": [1, None, c.pooled_tokens_per_frame, width]},
        "decoder": {"logits": [1, 1, llm.vocab_size], **pasts},
    }
    for stage, tensors in wanted.items():
        found = {v.name: v.shape for v in (*manifest.graphs[stage].inputs, *manifest.graphs[stage].outputs)}
        for name, sizes in tensors.items():
            shape = found.get(name, [])
            if len(shape) != len(sizes) or any(s is not None and s != f for s, f in zip(sizes, shape, strict=True)):
                return f"{name} of {stage} is {shape}"
    return ""


def to_json(record: BaseModel) -> str:
    """The one way our records are written: sorted keys, two spaces, a final newline."""
    return json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
