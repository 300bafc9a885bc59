"""The bundle: the folder that is passed from export to calibration, build and run.

manifest.json is written once, by export, and describes everything that is in the folder at that moment: graphs,
reference record, tokenizer. It holds no time, path or host, so that exporting twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from storm_edge.runtime.bundle.contract import STAGES as STAGES
from storm_edge.runtime.bundle.contract import Stage as Stage
from storm_edge.runtime.bundle.contract import TensorSpec as TensorSpec
from storm_edge.runtime.bundle.contract import contract
from storm_edge.runtime.bundle.door import (
    MAX_ENTRIES,
    entries,
    is_file,
    located,
    open_file,
    parts_of,
    read_text,
    size_of,
)
from storm_edge.runtime.bundle.graphs import GraphRules, check_graph
from storm_edge.runtime.bundle.hashes import Remembered, sha256_of
from storm_edge.runtime.bundle.records import Record, ReferenceSpec, read_record, said
from storm_edge.runtime.config.schema import DType, StormConfig
from storm_edge.runtime.errors import BundleError

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"
SMALL_FILE = 1 << 20  # files up to this size are hashed whenever a bundle is opened


class GraphSpec(Record):
    """One canonical graph. `file` and `data` (its external weights) are paths in the bundle."""

    file: str
    data: str | None
    opset: int
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]


class FileSpec(Record):
    """Size in bytes and SHA-256 of a file in the bundle."""

    size: int = Field(ge=0)
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Record):
    """What manifest.json says."""

    schema_version: int
    config: StormConfig
    dtype: DType
    graphs: dict[Stage, GraphSpec]
    embedding: str
    tokenizer: str
    clips: Annotated[list[str], Field(max_length=64)]
    reference: ReferenceSpec
    operators: dict[str, int]
    checkpoint_sha256: str
    versions: dict[str, str]
    files: dict[str, FileSpec]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return sha256_of(file)


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

        Raises BundleError naming the file and what to do; also where the folder holds links, FIFOs or devices.
        """
        root = Path(path)
        bundle = cls(root, *_read_manifest(root))
        try:
            entries(root)
        except OSError as e:
            raise _unreadable(root, e) from e
        for name, spec in bundle.manifest.files.items():
            bundle._check(name, spec, hashed=spec.size <= SMALL_FILE)
        return bundle

    @property
    def config(self) -> StormConfig:
        """The model's configuration."""
        return self.manifest.config

    def path(self, name: str) -> Path:
        """Where the file or folder `name` is or would be; raises BundleError where the name leads out of the bundle."""
        parts_of(self.root, name)
        return self.root / name

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists; raises BundleError for any other, and for what is no file."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.root / name} is not in the manifest, so it is not read: export the bundle again.")
        return self.located(name)

    def located(self, name: str) -> Path:
        """The path of a regular file in the bundle, also one that builds and calibrations added; raises BundleError."""
        try:
            return located(self.root, name)
        except OSError as e:
            raise _unreadable(self.root / name, e) from e

    def graph(self, stage: Stage) -> Path:
        """The path of a stage's canonical graph, which keeps to the contract; raises BundleError."""
        spec = self.manifest.graphs[stage]
        inputs, outputs = contract(self.config, self.manifest.dtype, stage)
        data = spec.data.rpartition("/")[2] if spec.data else None
        self.file(spec.file)
        return check_graph(self.root, spec.file, GraphRules(inputs, outputs, data, literal=True))

    def texts(self, folder: str) -> Callable[[str, int], str | None]:
        """A reader of the text files that the manifest lists in a folder, by name and the most bytes they may have.

        It gives None for a file that is not listed, and raises BundleError for one that is larger.
        """

        def read(name: str, largest: int) -> str | None:
            path = f"{folder}/{name}"
            return read_text(self.root, path, largest) if path in self.manifest.files else None

        return read

    def check_hashes(self, progress: Callable[[str], None] | None = None) -> None:
        """Hash every file of the manifest; raises BundleError naming the first that changed."""
        for name, spec in self.manifest.files.items():
            if progress:
                progress(name)
            self._check(name, spec, hashed=True)

    def check_once(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Hash the files that were not hashed on this machine as they are now; raises BundleError as `check_hashes`."""
        large = {n: s.sha256 for n, s in self.manifest.files.items() if s.size > SMALL_FILE}
        try:
            changed = Remembered(self.root).changed(large, progress)
        except OSError as e:
            raise _unreadable(self.root, e) from e
        if changed is not None:
            raise _damaged(self.root / changed)

    def _check(self, name: str, spec: FileSpec, *, hashed: bool) -> None:
        path = self.root / name
        try:
            size = size_of(self.root, name)
            if size != spec.size:
                raise BundleError(f"{path} has {size} bytes instead of {spec.size}: {_COPY}.")
            if hashed:
                with open_file(self.root, name) as file:
                    if sha256_of(file) != spec.sha256:
                        raise _damaged(path)
        except OSError as e:
            raise _unreadable(path, e) from e


_COPY = "copy the bundle again or repeat `storm export`"


def _damaged(path: Path) -> BundleError:
    return BundleError(f"{path} is damaged (its SHA-256 is not the manifest's): {_COPY}.")


def _unreadable(path: Path, error: OSError) -> BundleError:
    if isinstance(error, FileNotFoundError):
        return BundleError(f"{path} is missing from the bundle: {_COPY}.")
    where = error.filename if isinstance(error.filename, str) else path
    return BundleError(f"{where} cannot be read ({error.strerror}): check its permissions or {_COPY}.")


def _read_manifest(root: Path) -> tuple[Manifest, str]:
    """The manifest, and the hash of its bytes."""
    if not root.exists():
        raise BundleError(f"{root} does not exist: `storm export CHECKPOINT -o {root}` makes a bundle.")
    path = root / MANIFEST
    try:
        if not root.is_dir() or not is_file(root, MANIFEST):
            raise BundleError(
                f"{root} is no bundle, it has no {MANIFEST}: `storm export CHECKPOINT -o BUNDLE` makes one."
            )
    except OSError as e:
        raise _unreadable(path, e) from e
    data = read_record(root, MANIFEST, "the bundle")
    with open_file(root, MANIFEST) as file:
        sha256 = sha256_of(file)
    version = data.get("schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = "update storm-edge" if newer else "repeat `storm export` with this version"
        raise BundleError(
            f"{path} has schema version {str(version)[:40]}, this storm-edge reads {SCHEMA_VERSION}: {advice}."
        )
    try:
        manifest = Manifest.model_validate(data)
    except ValidationError as e:
        raise BundleError(f"{path} is damaged ({said(e)}): {_COPY}.") from e
    if len(manifest.files) > MAX_ENTRIES:
        raise BundleError(f"{path} lists over {MAX_ENTRIES} files, which no bundle has: do not use it.")
    named = [manifest.embedding, *manifest.clips, *(g.file for g in manifest.graphs.values())]
    named += [g.data for g in manifest.graphs.values() if g.data]
    absent = [name for name in named if name not in manifest.files]
    if absent or set(manifest.graphs) != set(STAGES):
        raise BundleError(
            f"{path} is incomplete ({', '.join(map(repr, absent[:3])) or 'graphs'}): repeat `storm export`."
        )
    for stage, graph in manifest.graphs.items():
        expected = contract(manifest.config, manifest.dtype, stage)
        folder = graph.file.rpartition("/")[0]
        if (graph.inputs, graph.outputs) != expected or (graph.data or graph.file).rpartition("/")[0] != folder:
            raise BundleError(f"{path}: its {stage} graph is not what its configuration says: repeat `storm export`.")
    return manifest, sha256
