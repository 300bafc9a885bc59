"""The shape of a STORM model: what `config.json` of a checkpoint says.

Defaults are the paper's (arXiv 2503.04130) where it states them and VILA's where it builds on that code; what neither
fixes (number of temporal layers, state size, scan halving) is a field, never a constant elsewhere.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from storm_edge.runtime.errors import CheckpointError, StormError

# Upper limits are several times the largest published model's: a file can say anything, and what is computed or
# allocated from it alone must stay sane. Between brackets the model that comes nearest.
Width = Annotated[int, Field(gt=0, le=65_536)]  # hidden size [Llama 3.1 405B: 16,384]
Inner = Annotated[int, Field(gt=0, le=262_144)]  # feed-forward size [Llama 3.1 405B: 53,248]
Layers = Annotated[int, Field(gt=0, le=512)]  # [Llama 3.1 405B: 126]
Heads = Annotated[int, Field(gt=0, le=1024)]  # [Llama 3.1 405B: 128]
Pixels = Annotated[int, Field(gt=0, le=8192)]  # side of a frame [SigLIP 2: 512; InternVL's tiles: 448]
Patch = Annotated[int, Field(gt=0, le=256)]  # side of a patch [ViT: 32]
Side = Annotated[int, Field(gt=0, le=64)]  # of a pooled block of patches or tokens [STORM: 2]
Frames = Annotated[int, Field(gt=0, le=4096)]  # pooled or skipped [STORM: 8]
Vocabulary = Annotated[int, Field(gt=0, le=4_194_304)]  # [Gemma 3: 262,208]
Context = Annotated[int, Field(gt=0, le=67_108_864)]  # [Llama 4 Scout: 10,485,760]
Epsilon = Annotated[float, Field(gt=0, le=0.1)]  # of a norm [BERT: 1e-12; GPT-2: 1e-5]; NaN fails both
RopeTheta = Annotated[float, Field(gt=0, le=1e12)]  # [Code Llama: 1e6; Llama 3: 5e5]
# What the fields make together.
MOST_PATCHES = 262_144  # of a frame, whose attention is quadratic in them [SigLIP so400m at 448: 1,024]
MOST_TOKENS = 65_536  # of a frame that the temporal encoder sees [STORM: 256]
MOST_CHANNELS = 262_144  # of the scan, expand * hidden_size [STORM: 7,168]
MOST_PARAMETERS = 4 * 10**12  # [Llama 3.1: 4.05e11 dense]
DType = Literal["float32", "float16", "bfloat16"]


_MOST_BYTES = 1 << 20  # of a config.json, which has about 1 KB


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class VisionConfig(_Section):
    """The SigLIP tower; field names are Hugging Face's. Defaults: so400m, patch 14, 448 x 448."""

    hidden_size: Width = 1152
    intermediate_size: Inner = 4304
    num_hidden_layers: Layers = 27
    num_attention_heads: Heads = 16
    image_size: Pixels = 448
    patch_size: Patch = 14
    hidden_act: Literal["gelu_pytorch_tanh"] = "gelu_pytorch_tanh"
    layer_norm_eps: Epsilon = 1e-6
    feature_layer: int = Field(default=-2, lt=0, ge=-512, description="hidden state taken, counted from the last")

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def layers_run(self) -> int:
        """Blocks that run: hidden state -1 is the output of the last block, -2 of the one before it."""
        return self.num_hidden_layers + 1 + self.feature_layer

    @model_validator(mode="after")
    def _consistent(self) -> VisionConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.grid**2 > MOST_PATCHES:
            raise ValueError(f"image_size and patch_size make {self.grid**2} patches, {MOST_PATCHES} are the most")
        if self.image_size < self.patch_size:
            raise ValueError(f"image_size {self.image_size} is smaller than patch_size {self.patch_size}")
        if self.layers_run < 1:
            raise ValueError(
                f"feature_layer {self.feature_layer} leaves none of {self.num_hidden_layers} blocks to run"
            )
        return self


class TemporalConfig(_Section):
    """The projector and the Mamba-1 layers that mix visual tokens over time."""

    num_layers: int = Field(default=2, ge=0, le=512)  # [Mamba 2.8B: 64]
    d_state: int = Field(default=16, gt=0, le=256)  # [Mamba-2: 128]
    d_conv: int = Field(default=4, ge=2, le=64)  # [Mamba: 4]
    expand: int = Field(default=2, gt=0, le=64)  # [Mamba: 2]
    dt_rank: Width | Literal["auto"] = "auto"
    bidirectional: bool = True
    halve_sum: bool = Field(default=False, description="average the two directions, as Vim does, instead of adding")
    layer_norm_eps: Epsilon = 1e-5
    downsample: Side = Field(default=2, description="side of the space-to-depth block")
    projector_norm: bool = Field(default=False, description="LayerNorm in front of the projection")


class ReductionConfig(_Section):
    """Token reduction after the temporal encoder, in the paper's order."""

    temporal_pool: Frames = Field(default=4, description="k: consecutive frames averaged; trained")
    spatial_pool: Side = Field(default=1, description="side of the averaged block; 2 means 2 x 2; trained")
    sample: Frames = Field(default=1, description="s: keep every s-th pooled frame; test time only")
    newline_token: bool = Field(default=False, description='append the embedding of "\\n" after every frame')


class LanguageConfig(_Section):
    """The Qwen2 language model; field names are Hugging Face's. Defaults: Qwen2-7B."""

    hidden_size: Width = 3584
    intermediate_size: Inner = 18944
    num_hidden_layers: Layers = 28
    num_attention_heads: Heads = 28
    num_key_value_heads: Heads = 4
    vocab_size: Vocabulary = 152064
    max_position_embeddings: Context = 32768
    rms_norm_eps: Epsilon = 1e-6
    rope_theta: RopeTheta = 1_000_000.0
    tie_word_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @model_validator(mode="after")
    def _consistent(self) -> LanguageConfig:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head size {self.head_dim} is odd; rotary embedding needs an even one")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of"
                f" num_key_value_heads {self.num_key_value_heads}"
            )
        return self


class StormConfig(_Section):
    """A whole STORM model. `dtype` is the type its weights are stored in."""

    model_type: Literal["storm"] = "storm"
    dtype: DType = "bfloat16"
    vision: VisionConfig = Field(default_factory=VisionConfig)
    temporal: TemporalConfig = Field(default_factory=TemporalConfig)
    reduction: ReductionConfig = Field(default_factory=ReductionConfig)
    llm: LanguageConfig = Field(default_factory=LanguageConfig)

    @property
    def d_inner(self) -> int:
        """Channels of the selective scan."""
        return self.temporal.expand * self.llm.hidden_size

    @property
    def dt_rank(self) -> int:
        """Width of the low-rank step-size projection; "auto" is ceil(D / 16), mamba_ssm's default."""
        rank = self.temporal.dt_rank
        return math.ceil(self.llm.hidden_size / 16) if rank == "auto" else rank

    @property
    def token_grid(self) -> int:
        """Visual tokens along one side after space-to-depth; an incomplete block is padded with zeros."""
        return math.ceil(self.vision.grid / self.temporal.downsample)

    @property
    def tokens_per_frame(self) -> int:
        """N: visual tokens of one frame that the temporal encoder sees."""
        return self.token_grid**2

    @property
    def pooled_tokens_per_frame(self) -> int:
        """N / p: visual tokens of one pooled frame."""
        return (self.token_grid // self.reduction.spatial_pool) ** 2

    @property
    def parameters(self) -> int:
        """Values in the matrices that run, which are nearly all of a model's."""
        vision, temporal, llm, channels = self.vision, self.temporal, self.llm, self.d_inner
        block = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        direction = channels * (2 * self.dt_rank + 3 * temporal.d_state + temporal.d_conv)
        mixer = 3 * llm.hidden_size * channels + (2 if temporal.bidirectional else 1) * direction
        heads = 2 * llm.hidden_size + 2 * llm.num_key_value_heads * llm.head_dim
        layer = llm.hidden_size * (heads + 3 * llm.intermediate_size)
        tables = (1 if llm.tie_word_embeddings else 2) * llm.vocab_size * llm.hidden_size
        projector = vision.hidden_size * temporal.downsample**2 * llm.hidden_size
        encoders = vision.layers_run * block + projector + temporal.num_layers * mixer
        return encoders + llm.num_hidden_layers * layer + tables

    def visual_tokens(self, frames: int, sample: int | None = None) -> int:
        """Positions that `frames` frames take in the language model's prompt, newline tokens included."""
        pooled = math.ceil(frames / self.reduction.temporal_pool)
        kept = math.ceil(pooled / (sample or self.reduction.sample))
        return kept * (self.pooled_tokens_per_frame + self.reduction.newline_token)

    @model_validator(mode="after")
    def _consistent(self) -> StormConfig:
        for what, size, most in (
            ("visual tokens of a frame", self.tokens_per_frame, MOST_TOKENS),
            ("channels of the scan (temporal.expand * llm.hidden_size)", self.d_inner, MOST_CHANNELS),
            ("parameters", self.parameters, MOST_PARAMETERS),
        ):
            if size > most:
                raise ValueError(f"the sizes make {size} {what}, {most} are the most")
        if self.token_grid % self.reduction.spatial_pool:
            raise ValueError(
                f"reduction.spatial_pool {self.reduction.spatial_pool} does not divide the"
                f" {self.token_grid} x {self.token_grid} visual tokens of a frame"
            )
        return self


def parse_config(data: dict[str, Any], where: str, error: type[StormError] = CheckpointError) -> StormConfig:
    """Check a decoded `config.json`; raises `error` naming `where` and every field that is wrong."""
    try:
        return StormConfig.model_validate(data)
    except ValidationError as e:
        found = "; ".join(f"{'.'.join(map(str, x['loc'])) or 'config'}: {x['msg']}" for x in e.errors())
        raise error(f"{where} is not a valid STORM configuration: {found}. Correct these fields.") from e


def read_config(path: Path) -> StormConfig:
    """Read and check a checkpoint's `config.json`, a plain file or a link to one; raises CheckpointError."""
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is a folder, a pipe or a device where a file belongs: restore it.")
    try:
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, {_MOST_BYTES} are the most")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise CheckpointError(
            f"{path} does not exist: a STORM checkpoint has a config.json; `storm init` makes an example."
        ) from e
    except (OSError, ValueError, RecursionError) as e:
        raise CheckpointError(f"{path} cannot be read as JSON ({e}): restore it from the checkpoint's source.") from e
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds {type(data).__name__}, not a JSON object: restore it.")
    return parse_config(data, str(path))
